//! What every part of a stage's runtime shares.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Stage, StageSettings, Status, journal::Journal, store::Store};
use crate::config::Kafka;

/// The state of a stage: where it is kept, and what it is restored from.
pub struct State {
    pub changelog_topic: Arc<str>,
    pub store: Store,
}

/// A stage, its settings, its local state, and the outside of its runtime.
pub struct Shared<S: Stage> {
    pub stage: Arc<S>,
    pub settings: StageSettings,
    pub kafka: Kafka,
    pub group: String,
    pub transactional_id: String,
    /// None for a stage that keeps none: a queue, or others' logs.
    pub state: Option<State>,
    /// None for a stage without work: it answers records as they are read.
    pub journal: Option<Journal>,
    pub status: Status,
    pub tasks: tokio::runtime::Handle,
    /// Set: take no more events, commit what is finished, leave.
    pub shutdown: CancellationToken,
    /// How long work in flight may go on after that.
    pub drain: Duration,
}
