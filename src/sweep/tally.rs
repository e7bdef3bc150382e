//! The numbers of one sweep, for logs and metrics.

use std::{
    collections::BTreeSet,
    ops::AddAssign,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::candidate::Kind;
use crate::telemetry::metrics::SweepMetrics;

/// How often a sweep says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What was seen, and what became of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Source objects, listed or named.
    pub sources: u64,
    /// Outputs listed.
    pub outputs: u64,
    /// Sources that no feed takes, or that are excluded.
    pub unmatched: u64,
    /// Sources and outputs that are too young.
    pub waiting: u64,
    /// Sources that differ from what is settled, announced or still covered by an announcement.
    pub unsettled: u64,
    pub announced: u64,
    pub altered_outputs: u64,
    /// Old states announced because their object is gone.
    pub gone: u64,
    /// Converted sources handed to the clean-up.
    pub uncleaned: u64,
    /// Objects that a listing file names and that are not there.
    pub absent: u64,
    /// Entries of listings and lines of listing files that can't be taken for what they are.
    pub unreadable: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.sources += more.sources;
        self.outputs += more.outputs;
        self.unmatched += more.unmatched;
        self.waiting += more.waiting;
        self.unsettled += more.unsettled;
        self.announced += more.announced;
        self.altered_outputs += more.altered_outputs;
        self.gone += more.gone;
        self.uncleaned += more.uncleaned;
        self.absent += more.absent;
        self.unreadable += more.unreadable;
    }
}

impl Counts {
    pub fn count_announced(&mut self, kind: Kind) {
        match kind {
            Kind::New => self.announced += 1,
            Kind::AlteredOutput => self.altered_outputs += 1,
            Kind::Gone => self.gone += 1,
            Kind::Uncleaned => self.uncleaned += 1,
        }
    }
}

/// One sweep's numbers so far.
pub struct Tally {
    pub counts: Counts,
    /// Parts that were given up, or not seen whole.
    incomplete: BTreeSet<String>,
    parts: usize,
    done: usize,
    began: Instant,
    reported: Instant,
    metrics: SweepMetrics,
}

impl Tally {
    pub fn begin(parts: usize, metrics: SweepMetrics) -> Self {
        info!(parts, "sweep began");
        metrics.running.set(1);
        Self {
            counts: Counts::default(),
            incomplete: BTreeSet::new(),
            parts,
            done: 0,
            began: Instant::now(),
            reported: Instant::now(),
            metrics,
        }
    }

    /// Adds what a page came to.
    pub fn add(&mut self, page: Counts) {
        self.counts += page;
        self.metrics.listed.inc_by(page.sources + page.outputs);
        for (kind, count) in [
            (Kind::New, page.announced),
            (Kind::AlteredOutput, page.altered_outputs),
            (Kind::Gone, page.gone),
            (Kind::Uncleaned, page.uncleaned),
        ] {
            let announced = &self.metrics.announced;
            announced.with_label_values(&[kind.name()]).inc_by(count);
        }
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.report("sweep under way");
        }
    }

    /// A request that failed, once more or for good.
    pub fn failed(&self, reason: &str) {
        self.metrics.failures.with_label_values(&[reason]).inc();
    }

    /// A part was not seen whole; the sweep goes on with the others.
    pub fn incomplete(&mut self, part: String) {
        self.incomplete.insert(part);
    }

    /// Whether all that was looked at so far was seen whole.
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_empty()
    }

    pub fn part_done(&mut self) {
        self.done += 1;
    }

    /// The end; whether everything was seen.
    pub fn end(self) -> bool {
        let complete = self.is_complete();
        self.metrics
            .duration
            .observe(self.began.elapsed().as_secs_f64());
        if complete {
            let now = jiff::Timestamp::now().as_second();
            self.metrics.last_success.set(now);
            self.report("sweep ended");
        } else {
            warn!(parts = ?self.incomplete, "not seen whole in this sweep; the next one looks again");
            self.report("sweep ended incomplete");
        }
        complete
    }

    fn report(&self, message: &str) {
        let Counts {
            sources,
            outputs,
            unmatched,
            waiting,
            unsettled,
            announced,
            altered_outputs,
            gone,
            absent,
            unreadable,
            uncleaned,
        } = self.counts;
        info!(
            parts = self.parts,
            done = self.done,
            sources,
            outputs,
            unmatched,
            waiting,
            unsettled,
            announced,
            altered_outputs,
            gone,
            absent,
            unreadable,
            uncleaned,
            incomplete = self.incomplete.len(),
            took_secs = self.began.elapsed().as_secs_f64(),
            "{message}"
        );
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.running.set(0);
    }
}
