//! A Kafka topic to which an S3 server writes its notifications: each message is answered by the events it comes to, in
//! the transaction that commits its offset, so that none is lost and none is appended twice.
//!
//! A stage of the Kafka runtime, one for each topic. Reading a message is all the work there is. What others' retention
//! took away before it was read is not lost for good: the sweep finds the objects.

use std::{convert::Infallible, sync::Arc};

use tracing::info;

use super::{
    notification::{self, Entry, Message, Notification},
    publish::observed,
};
use crate::{
    config::Kafka,
    failure::chain,
    kafka::{
        Answering, Decoded, Finished, Input, OutRecord, Position, RawRecord, StageSettings,
        partitioner::partition_of,
    },
    telemetry::{metrics::IntakeMetrics, trace::TraceContext},
    topics::{Topics, encode},
    unreadable::Copies,
};

/// Copies the notifications of one topic into `events`.
pub struct NotificationTopic {
    name: String,
    events: Arc<str>,
    /// Partitions of `events`.
    partitions: i32,
    unreadable: Copies,
    metrics: IntakeMetrics,
}

/// The name of the stage that reads a topic, as it stands in its consumer group.
pub fn stage_name(topic: &str) -> String {
    format!("intake.{topic}")
}

impl NotificationTopic {
    pub fn new(name: &str, kafka: &Kafka, topics: &Topics, metrics: IntakeMetrics) -> Self {
        Self {
            name: name.to_owned(),
            events: topics.events.as_str().into(),
            // Every start checks that the topic has as many.
            partitions: kafka.partitions,
            unreadable: Copies::new(topics, format!("kafka:{name}")),
            metrics,
        }
    }

    /// What the Kafka runtime needs to know of this stage; each topic has a group of its own.
    pub fn settings(&self) -> StageSettings {
        StageSettings {
            name: stage_name(&self.name).into(),
            input_topic: self.name.clone(),
            input: Input::Foreign,
            // There is no work: messages are answered as they are read.
            max_in_flight: 1,
            max_in_flight_bytes: 1,
        }
    }

    fn copied(&self, message: Message, position: Position) -> Finished {
        let dialect = message.dialect;
        // One trace for all that one message tells of.
        let trace = TraceContext::from_header(None);
        let mut records = Vec::with_capacity(message.entries.len());
        for entry in &message.entries {
            match entry {
                Entry::Created(notification) => records.push(self.event(notification, &trace)),
                Entry::Ignored { why, .. } => self.metrics.ignored(dialect, *why),
                Entry::Invalid { reason, record } => {
                    records.push(
                        self.unreadable
                            .copy(position, &[], record.as_bytes(), reason),
                    );
                }
            }
        }
        Finished {
            records,
            ..Finished::default()
        }
    }

    fn event(&self, notification: &Notification, trace: &TraceContext) -> OutRecord {
        let mut event = observed(notification);
        event.trace_parent = Some(trace.traceparent().to_owned());
        let key = notification.object.message_key().into_bytes();
        info!(
            bucket = notification.object.bucket(),
            key = notification.object.key(),
            etag = notification.etag.as_ref().map(|etag| etag.as_str()),
            event_id = %event.id,
            traceparent = trace.traceparent(),
            dialect = %notification.dialect,
            topic = self.name,
            "notification accepted"
        );
        self.metrics.accepted(notification.dialect);
        OutRecord {
            topic: Arc::clone(&self.events),
            partition: Some(partition_of(&key, self.partitions)),
            key: Some(key),
            value: Some(encode(&event)),
            headers: vec![
                ("event-id", event.id.to_string()),
                ("traceparent", trace.traceparent().to_owned()),
            ],
        }
    }
}

impl Answering for NotificationTopic {
    fn answer(&self, record: &RawRecord) -> Decoded<Infallible> {
        let Some(value) = record.value.as_deref() else {
            return Decoded::Unreadable("it has no value".into());
        };
        match notification::parse_record(&record.key, value) {
            Ok(message) => Decoded::Answer(self.copied(message, record.position)),
            Err(error) => Decoded::Unreadable(chain(&error)),
        }
    }

    fn unreadable(&self, position: Position, value: Option<&[u8]>, reason: &str) -> Finished {
        self.unreadable.answer(position, &[], value, reason)
    }
}
