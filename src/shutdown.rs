//! Signals: the first SIGTERM or Ctrl-C asks for an orderly end, the second leaves at once. Both are safe: what was not
//! committed is done again by another worker.

use std::process;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The number of the first signal that asks the process to end. It is listened for from now on, not from the first poll.
/// Not SIGHUP: `nohup` has it ignored, and a handler would undo that.
pub fn first_signal() -> std::io::Result<impl Future<Output = i32>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let kind = tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        };
        kind.as_raw_value()
    })
}

/// A token that is cancelled by the first signal.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                warn!("second signal; leaving at once");
                // 128 + SIGINT, as shells have it.
                process::exit(130);
            }
            info!("asked to stop; finishing what is under way, a second signal leaves at once");
            asked.cancel();
        }
    });
    Ok(token)
}
