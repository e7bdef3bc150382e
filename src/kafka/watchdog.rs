//! A Kafka call that never returns must not look like a healthy process: when the kafka thread has not gone round its
//! loop for too long, the process aborts. A crash is always safe here; the next start fences and restores.

use std::{
    process,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use super::{error::RuntimeError, status::Status};

/// The least time a kafka thread may take for one round of its loop.
const LEAST: Duration = Duration::from_secs(120);

/// Bounded calls, with their retries, that may follow each other in one round: sending offsets, committing, aborting.
const CALLS: u32 = 12;

/// Watches a runtime until `done` is dropped.
pub fn watch(
    stage: &Arc<str>,
    status: Status,
    call_timeout: Duration,
    done: Weak<()>,
) -> Result<(), RuntimeError> {
    let limit = LEAST.max(CALLS * call_timeout);
    let name = Arc::clone(stage);
    let watch = move || {
        while done.strong_count() > 0 {
            let idle = status.since_poll();
            if idle > limit {
                tracing::error!(
                    stage = &*name,
                    idle_secs = idle.as_secs(),
                    "the kafka thread hangs; aborting the process"
                );
                process::abort();
            }
            thread::sleep(Duration::from_secs(1));
        }
    };
    thread::Builder::new()
        .name(format!("{stage}-watchdog"))
        .spawn(watch)
        .map_err(RuntimeError::Thread)?;
    Ok(())
}
