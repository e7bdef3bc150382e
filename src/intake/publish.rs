//! Appends events to the events topic, and what nobody could read to `rejected-notifications`.
//!
//! Outside transactions: an event that is appended twice is one duplicate more, and that is harmless.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
    util::Timeout,
};
use uuid::Uuid;

use super::notification::{Dialect, IgnoreReason, Notification};
use crate::{
    config::Kafka,
    kafka::{LogContext, Position, partitioner::partition_of, settings},
    telemetry::{metrics::IntakeMetrics, trace::TraceContext},
    topics::{Millis, ObjectEvent, RejectedNotification, Topics, encode},
};

type Producer = FutureProducer<LogContext>;

/// Why an event could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("create a Kafka producer")]
    Client(#[source] KafkaError),
    #[error("ask Kafka for the topic {topic}")]
    Topic { topic: String, source: KafkaError },
    #[error("the topic {0} is not there")]
    NoTopic(String),
    #[error("append to {topic}")]
    Append { topic: String, source: KafkaError },
}

/// An idempotent producer for the topics that intake writes.
#[derive(Clone)]
pub struct Publisher {
    producer: Arc<RwLock<Producer>>,
    settings: ClientConfig,
    topics: Topics,
    partitions: i32,
    timeout: Duration,
    metrics: IntakeMetrics,
}

impl Publisher {
    /// Connects, and learns how many partitions the events topic has; blocks for one request.
    pub fn connect(
        kafka: &Kafka,
        topics: &Topics,
        metrics: IntakeMetrics,
    ) -> Result<Self, PublishError> {
        let settings = settings::idempotent_producer(kafka);
        let producer: Producer =
            settings::create(&settings, LogContext).map_err(PublishError::Client)?;
        let timeout = settings::call_timeout(kafka);
        let topic = || topics.events.clone();
        let metadata = producer
            .client()
            .fetch_metadata(Some(&topics.events), timeout)
            .map_err(|source| PublishError::Topic {
                topic: topic(),
                source,
            })?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let partitions = i32::try_from(partitions).ok().filter(|count| *count > 0);
        Ok(Self {
            partitions: partitions.ok_or_else(|| PublishError::NoTopic(topic()))?,
            producer: Arc::new(RwLock::new(producer)),
            settings,
            topics: topics.clone(),
            timeout,
            metrics,
        })
    }

    /// Appends what a notification tells of; the id it got, once Kafka has acknowledged it.
    pub async fn publish(
        &self,
        notification: &Notification,
        trace: &TraceContext,
    ) -> Result<Uuid, PublishError> {
        let event = ObjectEvent {
            trace_parent: Some(trace.traceparent().to_owned()),
            ..observed(notification)
        };
        self.append(&event).await?;
        self.metrics.accepted(notification.dialect);
        Ok(event.id.0)
    }

    /// Appends an event; where it is, once Kafka has acknowledged it.
    pub async fn append(&self, event: &ObjectEvent) -> Result<Position, PublishError> {
        let key = format!("{}/{}", event.bucket, event.key);
        let id = event.id.to_string();
        let mut headers = OwnedHeaders::new().insert(Header {
            key: "event-id",
            value: Some(&id),
        });
        if let Some(trace_parent) = &event.trace_parent {
            headers = headers.insert(Header {
                key: "traceparent",
                value: Some(trace_parent),
            });
        }
        let payload = encode(event);
        let record = FutureRecord::to(&self.topics.events)
            .partition(partition_of(key.as_bytes(), self.partitions))
            .key(&key)
            .payload(&payload)
            .headers(headers);
        self.send(&self.topics.events, record).await
    }

    pub fn metrics(&self) -> &IntakeMetrics {
        &self.metrics
    }

    /// Counts what asks for nothing.
    pub fn ignored(&self, dialect: Dialect, why: IgnoreReason) {
        self.metrics.ignored(dialect, why);
    }

    /// Keeps a copy of what could not be read, cut to a cap.
    pub async fn reject(
        &self,
        source: &str,
        body: &[u8],
        reason: &str,
    ) -> Result<(), PublishError> {
        let payload = encode(&RejectedNotification::new(source, reason, body));
        let record =
            FutureRecord::<(), _>::to(&self.topics.rejected_notifications).payload(&payload);
        self.send(&self.topics.rejected_notifications, record)
            .await
            .map(drop)
    }

    async fn send<K>(
        &self,
        topic: &str,
        record: FutureRecord<'_, K, Vec<u8>>,
    ) -> Result<Position, PublishError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
    {
        let producer = self.producer();
        let sent = producer.send(record, Timeout::After(self.timeout)).await;
        if producer.client().fatal_error().is_some() {
            self.replace_producer();
        }
        match sent {
            Ok(delivery) => Ok(Position {
                partition: delivery.partition,
                offset: delivery.offset,
            }),
            Err((source, _)) => Err(PublishError::Append {
                topic: topic.to_owned(),
                source,
            }),
        }
    }

    fn producer(&self) -> Producer {
        self.producer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// An idempotent producer can end up unable to go on (its sequence numbers and the broker's part ways); the next one
    /// begins anew. What was under way is answered as not acknowledged, and comes again.
    fn replace_producer(&self) {
        match settings::create(&self.settings, LogContext) {
            Ok(fresh) => {
                *self
                    .producer
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = fresh
            }
            Err(error) => tracing::error!(%error, "the Kafka producer can't be replaced"),
        }
    }
}

/// The event of a notification that has just come.
pub(super) fn observed(notification: &Notification) -> ObjectEvent {
    ObjectEvent {
        etag: notification.etag.clone(),
        version_id: notification.version_id.clone(),
        size: notification.size.and_then(|size| i64::try_from(size).ok()),
        sequencer: notification.sequencer.clone(),
        event_time: notification.event_time.map(Millis::from),
        source_id: notification.source_id.clone(),
        ..ObjectEvent::observed(&notification.object, notification.dialect.as_str())
    }
}
