//! The fields of the records that the checker judges by, read from the decoded values; the meanings stand in `schemas/`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::model::{Content, Dump, Record, Topic};
use super::violation::{Place, Violation};

#[derive(Debug, Deserialize)]
pub struct Event {
    pub id: String,
    /// When it may be handled, in milliseconds since 1970; absent until it has waited.
    #[serde(default)]
    pub not_before: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Converted,
    DeadLettered,
    Duplicate,
    Superseded,
    Missing,
    Ignored,
    Discarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Converted,
    DeadLettered,
    Discarded,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Output {
    pub key: String,
    pub etag: String,
    pub sha256: String,
}

#[derive(Debug, Deserialize)]
pub struct EventResult {
    pub event_id: String,
    pub outcome: Outcome,
    pub etag: Option<String>,
    pub settled_etag: Option<String>,
    pub outputs: Vec<Output>,
    pub generation: Option<i64>,
    pub status: Option<Status>,
    pub intent: String,
    pub event_partition: i32,
    pub event_offset: i64,
}

#[derive(Debug, Deserialize)]
pub struct State {
    pub etag: Option<String>,
    pub status: Option<Status>,
    pub outputs: Vec<Output>,
    pub dead_letter_id: Option<String>,
    pub generation: i64,
}

#[derive(Debug, Deserialize)]
pub struct Letter {
    pub id: String,
}

/// A record with its key and place; `None` is a tombstone.
#[derive(Debug)]
pub struct Placed<T> {
    pub key: String,
    pub at: Place,
    pub value: Option<T>,
}

/// All records, typed, each topic in the order of its partitions.
pub struct Records {
    pub events: Vec<Placed<Event>>,
    pub results: Vec<Placed<EventResult>>,
    pub states: Vec<Placed<State>>,
    pub letters: Vec<Placed<Letter>>,
    pub waits: Vec<Placed<Event>>,
    pub unreadable: Vec<Violation>,
}

impl Records {
    pub fn read(dump: &Dump) -> Self {
        let mut unreadable = Vec::new();
        // An event nobody can read ends among the rejected notifications and has no id to look for.
        let events = typed(dump, Topic::Events, &mut Vec::new());
        let results = typed(dump, Topic::Results, &mut unreadable);
        let states = typed(dump, Topic::Objects, &mut unreadable);
        let letters = typed(dump, Topic::DeadLetters, &mut unreadable);
        let waits = typed(dump, Topic::Retries, &mut unreadable);
        Self {
            events,
            results,
            states,
            letters,
            waits,
            unreadable,
        }
    }
}

fn typed<T: DeserializeOwned>(
    dump: &Dump,
    topic: Topic,
    unreadable: &mut Vec<Violation>,
) -> Vec<Placed<T>> {
    let mut records: Vec<_> = dump.records.iter().filter(|r| r.topic == topic).collect();
    records.sort_by_key(|record| (record.partition, record.offset));
    let mut placed = Vec::new();
    for record in records {
        let at = Place {
            partition: record.partition,
            offset: record.offset,
        };
        match value(record) {
            Ok(value) => placed.push(Placed {
                key: record.key.clone(),
                at,
                value,
            }),
            Err(reason) => unreadable.push(Violation::Unreadable { topic, at, reason }),
        }
    }
    placed
}

fn value<T: DeserializeOwned>(record: &Record) -> Result<Option<T>, String> {
    match &record.content {
        Content::Tombstone => Ok(None),
        Content::Unreadable(reason) => Err(reason.clone()),
        Content::Value(value) => T::deserialize(value)
            .map(Some)
            .map_err(|error| error.to_string()),
    }
}

/// The table that a compacted topic stands for: the last value of each key, tombstones taken out.
pub fn last_per_key<T>(records: &[Placed<T>]) -> BTreeMap<&str, &T> {
    let mut table = BTreeMap::new();
    for record in records {
        match &record.value {
            Some(value) => table.insert(record.key.as_str(), value),
            None => table.remove(record.key.as_str()),
        };
    }
    table
}
