//! `PUT|POST /api/v1/s3/event`: notifications by HTTP, one message a request.
//!
//! In: a message in any dialect that [`notification`] reads. Out: an event in Kafka for every object it says was
//! created, and an answer with one status per record.
//!
//! Promises: 202 is sent only after Kafka has acknowledged every created record, so a server that repeats what was not
//! acknowledged loses nothing. A message, or a record, that cannot be read is copied to `rejected-notifications` before
//! it is refused. What is not allowed leaves nothing behind: who does not know the token, or is not SNS. 503 claims nothing: part of the message may be in Kafka, and a repetition is a duplicate for convert.
//! Connections and their silence, requests worked on at a time, a body's size and the time it takes are all bounded.

mod answer;
mod connections;
mod request;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::put;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::answer::{Accepted, Refusal};
use self::connections::Connections;
use self::request::{Access, read_body};
use super::deliver::{Delivered, Source};
use super::notification::sns::{Envelope, Kind};
use super::notification::{self, Body, Dialect, Message, ParseError};
use super::publish::Publisher;
use super::sns::Sns;
use crate::config::Secret;
use crate::telemetry::trace::TraceContext;

const PATH: &str = "/api/v1/s3/event";

/// The header by which SNS makes itself known.
const SNS_MESSAGE_TYPE: &str = "x-amz-sns-message-type";

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
    /// Messages of its topics need no token: they are signed.
    pub sns: Arc<Sns>,
    pub max_body_bytes: usize,
}

/// What all requests share.
struct Webhook {
    source: Source,
    access: Access,
    sns: Arc<Sns>,
    max_body_bytes: usize,
    slots: Semaphore,
}

/// The routes of the webhook.
pub fn router(state: WebhookState) -> Router {
    let webhook = Webhook {
        source: Source {
            name: "webhook".to_owned(),
            publisher: state.publisher,
        },
        access: Access::new(state.token.as_ref()),
        sns: state.sns,
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
    let mut dialect = None;
    let answer = webhook.handle(request, &mut dialect).await;
    let status = match &answer {
        Ok(_) => StatusCode::ACCEPTED,
        Err(refusal) => refusal.status(),
    };
    let metrics = webhook.source.publisher.metrics();
    metrics.answered(dialect, status.as_u16());
    answer.inspect_err(|refusal| warn!(reason = describe(refusal), "notification not accepted"))
}

impl Webhook {
    /// Says the message's dialect as soon as it is known.
    async fn handle(
        &self,
        request: Request,
        dialect: &mut Option<Dialect>,
    ) -> Result<Accepted, Refusal> {
        let (parts, body) = request.into_parts();
        let access = self.access.check(&parts.headers);
        let access = match self.sns.is_used() && parts.headers.contains_key(SNS_MESSAGE_TYPE) {
            // Whether SNS said it shows when it is read.
            true => access,
            false => Ok(access?),
        };
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::Busy)?;
        let message = read_body(&parts.headers, body, self.max_body_bytes, BODY_TIMEOUT).await?;
        let trace = trace_of(&parts.headers);
        match notification::open(&message) {
            Ok(Body::Sns(envelope)) => {
                self.deliver_signed(&envelope, &message, &trace, dialect)
                    .await
            }
            Ok(Body::Message(read)) => {
                access?;
                self.deliver(Ok(read), &message, &trace, dialect).await
            }
            Err(error) => {
                access?;
                self.deliver(Err(error), &message, &trace, dialect).await
            }
        }
    }

    /// A token does not stand for a signature: whoever knows it is not SNS.
    async fn deliver_signed(
        &self,
        envelope: &Envelope,
        body: &[u8],
        trace: &TraceContext,
        dialect: &mut Option<Dialect>,
    ) -> Result<Accepted, Refusal> {
        if !self.sns.is_used() {
            return Err(Refusal::NoSnsTopics);
        }
        let accepted = self.sns.accept(envelope, Timestamp::now()).await;
        accepted.map_err(Refusal::Sns)?;
        match envelope.kind {
            Kind::Notification => self.deliver(envelope.open(), body, trace, dialect).await,
            Kind::SubscriptionConfirmation | Kind::UnsubscribeConfirmation => {
                Ok(Accepted::nothing())
            }
        }
    }

    async fn deliver(
        &self,
        read: Result<Message, ParseError>,
        body: &[u8],
        trace: &TraceContext,
        dialect: &mut Option<Dialect>,
    ) -> Result<Accepted, Refusal> {
        *dialect = read.as_ref().ok().map(|message| message.dialect);
        let delivered = self.source.deliver(read, body, trace).await;
        match delivered.map_err(Refusal::NotAcknowledged)? {
            Delivered::Accepted { message, event_ids } => Ok(Accepted::new(message, event_ids)),
            Delivered::Rejected(reason) => Err(Refusal::Unreadable(reason)),
        }
    }
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
    use futures::future;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

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
