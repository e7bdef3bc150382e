//! The numbers of a backfill, while it runs and at its end.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::cli::text::printable;

/// What was seen, and what came of it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Objects of the listing.
    pub listed: u64,
    /// Events that Kafka has acknowledged; of a dry run, those that would be sent.
    pub announced: u64,
    /// Objects that no feed takes.
    pub unmatched: u64,
    /// Objects last modified before `--since`.
    pub older: u64,
    /// Objects that are as they should be.
    pub settled: u64,
    /// Objects that were not asked for: not settled, or discarded.
    pub left_alone: u64,
    /// Objects that convert has done this request for.
    pub done_before: u64,
    /// Entries of the listing that can't be taken for what they are.
    pub unreadable: u64,
    /// What is being copied before the listing begins.
    #[serde(skip)]
    pub reading: Option<Reading>,
    /// When the first event was sent.
    #[serde(skip)]
    pub sending_since: Option<Instant>,
}

/// How far the copy of what is settled is.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    partition: i32,
    partitions: i32,
    states: u64,
}

/// The numbers so far, for those who work and the one who draws.
#[derive(Debug)]
pub struct Tally {
    counts: Mutex<Counts>,
    is_silent: AtomicBool,
}

impl Default for Tally {
    fn default() -> Self {
        let reading = Reading {
            partition: 0,
            partitions: 0,
            states: 0,
        };
        Self {
            counts: Mutex::new(Counts {
                reading: Some(reading),
                ..Counts::default()
            }),
            is_silent: AtomicBool::new(false),
        }
    }
}

impl Tally {
    pub fn get(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A record of this partition was read. What is read later, to stay up to date, is not told of.
    pub fn state_read(&self, partition: i32, partitions: i32) {
        self.change(|counts| {
            if let Some(reading) = &mut counts.reading {
                *reading = Reading {
                    partition: partition + 1,
                    partitions,
                    states: reading.states + 1,
                };
            }
        });
    }

    /// Nothing is drawn while a person is asked.
    pub fn leave_the_terminal(&self, leave: bool) {
        self.is_silent.store(leave, Ordering::Relaxed);
    }

    /// `8000 listed, 1200 announced, 350 a second, 12 s`.
    pub fn line(&self, elapsed: Duration) -> String {
        if self.is_silent.load(Ordering::Relaxed) {
            return String::new();
        }
        let counts = self.get();
        let seconds = elapsed.as_secs();
        if let Some(reading) = counts.reading {
            return format!(
                "reading what is settled: {} states, partition {} of {}, {seconds} s",
                reading.states, reading.partition, reading.partitions
            );
        }
        let Counts {
            listed, announced, ..
        } = counts;
        match counts.sending_since {
            Some(since) => {
                let rate = announced as f64 / since.elapsed().as_secs_f64().max(0.001);
                format!("{listed} listed, {announced} announced, {rate:.0} a second, {seconds} s")
            }
            // Of a dry run.
            None if announced > 0 => {
                format!("{listed} listed, {announced} to announce, {seconds} s")
            }
            None => format!("{listed} listed, {seconds} s"),
        }
    }
}

/// What a backfill came to.
#[derive(Serialize)]
pub struct Report<'a> {
    pub place: String,
    pub chosen_by: &'static str,
    pub request: Option<&'a str>,
    pub dry_run: bool,
    pub seconds: f64,
    #[serde(flatten)]
    pub counts: Counts,
    /// Of a dry run: what would be announced first.
    pub first: &'a [String],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        for url in self.first {
            writeln!(f, "{}", printable(url))?;
        }
        if (self.first.len() as u64) < counts.announced && self.dry_run {
            writeln!(f, "...")?;
        }
        let what = match self.dry_run {
            true => "would announce",
            false => "announced",
        };
        let place = printable(&self.place);
        let Counts {
            listed, announced, ..
        } = counts;
        write!(f, "{what} {announced} of {listed} objects under {place}")?;
        let passed_over = [
            (counts.settled, "settled"),
            (counts.done_before, "done before by this request"),
            (counts.left_alone, "left alone: not settled, or discarded"),
            (counts.older, "older"),
            (counts.unmatched, "of no feed"),
            (counts.unreadable, "not readable"),
        ];
        let mut separator = "; passed over: ";
        for (count, why) in passed_over.iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {why}")?;
            separator = ", ";
        }
        if *listed == 0 {
            write!(f, ": nothing there has a key that begins so")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(counts: Counts, dry_run: bool, first: &[String]) -> String {
        let report = Report {
            place: "s3://in/nsx/".into(),
            chosen_by: "unsettled",
            request: None,
            dry_run,
            seconds: 1.0,
            counts,
            first,
        };
        report.to_string()
    }

    #[test]
    fn a_report_says_what_was_done_and_why_the_rest_was_not() {
        let counts = Counts {
            listed: 9,
            announced: 2,
            settled: 6,
            unmatched: 1,
            ..Counts::default()
        };
        assert_eq!(
            report(counts, false, &[]),
            "announced 2 of 9 objects under s3://in/nsx/; passed over: 6 settled, 1 of no feed"
        );
        assert_eq!(
            report(counts, true, &["s3://in/nsx/a".into()]),
            "s3://in/nsx/a\n...\nwould announce 2 of 9 objects under s3://in/nsx/; passed over: 6 settled, 1 of no feed"
        );
        let nothing = report(Counts::default(), false, &[]);
        assert!(
            nothing.ends_with("nothing there has a key that begins so"),
            "{nothing}"
        );
    }

    #[test]
    fn the_line_tells_first_of_the_states_and_is_empty_while_a_person_is_asked() {
        let tally = Tally::default();
        tally.state_read(0, 12);
        tally.state_read(3, 12);
        let line = tally.line(Duration::from_secs(2));
        assert_eq!(
            line,
            "reading what is settled: 2 states, partition 4 of 12, 2 s"
        );
        tally.change(|counts| {
            counts.reading = None;
            counts.listed = 30;
        });
        tally.state_read(0, 12);
        let line = || tally.line(Duration::from_secs(4));
        assert_eq!(line(), "30 listed, 4 s");
        tally.change(|counts| counts.announced = 10);
        assert_eq!(line(), "30 listed, 10 to announce, 4 s");
        tally.change(|counts| {
            counts.sending_since = Instant::now().checked_sub(Duration::from_secs(2));
        });
        assert_eq!(line(), "30 listed, 10 announced, 5 a second, 4 s");
        tally.leave_the_terminal(true);
        assert_eq!(tally.line(Duration::from_secs(3)), "");
    }
}
