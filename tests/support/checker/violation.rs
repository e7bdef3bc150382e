//! What can be wrong with a run.

use std::fmt;

use super::model::Topic;
use super::values::Outcome;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// One broken promise. Places are `partition@offset`, keys are `bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{} {at}: not readable: {reason}", topic.name())]
    Unreadable {
        topic: Topic,
        at: Place,
        reason: String,
    },

    #[error("event {id} at {at} has no result")]
    LostResult { id: String, at: Place },
    #[error("event {id} has {} results, at {}", at.len(), list(at))]
    RepeatedResult { id: String, at: Vec<Place> },
    #[error("the result at {at} is for event {id}, which was never announced")]
    UnknownEvent { id: String, at: Place },
    #[error(
        "the result at {at} says that event {id} lies at {said}; it lies at {}",
        list(stands)
    )]
    MisplacedResult {
        id: String,
        at: Place,
        said: Place,
        stands: Vec<Place>,
    },

    #[error("{key}: its state is {state}, its results amount to {fold}")]
    StateDiffers {
        key: String,
        state: String,
        fold: String,
    },
    #[error(
        "{key}: the result of event offset {event_offset} says it leaves {said}, but it leaves {left}"
    )]
    LeavesDiffers {
        key: String,
        event_offset: i64,
        said: String,
        left: String,
    },
    #[error("{} {at}: {key} belongs on partition {belongs}", topic.name())]
    WrongPartition {
        topic: Topic,
        key: String,
        at: Place,
        belongs: i32,
    },

    #[error("{key}: output {output}: {what}")]
    WrongOutput {
        key: String,
        output: String,
        what: String,
    },
    #[error("output {output}: its source was never settled")]
    UnaccountedOutput { output: String },

    #[error("{key}: in the bucket with ETag {etag}, settled: {settled}")]
    NotSettled {
        key: String,
        etag: String,
        settled: String,
    },
    #[error("{key}: expected in the bucket, not there")]
    SourceGone { key: String },
    #[error("{key}: no feed should match it, but it was settled: {settled}")]
    SettledUnasked { key: String, settled: String },

    #[error(
        "{key}: open dead letter: {}, named by the state: {}",
        name(open),
        name(named)
    )]
    LetterDiffers {
        key: String,
        open: Option<String>,
        named: Option<String>,
    },

    #[error("events {partition}: the last record is {last}, committed: {committed:?}")]
    Lag {
        partition: i32,
        last: i64,
        committed: Option<i64>,
    },
    #[error("events {partition}: the commit's metadata {metadata:?} has no tag")]
    UntaggedCommit { partition: i32, metadata: String },
    #[error(
        "events {partition}: nothing is left to do, but offsets are marked as finished ahead: {metadata:?}"
    )]
    FinishedSetLeft { partition: i32, metadata: String },

    #[error("{} {partition}: a transaction is open from {committed_end}, the log ends at {uncommitted_end}", topic.name())]
    OpenTransaction {
        topic: Topic,
        partition: i32,
        committed_end: i64,
        uncommitted_end: i64,
    },

    #[error("{key}: generation {generation} at {at} follows {before}")]
    GenerationFalls {
        key: String,
        at: Place,
        generation: i64,
        before: i64,
    },

    #[error(
        "{key}: event offset {event_offset} ended as {outcome:?} about {about}, while settled was {settled}"
    )]
    DecidedOnOldState {
        key: String,
        event_offset: i64,
        outcome: Outcome,
        about: String,
        settled: String,
    },

    #[error("event {id} waited {waited} times until {until} and came back {returned} times")]
    Unreturned {
        id: String,
        until: i64,
        waited: usize,
        returned: usize,
    },
}

impl Violation {
    /// The rule of the checker's head comment that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "R0",
            Self::LostResult { .. }
            | Self::RepeatedResult { .. }
            | Self::UnknownEvent { .. }
            | Self::MisplacedResult { .. } => "R1",
            Self::StateDiffers { .. }
            | Self::LeavesDiffers { .. }
            | Self::WrongPartition { .. } => "R2",
            Self::WrongOutput { .. } | Self::UnaccountedOutput { .. } => "R3",
            Self::NotSettled { .. } | Self::SourceGone { .. } | Self::SettledUnasked { .. } => "R4",
            Self::LetterDiffers { .. } => "R5",
            Self::Lag { .. } | Self::UntaggedCommit { .. } | Self::FinishedSetLeft { .. } => "R6",
            Self::OpenTransaction { .. } => "R7",
            Self::GenerationFalls { .. } => "R8",
            Self::DecidedOnOldState { .. } => "R9",
            Self::Unreturned { .. } => "R10",
        }
    }
}

fn list(places: &[Place]) -> String {
    let places: Vec<_> = places.iter().map(Place::to_string).collect();
    places.join(", ")
}

fn name(id: &Option<String>) -> &str {
    id.as_deref().unwrap_or("none")
}
