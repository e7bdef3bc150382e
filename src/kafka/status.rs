//! What the runtime says of itself, for health checks and metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::Histogram;

use super::progress::CommitPoint;
use crate::telemetry::metrics::{list, register::histogram_of};

/// A partition of ours, as an operator would want it described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionStatus {
    Restoring,
    Running,
    /// It waits for what only people or an upgrade can change.
    Halted(String),
}

impl PartitionStatus {
    /// The name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Halted(_) => "halted",
        }
    }
}

/// What is not finished of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Records, or offsets where they are not read.
    pub events: u64,
    /// What the records say, where they are read.
    pub waiting: Option<Waiting>,
}

/// What the records say that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Sum of their sizes; see [`Beside::size`](super::Beside::size).
    pub bytes: u64,
    /// Records without a size.
    pub unknown_sizes: u64,
    /// When the first of them was appended, in milliseconds since 1970.
    pub oldest: Option<i64>,
}

/// A partition of ours, for metrics.
#[derive(Debug, Clone)]
pub struct PartitionView {
    pub status: PartitionStatus,
    /// Records answered since it is ours.
    pub finished: u64,
    /// As it was measured last.
    pub lag: Option<Lag>,
    /// What was committed last.
    pub(super) committed: Option<CommitPoint>,
}

/// Numbers since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub commits: u64,
    pub aborts: u64,
    pub events_finished: u64,
    pub sessions: u64,
    pub rebalances: u64,
    /// Transactions that were fenced.
    pub fenced: u64,
    /// Transactions of which nobody can say how they ended.
    pub unknown: u64,
    /// Sessions that ended because another producer, or the broker, fenced them.
    pub fencings: u64,
    /// State records read by restores.
    pub restored_records: u64,
    pub in_flight: u64,
    pub in_flight_limit: u64,
    pub in_flight_bytes: u64,
    pub in_flight_bytes_limit: u64,
    /// Keys in the local state, about, and its size in bytes.
    pub state: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Inner {
    polled_at: Instant,
    joined: bool,
    trouble: Option<String>,
    partitions: BTreeMap<i32, PartitionView>,
    counters: Counters,
}

/// A shared view of one stage's runtime; written by its kafka thread only, but for what is measured beside it.
#[derive(Debug, Clone)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
    transactions: Histogram,
    restores: Histogram,
}

impl Status {
    pub fn new(stage: &str) -> Self {
        let inner = Inner {
            polled_at: Instant::now(),
            joined: false,
            trouble: None,
            partitions: BTreeMap::new(),
            counters: Counters::default(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            transactions: histogram_of(&list::TRANSACTION_SECONDS, stage),
            restores: histogram_of(&list::RESTORE_SECONDS, stage),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn polled(&self) {
        self.inner().polled_at = Instant::now();
    }

    #[cfg(test)]
    pub(crate) fn polled_at(&self, at: Instant) {
        self.inner().polled_at = at;
    }

    /// A session begins anew: nothing is ours.
    pub(super) fn left_group(&self, trouble: Option<String>) {
        let mut inner = self.inner();
        inner.joined = false;
        inner.partitions.clear();
        inner.trouble = trouble;
        inner.counters.in_flight = 0;
        inner.counters.in_flight_bytes = 0;
    }

    pub(crate) fn joined_group(&self) {
        let mut inner = self.inner();
        inner.joined = true;
        inner.trouble = None;
    }

    pub(crate) fn trouble(&self, trouble: String) {
        self.inner().trouble = Some(trouble);
    }

    pub(crate) fn recovered(&self) {
        self.inner().trouble = None;
    }

    pub(crate) fn set_partition(&self, partition: i32, status: Option<PartitionStatus>) {
        let mut inner = self.inner();
        let Some(status) = status else {
            inner.partitions.remove(&partition);
            return;
        };
        match inner.partitions.get_mut(&partition) {
            Some(view) => view.status = status,
            None => {
                let view = PartitionView {
                    status,
                    finished: 0,
                    lag: None,
                    committed: None,
                };
                inner.partitions.insert(partition, view);
            }
        }
    }

    /// A partition stands at this point, and so many records more are answered.
    pub(super) fn committed(&self, partition: i32, point: CommitPoint, finished: u64) {
        if let Some(view) = self.inner().partitions.get_mut(&partition) {
            view.committed = Some(point);
            view.finished += finished;
        }
    }

    pub(super) fn set_lag(&self, partition: i32, lag: Option<Lag>) {
        if let Some(view) = self.inner().partitions.get_mut(&partition) {
            view.lag = lag;
        }
    }

    pub(super) fn commit_took(&self, time: Duration) {
        self.transactions.observe(time.as_secs_f64());
    }

    pub(super) fn restored(&self, records: usize, time: Duration) {
        self.restores.observe(time.as_secs_f64());
        self.inner().counters.restored_records += records as u64;
    }

    pub(super) fn count(&self, update: impl FnOnce(&mut Counters)) {
        update(&mut self.inner().counters);
    }

    pub fn counters(&self) -> Counters {
        self.inner().counters
    }

    pub fn partition_views(&self) -> BTreeMap<i32, PartitionView> {
        self.inner().partitions.clone()
    }

    /// Where the partitions of ours stand that are restored.
    pub(super) fn commit_points(&self) -> BTreeMap<i32, CommitPoint> {
        let inner = self.inner();
        let partitions = inner.partitions.iter();
        partitions
            .filter_map(|(partition, view)| Some((*partition, view.committed.clone()?)))
            .collect()
    }

    /// The times of transactions and of restores.
    pub fn histograms(&self) -> [Histogram; 2] {
        [self.transactions.clone(), self.restores.clone()]
    }

    /// How long ago the kafka thread last went round its loop.
    pub fn since_poll(&self) -> Duration {
        self.inner().polled_at.elapsed()
    }

    /// `Ok` when every partition of ours is restored and running; otherwise what is in the way, a line each.
    pub fn readiness(&self) -> Result<String, String> {
        let inner = self.inner();
        let mut obstacles: Vec<String> = inner.trouble.iter().cloned().collect();
        if !inner.joined {
            obstacles.push("not in the consumer group yet".into());
        }
        for (partition, view) in &inner.partitions {
            match &view.status {
                PartitionStatus::Running => {}
                PartitionStatus::Restoring => {
                    obstacles.push(format!("partition {partition} is being restored"))
                }
                PartitionStatus::Halted(why) => {
                    obstacles.push(format!("partition {partition} is stopped: {why}"))
                }
            }
        }
        match obstacles.is_empty() {
            true => Ok(format!("{} partitions running", inner.partitions.len())),
            false => Err(obstacles.join("\n")),
        }
    }
}
