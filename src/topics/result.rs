//! `results`: the outcome of one event; the log of what happened.

use serde::{Deserialize, Serialize};

use super::{Id, Intent, Millis, Status, avro::topic_record};
use crate::object::ETag;

/// How an event ends; every event id ends with exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The object's JSON is in the output bucket.
    Converted,
    /// It can't be converted; the dead letter says why.
    DeadLettered,
    /// The event's version is the settled one.
    Duplicate,
    /// The event's version is no longer there, and the current one is settled already.
    Superseded,
    /// The object is gone.
    Missing,
    /// No feed matches this key.
    Ignored,
    /// An operator closed its dead letter.
    Discarded,
}

impl Outcome {
    pub const ALL: [Self; 7] = [
        Self::Converted,
        Self::DeadLettered,
        Self::Duplicate,
        Self::Superseded,
        Self::Missing,
        Self::Ignored,
        Self::Discarded,
    ];

    /// The name on the topics, in metrics and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converted => "converted",
            Self::DeadLettered => "dead_lettered",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Missing => "missing",
            Self::Ignored => "ignored",
            Self::Discarded => "discarded",
        }
    }
}

/// One JSON file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub bucket: String,
    pub key: String,
    pub etag: ETag,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: i64,
    pub records: i64,
}

/// Why a record was left out, and where it is; texts are cut to [`RejectedRecord::TEXT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Rejection")]
pub struct RejectedRecord {
    pub record: Option<i64>,
    pub line: Option<i64>,
    pub column: Option<i64>,
    pub byte_offset: Option<i64>,
    pub path: Option<String>,
    pub reason: String,
    pub message: String,
    pub excerpt: Option<String>,
}

impl RejectedRecord {
    /// Twenty of them have to fit into a result.
    pub const TEXT_BYTES: usize = 300;
}

/// The file that has all rejected records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedOutput {
    pub bucket: String,
    pub key: String,
}

/// The record of `results`; field meanings stand in `schemas/Result.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Result")]
pub struct ResultRecord {
    pub event_id: Id,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub bucket: String,
    pub key: String,
    pub etag: Option<ETag>,
    pub settled_etag: Option<ETag>,
    pub version_id: Option<String>,
    pub feed: Option<String>,
    pub mapping_hash: Option<String>,
    pub outputs: Vec<Output>,
    pub generation: Option<i64>,
    pub status: Option<Status>,
    pub dead_letter_id: Option<String>,
    pub intent: Intent,
    pub intent_id: Option<String>,
    pub attempt: i32,
    pub event_partition: i32,
    pub event_offset: i64,
    pub event_time: Option<Millis>,
    pub received_at: Millis,
    pub finished_at: Millis,
    pub worker: String,
    pub trace_parent: Option<String>,
    pub rejected: i64,
    pub rejections: Vec<RejectedRecord>,
    pub rejected_output: Option<RejectedOutput>,
}

topic_record!(ResultRecord, "Result", earlier: ["1", "2"]);

#[cfg(test)]
impl Output {
    /// For the tests of the records that have outputs.
    pub fn example() -> Self {
        Self {
            bucket: "out".into(),
            key: "a.xml.json".into(),
            etag: ETag::parse("3").expect("not empty"),
            sha256: "ff".into(),
            size: 3,
            records: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;

    fn result(outcome: Outcome) -> ResultRecord {
        ResultRecord {
            event_id: Id::mint(),
            outcome,
            reason: Some("malformed_xml".into()),
            message: None,
            bucket: "feeds".into(),
            key: "a.xml".into(),
            etag: ETag::parse("1"),
            settled_etag: ETag::parse("2"),
            version_id: None,
            feed: Some("nsx".into()),
            mapping_hash: Some("00".into()),
            outputs: vec![Output::example()],
            generation: Some(9),
            status: Some(Status::Converted),
            dead_letter_id: None,
            intent: Intent::Replay,
            intent_id: Some("x".into()),
            attempt: 2,
            event_partition: 3,
            event_offset: 9,
            event_time: Some(Millis(1)),
            received_at: Millis(2),
            finished_at: Millis(3),
            worker: "w".into(),
            trace_parent: None,
            rejected: 1,
            rejections: vec![RejectedRecord {
                record: Some(1),
                line: None,
                column: None,
                byte_offset: Some(7),
                path: None,
                reason: "missing_field".into(),
                message: "m".into(),
                excerpt: None,
            }],
            rejected_output: Some(RejectedOutput {
                bucket: "out".into(),
                key: "a.xml.json.rejected.jsonl".into(),
            }),
        }
    }

    #[test]
    fn a_result_reads_back_with_every_outcome() {
        for outcome in Outcome::ALL {
            let result = result(outcome);
            assert_eq!(again(&result), result);
            assert_eq!(
                serde_json::to_value(outcome).unwrap(),
                serde_json::Value::from(outcome.name())
            );
        }
    }
}
