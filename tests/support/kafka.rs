//! Kafka as an outsider sees it: readers of either isolation level, a group's commits, a plain idempotent producer.
//! All of it blocks, each call with a timeout: from async code by `spawn_blocking`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::checker::Commit;

pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reader waits for the next record before it gives up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
pub enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

pub fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("socket.timeout.ms", "10000");
    config
}

/// A consumer that joins no group and commits nothing.
pub fn reader(brokers: &str, group: &str, isolation: Isolation) -> Result<BaseConsumer> {
    let isolation = match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    let consumer = client(brokers)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // The end of a quiet partition is reported when a fetch comes back empty.
        .set("fetch.wait.max.ms", "50")
        .set("auto.offset.reset", "error")
        .create()?;
    Ok(consumer)
}

pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let topic = metadata.topics().first().context("no metadata")?;
    ensure!(
        topic.error().is_none(),
        "{}: {:?}",
        topic.name(),
        topic.error()
    );
    Ok(i32::try_from(topic.partitions().len())?)
}

/// Reads each partition from where it is asked to up to its present end.
pub fn read_to_end(
    consumer: &BaseConsumer,
    topic: &str,
    starts: &[(i32, Offset)],
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    for (partition, start) in starts {
        assignment.add_partition_offset(topic, *partition, *start)?;
    }
    consumer.assign(&assignment)?;
    let mut open: BTreeSet<i32> = starts.iter().map(|(partition, _)| *partition).collect();
    let mut deadline = Instant::now() + STALL_TIMEOUT;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None if Instant::now() < deadline => continue,
            None => bail!("{topic}: no end of partitions {open:?} within {STALL_TIMEOUT:?}"),
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) if is_passing(&error) => continue,
            Some(Err(error)) => return Err(error).with_context(|| topic.to_owned()),
        }
        deadline = Instant::now() + STALL_TIMEOUT;
    }
    consumer.unassign()?;
    Ok(())
}

/// What librdkafka reports and then heals by itself.
pub fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut)
    )
}

/// What a group has committed; partitions without a commit are left out.
pub fn commits(brokers: &str, group: &str, topic: &str) -> Result<Vec<Commit>> {
    let consumer = reader(brokers, group, Isolation::ReadCommitted)?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions(&consumer, topic)? - 1);
    let answered = consumer.committed_offsets(asked, TIMEOUT)?;
    let mut commits = Vec::new();
    for element in answered.elements() {
        element.error()?;
        if let Offset::Offset(next_offset) = element.offset() {
            commits.push(Commit {
                partition: element.partition(),
                next_offset,
                metadata: element.metadata().to_owned(),
            });
        }
    }
    Ok(commits)
}

/// Records at or after the committed offsets; the ends of transactions do not count.
pub fn lag(brokers: &str, group: &str, topic: &str) -> Result<usize> {
    let commits = commits(brokers, group, topic)?;
    let consumer = reader(brokers, &observer(), Isolation::ReadCommitted)?;
    let start = |partition| {
        let commit = commits.iter().find(|commit| commit.partition == partition);
        commit.map_or(Offset::Beginning, |c| Offset::Offset(c.next_offset))
    };
    let starts: Vec<_> = (0..partitions(&consumer, topic)?)
        .map(|partition| (partition, start(partition)))
        .collect();
    let mut count = 0;
    read_to_end(&consumer, topic, &starts, |_| count += 1)?;
    Ok(count)
}

/// The names of all topics.
pub fn topics(brokers: &str) -> Result<Vec<String>> {
    let consumer = reader(brokers, &observer(), Isolation::ReadCommitted)?;
    let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
    let names = metadata.topics().iter();
    Ok(names.map(|topic| topic.name().to_owned()).collect())
}

/// A group id of nobody else.
pub fn observer() -> String {
    format!("observer-{}", uuid::Uuid::new_v4())
}
