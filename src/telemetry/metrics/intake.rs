//! What intake and the receivers of queues count.

use prometheus::IntCounterVec;

use super::{list, register::Registrar};
use crate::intake::{
    notification::{Dialect, IgnoreReason},
    queue::QueueFailure,
};

/// What intake counts.
#[derive(Clone)]
pub struct IntakeMetrics {
    requests: IntCounterVec,
    events: IntCounterVec,
    ignored: IntCounterVec,
}

impl IntakeMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            requests: registrar.counters(&list::INTAKE_REQUESTS),
            events: registrar.counters(&list::INTAKE_EVENTS),
            ignored: registrar.counters(&list::INTAKE_IGNORED),
        }
    }

    /// Counts a request to the webhook, by how it was answered.
    pub fn answered(&self, dialect: Option<Dialect>, status: u16) {
        let dialect = dialect.map_or("unknown", Dialect::as_str);
        let labels = [dialect, &status.to_string()];
        self.requests.with_label_values(&labels).inc();
    }

    /// Counts a notification that became an event.
    pub fn accepted(&self, dialect: Dialect) {
        self.events.with_label_values(&[dialect.as_str()]).inc();
    }

    /// Counts one that asks for nothing.
    pub fn ignored(&self, dialect: Dialect, why: IgnoreReason) {
        self.ignored
            .with_label_values(&[dialect.as_str(), why.as_str()])
            .inc();
    }
}

/// What the receivers of queues count.
#[derive(Clone)]
pub struct QueueMetrics {
    received: IntCounterVec,
    deleted: IntCounterVec,
    failures: IntCounterVec,
}

impl QueueMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            received: registrar.counters(&list::SQS_RECEIVED),
            deleted: registrar.counters(&list::SQS_DELETED),
            failures: registrar.counters(&list::SQS_FAILURES),
        }
    }

    pub fn received(&self, queue: &str, messages: usize) {
        let counter = self.received.with_label_values(&[queue]);
        counter.inc_by(messages as u64);
    }

    pub fn deleted(&self, queue: &str, messages: usize) {
        let counter = self.deleted.with_label_values(&[queue]);
        counter.inc_by(messages as u64);
    }

    pub fn failed(&self, queue: &str, failure: QueueFailure) {
        let labels = [queue, failure.code()];
        self.failures.with_label_values(&labels).inc();
    }
}
