//! How far a long work is, on a terminal: one line on standard error, drawn again and again, and gone at the end.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

/// Nothing is said of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(250);

/// To the beginning of the line, and nothing on it.
const CLEAR: &str = "\r\x1b[K";

/// Does `work`, and shows meanwhile the `line` that says how far it is after so long, in ASCII;
/// while the line is empty, the terminal is left to somebody else.
pub fn watched<T>(line: impl Fn(Duration) -> String + Send, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        let (working, ended) = mpsc::channel();
        scope.spawn(move || draw(line, &ended));
        let done = work();
        drop(working);
        done
    })
}

/// Takes the line away for good; for a process that is about to end.
pub fn clear() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "{CLEAR}");
    }
}

fn draw(line: impl Fn(Duration) -> String, ended: &Receiver<()>) {
    let began = Instant::now();
    let mut wait = PATIENCE;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = INTERVAL;
        let mut line = line(began.elapsed());
        if line.is_empty() {
            continue;
        }
        // A line that wraps can't be taken back.
        line.truncate(width().saturating_sub(1));
        // A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "{CLEAR}{line}");
    }
    if wait == INTERVAL {
        clear();
    }
}

/// Columns of the terminal; some, serial ones among them, don't know how many they have.
fn width() -> usize {
    let columns = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    usize::from(if columns == 0 { 80 } else { columns })
}
