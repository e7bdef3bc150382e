//! What feedmill says of itself: logs, metrics, health, and the trace context that ties them together.

pub mod admin;
pub mod logging;
pub mod metrics;
pub mod trace;
