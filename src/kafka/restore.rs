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
        let (records, has_state) = match &self.shared.state {
            Some(state) => (
                self.restore_state(state, job)?,
                !state.store.is_empty(job.partition)?,
            ),
            None => (0, false),
        };
        let start = match self.shared.settings.input.has_holes() {
            true => self.start_position(job.partition, committed, has_state)?,
            false => self.first_there_is(job.partition, committed)?,
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

    /// Where to start in a log that nobody cuts before it is read: a hole stops the partition.
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

    /// Where to start in a log that is cut by rules of its own: what is there from its beginning, and what was cut away
    /// before we came is said.
    fn first_there_is(
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
        if let Some(start) = within((low, high), offset, &metadata) {
            return Ok(start);
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

/// Where a committed offset says to go on; `None` when the log does not have it.
fn within((low, high): (i64, i64), offset: i64, metadata: &str) -> Option<Start> {
    (low..=high).contains(&offset).then(|| Start {
        offset,
        // Somebody else's reset has no such metadata; what it says is where to start.
        finished: progress::decode(offset, metadata).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Input;

    #[test]
    fn a_committed_offset_that_the_log_does_not_have_any_more_is_no_place_to_go_on() {
        let finished = BTreeSet::from([12, 14]);
        let metadata = progress::Progress::resume(10, finished.clone())
            .commit_point(&BTreeSet::new(), 10)
            .metadata;
        let start = within((10, 20), 10, &metadata).unwrap();
        assert_eq!((start.offset, start.finished), (10, finished));
        assert!(within((11, 20), 10, &metadata).is_none());
        assert!(within((0, 9), 10, &metadata).is_none());
        let reset = within((0, 20), 10, "").unwrap();
        assert_eq!((reset.offset, reset.finished), (10, BTreeSet::new()));
    }

    #[test]
    fn only_a_log_that_nobody_cuts_has_holes_and_only_with_state_there_is_a_changelog() {
        let changelog_topic = || "c".to_owned();
        let own = Input::Own {
            changelog_topic: changelog_topic(),
        };
        let history = Input::History {
            changelog_topic: changelog_topic(),
        };
        let all = [own, history, Input::Queue, Input::Foreign];
        let holes: Vec<bool> = all.iter().map(Input::has_holes).collect();
        assert_eq!(holes, [true, false, true, false]);
        let state: Vec<bool> =
            (all.iter().map(|input| input.changelog_topic().is_some())).collect();
        assert_eq!(state, [true, true, false, false]);
        let home: Vec<bool> = all.iter().map(Input::has_home).collect();
        assert_eq!(home, [true, false, false, false]);
    }
}
