//! What the runtime says of itself, for health checks and metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A partition of ours, as an operator would want it described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionStatus {
    Restoring,
    Running,
    /// It waits for what only people or an upgrade can change.
    Halted(String),
}

/// Numbers since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub commits: u64,
    pub aborts: u64,
    pub events_finished: u64,
    pub sessions: u64,
    pub rebalances: u64,
    /// Time spent between the first produce and the answer to the commit.
    pub commit_time: Duration,
    pub in_flight: u64,
    pub in_flight_bytes: u64,
}

#[derive(Debug)]
struct Inner {
    polled_at: Instant,
    joined: bool,
    trouble: Option<String>,
    partitions: BTreeMap<i32, PartitionStatus>,
    counters: Counters,
}

/// A shared view of one stage's runtime; written by its kafka thread only.
#[derive(Debug, Clone)]
pub struct Status(Arc<Mutex<Inner>>);

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            polled_at: Instant::now(),
            joined: false,
            trouble: None,
            partitions: BTreeMap::new(),
            counters: Counters::default(),
        })))
    }
}

impl Status {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn polled(&self) {
        self.inner().polled_at = Instant::now();
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

    pub(super) fn joined_group(&self) {
        let mut inner = self.inner();
        inner.joined = true;
        inner.trouble = None;
    }

    pub(super) fn trouble(&self, trouble: String) {
        self.inner().trouble = Some(trouble);
    }

    pub(super) fn recovered(&self) {
        self.inner().trouble = None;
    }

    pub(super) fn set_partition(&self, partition: i32, status: Option<PartitionStatus>) {
        let mut inner = self.inner();
        match status {
            Some(status) => inner.partitions.insert(partition, status),
            None => inner.partitions.remove(&partition),
        };
    }

    pub(super) fn count(&self, update: impl FnOnce(&mut Counters)) {
        update(&mut self.inner().counters);
    }

    pub fn counters(&self) -> Counters {
        self.inner().counters
    }

    pub fn partitions(&self) -> BTreeMap<i32, PartitionStatus> {
        self.inner().partitions.clone()
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
        for (partition, status) in &inner.partitions {
            match status {
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
