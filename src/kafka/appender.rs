//! Records appended outside transactions, each answered once Kafka has it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    LogContext, OutRecord, Position, rebalance, served::ServedProducer, settings,
    transaction::headers,
};
use crate::config::Kafka;

/// Pause before a record is handed over again while the producer's queue is full.
const FULL: Duration = Duration::from_millis(10);

type Acknowledgement = KafkaResult<Position>;
type Producer = ServedProducer<Acknowledge>;

/// Hands each delivery report to whoever waits for it.
#[derive(Clone)]
struct Acknowledge;

impl ClientContext for Acknowledge {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        rebalance::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LogContext.error(error, reason);
    }
}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Acknowledgement>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let acknowledgement = match result {
            Ok(message) => Ok(Position {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever waited may be gone.
        let _ = waiting.send(acknowledgement);
    }
}

/// An idempotent producer, which replaces itself when it can't go on.
pub struct Appender {
    producer: RwLock<Arc<Producer>>,
    settings: ClientConfig,
    timeout: Duration,
}

impl Appender {
    pub fn new(kafka: &Kafka) -> KafkaResult<Self> {
        let settings = settings::idempotent_producer(kafka);
        Ok(Self {
            producer: RwLock::new(Arc::new(ServedProducer::create(&settings, Acknowledge)?)),
            settings,
            timeout: settings::call_timeout(kafka),
        })
    }

    /// How many partitions a topic has, 0 when it is not there; blocks for one request.
    pub fn partitions(&self, topic: &str) -> KafkaResult<i32> {
        let producer = self.producer();
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), self.timeout)?;
        let topics = metadata.topics();
        let partitions = topics.first().map_or(0, |topic| topic.partitions().len());
        Ok(i32::try_from(partitions).unwrap_or(0))
    }

    /// Appends a record; where it is, once Kafka has acknowledged it. A record without a partition goes to any.
    pub async fn append(&self, record: &OutRecord) -> KafkaResult<Position> {
        let producer = self.producer();
        let appended = match self.hand_over(&producer, record).await {
            // It comes: `message.timeout.ms` bounds it.
            Ok(acknowledgement) => acknowledgement.await.unwrap_or(Err(KafkaError::Canceled)),
            Err(refused) => Err(refused),
        };
        // After either: a producer that is beyond help refuses what it is handed.
        if producer.client().fatal_error().is_some() {
            self.replace(&producer);
        }
        appended
    }

    async fn hand_over(
        &self,
        producer: &Producer,
        record: &OutRecord,
    ) -> KafkaResult<oneshot::Receiver<Acknowledgement>> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let (waiting, acknowledgement) = oneshot::channel();
            let mut message = BaseRecord::with_opaque_to(&record.topic, Box::new(waiting));
            message.partition = record.partition;
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            message.headers = headers(record);
            match producer.send::<[u8], [u8]>(message) {
                Ok(()) => return Ok(acknowledgement),
                Err((error, _)) if is_full(&error) && Instant::now() < deadline => {}
                Err((error, _)) => return Err(error),
            }
            sleep(FULL).await;
        }
    }

    fn producer(&self) -> Arc<Producer> {
        let producer = self.producer.read();
        Arc::clone(&producer.unwrap_or_else(PoisonError::into_inner))
    }

    /// An idempotent producer can end up unable to go on (its sequence numbers and the broker's part ways); the next one
    /// begins anew. What was under way is answered as not acknowledged, and comes again.
    fn replace(&self, broken: &Arc<Producer>) {
        let mut producer = self
            .producer
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&producer, broken) {
            return;
        }
        match ServedProducer::create(&self.settings, Acknowledge) {
            Ok(fresh) => *producer = Arc::new(fresh),
            Err(error) => tracing::error!(%error, "the Kafka producer can't be replaced"),
        }
    }
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::ffi;

    #[tokio::test]
    async fn a_producer_that_is_beyond_help_is_replaced_by_the_next_append() {
        let kafka = Kafka {
            brokers: vec!["127.0.0.1:1".into()],
            ..Kafka::default()
        };
        let appender = Appender::new(&kafka).unwrap();
        let broken = appender.producer();
        ffi::break_for_good(broken.client());
        let record = OutRecord {
            topic: "t".into(),
            partition: Some(0),
            key: None,
            value: None,
            headers: Vec::new(),
        };
        assert!(appender.append(&record).await.is_err());
        assert!(!Arc::ptr_eq(&broken, &appender.producer()));
    }
}
