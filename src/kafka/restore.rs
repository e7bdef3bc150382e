//! Brings a partition's state up to date before its first event, and finds where to start.
//!
//! In this order, or the last committed transaction of the previous owner can be missed:
//!
//! 1. the group's committed offset, stable: after it no transaction of an older generation can commit one any more;
//! 2. the local copy is brought up to the changelog's end: see [`reader`](super::reader);
//! 3. the start position is checked against the log. A hole is reported, never skipped.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Stage,
    error::panic_text,
    progress,
    reader::{Copying, LogReader, ReadError},
    shared::{Shared, State},
    store::{LogIdentity, StoreError},
};
use crate::faults::{self, Fault};

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
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<KafkaError> for RestoreError {
    fn from(error: KafkaError) -> Self {
        Self::Read(error.into())
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// A partition to restore, and where to say so.
pub struct Job {
    pub partition: i32,
    pub cancel: CancellationToken,
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
                    _ if job.cancel.is_cancelled() => Err(ReadError::Cancelled.into()),
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
    reader: LogReader,
}

impl<S: Stage> Restorer<S> {
    fn connect(shared: Arc<Shared<S>>, log: LogIdentity) -> Result<Self, RestoreError> {
        Ok(Self {
            reader: LogReader::open(&shared.kafka, &shared.group)?,
            shared,
            log,
        })
    }

    fn restore(&mut self, job: &Job) -> Result<Start, RestoreError> {
        let started = Instant::now();
        let topic = &self.shared.settings.input_topic;
        let committed = self
            .reader
            .committed_offsets(topic, [job.partition], &job.cancel)?
            .pop()
            .flatten();
        let (records, start) = match &self.shared.state {
            Some(state) => {
                let records = self.restore_state(state, job)?;
                let has_state = !state.store.is_empty(job.partition)?;
                let start = self.start_position(job.partition, committed, has_state)?;
                (records, start)
            }
            None if self.shared.settings.input.is_own() => {
                (0, self.start_position(job.partition, committed, false)?)
            }
            None => (0, self.foreign_start(job.partition, committed)?),
        };
        self.shared.status.restored(records, started.elapsed());
        info!(
            topic,
            partition = job.partition,
            offset = start.offset,
            finished_above = start.finished.len(),
            state_records = records,
            took_ms = started.elapsed().as_millis() as u64,
            "partition restored"
        );
        Ok(start)
    }

    fn restore_state(&self, state: &State, job: &Job) -> Result<usize, ReadError> {
        let copying = Copying {
            topic: &state.changelog_topic,
            partition: job.partition,
            log: &self.log,
            store: &state.store,
            fold: &|value| self.shared.stage.fold(value),
        };
        self.reader.copy(&copying, &job.cancel)
    }

    /// Where to start in a log of our own: a hole stops the partition.
    fn start_position(
        &self,
        partition: i32,
        committed: Option<(i64, String)>,
        has_state: bool,
    ) -> Result<Start, RestoreError> {
        let topic = &self.shared.settings.input_topic;
        let (low, high) = self.reader.ends(topic, partition)?;
        let of = match &self.shared.state {
            Some(_) => String::new(),
            None => format!(" --topic {topic}"),
        };
        let hole = |what: String| {
            RestoreError::Hole(format!(
                "{what}; stop the workers, then `feedmill topics accept-hole {partition}{of}` goes on behind it and names the backfill to run"
            ))
        };
        let Some((offset, metadata)) = committed else {
            if has_state {
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
    /// Where to start in a log that others write and that is cut by its own rules: what is there from its beginning, and
    /// what was cut away before we came is said.
    fn foreign_start(
        &self,
        partition: i32,
        committed: Option<(i64, String)>,
    ) -> Result<Start, RestoreError> {
        let topic = &self.shared.settings.input_topic;
        let (low, high) = self.reader.ends(topic, partition)?;
        let Some((offset, metadata)) = committed else {
            return Ok(Start {
                offset: low,
                finished: BTreeSet::new(),
            });
        };
        if (low..=high).contains(&offset) {
            // Somebody else's reset has no such metadata; what it says is where to start.
            let finished = progress::decode(offset, &metadata).unwrap_or_default();
            return Ok(Start { offset, finished });
        }
        warn!(
            topic,
            partition,
            committed = offset,
            first = low,
            end = high,
            "records were lost before they were read; going on with the first there is"
        );
        Ok(Start {
            offset: low,
            finished: BTreeSet::new(),
        })
    }
}
