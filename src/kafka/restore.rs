//! Brings a partition's state up to date before its first event, and finds where to start.
//!
//! In this order, or the last committed transaction of the previous owner can be missed:
//!
//! 1. the group's committed offset, stable: after it no transaction of an older generation can commit one any more;
//! 2. the changelog's end, **read-uncommitted**: the offset may be visible before the commit marker of its changelog
//!    records is (KAFKA-10167), so the last stable offset is no bound;
//! 3. wait until the last stable offset has reached that end;
//! 4. replay what is committed, from the local copy's position to the end;
//! 5. check the start position against the log. A hole is reported, never skipped.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tracing::{info, warn};

use super::{
    Stage, StateBytes,
    error::{is_passing, panic_text},
    progress,
    rebalance::LogContext,
    settings::{self, Isolation},
    shared::Shared,
    store::{LogIdentity, StoreError},
};
use crate::faults::{self, Fault};

/// Records applied to the local store in one batch.
const BATCH: usize = 1_000;

/// Where a restored partition starts.
#[derive(Debug)]
pub struct Start {
    pub offset: i64,
    /// Finished offsets above it.
    pub finished: BTreeSet<i64>,
}

/// Why a partition could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A person must decide: see `feedmill topics accept-hole`.
    #[error("{0}")]
    Hole(String),
    /// A changelog record this version can't read.
    #[error(
        "the state at offset {offset} of {topic} can't be read: {reason}; upgrade this worker, or it was not written by feedmill"
    )]
    Unreadable {
        topic: String,
        offset: i64,
        reason: String,
    },
    #[error("a part of {topic} can't be read: {source}")]
    Damaged { topic: String, source: KafkaError },
    #[error("read {topic}: no answer in time")]
    TimedOut { topic: String },
    #[error(
        "the last stable offset stayed at {stable}, below {end}: a transaction hangs open on {topic}"
    )]
    Hanging {
        topic: String,
        stable: i64,
        end: i64,
    },
    #[error("ask Kafka while restoring: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the session ended")]
    Cancelled,
}

/// A partition to restore, and where to say so.
pub struct Job {
    pub partition: i32,
    pub cancel: tokio_util::sync::CancellationToken,
    pub answer: Box<dyn FnOnce(Result<Start, RestoreError>) + Send>,
}

/// Starts the thread that restores partitions one after the other, until the sender is dropped.
pub fn spawn<S: Stage>(
    shared: Arc<Shared<S>>,
    log: LogIdentity,
) -> std::io::Result<(mpsc::Sender<Job>, thread::JoinHandle<()>)> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let thread = thread::Builder::new()
        .name(format!("{}-restore", shared.settings.name))
        .spawn(move || {
            let mut restorer = None;
            for job in queue {
                let result = catch_unwind(AssertUnwindSafe(|| match &mut restorer {
                    _ if job.cancel.is_cancelled() => Err(RestoreError::Cancelled),
                    Some(restorer) => Restorer::restore(restorer, &job),
                    empty => Restorer::connect(Arc::clone(&shared), log.clone())
                        .and_then(|fresh| empty.insert(fresh).restore(&job)),
                }));
                // The store's library asserts on damaged files; the copy is made anew.
                let damaged = |panic: Box<dyn Any + Send>| {
                    Err(StoreError::Damaged(panic_text(&*panic)).into())
                };
                (job.answer)(result.unwrap_or_else(damaged));
            }
        })?;
    Ok((jobs, thread))
}

struct Restorer<S: Stage> {
    shared: Arc<Shared<S>>,
    log: LogIdentity,
    committed: BaseConsumer<LogContext>,
    uncommitted: BaseConsumer<LogContext>,
    timeout: Duration,
}

impl<S: Stage> Restorer<S> {
    fn connect(shared: Arc<Shared<S>>, log: LogIdentity) -> Result<Self, RestoreError> {
        let reader = |isolation| {
            settings::create(
                &settings::reader(&shared.kafka, &shared.group, isolation),
                LogContext,
            )
        };
        let (committed, uncommitted) = (
            reader(Isolation::ReadCommitted)?,
            reader(Isolation::ReadUncommitted)?,
        );
        let timeout = settings::call_timeout(&shared.kafka);
        Ok(Self {
            shared,
            log,
            committed,
            uncommitted,
            timeout,
        })
    }

    fn restore(&mut self, job: &Job) -> Result<Start, RestoreError> {
        let started = Instant::now();
        let committed = self.committed_offset(job)?;
        let records = self.replay_state(job)?;
        let start = self.start_position(job.partition, committed)?;
        info!(
            partition = job.partition,
            offset = start.offset,
            finished_above = start.finished.len(),
            state_records = records,
            took_ms = started.elapsed().as_millis() as u64,
            "partition restored"
        );
        Ok(start)
    }

    /// Step 1. `None` when the group never committed one. The call waits while a transaction could still change it.
    fn committed_offset(&self, job: &Job) -> Result<Option<(i64, String)>, RestoreError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.shared.settings.input_topic, job.partition);
        let deadline = Instant::now() + self.patience();
        loop {
            match self.committed.committed_offsets(list.clone(), self.timeout) {
                Ok(offsets) => {
                    let element = &offsets.elements()[0];
                    element.error()?;
                    return Ok(match element.offset() {
                        Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
                        _ => None,
                    });
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) if job.cancel.is_cancelled() => return Err(RestoreError::Cancelled),
                Err(error) => {
                    warn!(partition = job.partition, %error, "waiting for a stable committed offset")
                }
            }
        }
    }

    /// How long an open transaction of a crashed owner may hold us up: its timeout, and the broker's look for such.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.shared.kafka.transaction_timeout_secs.into())
            + Duration::from_secs(30)
    }

    /// Steps 2 to 4; the number of records replayed.
    fn replay_state(&self, job: &Job) -> Result<usize, RestoreError> {
        let topic = &self.shared.settings.changelog_topic;
        let (log_start, end) = match faults::planted(Fault::RestoreToStableOffset) {
            true => self
                .committed
                .fetch_watermarks(topic, job.partition, self.timeout)?,
            false => self
                .uncommitted
                .fetch_watermarks(topic, job.partition, self.timeout)?,
        };
        self.wait_until_stable(job, end)?;
        let from = self
            .shared
            .store
            .resume(job.partition, &self.log, log_start, end, now_ms())?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, job.partition, Offset::Offset(from))?;
        self.committed.assign(&list)?;
        let replayed = self.replay(job, from, end);
        self.committed.unassign()?;
        replayed
    }

    fn wait_until_stable(&self, job: &Job, end: i64) -> Result<(), RestoreError> {
        let topic = &self.shared.settings.changelog_topic;
        let deadline = Instant::now() + self.patience();
        loop {
            let (_, stable) =
                self.committed
                    .fetch_watermarks(topic, job.partition, self.timeout)?;
            if stable >= end {
                return Ok(());
            }
            if job.cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            if Instant::now() > deadline {
                return Err(RestoreError::Hanging {
                    topic: topic.clone(),
                    stable,
                    end,
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads committed records until the end-of-partition event, which comes at or behind `end`: record offsets alone
    /// would not tell, because markers and compaction leave gaps at the end.
    fn replay(&self, job: &Job, from: i64, end: i64) -> Result<usize, RestoreError> {
        let topic = &self.shared.settings.changelog_topic;
        let mut batch: Vec<(Vec<u8>, Option<StateBytes>)> = Vec::new();
        let (mut next, mut count) = (from, 0);
        let mut progress_at = Instant::now();
        loop {
            if job.cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            match self.committed.poll(Duration::from_millis(500)) {
                None => {}
                Some(Ok(record)) => {
                    let offset = record.offset();
                    let state = self.shared.stage.fold(record.payload()).map_err(|reason| {
                        RestoreError::Unreadable {
                            topic: topic.clone(),
                            offset,
                            reason,
                        }
                    })?;
                    batch.push((record.key().unwrap_or_default().to_vec(), state));
                    next = offset + 1;
                    count += 1;
                    progress_at = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == job.partition => {
                    self.apply(job.partition, &mut batch, next.max(end))?;
                    return Ok(count);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {
                    warn!(partition = job.partition, %error, "restoring");
                }
                // librdkafka goes on behind a batch that it can't read; a state without it would be another state.
                Some(Err(source)) => {
                    return Err(RestoreError::Damaged {
                        topic: topic.clone(),
                        source,
                    });
                }
            }
            if progress_at.elapsed() > 3 * self.timeout {
                return Err(RestoreError::TimedOut {
                    topic: topic.clone(),
                });
            }
            if batch.len() >= BATCH {
                self.apply(job.partition, &mut batch, next)?;
            }
        }
    }

    fn apply(
        &self,
        partition: i32,
        batch: &mut Vec<(Vec<u8>, Option<StateBytes>)>,
        next_offset: i64,
    ) -> Result<(), RestoreError> {
        let changes = batch
            .iter_mut()
            .map(|(key, value)| (key.as_slice(), value.take()));
        self.shared
            .store
            .apply(partition, &self.log, changes, next_offset, now_ms())?;
        batch.clear();
        Ok(())
    }

    /// Step 5.
    fn start_position(
        &self,
        partition: i32,
        committed: Option<(i64, String)>,
    ) -> Result<Start, RestoreError> {
        let topic = &self.shared.settings.input_topic;
        let (low, high) = self
            .uncommitted
            .fetch_watermarks(topic, partition, self.timeout)?;
        let hole = |what: String| {
            RestoreError::Hole(format!(
                "{what}; stop the workers, then `feedmill topics accept-hole {partition}` goes on behind it and names the backfill to run"
            ))
        };
        let Some((offset, metadata)) = committed else {
            if !self.shared.store.is_empty(partition)? {
                return Err(hole(format!(
                    "{topic} [{partition}] has no committed offset, but there is state"
                )));
            }
            if low > 0 {
                return Err(hole(format!(
                    "{topic} [{partition}] has no committed offset, and its log starts at {low}"
                )));
            }
            return Ok(Start {
                offset: 0,
                finished: BTreeSet::new(),
            });
        };
        if !(low..=high).contains(&offset) {
            return Err(hole(format!(
                "the committed offset {offset} of {topic} [{partition}] lies outside the log ({low} to {high})"
            )));
        }
        let mut finished = progress::decode(offset, &metadata)
            .map_err(|error| hole(format!("{topic} [{partition}] at offset {offset}: {error}")))?;
        if faults::planted(Fault::ForgetFinished) {
            finished.clear();
        }
        Ok(Start { offset, finished })
    }
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
