//! What wakes the kafka thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use super::batch::Done;
use crate::kafka::{
    Stage,
    restore::{RestoreError, Start},
    store::StoreError,
};

/// What happened since the last round.
pub(super) enum Wake<S: Stage> {
    /// A queue that was empty has records, or somebody wants the loop to go round.
    Up,
    Finished(Done<S>),
    Restored {
        partition: i32,
        epoch: u64,
        result: Result<Start, RestoreError>,
    },
    Panicked(String),
    StoreFailed {
        partition: i32,
        error: StoreError,
    },
}

/// Wakes the kafka thread, once until it has gone round.
pub(super) struct Waker<S: Stage> {
    pub(super) sender: mpsc::Sender<Wake<S>>,
    pub(super) pending: Arc<AtomicBool>,
}

impl<S: Stage> Clone for Waker<S> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            pending: Arc::clone(&self.pending),
        }
    }
}

impl<S: Stage> Waker<S> {
    pub(super) fn up(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.send(Wake::Up);
        }
    }

    /// A send fails only when the session is gone, and then nobody wants to know.
    pub(super) fn send(&self, wake: Wake<S>) {
        let _ = self.sender.send(wake);
    }
}
