//! One SQS queue: receive, delete, and what its errors mean.

use std::error::Error;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{DeleteMessageBatchRequestEntry, QueueAttributeName},
};

use crate::{
    aws::{Base, no_credentials},
    config::{
        self,
        queue_url::{QueueUrl, QueueUrlError},
    },
    failure::chain,
    topics::{MESSAGE_BYTES, cut},
};

/// Seconds that an empty queue keeps a request, and messages that one answer has at most: SQS's own limits on both.
const LONG_POLL_SECS: i32 = 20;
const MOST_MESSAGES: i32 = 10;

/// Longest time of one try of a request: the long poll, and time for the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(LONG_POLL_SECS as u64 + 10);

/// A queue and the client for it.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
    name: String,
}

/// A message as it was received.
#[derive(Debug)]
pub struct Received {
    pub body: String,
    /// What it is deleted by; of this one receipt.
    receipt: String,
}

/// What became of messages that were to be deleted.
pub struct Deletion {
    pub deleted: usize,
    /// The first of those that were not; they come again.
    pub refused: Option<QueueError>,
}

impl Queue {
    /// Builds the client; the queue is not asked yet.
    pub async fn new(base: &Base, settings: &config::Queue) -> Result<Self, QueueUrlError> {
        let url = QueueUrl::parse(&settings.url)?;
        let region = settings.region.as_deref().or(url.region.as_deref());
        let sdk = base.sdk(region, &settings.credentials).await;
        let connect = sdk
            .timeout_config()
            .and_then(TimeoutConfig::connect_timeout);
        let mut timeouts = TimeoutConfig::builder()
            .read_timeout(ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT);
        timeouts.set_connect_timeout(connect);
        let mut builder = aws_sdk_sqs::config::Builder::from(&sdk).timeout_config(timeouts.build());
        builder.set_endpoint_url(settings.endpoint.clone().or(url.endpoint));
        if settings.credentials.anonymous {
            builder.set_allow_no_auth();
        }
        Ok(Self {
            client: Client::from_conf(builder.build()),
            url: settings.url.clone(),
            name: url.name,
        })
    }

    /// For logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the queue is there and may be read.
    pub async fn check(&self) -> Result<(), QueueError> {
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let request = request.attribute_names(QueueAttributeName::QueueArn);
        let answer = request.send().await;
        answer
            .map(drop)
            .map_err(|error| self.error("GetQueueAttributes", &error))
    }

    /// Waits up to 20 seconds for messages.
    pub async fn receive(&self) -> Result<Vec<Received>, QueueError> {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request
            .max_number_of_messages(MOST_MESSAGES)
            .wait_time_seconds(LONG_POLL_SECS);
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.error("ReceiveMessage", &error))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .map(|message| Received {
                body: message.body.unwrap_or_default(),
                receipt: message.receipt_handle.unwrap_or_default(),
            })
            .collect())
    }

    /// Deletes up to ten messages.
    pub async fn delete(&self, messages: &[Received]) -> Result<Deletion, QueueError> {
        let request = self.client.delete_message_batch().queue_url(&self.url);
        let request = messages
            .iter()
            .enumerate()
            .fold(request, |request, (number, message)| {
                let entry = DeleteMessageBatchRequestEntry::builder()
                    .id(number.to_string())
                    .receipt_handle(&message.receipt)
                    .build()
                    .expect("it has an id and a receipt");
                request.entries(entry)
            });
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.error("DeleteMessageBatch", &error))?;
        let refused = answer.failed().first().map(|entry| {
            let message = format!(
                "{} of {} messages, the first for {} {}",
                answer.failed().len(),
                messages.len(),
                entry.code(),
                entry.message().unwrap_or_default()
            );
            self.said("DeleteMessageBatch", QueueFailure::NotDeleted, &message)
        });
        Ok(Deletion {
            deleted: answer.successful().len(),
            refused,
        })
    }

    fn error<E>(&self, operation: &'static str, error: &SdkError<E, HttpResponse>) -> QueueError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error
            .raw_response()
            .map_or(0, |response| response.status().as_u16());
        let service = error.as_service_error();
        let code = service.and_then(ProvideErrorMetadata::code);
        let text = service.and_then(ProvideErrorMetadata::message);
        let (code, text) = (code.unwrap_or_default(), text.unwrap_or_default());
        let (failure, message) = match no_credentials(error) {
            Some(error) => (QueueFailure::Denied, chain(error)),
            None if status == 0 => (QueueFailure::Unavailable, chain(error)),
            None => (
                classify(status, code),
                format!("HTTP {status} {code} {text}"),
            ),
        };
        self.said(operation, failure, &message)
    }

    fn said(&self, operation: &'static str, failure: QueueFailure, message: &str) -> QueueError {
        QueueError {
            operation,
            queue: self.name.clone(),
            failure,
            message: cut(message.trim(), MESSAGE_BYTES),
        }
    }
}

/// What stands between a queue and the events; a closed set, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFailure {
    NoSuchQueue,
    /// Credentials or policy, or there are no credentials to be had.
    Denied,
    Throttled,
    /// A message could not be deleted alone, for instance because it was received again since.
    NotDeleted,
    /// Kafka did not acknowledge an event.
    NotAcknowledged,
    /// Anything that may pass: 5xx, time-outs, connections.
    Unavailable,
}

impl QueueFailure {
    pub fn code(self) -> &'static str {
        match self {
            Self::NoSuchQueue => "no_such_queue",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::NotDeleted => "not_deleted",
            Self::NotAcknowledged => "not_acknowledged",
            Self::Unavailable => "unavailable",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NoSuchQueue => "make the queue, or correct its url and region in intake.queues",
            Self::Denied => {
                "check its credentials (intake.queues, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), and that they may sqs:ReceiveMessage, sqs:DeleteMessage and sqs:GetQueueAttributes on the queue"
            }
            Self::Throttled => "it is tried again; ask AWS for a higher limit if it lasts",
            Self::NotDeleted => {
                "they come again and do no harm; a longer visibility timeout of the queue makes that rarer"
            }
            Self::NotAcknowledged => "see what is said of Kafka",
            Self::Unavailable => {
                "check its url, region and endpoint in intake.queues, and that the server is running"
            }
        }
    }
}

/// A failed request about a queue.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} on the queue {queue}: {message}; {}", .failure.advice())]
pub struct QueueError {
    pub operation: &'static str,
    pub queue: String,
    pub failure: QueueFailure,
    /// What the server or the client library said, cut.
    pub message: String,
}

/// By the code first: much of what SQS refuses is a 400.
fn classify(status: u16, code: &str) -> QueueFailure {
    let code = code.rsplit('.').next().unwrap_or_default();
    match (status, code) {
        (_, "NonExistentQueue" | "QueueDoesNotExist") => QueueFailure::NoSuchQueue,
        (_, "RequestThrottled" | "ThrottlingException" | "Throttling" | "OverLimit") | (429, _) => {
            QueueFailure::Throttled
        }
        (
            _,
            "AccessDenied"
            | "AccessDeniedException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSecurity"
            | "InvalidSignatureException"
            | "KmsAccessDenied"
            | "MissingAuthenticationToken"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException",
        )
        | (401 | 403, _) => QueueFailure::Denied,
        _ => QueueFailure::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_mend_is_told_from_what_may_pass() {
        for (status, code, failure) in [
            (
                400,
                "AWS.SimpleQueueService.NonExistentQueue",
                QueueFailure::NoSuchQueue,
            ),
            (400, "QueueDoesNotExist", QueueFailure::NoSuchQueue),
            (400, "InvalidClientTokenId", QueueFailure::Denied),
            (403, "", QueueFailure::Denied),
            (400, "RequestThrottled", QueueFailure::Throttled),
            (400, "InvalidAddress", QueueFailure::Unavailable),
            (503, "ServiceUnavailable", QueueFailure::Unavailable),
        ] {
            assert_eq!(classify(status, code), failure, "{status} {code}");
        }
    }
}
