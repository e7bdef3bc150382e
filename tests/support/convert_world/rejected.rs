//! The topic of what nobody could read.

use std::time::{Duration, Instant};

use feedmill::topics::{RejectedNotification, decode};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::support::World;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Everything in `rejected-notifications`, in order.
pub async fn rejected(world: &World) -> Vec<RejectedNotification> {
    let brokers = world.origin.brokers.clone();
    let topic = format!("{}.rejected-notifications", world.origin.topic_prefix);
    let read = tokio::task::spawn_blocking(move || read(&brokers, &topic));
    read.await.expect("no panic").expect("the broker answers")
}

/// The topic has one partition.
fn read(brokers: &str, topic: &str) -> Result<Vec<RejectedNotification>, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "observer")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut all = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let value = message.payload().expect("a value");
                all.push(decode(value).expect("a rejected notification"));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(all),
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            None => {}
        }
    }
    panic!("no end of {topic} within {TIMEOUT:?}")
}
