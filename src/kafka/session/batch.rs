//! Finished outcomes on their way into a transaction.

use std::{sync::Arc, time::Instant};

use crate::kafka::{Finished, Position, Stage, lane::Work};

/// The outcome of an event, not yet committed.
pub(super) struct Done<S: Stage> {
    pub(super) position: Position,
    pub(super) epoch: u64,
    pub(super) finished: Finished,
    /// What was worked on, and by which state; none for a record that was answered unread.
    pub(super) work: Option<Worked<S>>,
    /// It has been cut down to the least already.
    pub(super) minimal: bool,
}

pub(super) struct Worked<S: Stage> {
    pub(super) work: Work<S::Event>,
    pub(super) state: Option<Arc<S::State>>,
}

/// Finished outcomes on their way into a transaction.
pub(super) struct Batch<S: Stage> {
    pub(super) outcomes: Vec<Done<S>>,
    pub(super) bytes: usize,
    pub(super) oldest: Option<Instant>,
    pub(super) newest: Instant,
    /// Not before this time, after an abort.
    pub(super) not_before: Option<Instant>,
    /// Outcomes to commit one by one, after a batch was refused because one of its records is too large.
    pub(super) one_by_one: usize,
    /// Aborted transactions since the last commit.
    pub(super) aborts: u32,
}

impl<S: Stage> Default for Batch<S> {
    fn default() -> Self {
        Self {
            outcomes: Vec::new(),
            bytes: 0,
            oldest: None,
            newest: Instant::now(),
            not_before: None,
            one_by_one: 0,
            aborts: 0,
        }
    }
}

impl<S: Stage> Batch<S> {
    pub(super) fn push(&mut self, done: Done<S>) {
        self.newest = Instant::now();
        self.oldest.get_or_insert(self.newest);
        self.bytes += done.finished.size();
        self.outcomes.push(done);
    }

    pub(super) fn take(&mut self, max_records: usize) -> Vec<Done<S>> {
        let limit = if self.one_by_one > 0 { 1 } else { max_records };
        let rest = self.outcomes.split_off(self.outcomes.len().min(limit));
        let taken = std::mem::replace(&mut self.outcomes, rest);
        self.recount();
        taken
    }

    pub(super) fn put_back(&mut self, outcomes: Vec<Done<S>>) {
        let later = std::mem::replace(&mut self.outcomes, outcomes);
        self.outcomes.extend(later);
        self.recount();
    }

    pub(super) fn recount(&mut self) {
        self.bytes = self.outcomes.iter().map(|done| done.finished.size()).sum();
        self.oldest = (!self.outcomes.is_empty()).then(|| self.oldest.unwrap_or_else(Instant::now));
    }
}
