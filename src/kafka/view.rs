//! A read-committed copy of a whole compacted topic, on disk, made by the code that restores state.
//!
//! For whoever looks at what others settled: the sweep, the clean-up, and commands. Everything here blocks.

use std::{ops::ControlFlow, path::Path};

use rdkafka::{Message, consumer::Consumer, error::KafkaError, types::RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use super::{
    StateBytes, ffi,
    partitioner::partition_of,
    reader::{Copying, LogReader, Older, ReadError},
    settings,
    store::{LogIdentity, Store, StoreError},
};
use crate::config::Kafka;

/// What becomes of a value in the copy; `None` forgets the key.
pub type FoldFn = fn(Option<&[u8]>) -> Result<Option<StateBytes>, String>;

/// The copy of one topic.
pub struct View {
    reader: LogReader,
    topic: String,
    partitions: i32,
    log: LogIdentity,
    store: Store,
    fold: FoldFn,
}

impl View {
    /// Opens the copy in `folder`, which must be nobody else's; it is as old as it was left. `group` is the one whose
    /// offsets can be asked for.
    pub fn open(
        kafka: &Kafka,
        group: &str,
        topic: &str,
        folder: &Path,
        fold: FoldFn,
    ) -> Result<Self, ReadError> {
        let reader = LogReader::open(kafka, group)?;
        let (partitions, log) = identify(kafka, &reader, topic)?;
        Ok(Self {
            reader,
            topic: topic.to_owned(),
            partitions,
            log,
            store: Store::open(folder)?,
            fold,
        })
    }

    /// Brings every partition up to what is committed now; the number of records read.
    pub fn catch_up(&self, cancel: &CancellationToken) -> Result<usize, ReadError> {
        self.catch_up_telling(cancel, |_| ())
    }

    /// The same, and tells of each record the partition that it is in.
    pub fn catch_up_telling(
        &self,
        cancel: &CancellationToken,
        tell: impl Fn(i32),
    ) -> Result<usize, ReadError> {
        let mut records = 0;
        for partition in 0..self.partitions {
            records += self.copy(partition, cancel, &tell)?;
        }
        Ok(records)
    }

    /// Brings one partition up to what is committed now; the number of records read.
    pub fn catch_up_partition(
        &self,
        partition: i32,
        cancel: &CancellationToken,
    ) -> Result<usize, ReadError> {
        self.copy(partition, cancel, &|_| ())
    }

    fn copy(
        &self,
        partition: i32,
        cancel: &CancellationToken,
        tell: &impl Fn(i32),
    ) -> Result<usize, ReadError> {
        let fold = |value: Option<&[u8]>| {
            tell(partition);
            (self.fold)(value)
        };
        let copying = Copying {
            topic: &self.topic,
            partition,
            log: &self.log,
            store: &self.store,
            fold: &fold,
        };
        self.reader.copy(&copying, cancel)
    }

    /// What is known of a message key.
    pub fn get(&self, key: &[u8]) -> Result<Option<StateBytes>, StoreError> {
        self.store.get(partition_of(key, self.partitions), key)
    }

    /// Reads records of the topic itself, from an offset on and written before a time, until it has had enough: each with its
    /// key and value, also what the copy knows to be replaced. The offset to go on from, `None` at the end.
    pub fn read_older(
        &self,
        partition: i32,
        from: i64,
        before_ms: i64,
        cancel: &CancellationToken,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<ControlFlow<()>, String>,
    ) -> Result<Option<i64>, ReadError> {
        let older = Older {
            topic: &self.topic,
            partition,
            from,
            before_ms,
        };
        self.reader.read_older(&older, cancel, |record| {
            let key = record.key().unwrap_or_default();
            each(key, record.payload()).map_err(|reason| ReadError::Unreadable {
                topic: self.topic.clone(),
                offset: record.offset(),
                reason,
            })
        })
    }

    /// All that is known, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = Result<StateBytes, StoreError>> + '_ {
        (0..self.partitions).flat_map(|partition| {
            let (values, failed) = match self.store.values(partition) {
                Ok(values) => (Some(values), None),
                Err(error) => (None, Some(Err(error))),
            };
            failed.into_iter().chain(values.into_iter().flatten())
        })
    }

    /// Which log another topic is: positions in one mean nothing in another of the same name.
    pub fn log_of(&self, kafka: &Kafka, topic: &str) -> Result<LogIdentity, ReadError> {
        identify(kafka, &self.reader, topic).map(|(_, log)| log)
    }

    /// Partitions of the topic, and of those that are partitioned alike.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// How many records of `topic`, which has as many partitions as this one, the group has still to come to, by
    /// partition; of a log that was cut before it came, what is left of it.
    pub fn behind(&self, topic: &str, cancel: &CancellationToken) -> Result<Vec<i64>, ReadError> {
        let committed = self.committed_offsets(topic, cancel)?;
        let behind = (0..).zip(committed).map(|(partition, committed)| {
            let (low, high) = self.reader.ends(topic, partition)?;
            Ok(high - committed.max(low))
        });
        behind.collect()
    }

    /// The group's committed offset in each partition of `topic`, which has as many as this one; 0 where there is none.
    /// What lies below was finished, and its states are committed: [`View::catch_up`] sees them when it is called next.
    pub fn committed_offsets(
        &self,
        topic: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<i64>, ReadError> {
        let offsets = self
            .reader
            .committed_offsets(topic, 0..self.partitions, cancel)?;
        Ok(offsets
            .into_iter()
            .map(|committed| committed.map_or(0, |(offset, _)| offset))
            .collect())
    }
}

/// The number of partitions, and which log this is.
fn identify(
    kafka: &Kafka,
    reader: &LogReader,
    topic: &str,
) -> Result<(i32, LogIdentity), ReadError> {
    let timeout = settings::call_timeout(kafka);
    let consumer = reader.consumer();
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let partitions = i32::try_from(count)
        .ok()
        .filter(|count| *count > 0)
        .ok_or(unknown)?;
    let topic_id = ffi::topic_ids(consumer.client(), &[topic], timeout)?.concat();
    let cluster_id =
        consumer
            .client()
            .fetch_cluster_id(timeout)
            .ok_or_else(|| ReadError::TimedOut {
                topic: topic.to_owned(),
            })?;
    Ok((
        partitions,
        LogIdentity {
            cluster_id,
            topic_id,
        },
    ))
}
