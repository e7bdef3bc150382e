//! What the webhook answers: a status per record, or why the message was not accepted.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use crate::intake::notification::{Entry, Message};
use crate::intake::publish::PublishError;
use crate::intake::sns::SnsError;

/// What a server is told to wait before it repeats a message, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Every record of a message in its order: what the 202 says.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Accepted {
    records: Vec<RecordStatus>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "status", rename_all = "snake_case")]
enum RecordStatus {
    Accepted {
        event_id: Uuid,
        bucket: String,
        key: String,
    },
    Ignored {
        name: String,
        reason: &'static str,
    },
    Rejected {
        reason: String,
    },
}

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a bearer token is needed, and this is not it")]
    Unauthorized,
    #[error("the message is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the message did not arrive within {} seconds", .0.as_secs())]
    Late(Duration),
    #[error("the message broke off")]
    BrokenOff(#[source] axum::Error),
    #[error("{0}")]
    Unreadable(String),
    #[error(
        "a message of SNS, and none is taken: list its topic's ARN in intake.sns_topics and subscribe without raw message delivery"
    )]
    NoSnsTopics,
    #[error(transparent)]
    Sns(SnsError),
    #[error("too many messages are being worked on already")]
    Busy,
    #[error("kafka did not acknowledge, nothing is promised for any record")]
    NotAcknowledged(#[source] PublishError),
}

impl Accepted {
    /// A message that is about no object.
    pub(super) fn nothing() -> Self {
        Self {
            records: Vec::new(),
        }
    }

    /// `event_ids` has one id for each created record, in the message's order.
    pub(super) fn new(message: Message, event_ids: Vec<Uuid>) -> Self {
        let mut event_ids = event_ids.into_iter();
        let status = |entry| match entry {
            Entry::Created(notification) => RecordStatus::Accepted {
                event_id: event_ids
                    .next()
                    .expect("there is an id for each created record"),
                bucket: notification.object.bucket().to_owned(),
                key: notification.object.key().to_owned(),
            },
            Entry::Ignored { name, why } => RecordStatus::Ignored {
                name,
                reason: why.as_str(),
            },
            Entry::Invalid { reason, .. } => RecordStatus::Rejected { reason },
        };
        Self {
            records: message.entries.into_iter().map(status).collect(),
        }
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        json(StatusCode::ACCEPTED, &self)
    }
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Sns(error) if error.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSnsTopics | Self::Sns(_) => StatusCode::FORBIDDEN,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenOff(_) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NotAcknowledged(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refusal {
    /// The causes behind a refusal are for the log: a caller is not told how our Kafka is doing.
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        let error = self.to_string();
        let mut response = json(self.status(), &Body { error });
        let headers = response.headers_mut();
        match self.status() {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("texts and ids can always be written as JSON");
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use serde_json::json;

    use crate::intake::notification::parse;

    use super::*;

    async fn answer(response: impl IntoResponse) -> (StatusCode, HeaderMap, String) {
        let (parts, body) = response.into_response().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, parts.headers, body)
    }

    #[tokio::test]
    async fn a_refusal_says_what_to_do_in_its_headers() {
        let (status, headers, body) = answer(Refusal::Unauthorized).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert!(body.starts_with(r#"{"error":"a bearer token"#), "{body}");

        let (status, headers, _) = answer(Refusal::Busy).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers[header::RETRY_AFTER], "5");
    }

    #[tokio::test]
    async fn the_answer_names_every_record_in_its_order() {
        let record = |key| json!({"s3": {"bucket": {"name": "feeds"}, "object": {"key": key}}});
        let records = ["b", "folder/", "%", "a"].map(record);
        let body = json!({"Records": records}).to_string();
        let ids = vec![Uuid::from_u128(1), Uuid::from_u128(2)];
        let accepted = Accepted::new(parse(body.as_bytes()).unwrap(), ids);
        let (status, headers, body) = answer(accepted).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(
            body,
            concat!(
                r#"{"records":[{"status":"accepted","event_id":"00000000-0000-0000-0000-000000000001","bucket":"feeds","key":"b"},"#,
                r#"{"status":"ignored","name":"ObjectCreated","reason":"folder"},"#,
                r#"{"status":"rejected","reason":"the key \"%\" has a % that is not followed by two hexadecimal digits"},"#,
                r#"{"status":"accepted","event_id":"00000000-0000-0000-0000-000000000002","bucket":"feeds","key":"a"}]}"#,
            )
        );
    }
}
