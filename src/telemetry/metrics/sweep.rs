//! What the sweep counts.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{list, register::Registrar};

/// What the sweep counts.
#[derive(Clone)]
pub struct SweepMetrics {
    pub listed: IntCounter,
    pub announced: IntCounterVec,
    pub failures: IntCounterVec,
    pub duration: Histogram,
    pub running: IntGauge,
    pub last_success: IntGauge,
    registry: Registry,
}

impl SweepMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            listed: registrar.counter(&list::SWEEP_LISTED),
            announced: registrar.counters(&list::SWEEP_ANNOUNCED),
            failures: registrar.counters(&list::SWEEP_FAILURES),
            duration: registrar.histogram(&list::SWEEP_SECONDS),
            running: registrar.gauge(&list::SWEEP_RUNNING),
            last_success: registrar.gauge(&list::SWEEP_LAST_SUCCESS),
            registry: registrar.0.clone(),
        }
    }

    /// This process sweeps when its turn comes, so often.
    pub fn sweeps_every(&self, interval: Duration) {
        let gauge = Registrar(&self.registry).fraction(&list::SWEEP_INTERVAL);
        gauge.set(interval.as_secs_f64());
    }
}
