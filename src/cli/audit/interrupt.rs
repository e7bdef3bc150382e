//! Ctrl-C and SIGTERM: whenever they come, what lies in the temporary folder goes with the process.

use std::{
    fs,
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{cli::progress, failure::Failure, shutdown};

/// How long an audit may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for signals on a thread of its own, for as long as the process lives.
pub struct Interrupt {
    /// Ends the audit, by the first signal.
    pub cancel: CancellationToken,
    at_once: Arc<AtomicBool>,
}

impl Interrupt {
    pub fn listen(folder: &Path) -> Result<Self, Failure> {
        let interrupt = Self {
            cancel: CancellationToken::new(),
            at_once: Arc::default(),
        };
        let (cancel, at_once) = (interrupt.cancel.clone(), Arc::clone(&interrupt.at_once));
        let folder = folder.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::bug("start the async runtime", error))?;
        // Listened for from now on, not from when the thread comes to it.
        let signal = {
            let _inside = runtime.enter();
            shutdown::first_signal().map_err(|error| Failure::bug("listen for signals", error))?
        };
        thread::spawn(move || {
            runtime.block_on(signal);
            cancel.cancel();
            if !at_once.load(SeqCst) {
                thread::sleep(PATIENCE);
            }
            leave(&folder);
        });
        Ok(interrupt)
    }

    /// From now on a signal ends the process: what is left to do may be broken off anywhere.
    pub fn leave_at_once(&self) {
        self.at_once.store(true, SeqCst);
    }
}

fn leave(folder: &Path) {
    progress::clear();
    // What can't be removed is named by its prefix, and lies where temporary files do.
    let _ = fs::remove_dir_all(folder);
    // 128 + SIGINT, as shells have it.
    process::exit(130);
}
