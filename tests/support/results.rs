//! The results so far: a thread follows the topic, as a reader of committed records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use feedmill::topics::{self, Id, ResultRecord};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::kafka::{self, Isolation};

#[derive(Default)]
struct Shared {
    results: Mutex<Vec<ResultRecord>>,
    stopped: AtomicBool,
}

pub struct Results {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Results {
    pub fn follow(brokers: &str, topic: &str) -> Result<Self> {
        let consumer = kafka::reader(brokers, &kafka::observer(), Isolation::ReadCommitted)?;
        let mut all = TopicPartitionList::new();
        all.add_partition_range(topic, 0, kafka::partitions(&consumer, topic)? - 1);
        all.set_all_offsets(Offset::Beginning)?;
        consumer.assign(&all)?;
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || collect(&consumer, &shared)
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// All so far, in the order in which they were read.
    pub fn all(&self) -> Vec<ResultRecord> {
        self.lock().clone()
    }

    pub fn of(&self, event_id: Id) -> Option<ResultRecord> {
        let results = self.lock();
        results.iter().find(|r| r.event_id == event_id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ResultRecord>> {
        lock(&self.shared)
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Vec<ResultRecord>> {
    let results = shared.results.lock();
    results.unwrap_or_else(PoisonError::into_inner)
}

fn collect(consumer: &BaseConsumer, shared: &Shared) {
    while !shared.stopped.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => match topics::decode(message.payload().unwrap_or_default()) {
                Ok(result) => lock(shared).push(result),
                Err(error) => eprintln!("a result that cannot be read: {error}"),
            },
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => eprintln!("reading results: {error}"),
        }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
