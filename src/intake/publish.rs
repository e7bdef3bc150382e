//! Appends events to the events topic, and what nobody could read to `rejected-notifications`.
//!
//! Outside transactions: an event that is appended twice is one duplicate more, and that is harmless.

use std::sync::Arc;

use rdkafka::error::KafkaError;
use uuid::Uuid;

use super::notification::{Dialect, IgnoreReason, Notification};
use crate::{
    config::Kafka,
    kafka::{Appender, OutRecord, Position, partitioner::partition_of},
    telemetry::{metrics::IntakeMetrics, trace::TraceContext},
    topics::{Millis, ObjectEvent, RejectedNotification, Topics, encode},
};

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

/// Writes the topics of intake.
#[derive(Clone)]
pub struct Publisher {
    appender: Arc<Appender>,
    topics: Topics,
    partitions: i32,
    metrics: IntakeMetrics,
}

impl Publisher {
    /// Connects, and learns how many partitions the events topic has; blocks for one request.
    pub fn connect(
        kafka: &Kafka,
        topics: &Topics,
        metrics: IntakeMetrics,
    ) -> Result<Self, PublishError> {
        let appender = Appender::new(kafka).map_err(PublishError::Client)?;
        let topic = || topics.events.clone();
        let partitions = appender.partitions(&topics.events);
        let partitions = partitions.map_err(|source| PublishError::Topic {
            topic: topic(),
            source,
        })?;
        if partitions == 0 {
            return Err(PublishError::NoTopic(topic()));
        }
        Ok(Self {
            appender: Arc::new(appender),
            topics: topics.clone(),
            partitions,
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
        let key = format!("{}/{}", event.bucket, event.key).into_bytes();
        let mut headers = vec![("event-id", event.id.to_string())];
        if let Some(trace_parent) = &event.trace_parent {
            headers.push(("traceparent", trace_parent.clone()));
        }
        let partition = partition_of(&key, self.partitions);
        self.send(OutRecord {
            topic: self.topics.events.as_str().into(),
            partition: Some(partition),
            key: Some(key),
            value: Some(encode(event)),
            headers,
        })
        .await
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
        let rejected = RejectedNotification::new(source, reason, body);
        self.send(OutRecord {
            topic: self.topics.rejected_notifications.as_str().into(),
            partition: None,
            key: None,
            value: Some(encode(&rejected)),
            headers: Vec::new(),
        })
        .await
        .map(drop)
    }

    async fn send(&self, record: OutRecord) -> Result<Position, PublishError> {
        let sent = self.appender.append(&record).await;
        sent.map_err(|source| PublishError::Append {
            topic: record.topic.to_string(),
            source,
        })
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
