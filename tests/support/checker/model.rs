//! What a run left behind, as plain data: the records of the topics, the ends of their logs, the group's commits, the
//! two buckets. It is written and read as JSON lines, so that a run can be kept and checked again.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything the checker looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dump {
    /// The bucket that partners write to; record keys are `bucket/key`.
    pub input_bucket: String,
    /// What a reader of committed records gets from the beginning, in the order of each partition.
    pub records: Vec<Record>,
    pub logs: Vec<Log>,
    pub commits: Vec<Commit>,
    pub sources: Vec<Source>,
    pub outputs: Vec<StoredOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    Events,
    Results,
    Objects,
    DeadLetters,
    /// All retry topics together.
    Retries,
}

impl Topic {
    /// Those that every installation has, with one name each.
    pub const ALL: [Self; 4] = [
        Self::Events,
        Self::Results,
        Self::Objects,
        Self::DeadLetters,
    ];

    /// The topic's name after the prefix and the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Results => "results",
            Self::Objects => "objects",
            Self::DeadLetters => "dead-letters",
            Self::Retries => "retries",
        }
    }
}

/// One record of one topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub topic: Topic,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Decoded by the topic's Avro schema.
    Value(Value),
    Tombstone,
    /// Not readable by the schema, and why.
    Unreadable(String),
}

/// Where the log of one partition begins and ends, the ends as readers of either isolation level see them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub topic: Topic,
    pub partition: i32,
    pub start: i64,
    pub committed_end: i64,
    pub uncommitted_end: i64,
}

/// What the convert group committed for a partition of `events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub partition: i32,
    pub next_offset: i64,
    pub metadata: String,
}

/// One entry of the input bucket's listing, at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub key: String,
    /// Without quotes, as everywhere here.
    pub etag: String,
}

/// One object of the output bucket, at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredOutput {
    pub key: String,
    pub etag: String,
    /// Of its bytes, lower-case hexadecimal.
    pub sha256: String,
    /// Its bytes as JSON (JSON lines as an array); absent when they are not JSON.
    pub json: Option<Value>,
    /// The user metadata, for people.
    pub metadata: BTreeMap<String, String>,
}

/// What the test that made the run knows to be right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectations {
    /// The template of output keys (layout `mirror`), with `{key}` in it.
    pub output_key: String,
    /// Objects in the input bucket at the end: the JSON of their bytes, `None` when they can only be dead-lettered.
    /// Objects that are not named here belong to no feed.
    pub sources: BTreeMap<String, Option<Value>>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            output_key: "{key}.json".into(),
            sources: BTreeMap::new(),
        }
    }
}

/// One line of a kept dump.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    InputBucket(String),
    Record(Record),
    Log(Log),
    Commit(Commit),
    Source(Source),
    Output(StoredOutput),
}

impl Dump {
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let lines = std::iter::once(Line::InputBucket(self.input_bucket.clone()))
            .chain(self.logs.iter().cloned().map(Line::Log))
            .chain(self.commits.iter().cloned().map(Line::Commit))
            .chain(self.sources.iter().cloned().map(Line::Source))
            .chain(self.outputs.iter().cloned().map(Line::Output))
            .chain(self.records.iter().cloned().map(Line::Record));
        for line in lines {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let mut dump = Self::default();
        for line in from.lines() {
            match serde_json::from_str(&line?)? {
                Line::InputBucket(bucket) => dump.input_bucket = bucket,
                Line::Record(record) => dump.records.push(record),
                Line::Log(log) => dump.logs.push(log),
                Line::Commit(commit) => dump.commits.push(commit),
                Line::Source(source) => dump.sources.push(source),
                Line::Output(output) => dump.outputs.push(output),
            }
        }
        Ok(dump)
    }
}
