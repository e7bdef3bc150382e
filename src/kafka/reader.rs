//! Reads logs that others write: a group's committed offsets, the ends of a partition, and a changelog into a local copy.
//!
//! A changelog is copied in this order, or the last committed transaction of its writer can be missed:
//!
//! 1. its end, **read-uncommitted**: an offset may be visible before the commit marker of its changelog records is
//!    (KAFKA-10167), so the last stable offset is no bound;
//! 2. wait until the last stable offset has reached that end;
//! 3. replay what is committed, from the local copy's position to the end.

use std::{
    ops::{ControlFlow, Range},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    StateBytes,
    error::is_passing,
    rebalance::LogContext,
    settings::{self, Isolation},
    store::{LogIdentity, Store, StoreError},
};
use crate::{
    config::Kafka,
    faults::{self, Fault},
};

/// Records applied to the local store in one batch.
const BATCH: usize = 1_000;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
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
    #[error("ask Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it was cancelled")]
    Cancelled,
}

/// What becomes of a changelog value in the local copy; see [`Stage::fold`](super::Stage::fold).
pub type Fold<'a> = &'a dyn Fn(Option<&[u8]>) -> Result<Option<StateBytes>, String>;

/// A changelog partition, and the local copy of it.
pub struct Copying<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub log: &'a LogIdentity,
    pub store: &'a Store,
    pub fold: Fold<'a>,
}

/// The records of a partition that were written before a time.
pub struct Older<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// Offset of the first record to read; one that the log has lost is no matter.
    pub from: i64,
    /// Milliseconds since the Unix epoch, by the records' timestamps.
    pub before_ms: i64,
}

/// Two consumers that assign themselves: one sees what is committed, the other the real ends of logs.
pub struct LogReader {
    committed: BaseConsumer<LogContext>,
    uncommitted: BaseConsumer<LogContext>,
    timeout: Duration,
    patience: Duration,
}

impl LogReader {
    /// `group` is the one whose offsets can be asked for; it is never joined.
    pub fn open(kafka: &Kafka, group: &str) -> KafkaResult<Self> {
        let reader = |isolation| {
            let mut settings = settings::reader(kafka, group, isolation);
            // What ends a partition with markers is an empty answer, and whoever asks waits for it.
            settings.set("fetch.wait.max.ms", "10");
            settings::create(&settings, LogContext)
        };
        Ok(Self {
            committed: reader(Isolation::ReadCommitted)?,
            uncommitted: reader(Isolation::ReadUncommitted)?,
            timeout: settings::call_timeout(kafka),
            // An open transaction of a crashed writer: its timeout, and the broker's look for such.
            patience: Duration::from_secs(kafka.transaction_timeout_secs.into())
                + Duration::from_secs(30),
        })
    }

    pub fn consumer(&self) -> &BaseConsumer<LogContext> {
        &self.committed
    }

    /// The group's committed offset and its metadata, by partition of `partitions`; `None` where it never committed one. The call
    /// waits while a transaction could still change an answer.
    pub fn committed_offsets(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Option<(i64, String)>>, ReadError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition);
        }
        let deadline = Instant::now() + self.patience;
        loop {
            match self.committed.committed_offsets(list.clone(), self.timeout) {
                Ok(offsets) => {
                    let answer =
                        |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                            element.error()?;
                            Ok(match element.offset() {
                                Offset::Offset(offset) => {
                                    Some((offset, element.metadata().to_owned()))
                                }
                                _ => None,
                            })
                        };
                    return offsets.elements().iter().map(answer).collect();
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) if cancel.is_cancelled() => return Err(ReadError::Cancelled),
                Err(error) => warn!(topic, %error, "waiting for stable committed offsets"),
            }
        }
    }

    /// The first offset of a partition and the one behind its last, read-uncommitted.
    pub fn ends(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        self.uncommitted
            .fetch_watermarks(topic, partition, self.timeout)
    }

    /// Brings the local copy up to what is committed now; the number of records replayed.
    pub fn copy(
        &self,
        copying: &Copying<'_>,
        cancel: &CancellationToken,
    ) -> Result<usize, ReadError> {
        let &Copying {
            topic,
            partition,
            log,
            store,
            ..
        } = copying;
        let (log_start, end) = match faults::planted(Fault::RestoreToStableOffset) {
            true => self
                .committed
                .fetch_watermarks(topic, partition, self.timeout)?,
            false => self.ends(topic, partition)?,
        };
        self.wait_until_stable(topic, partition, end, cancel)?;
        let from = store.resume(partition, log, log_start, end, now_ms())?;
        if from == end {
            // Nothing to read; but the copy is as new as now.
            store.apply(partition, log, [], end, now_ms())?;
            return Ok(0);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        self.committed.assign(&list)?;
        let replayed = self.replay(copying, from, end, cancel);
        self.committed.unassign()?;
        replayed
    }

    fn wait_until_stable(
        &self,
        topic: &str,
        partition: i32,
        end: i64,
        cancel: &CancellationToken,
    ) -> Result<(), ReadError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let (_, stable) = self
                .committed
                .fetch_watermarks(topic, partition, self.timeout)?;
            if stable >= end {
                return Ok(());
            }
            if cancel.is_cancelled() {
                return Err(ReadError::Cancelled);
            }
            if Instant::now() > deadline {
                return Err(ReadError::Hanging {
                    topic: topic.to_owned(),
                    stable,
                    end,
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads committed records up to `end`.
    fn replay(
        &self,
        copying: &Copying<'_>,
        from: i64,
        end: i64,
        cancel: &CancellationToken,
    ) -> Result<usize, ReadError> {
        let mut batch: Vec<(Vec<u8>, Option<StateBytes>)> = Vec::new();
        let (mut next, mut count) = (from, 0);
        self.read::<ReadError>(copying.topic, copying.partition, cancel, |record| {
            let offset = record.offset();
            if offset >= end {
                return Ok(ControlFlow::Break(()));
            }
            let state =
                (copying.fold)(record.payload()).map_err(|reason| ReadError::Unreadable {
                    topic: copying.topic.to_owned(),
                    offset,
                    reason,
                })?;
            batch.push((record.key().unwrap_or_default().to_vec(), state));
            next = offset + 1;
            count += 1;
            if batch.len() >= BATCH {
                apply(copying, &mut batch, next)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        apply(copying, &mut batch, next.max(end))?;
        Ok(count)
    }

    /// Reads committed records from an offset on, as long as they were written before a time, until it has had enough: the
    /// offset to go on from, or `None` behind the last of them. What a clock that is ahead wrote hides what follows, until
    /// it is as old itself.
    pub fn read_older(
        &self,
        older: &Older<'_>,
        cancel: &CancellationToken,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<Option<i64>, ReadError> {
        let &Older {
            topic, partition, ..
        } = older;
        let (log_start, _) = self.ends(topic, partition)?;
        let mut list = TopicPartitionList::new();
        let from = Offset::Offset(older.from.max(log_start));
        list.add_partition_offset(topic, partition, from)?;
        self.committed.assign(&list)?;
        let mut next = None;
        let read = self.read(topic, partition, cancel, |record| {
            let written = record.timestamp().to_millis();
            if written.is_some_and(|written| written >= older.before_ms) {
                return Ok(ControlFlow::Break(()));
            }
            let flow = each(record)?;
            next = flow.is_break().then_some(record.offset() + 1);
            Ok(flow)
        });
        self.committed.unassign()?;
        read.map(|()| next)
    }

    /// Hands over what is committed of a partition, from an offset, or the log's first, to what is its end now; the log.
    pub fn each<E: From<ReadError>>(
        &self,
        topic: &str,
        partition: i32,
        from: Option<i64>,
        cancel: &CancellationToken,
        mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    ) -> Result<Range<i64>, E> {
        let kafka = |error: KafkaError| E::from(error.into());
        let (start, end) = self.ends(topic, partition).map_err(kafka)?;
        self.wait_until_stable(topic, partition, end, cancel)?;
        let from = from.unwrap_or(start).max(start);
        if from < end {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(from))
                .map_err(kafka)?;
            self.committed.assign(&list).map_err(kafka)?;
            let read = self.read(topic, partition, cancel, |record| {
                if record.offset() >= end {
                    return Ok(ControlFlow::Break(()));
                }
                take(record).map(ControlFlow::Continue)
            });
            self.committed.unassign().map_err(kafka)?;
            read?;
        }
        Ok(start..end)
    }

    /// Reads committed records of the partition that is assigned, until it has had enough or the end-of-partition event
    /// comes: record offsets alone would not tell, because markers and compaction leave gaps at the end.
    fn read<E: From<ReadError>>(
        &self,
        topic: &str,
        partition: i32,
        cancel: &CancellationToken,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut progress_at = Instant::now();
        loop {
            if cancel.is_cancelled() {
                return Err(ReadError::Cancelled.into());
            }
            match self.committed.poll(Duration::from_millis(500)) {
                None => {}
                Some(Ok(record)) => {
                    if each(&record)?.is_break() {
                        return Ok(());
                    }
                    progress_at = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {
                    warn!(topic, partition, %error, "reading");
                }
                // librdkafka goes on behind a batch that it can't read; a state without it would be another state.
                Some(Err(source)) => {
                    return Err(ReadError::Damaged {
                        topic: topic.to_owned(),
                        source,
                    }
                    .into());
                }
            }
            if progress_at.elapsed() > 3 * self.timeout {
                return Err(ReadError::TimedOut {
                    topic: topic.to_owned(),
                }
                .into());
            }
        }
    }
}

fn apply(
    copying: &Copying<'_>,
    batch: &mut Vec<(Vec<u8>, Option<StateBytes>)>,
    next_offset: i64,
) -> Result<(), StoreError> {
    let changes = batch
        .iter_mut()
        .map(|(key, value)| (key.as_slice(), value.take()));
    copying.store.apply(
        copying.partition,
        copying.log,
        changes,
        next_offset,
        now_ms(),
    )?;
    copying.store.catch_up();
    batch.clear();
    Ok(())
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
