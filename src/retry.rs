//! The retry stage: what waits in a retry topic comes back to `events` when its time has come.
//!
//! A stage of the Kafka runtime, one for each retry topic. The events of a topic wait equally long, so the first of a
//! partition is the first that is due, and everything behind it waits with it. An event comes back in the transaction that
//! commits its offset: it is never lost and never comes back twice. While it waits, the consumer goes on being polled.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tracing::info;

use crate::{
    config::pause,
    kafka::{
        Answering, Decoded, Finished, Input, OnCommit, OutRecord, Position, RawRecord,
        StageSettings,
    },
    telemetry::metrics::RetryMetrics,
    topics::{DecodeError, Millis, ObjectEvent, Topics, decode},
    unreadable::Copies,
};

/// Returns the events of one retry topic.
pub struct Retry {
    topic: String,
    tier: String,
    /// How long the events of this topic wait, as its name says.
    longest: Option<Duration>,
    events: Arc<str>,
    unreadable: Copies,
    metrics: RetryMetrics,
}

/// The name of the stage that reads a tier's topic, as it stands in its consumer group.
pub fn stage_name(tier: &str) -> String {
    format!("retry.{tier}")
}

impl Retry {
    pub fn new(topic: &str, tier: &str, topics: &Topics, metrics: RetryMetrics) -> Self {
        Self {
            topic: topic.to_owned(),
            tier: tier.to_owned(),
            longest: pause::length(tier),
            events: topics.events.as_str().into(),
            unreadable: Copies::new(topics, format!("retries.{tier}")),
            metrics,
        }
    }

    /// What the Kafka runtime needs to know of this stage; each topic has a group of its own.
    pub fn settings(&self) -> StageSettings {
        StageSettings {
            name: stage_name(&self.tier).into(),
            input_topic: self.topic.clone(),
            input: Input::Queue,
            // There is no work: events are answered as they are read.
            max_in_flight: 1,
            max_in_flight_bytes: 1,
        }
    }

    /// The event as it was written, for the partition of its number in `events`.
    fn returned(&self, event: &ObjectEvent, record: &RawRecord) -> Finished {
        info!(
            bucket = event.bucket,
            key = event.key,
            event_id = %event.id,
            traceparent = event.trace_parent,
            attempt = event.attempt,
            tier = self.tier,
            "event returned from its wait"
        );
        let (metrics, tier) = (self.metrics.clone(), self.tier.clone());
        let mut headers = vec![("event-id", event.id.to_string())];
        let trace = event.trace_parent.clone();
        headers.extend(trace.map(|trace| ("traceparent", trace)));
        Finished {
            records: vec![OutRecord {
                topic: Arc::clone(&self.events),
                partition: None,
                key: Some(record.key.clone()),
                value: record.value.clone(),
                headers,
            }],
            on_commit: OnCommit::new(move || metrics.returned(&tier)),
        }
    }
}

/// How long an event still has to wait: until its time, and never longer than its tier after the broker has taken it, so that a
/// worker whose clock is ahead does not hold up what others sent to wait behind it.
fn wait(
    event: &ObjectEvent,
    appended_at: Option<i64>,
    longest: Option<Duration>,
    now: Millis,
) -> Option<Duration> {
    let longest = longest.and_then(|longest| i64::try_from(longest.as_millis()).ok());
    let last = appended_at
        .zip(longest)
        .map_or(i64::MAX, |(at, longest)| at.saturating_add(longest));
    let due = Millis(event.not_before?.0.min(last));
    u64::try_from(due.0.saturating_sub(now.0))
        .ok()
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis)
}

impl Answering for Retry {
    fn answer(&self, record: &RawRecord) -> Decoded<Infallible> {
        let event: ObjectEvent = match record.value.as_deref().map(decode) {
            None => return Decoded::Unreadable("it has no value".into()),
            Some(Err(error @ DecodeError::UnknownSchema { .. })) => {
                return Decoded::Wait(format!(
                    "the event at offset {} of {} was written by a newer feedmill ({error}); upgrade the workers that run the retry stage first",
                    record.position.offset, self.topic
                ));
            }
            Some(Err(error)) => return Decoded::Unreadable(error.to_string()),
            Some(Ok(event)) => event,
        };
        match wait(&event, record.timestamp, self.longest, Millis::now()) {
            Some(wait) => Decoded::Later(wait),
            None => Decoded::Answer(self.returned(&event, record)),
        }
    }

    fn unreadable(&self, position: Position, value: Option<&[u8]>, reason: &str) -> Finished {
        self.unreadable.answer(position, &[], value, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Tier,
        object::ObjectRef,
        telemetry::metrics::Metrics,
        topics::{RejectedNotification, encode},
    };

    fn stage() -> Retry {
        let topics = Topics::with_prefix("t");
        let topic = topics.retry(&Tier(Duration::from_secs(60)));
        let tier = topics.tier_of(&topic).unwrap();
        Retry::new(&topic, tier, &topics, Metrics::new().retry)
    }

    fn record(value: Option<Vec<u8>>) -> RawRecord {
        RawRecord {
            position: Position {
                partition: 3,
                offset: 9,
            },
            timestamp: Some(Millis::now().0),
            key: b"b/k".to_vec(),
            value,
        }
    }

    fn due_in(millis: i64) -> RawRecord {
        let event = ObjectEvent {
            not_before: Some(Millis(Millis::now().0 + millis)),
            attempt: 1,
            ..ObjectEvent::observed(&ObjectRef::try_new("b", "k").unwrap(), "test")
        };
        record(Some(encode(&event)))
    }

    #[test]
    fn an_event_whose_time_has_come_goes_back_as_it_was_written_to_the_number_of_its_partition() {
        for record in [due_in(-1), due_in(0)] {
            let Decoded::Answer(finished) = stage().answer(&record) else {
                panic!("it was not returned");
            };
            let [back] = &finished.records[..] else {
                panic!("{finished:?}");
            };
            assert_eq!((&*back.topic, back.partition), ("t.events", None));
            assert_eq!((&back.key, &back.value), (&Some(record.key), &record.value));
        }
    }

    #[test]
    fn an_event_waits_until_its_time_and_no_longer() {
        let Decoded::Later(wait) = stage().answer(&due_in(60_000)) else {
            panic!("it did not wait");
        };
        assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(60));
    }

    #[test]
    fn an_event_from_a_clock_that_is_ahead_waits_no_longer_than_its_tier() {
        let Decoded::Later(wait) = stage().answer(&due_in(3_600_000)) else {
            panic!("it did not wait");
        };
        assert!(wait <= Duration::from_secs(60), "{wait:?}");
        let old = RawRecord {
            timestamp: Some(Millis::now().0 - 60_000),
            ..due_in(3_600_000)
        };
        assert!(matches!(stage().answer(&old), Decoded::Answer(_)));
    }

    #[test]
    fn what_can_not_be_read_is_copied_for_people() {
        assert!(matches!(
            stage().answer(&record(Some(b"no avro".to_vec()))),
            Decoded::Unreadable(_)
        ));
        let finished = stage().unreadable(record(None).position, Some(b"no avro"), "why");
        let copy = &finished.records[0];
        assert_eq!(&*copy.topic, "t.rejected-notifications");
        let copy: RejectedNotification = decode(copy.value.as_deref().unwrap()).unwrap();
        assert_eq!((copy.partition, copy.offset), (Some(3), Some(9)));
    }
}
