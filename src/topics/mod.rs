//! The topic contracts: names, keys, and the Avro records on each of them.
//!
//! Every record of every topic has the key `bucket/key`; what convert writes for an event goes to the partition number of
//! the event, so that whoever owns a partition of `events` finds all that is known about its objects in one partition of `objects`.

pub mod avro;
mod cleanup;
mod dead_letter;
mod event;
pub mod layout;
mod rejected;
mod result;
mod state;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::config::Tier;

pub use avro::{DecodeError, SchemaVersion, decode, encode};
pub use cleanup::{Cleanup, CleanupAction, CleanupOutcome};
pub use dead_letter::DeadLetter;
pub use event::{ALTERED_OUTPUT, Attempt, Intent, ObjectEvent};
pub use rejected::{RejectedNotification, SAVED_BODY_BYTES};
pub use result::{Outcome, Output, RejectedOutput, RejectedRecord, ResultRecord};
pub use state::{ObjectState, Status};

/// Longest text kept of a message that a server or a parser wrote, in bytes: records stay committable by construction.
pub const MESSAGE_BYTES: usize = 1000;

/// Full topic names under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    pub events: String,
    pub results: String,
    pub objects: String,
    pub dead_letters: String,
    pub cleanups: String,
    pub rejected_notifications: String,
    /// What the names of the retry topics begin with; a tier follows.
    retries: String,
}

impl Topics {
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |topic: &str| format!("{prefix}.{topic}");
        Self {
            events: name("events"),
            results: name("results"),
            objects: name("objects"),
            dead_letters: name("dead-letters"),
            cleanups: name("cleanups"),
            rejected_notifications: name("rejected-notifications"),
            retries: name("retries."),
        }
    }

    /// The topic in which events wait that long.
    pub fn retry(&self, tier: &Tier) -> String {
        format!("{}{tier}", self.retries)
    }

    /// The names of all retry topics, with a star.
    pub fn retry_names(&self) -> String {
        format!("{}*", self.retries)
    }

    /// The tier of a retry topic, as its name says it; `None` for any other topic.
    pub fn tier_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.retries)
    }
}

/// The schemas that values are written with.
pub fn schemas() -> Vec<SchemaVersion> {
    vec![
        SchemaVersion::of::<ObjectEvent>(),
        SchemaVersion::of::<ResultRecord>(),
        SchemaVersion::of::<ObjectState>(),
        SchemaVersion::of::<DeadLetter>(),
        SchemaVersion::of::<Cleanup>(),
        SchemaVersion::of::<RejectedNotification>(),
    ]
}

/// An id minted by feedmill: of an event, a dead letter, a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub Uuid);

impl Id {
    /// A new id; version 7, so that ids sort by the time they were minted.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    pub fn now() -> Self {
        jiff::Timestamp::now().into()
    }
}

impl From<jiff::Timestamp> for Millis {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_millisecond())
    }
}

/// RFC 3339 in UTC; a number outside the calendar is shown as it is.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Cuts a text to at most `bytes` bytes, at a character boundary, and says that it was cut.
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use apache_avro::{Schema, schema_compatibility::SchemaCompatibility};

    use super::{avro::TopicRecord, *};

    #[test]
    fn a_long_message_is_cut_at_a_character_and_stays_within_the_limit() {
        let long = "ü".repeat(2000);
        let short = cut(&long, MESSAGE_BYTES);
        assert!(short.len() <= MESSAGE_BYTES && short.ends_with('…'));
        assert_eq!(cut("short", MESSAGE_BYTES), "short");
    }

    fn schema(path: &Path) -> Schema {
        Schema::parse_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The rule for changing a schema: what any earlier version wrote, today's reads; and what is written today is kept for
    /// tomorrow, so the newest file under `schemas/earlier` is today's schema.
    #[test]
    fn every_schema_reads_what_its_committed_earlier_versions_wrote() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let names = [
            ObjectEvent::NAME,
            ResultRecord::NAME,
            ObjectState::NAME,
            DeadLetter::NAME,
            Cleanup::NAME,
            RejectedNotification::NAME,
        ];
        for name in names {
            let today = schema(&root.join(format!("{name}.avsc")));
            let earlier: Vec<_> = (1..)
                .map(|version| root.join(format!("earlier/{name}.{version}.avsc")))
                .take_while(|path| path.exists())
                .collect();
            let newest = earlier.last().expect("the first version is kept");
            assert_eq!(
                schema(newest).canonical_form(),
                today.canonical_form(),
                "{name} changed: keep it as the next version under schemas/earlier and name it in topic_record!"
            );
            for path in &earlier {
                SchemaCompatibility::can_read(&schema(path), &today)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }

    #[test]
    fn a_schema_change_that_loses_a_field_without_a_default_is_caught() {
        let before = Schema::parse_str(r#"{"type":"record","name":"R","fields":[]}"#).unwrap();
        let after = Schema::parse_str(
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#,
        )
        .unwrap();
        assert!(SchemaCompatibility::can_read(&before, &after).is_err());
    }
}
