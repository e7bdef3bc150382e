//! `rejected-notifications`: what nobody could read, kept for people.

use serde::{Deserialize, Serialize};

use super::{MESSAGE_BYTES, Millis, avro::topic_record, cut};

/// How much of an unreadable body is kept, in bytes.
pub const SAVED_BODY_BYTES: usize = 64 * 1024;

/// The record of `rejected-notifications`; field meanings stand in `schemas/RejectedNotification.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedNotification {
    pub source: String,
    pub reason: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub body: Vec<u8>,
    pub body_size: i64,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub rejected_at: Millis,
}

topic_record!(RejectedNotification, "RejectedNotification", earlier: ["1"]);

impl RejectedNotification {
    pub fn new(source: impl Into<String>, reason: &str, body: &[u8]) -> Self {
        Self {
            source: source.into(),
            reason: cut(reason, MESSAGE_BYTES),
            body: body[..body.len().min(SAVED_BODY_BYTES)].to_vec(),
            body_size: i64::try_from(body.len()).unwrap_or(i64::MAX),
            partition: None,
            offset: None,
            rejected_at: Millis::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;

    #[test]
    fn a_rejected_notification_keeps_the_start_of_a_long_body_and_its_size() {
        let rejected = RejectedNotification::new("webhook", "not JSON", &[0xFF; 100_000]);
        let read = again(&rejected);
        assert_eq!(read, rejected);
        assert_eq!(
            (read.body.len(), read.body_size),
            (SAVED_BODY_BYTES, 100_000)
        );
    }
}
