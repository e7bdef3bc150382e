//! Copies of the records that a stage can't read, for `rejected-notifications`.

use std::sync::Arc;

use tracing::warn;

use crate::{
    kafka::{Finished, OutRecord, Position},
    topics::{RejectedNotification, Topics, encode},
};

/// How much is kept of a record's key, in bytes: that of the longest object with its bucket, and some.
const SAVED_KEY_BYTES: usize = 1_300;

/// Where one stage puts what it can't read.
pub struct Copies {
    topic: Arc<str>,
    source: String,
}

impl Copies {
    /// `source` is what the copies say of where they come from.
    pub fn new(topics: &Topics, source: impl Into<String>) -> Self {
        Self {
            topic: topics.rejected_notifications.as_str().into(),
            source: source.into(),
        }
    }

    /// Answers a record that can't be read by its copy.
    pub fn answer(
        &self,
        position: Position,
        key: &[u8],
        value: Option<&[u8]>,
        reason: &str,
    ) -> Finished {
        Finished {
            records: vec![self.copy(position, key, value.unwrap_or_default(), reason)],
            ..Finished::default()
        }
    }

    /// A copy of a record, or of a part of it.
    pub fn copy(&self, position: Position, key: &[u8], body: &[u8], reason: &str) -> OutRecord {
        let Position { partition, offset } = position;
        let from = &self.source;
        warn!(
            from,
            partition, offset, reason, "a record can't be read; its copy is kept"
        );
        let copy = RejectedNotification {
            partition: Some(partition),
            offset: Some(offset),
            ..RejectedNotification::new(from, reason, body)
        };
        OutRecord {
            topic: Arc::clone(&self.topic),
            partition: Some(0),
            key: (!key.is_empty()).then(|| key[..key.len().min(SAVED_KEY_BYTES)].to_vec()),
            value: Some(encode(&copy)),
            headers: Vec::new(),
        }
    }
}
