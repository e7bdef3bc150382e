//! `dead-letters`: what could not be converted, and why. A letter is open while its object's state names it; a tombstone closes it.

use serde::{Deserialize, Serialize};

use super::{Millis, avro::topic_record};
use crate::object::ETag;

/// The record of `dead-letters`; field meanings stand in `schemas/DeadLetter.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: String,
    pub bucket: String,
    pub key: String,
    pub etag: Option<ETag>,
    pub version_id: Option<String>,
    pub size: Option<i64>,
    pub stage: String,
    pub reason: String,
    pub message: String,
    pub record: Option<i64>,
    pub line: Option<i64>,
    pub column: Option<i64>,
    pub byte_offset: Option<i64>,
    pub path: Option<String>,
    pub excerpt: Option<String>,
    pub feed: Option<String>,
    pub mapping_hash: Option<String>,
    pub attempts: i32,
    pub first_failed_at: Millis,
    pub last_failed_at: Millis,
    pub replays: i32,
    pub event_partition: i32,
    pub event_offset: i64,
    pub worker: String,
    pub trace_parent: Option<String>,
}

topic_record!(DeadLetter, "DeadLetter", earlier: ["1"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;

    #[test]
    fn a_dead_letter_reads_back_as_it_was_written() {
        let letter = DeadLetter {
            id: "i".into(),
            bucket: "feeds".into(),
            key: "a.xml".into(),
            etag: None,
            version_id: None,
            size: Some(1),
            stage: "convert".into(),
            reason: "malformed_xml".into(),
            message: "the file ends inside <item>".into(),
            record: Some(1),
            line: Some(2),
            column: Some(3),
            byte_offset: Some(4),
            path: Some("items/item".into()),
            excerpt: Some("<item".into()),
            feed: Some("nsx".into()),
            mapping_hash: None,
            attempts: 1,
            first_failed_at: Millis(1),
            last_failed_at: Millis(1),
            replays: 0,
            event_partition: 0,
            event_offset: 0,
            worker: "w".into(),
            trace_parent: None,
        };
        assert_eq!(again(&letter), letter);
    }
}
