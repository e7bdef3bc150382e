//! How far a conversion is, on a terminal: one line on standard error, drawn again and again, and gone at the end.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

use crate::feed::Progress;

/// Nothing is said of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(250);

/// To the beginning of the line, and nothing on it.
const CLEAR: &str = "\r\x1b[K";

/// Does `work`, and says meanwhile what `progress` says; `total` is the size of the input where it is known.
pub fn watched<T>(progress: &Progress, total: Option<u64>, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        let (working, ended) = mpsc::channel();
        scope.spawn(move || draw(progress, total, &ended));
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

fn draw(progress: &Progress, total: Option<u64>, ended: &Receiver<()>) {
    let began = Instant::now();
    let mut wait = PATIENCE;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = INTERVAL;
        let mut line = line(progress, total, began.elapsed());
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

/// `120.5 of 482.0 MB (25 %), 96.3 MB/s, 41000 records, 3 rejected`; in ASCII.
fn line(progress: &Progress, total: Option<u64>, elapsed: Duration) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let read = progress.input_bytes.get();
    let of_total = match total {
        Some(total) => format!(
            "{:.1} of {:.1} MB ({} %)",
            megabytes(read),
            megabytes(total),
            read.saturating_mul(100) / total.max(1)
        ),
        None => format!("{:.1} MB", megabytes(read)),
    };
    format!(
        "{of_total}, {:.1} MB/s, {} records, {} rejected",
        megabytes(progress.decoded_bytes.get()) / elapsed.as_secs_f64().max(0.001),
        progress.records.get(),
        progress.rejected.get()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{self, Plan, Source};

    #[test]
    fn the_line_has_the_share_where_the_size_is_known() {
        let plan = Plan::compile(&Default::default(), Default::default()).unwrap();
        let xml = format!("<r>{}</r>", "<i>12345</i>".repeat(10_000));
        let progress = Progress::default();
        let source = Source::default();
        feed::convert_watched(&plan, &source, xml.as_bytes(), io::sink(), None, &progress).unwrap();
        let told = |total| line(&progress, total, Duration::from_secs(2));
        assert_eq!(
            told(Some(240_014)),
            "0.1 of 0.2 MB (50 %), 0.1 MB/s, 10000 records, 0 rejected"
        );
        assert_eq!(told(None), "0.1 MB, 0.1 MB/s, 10000 records, 0 rejected");
        assert!(told(Some(0)).contains("MB"));
    }
}
