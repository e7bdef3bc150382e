//! SQS: messages are received, delivered, and only then deleted.
//!
//! Promises: a message is deleted after Kafka has acknowledged all that it tells of, or the copy of what nobody can read;
//! one that was not deleted comes again when its visibility timeout has passed, and is a duplicate for convert at worst.
//! While Kafka is away a receiver keeps what it has and asks for no more, so that nothing is used up of the times a message
//! may be received before it goes to the queue's dead-letter queue. A queue's trouble is its own: it is logged, counted,
//! and tried again.

mod client;

use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::client::Received;
pub use self::client::{Queue, QueueError, QueueFailure};
use super::deliver::{Delivered, Source};
use super::notification;
use super::publish::PublishError;
use crate::failure::chain;
use crate::faults::{Fault, crash_at};
use crate::telemetry::{metrics::QueueMetrics, trace::TraceContext};

/// Long polls open at a time for each queue; with ten messages each, this bounds what a worker holds of one.
const RECEIVERS: usize = 4;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Empties one queue.
pub struct Receiver {
    pub queue: Queue,
    pub source: Source,
    pub metrics: QueueMetrics,
    pub shutdown: CancellationToken,
}

/// The shutdown has begun.
struct Stopped;

impl Receiver {
    /// Receives until the shutdown. Messages that an open poll may just have been given become visible again by themselves.
    pub async fn run(self) {
        info!(queue = self.queue.name(), "receiving from a queue");
        join_all((0..RECEIVERS).map(|_| self.receive())).await;
    }

    async fn receive(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let received = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                received = self.queue.receive() => received,
            };
            let handled = match received {
                Ok(messages) => self.handle(messages).await,
                Err(error) => Err(error),
            };
            match handled {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    self.failed(&error);
                    if self.wait(&mut pause).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers messages until Kafka has taken them all, and deletes them.
    async fn handle(&self, mut messages: Vec<Received>) -> Result<(), QueueError> {
        self.metrics.received(self.queue.name(), messages.len());
        let mut pause = FIRST_PAUSE;
        loop {
            let (delivered, left) = self.deliver(messages).await;
            crash_at(Fault::CrashBeforeDelete);
            self.delete(&delivered).await?;
            if left.is_empty() || self.wait(&mut pause).await.is_err() {
                return Ok(());
            }
            messages = left;
        }
    }

    /// What Kafka has taken, and what it has not.
    async fn deliver(&self, messages: Vec<Received>) -> (Vec<Received>, Vec<Received>) {
        let taken = join_all(messages.iter().map(|message| self.taken(message))).await;
        let (mut delivered, mut left, mut first_error) = (Vec::new(), Vec::new(), None);
        for (message, taken) in messages.into_iter().zip(taken) {
            match taken {
                Ok(_) => delivered.push(message),
                Err(error) => {
                    self.metrics
                        .failed(self.queue.name(), QueueFailure::NotAcknowledged);
                    first_error.get_or_insert(error);
                    left.push(message);
                }
            }
        }
        if let Some(error) = first_error {
            warn!(
                queue = self.queue.name(),
                messages = left.len(),
                error = chain(&error),
                "messages wait for Kafka, and stay in their queue"
            );
        }
        (delivered, left)
    }

    async fn taken(&self, message: &Received) -> Result<Delivered, PublishError> {
        let body = message.body.as_bytes();
        let trace = TraceContext::from_header(None);
        self.source
            .deliver(notification::parse(body), body, &trace)
            .await
    }

    async fn delete(&self, messages: &[Received]) -> Result<(), QueueError> {
        if messages.is_empty() {
            return Ok(());
        }
        let deletion = self.queue.delete(messages).await?;
        self.metrics.deleted(self.queue.name(), deletion.deleted);
        match deletion.refused {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    fn failed(&self, error: &QueueError) {
        self.metrics.failed(self.queue.name(), error.failure);
        error!(queue = self.queue.name(), code = error.failure.code(), %error, "the queue can't be emptied");
    }

    /// Waits, and longer the next time.
    async fn wait(&self, pause: &mut Duration) -> Result<(), Stopped> {
        tokio::select! {
            () = self.shutdown.cancelled() => return Err(Stopped),
            () = sleep(*pause) => {}
        }
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
