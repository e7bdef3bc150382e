//! `events`: an object was created, or somebody wants it done again.

use serde::{Deserialize, Serialize};

use super::{Id, Millis, avro::topic_record};
use crate::{
    object::{ETag, ObjectRef, ObjectRefError},
    telemetry::trace::TraceContext,
};

/// What an event asks for. All but `observe` count only while their id does: see [`ObjectEvent::intent_id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Convert it unless this version is settled.
    #[default]
    Observe,
    /// Convert it again, once per request id.
    Reconvert,
    /// Convert it again while this dead letter is open.
    Replay,
    /// Close this dead letter while it is open.
    Discard,
}

/// How the id of a `reconvert` begins when the sweep saw an output that is not the state's; `<generation>:<etag seen>`
/// follow. Convert does the work only if a HEAD still shows an output that differs from the state's, otherwise the event
/// is a duplicate.
pub const ALTERED_OUTPUT: &str = "altered-output:";

/// An attempt that failed for a reason that may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Millis,
    pub reason: String,
    pub message: String,
}

/// The record of `events`; field meanings stand in `schemas/ObjectEvent.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEvent {
    pub id: Id,
    pub bucket: String,
    pub key: String,
    pub etag: Option<ETag>,
    pub version_id: Option<String>,
    pub size: Option<i64>,
    pub sequencer: Option<String>,
    pub event_time: Option<Millis>,
    pub received_at: Millis,
    pub source: String,
    pub source_id: Option<String>,
    pub intent: Intent,
    pub intent_id: Option<String>,
    pub attempt: i32,
    pub first_attempt_offset: Option<i64>,
    pub not_before: Option<Millis>,
    pub history: Vec<Attempt>,
    pub trace_parent: Option<String>,
    pub replays: i32,
}

topic_record!(ObjectEvent, "ObjectEvent", earlier: ["1", "2"]);

impl ObjectEvent {
    /// A new observation of an object, received now, by a fresh id; a trace of its own begins with it.
    pub fn observed(object: &ObjectRef, source: impl Into<String>) -> Self {
        Self {
            id: Id::mint(),
            bucket: object.bucket().to_owned(),
            key: object.key().to_owned(),
            etag: None,
            version_id: None,
            size: None,
            sequencer: None,
            event_time: None,
            received_at: Millis::now(),
            source: source.into(),
            source_id: None,
            intent: Intent::Observe,
            intent_id: None,
            attempt: 0,
            first_attempt_offset: None,
            not_before: None,
            history: Vec::new(),
            trace_parent: Some(TraceContext::begin().to_string()),
            replays: 0,
        }
    }

    /// Whether it asks for an output to be made again that was seen to be altered: see [`ALTERED_OUTPUT`].
    pub fn is_about_an_altered_output(&self) -> bool {
        let id = self.intent_id.as_deref().unwrap_or_default();
        self.intent == Intent::Reconvert && id.starts_with(ALTERED_OUTPUT)
    }

    /// The object it is about; an error when a foreign producer wrote names outside S3's limits.
    pub fn object(&self) -> Result<ObjectRef, ObjectRefError> {
        ObjectRef::try_new(self.bucket.clone(), self.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::avro::again;
    use crate::topics::{DecodeError, decode, encode};

    fn event() -> ObjectEvent {
        let object = ObjectRef::try_new("feeds", "a b/ü\n.xml").unwrap();
        ObjectEvent {
            etag: ETag::parse("abc"),
            size: Some(7),
            history: vec![Attempt {
                at: Millis(5),
                reason: "s3_unavailable".into(),
                message: "503".into(),
            }],
            intent: Intent::Reconvert,
            ..ObjectEvent::observed(&object, "aws")
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let event = event();
        assert_eq!(again(&event), event);
    }

    #[test]
    fn an_unknown_schema_and_corrupt_bytes_are_told_apart() {
        let mut bytes = encode(&event());
        assert!(matches!(
            decode::<ObjectEvent>(&bytes[..bytes.len() - 1]),
            Err(DecodeError::Corrupt { .. })
        ));
        assert!(matches!(
            decode::<ObjectEvent>(b"{\"not\":\"avro\"}"),
            Err(DecodeError::Corrupt { .. })
        ));
        bytes[5] ^= 1;
        assert!(matches!(
            decode::<ObjectEvent>(&bytes),
            Err(DecodeError::UnknownSchema { .. })
        ));
    }
}
