//! What the clean-up stage counts.

use prometheus::IntCounterVec;

use super::{list, register::Registrar};
use crate::topics::{CleanupAction, CleanupOutcome};

/// What became of sources.
#[derive(Clone)]
pub struct CleanupMetrics {
    cleanups: IntCounterVec,
}

impl CleanupMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            cleanups: registrar.counters(&list::CLEANUPS),
        }
    }

    /// Counts how the clean-up of a source ended.
    pub fn ended(&self, action: CleanupAction, outcome: CleanupOutcome) {
        let labels = [action.name(), outcome.name()];
        self.cleanups.with_label_values(&labels).inc();
    }
}
