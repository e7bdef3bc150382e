//! `cleanups`: what was done to a source after its outcome.

use serde::{Deserialize, Serialize};

use super::{Id, Millis, avro::topic_record};
use crate::object::ETag;

/// What a feed asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupAction {
    Delete,
    Move,
    Tag,
}

impl CleanupAction {
    pub const ALL: [Self; 3] = [Self::Delete, Self::Move, Self::Tag];

    /// The name on the topics and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Move => "move",
            Self::Tag => "tag",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupOutcome {
    Done,
    /// The source was not there any more.
    Gone,
    /// The source is a newer version, which was left alone.
    Changed,
    /// It must not be done; the reason says why.
    Skipped,
    /// It could not be done; the next sweep hands the object over again.
    Failed,
}

impl CleanupOutcome {
    pub const ALL: [Self; 5] = [
        Self::Done,
        Self::Gone,
        Self::Changed,
        Self::Skipped,
        Self::Failed,
    ];

    /// The name on the topics and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// The record of `cleanups`; field meanings stand in `schemas/Cleanup.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    pub bucket: String,
    pub key: String,
    pub etag: ETag,
    pub version_id: Option<String>,
    pub event_id: Id,
    pub generation: i64,
    pub feed: String,
    pub action: CleanupAction,
    pub outcome: CleanupOutcome,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub target: Option<String>,
    pub cleaned_at: Millis,
    pub worker: String,
    pub trace_parent: Option<String>,
}

topic_record!(Cleanup, "Cleanup", earlier: ["1"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;

    #[test]
    fn a_cleanup_reads_back_with_every_action_and_outcome() {
        use CleanupAction::{Delete, Move, Tag};
        use CleanupOutcome::{Changed, Done, Failed, Gone, Skipped};
        for action in [Delete, Move, Tag] {
            for outcome in [Done, Gone, Changed, Skipped, Failed] {
                let cleanup = Cleanup {
                    bucket: "feeds".into(),
                    key: "a.xml".into(),
                    etag: ETag::parse("1").unwrap(),
                    version_id: None,
                    event_id: Id::mint(),
                    generation: 7,
                    feed: "nsx".into(),
                    action,
                    outcome,
                    reason: Some("output_absent".into()),
                    message: None,
                    target: Some("s3://archive/a.xml".into()),
                    cleaned_at: Millis(1),
                    worker: "w".into(),
                    trace_parent: None,
                };
                assert_eq!(again(&cleanup), cleanup);
                let names = [
                    serde_json::to_value(action).unwrap(),
                    serde_json::to_value(outcome).unwrap(),
                ];
                assert_eq!(names, [action.name(), outcome.name()]);
            }
        }
    }
}
