//! `objects`: what is settled for an object; the table that convert decides by.

use serde::{Deserialize, Serialize};

use super::{Millis, Output, avro::topic_record};
use crate::object::ETag;

/// How an object was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Converted,
    DeadLettered,
    Discarded,
}

/// The record of `objects`; field meanings stand in `schemas/ObjectState.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    pub bucket: String,
    pub key: String,
    pub etag: Option<ETag>,
    pub version_id: Option<String>,
    pub status: Option<Status>,
    pub outputs: Vec<Output>,
    pub feed: Option<String>,
    pub mapping_hash: Option<String>,
    pub dead_letter_id: Option<String>,
    pub last_request_id: Option<String>,
    pub generation: i64,
    pub settled_at: Millis,
}

topic_record!(ObjectState, "ObjectState", earlier: ["1"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let state = ObjectState {
            bucket: "feeds".into(),
            key: "a.xml".into(),
            etag: ETag::parse("1"),
            version_id: Some("v".into()),
            status: Some(Status::DeadLettered),
            outputs: vec![Output::example()],
            feed: None,
            mapping_hash: None,
            dead_letter_id: Some("d".into()),
            last_request_id: None,
            generation: 4,
            settled_at: Millis::now(),
        };
        assert_eq!(again(&state), state);
    }
}
