//! A message to events: what every source does with what it receives, before it acknowledges it.
//!
//! Promises: when this returns, Kafka has acknowledged an event for each created record, and a copy on
//! `rejected-notifications` of each record that cannot be read. An error promises nothing: part of the message may be in
//! Kafka, and a repetition is a duplicate for convert.

use std::collections::HashMap;

use futures::future::join_all;
use tracing::{info, warn};
use uuid::Uuid;

use super::notification::{Entry, Message, Notification, ParseError};
use super::publish::{PublishError, Publisher};
use crate::failure::chain;
use crate::object::ObjectRef;
use crate::telemetry::trace::TraceContext;

/// Where messages come from, and where they go.
#[derive(Clone)]
pub struct Source {
    /// As copies on `rejected-notifications` name it.
    pub name: String,
    pub publisher: Publisher,
}

/// What became of a message.
pub enum Delivered {
    /// `event_ids` has one id for each created record, in the message's order.
    Accepted {
        message: Message,
        event_ids: Vec<Uuid>,
    },
    /// Nothing in it can be read, and a copy is kept; the reason.
    Rejected(String),
}

impl Source {
    /// Delivers what was read of a message, `body` as it came.
    pub async fn deliver(
        &self,
        read: Result<Message, ParseError>,
        body: &[u8],
        trace: &TraceContext,
    ) -> Result<Delivered, PublishError> {
        let message = match readable(read) {
            Ok(message) => message,
            Err(reason) => {
                self.reject(body, &reason).await?;
                return Ok(Delivered::Rejected(reason));
            }
        };
        let event_ids = publish_in_order(message.created(), |n| self.publish(n, trace)).await?;
        self.reject_invalid_records(&message).await?;
        self.count_ignored(&message);
        Ok(Delivered::Accepted { message, event_ids })
    }

    async fn publish(
        &self,
        notification: &Notification,
        trace: &TraceContext,
    ) -> Result<Uuid, PublishError> {
        let event_id = self.publisher.publish(notification, trace).await?;
        info!(
            bucket = notification.object.bucket(),
            key = notification.object.key(),
            etag = notification.etag.as_ref().map(|etag| etag.as_str()),
            %event_id,
            traceparent = trace.traceparent(),
            dialect = %notification.dialect,
            source = self.name,
            "notification accepted"
        );
        Ok(event_id)
    }

    fn count_ignored(&self, message: &Message) {
        for entry in &message.entries {
            if let Entry::Ignored { why, .. } = entry {
                self.publisher.ignored(message.dialect, *why);
            }
        }
    }

    /// Records that cannot be read beside others that can.
    async fn reject_invalid_records(&self, message: &Message) -> Result<(), PublishError> {
        let copies = message.entries.iter().filter_map(|entry| match entry {
            Entry::Invalid { reason, record } => Some(self.reject(record.as_bytes(), reason)),
            Entry::Created(_) | Entry::Ignored { .. } => None,
        });
        join_all(copies).await.into_iter().collect()
    }

    /// What is rejected is not sent again: so a copy that Kafka does not take is as bad as an event.
    async fn reject(&self, notification: &[u8], reason: &str) -> Result<(), PublishError> {
        warn!(source = self.name, reason, "notification rejected");
        self.publisher
            .reject(&self.name, notification, reason)
            .await
    }
}

/// A message of which at least one record can be read, or the reason why there is none.
fn readable(read: Result<Message, ParseError>) -> Result<Message, String> {
    let message = read.map_err(|error| chain(&error))?;
    match first_reason_if_all_invalid(&message.entries) {
        None => Ok(message),
        Some(reason) if message.entries.len() == 1 => Err(reason.to_owned()),
        Some(reason) => Err(format!(
            "none of {} records can be read, the first: {reason}",
            message.entries.len()
        )),
    }
}

fn first_reason_if_all_invalid(entries: &[Entry]) -> Option<&str> {
    let mut reasons = entries.iter().map(|entry| match entry {
        Entry::Invalid { reason, .. } => Some(reason.as_str()),
        Entry::Created(_) | Entry::Ignored { .. } => None,
    });
    let first = reasons.next()??;
    reasons.all(|reason| reason.is_some()).then_some(first)
}

/// Publishes all at once, but one object's records one after the other. The ids are in the order of the notifications;
/// nothing is abandoned half-way when one fails, but what follows it for the same object is not sent.
async fn publish_in_order<'a, F, E>(
    notifications: impl Iterator<Item = &'a Notification>,
    publish: impl Fn(&'a Notification) -> F,
) -> Result<Vec<Uuid>, E>
where
    F: Future<Output = Result<Uuid, E>>,
{
    let mut by_object: HashMap<&ObjectRef, Vec<(usize, &Notification)>> = HashMap::new();
    for (position, notification) in notifications.enumerate() {
        by_object
            .entry(&notification.object)
            .or_default()
            .push((position, notification));
    }
    let publish = &publish;
    let lanes = by_object.into_values().map(|lane| async move {
        let mut event_ids = Vec::with_capacity(lane.len());
        for (position, notification) in lane {
            event_ids.push((position, publish(notification).await?));
        }
        Ok(event_ids)
    });
    let mut event_ids = Vec::new();
    for lane in join_all(lanes).await {
        event_ids.extend(lane?);
    }
    event_ids.sort_unstable_by_key(|(position, _)| *position);
    Ok(event_ids.into_iter().map(|(_, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::notification;
    use super::*;

    fn read_message(body: &[u8]) -> Result<Message, String> {
        readable(notification::parse(body))
    }

    fn record(key: &str) -> String {
        format!(r#"{{"s3":{{"bucket":{{"name":"feeds"}},"object":{{"key":"{key}"}}}}}}"#)
    }

    fn message(records: &[String]) -> String {
        format!(r#"{{"Records":[{}]}}"#, records.join(","))
    }

    #[test]
    fn a_message_is_readable_when_one_of_its_records_is() {
        let readable = |records: &[&str]| {
            let records: Vec<String> = records.iter().map(|key| record(key)).collect();
            read_message(message(&records).as_bytes())
        };
        assert_eq!(readable(&["a%zz", "b"]).unwrap().entries.len(), 2);
        assert!(
            readable(&["a/"]).is_ok(),
            "an ignored record was understood"
        );
        assert!(readable(&["a%zz"]).unwrap_err().starts_with("the key"));
        assert!(
            readable(&["a%zz", "b%"])
                .unwrap_err()
                .starts_with("none of 2 records can be read, the first: the key")
        );
        let not_json = read_message(b"<xml/>").unwrap_err();
        assert!(
            not_json.contains("<xml/>") && not_json.contains("line 1"),
            "{not_json}"
        );
    }

    /// Four notifications, two of them for one object.
    fn notifications() -> Message {
        let keys = ["same", "other", "same", "third"].map(record);
        read_message(message(&keys).as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn records_are_published_together_but_those_of_one_object_in_their_order() {
        let message = notifications();
        let sent = Mutex::new(Vec::new());
        let under_way = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let created: Vec<&Notification> = message.created().collect();
        let position = |n: &Notification| created.iter().position(|c| std::ptr::eq(*c, n)).unwrap();
        let ids = publish_in_order(created.iter().copied(), |n| {
            let (sent, under_way, most, position) = (&sent, &under_way, &most, position(n));
            async move {
                let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                for _ in position..5 {
                    tokio::task::yield_now().await;
                }
                under_way.fetch_sub(1, Ordering::SeqCst);
                sent.lock().unwrap().push(position);
                Ok::<_, io::Error>(Uuid::from_u128(position as u128))
            }
        })
        .await
        .unwrap();

        assert_eq!(
            ids,
            [0, 1, 2, 3].map(Uuid::from_u128),
            "ids in the message's order"
        );
        assert_eq!(most.into_inner(), 3, "one lane per object");
        let sent = sent.into_inner().unwrap();
        let of = |position| sent.iter().position(|p| *p == position);
        assert!(of(0) < of(2), "{sent:?}");
    }

    #[tokio::test]
    async fn when_one_record_fails_the_others_are_finished_and_its_successor_is_not_sent() {
        let message = notifications();
        let sent = Mutex::new(Vec::new());
        let result = publish_in_order(message.created(), |n| {
            let sent = &sent;
            async move {
                sent.lock().unwrap().push(n.object.key());
                match n.object.key() {
                    "same" => Err("not acknowledged"),
                    _ => Ok(Uuid::nil()),
                }
            }
        })
        .await;
        assert_eq!(result, Err("not acknowledged"));
        let mut sent = sent.into_inner().unwrap();
        sent.sort_unstable();
        assert_eq!(sent, ["other", "same", "third"]);
    }
}
