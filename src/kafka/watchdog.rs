//! A Kafka call that never returns must not look like a healthy process: when the kafka thread has not gone round its
//! loop for too long, the process aborts. A crash is always safe here; the next start fences and restores.

use std::{process, thread, time::Duration};

use super::{error::RuntimeError, status::Status};

/// Longer than any chain of bounded calls between two rounds of the loop.
const LIMIT: Duration = Duration::from_secs(120);

/// Watches a runtime until its status is dropped by everybody else or `done` is set.
pub fn watch(
    stage: &'static str,
    status: Status,
    done: std::sync::Weak<()>,
) -> Result<(), RuntimeError> {
    let watch = move || {
        while done.strong_count() > 0 {
            let idle = status.since_poll();
            if idle > LIMIT {
                tracing::error!(
                    stage,
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
