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
        let cleanups = registrar.counters(&list::CLEANUPS);
        // From 0, so that the first failure is an increase: what begins with 1 is none to Prometheus.
        for action in CleanupAction::ALL {
            for outcome in CleanupOutcome::ALL {
                cleanups.with_label_values(&[action.name(), outcome.name()]);
            }
        }
        Self { cleanups }
    }

    /// Counts how the clean-up of a source ended.
    pub fn ended(&self, action: CleanupAction, outcome: CleanupOutcome) {
        let labels = [action.name(), outcome.name()];
        self.cleanups.with_label_values(&labels).inc();
    }
}
