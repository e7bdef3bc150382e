//! `PUT|POST /api/v1/s3/event`: notifications by HTTP, one message a request.
//!
//! In: a message in any dialect that [`notification`] reads. Out: an event in Kafka for every object it says was
//! created, and an answer with one status per record.
//!
//! Promises: 202 is sent only after Kafka has acknowledged every created record, so a server that repeats what was not
//! acknowledged loses nothing. A message, or a record, that cannot be read is copied to `rejected-notifications` before
//! it is refused. 503 claims nothing: part of the message may be in Kafka, and a repetition is a duplicate for convert.
//! Connections and their silence, requests worked on at a time, a body's size and the time it takes are all bounded.

mod answer;
mod connections;
mod request;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::routing::put;
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use self::answer::{Accepted, Refusal};
use self::connections::Connections;
use self::request::{Access, read_body};
use super::notification::{self, Entry, Message, Notification};
use super::publish::Publisher;
use crate::config::Secret;
use crate::object::ObjectRef;
use crate::telemetry::trace::TraceContext;

const PATH: &str = "/api/v1/s3/event";

/// Requests worked on at a time; with `max_body_bytes` this bounds the memory that requests can take.
const MAX_CONCURRENT_REQUESTS: usize = 256;

/// Connections open at a time; more of them wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// How long a connection may neither send nor take a byte: longer than Kafka may take to acknowledge.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may take to end after the shutdown began: a body, and Kafka's answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What the webhook needs from the rest of the process.
#[derive(Clone)]
pub struct WebhookState {
    pub publisher: Publisher,
    /// Asked of every request when set.
    pub token: Option<Secret>,
    pub max_body_bytes: usize,
}

/// What all requests share.
struct Webhook {
    publisher: Publisher,
    access: Access,
    max_body_bytes: usize,
    slots: Semaphore,
}

/// The routes of the webhook.
pub fn router(state: WebhookState) -> Router {
    let webhook = Webhook {
        publisher: state.publisher,
        access: Access::new(state.token.as_ref()),
        max_body_bytes: state.max_body_bytes,
        slots: Semaphore::new(MAX_CONCURRENT_REQUESTS),
    };
    Router::new()
        .route(PATH, put(receive).post(receive))
        .with_state(Arc::new(webhook))
}

/// Serves until `shutdown`, then takes no more connections and returns when the requests under way are answered, or
/// after 20 seconds.
pub async fn serve(
    listener: TcpListener,
    state: WebhookState,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let connections = Connections::new(listener, MAX_CONNECTIONS, MAX_SILENCE);
    serve_router(connections, router(state), shutdown, DRAIN_TIMEOUT).await
}

async fn serve_router(
    connections: Connections,
    router: Router,
    shutdown: CancellationToken,
    drain_timeout: Duration,
) -> io::Result<()> {
    let server = axum::serve(connections, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
    };
    tokio::select! {
        served = server => served,
        () = overdue => {
            warn!("connections to the webhook did not end in time");
            Ok(())
        }
    }
}

async fn receive(
    State(webhook): State<Arc<Webhook>>,
    request: Request,
) -> Result<Accepted, Refusal> {
    webhook
        .handle(request)
        .await
        .inspect_err(|refusal| warn!(reason = describe(refusal), "notification not accepted"))
}

impl Webhook {
    async fn handle(&self, request: Request) -> Result<Accepted, Refusal> {
        let (parts, body) = request.into_parts();
        self.access.check(&parts.headers)?;
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::Busy)?;
        let message = read_body(&parts.headers, body, self.max_body_bytes, BODY_TIMEOUT).await?;
        self.deliver(&message, &trace_of(&parts.headers)).await
    }

    async fn deliver(&self, body: &[u8], trace: &TraceContext) -> Result<Accepted, Refusal> {
        let message = match read_message(body) {
            Ok(message) => message,
            Err(reason) => {
                self.reject(body, &reason).await?;
                return Err(Refusal::Unreadable(reason));
            }
        };
        let event_ids = publish_in_order(message.created(), |n| self.publish(n, trace)).await?;
        self.reject_invalid_records(&message).await?;
        self.count_ignored(&message);
        Ok(Accepted::new(message, event_ids))
    }

    async fn publish(
        &self,
        notification: &Notification,
        trace: &TraceContext,
    ) -> Result<Uuid, Refusal> {
        let published = self.publisher.publish(notification, trace).await;
        let event_id = published.map_err(Refusal::NotAcknowledged)?;
        info!(
            bucket = notification.object.bucket(),
            key = notification.object.key(),
            etag = notification.etag.as_ref().map(|etag| etag.as_str()),
            %event_id,
            dialect = %notification.dialect,
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
    async fn reject_invalid_records(&self, message: &Message) -> Result<(), Refusal> {
        let copies = message.entries.iter().filter_map(|entry| match entry {
            Entry::Invalid { reason, record } => {
                warn!(reason, "record rejected");
                Some(self.reject(record.as_bytes(), reason))
            }
            Entry::Created(_) | Entry::Ignored { .. } => None,
        });
        join_all(copies).await.into_iter().collect()
    }

    /// Once refused, a message is not sent again: so a copy that Kafka does not take is as bad as an event.
    async fn reject(&self, notification: &[u8], reason: &str) -> Result<(), Refusal> {
        let copied = self.publisher.reject(notification, reason).await;
        copied.map_err(Refusal::NotAcknowledged)
    }
}

/// A message of which at least one record can be read, or the reason why there is none.
fn read_message(body: &[u8]) -> Result<Message, String> {
    let message = notification::parse(body).map_err(|error| describe(&error))?;
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

fn trace_of(headers: &HeaderMap) -> TraceContext {
    let traceparent = headers.get("traceparent");
    TraceContext::from_header(traceparent.and_then(|value| value.to_str().ok()))
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

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

    #[tokio::test]
    async fn the_server_stops_even_when_a_connection_never_sends_its_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let drain_timeout = Duration::from_millis(50);
        let connections = Connections::new(listener, 8, Duration::from_secs(60));
        let server = serve_router(connections, Router::new(), shutdown.clone(), drain_timeout);
        let stuck = async {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(b"POST /api").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            shutdown.cancel();
            connection
        };
        let both = future::join(server, stuck);
        let (served, _connection) = tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .expect("the server stops by itself");
        served.unwrap();
    }
}
