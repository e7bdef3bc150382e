//! How an event ends, and the records that say so: its Result, the state it leaves, and the dead letter it opens or closes.

use std::sync::Arc;

use super::{source::Version, state::Settled};
use crate::{
    feed::Rejection,
    kafka::{Finished, OutRecord, Position},
    topics::{
        DeadLetter, Intent, MESSAGE_BYTES, Millis, ObjectEvent, ObjectState, Outcome, Output,
        RejectedOutput, RejectedRecord, ResultRecord, Status, Topics, cut, encode,
    },
};

/// Longest text kept of a path or an excerpt, in bytes.
const PLACE_BYTES: usize = 500;

/// Stands for a message where nothing of the files' contents may be told.
const NO_EXCERPTS: &str = "left out, for it may quote the file: dead_letters.excerpts is off";

/// Longest message kept in a header, in bytes.
const HEADER_BYTES: usize = 200;

/// How an event ended.
#[derive(Debug)]
pub enum Ending {
    Converted {
        source: Version,
        outputs: Vec<Output>,
        rejected: Rejected,
    },
    /// Without a version when none was read: then nothing is settled, and only the letter is opened.
    Refused {
        source: Option<Version>,
        refusal: Box<Refusal>,
    },
    Superseded {
        current: Version,
    },
    Duplicate,
    Missing,
    Ignored,
    Discarded,
}

/// Records that were left out.
#[derive(Debug, Clone, Default)]
pub struct Rejected {
    pub count: i64,
    pub first: Vec<RejectedRecord>,
    pub output: Option<RejectedOutput>,
}

/// Why a file can't be converted, for good.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// Reason code: see the table in `docs/reasons.md`.
    pub reason: &'static str,
    pub message: String,
    pub record: Option<i64>,
    pub line: Option<i64>,
    pub column: Option<i64>,
    pub byte_offset: Option<i64>,
    pub path: Option<String>,
    pub excerpt: Option<String>,
    pub rejected: Rejected,
    /// The conversion engine says it, and may quote the file.
    pub is_of_engine: bool,
}

impl Refusal {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: cut(&message.into(), MESSAGE_BYTES),
            ..Self::default()
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let text = |value: Option<String>| value.map(|value| cut(&value, PLACE_BYTES));
        Self {
            rejected: Rejected {
                count: i64::try_from(rejection.rejected_count).unwrap_or(i64::MAX),
                first: rejected_records(rejection.rejected),
                output: None,
            },
            record: number(rejection.record),
            line: number(rejection.line),
            column: number(rejection.column),
            byte_offset: number(rejection.byte_offset),
            path: text(rejection.path),
            excerpt: text(rejection.excerpt),
            is_of_engine: true,
            ..Self::new(rejection.reason.code(), rejection.message)
        }
    }
}

fn number(value: Option<u64>) -> Option<i64> {
    value.and_then(|value| i64::try_from(value).ok())
}

pub fn rejected_records(rejections: Vec<Rejection>) -> Vec<RejectedRecord> {
    let short = |text: String| cut(&text, RejectedRecord::TEXT_BYTES);
    let rejected = rejections.into_iter().map(|rejection| RejectedRecord {
        record: number(rejection.record),
        line: number(rejection.line),
        column: number(rejection.column),
        byte_offset: number(rejection.byte_offset),
        path: rejection.path.map(short),
        reason: rejection.reason.code().to_owned(),
        message: short(rejection.message),
        excerpt: rejection.excerpt.map(short),
    });
    rejected.collect()
}

impl Ending {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Converted { .. } => Outcome::Converted,
            Self::Refused { .. } => Outcome::DeadLettered,
            Self::Superseded { .. } => Outcome::Superseded,
            Self::Duplicate => Outcome::Duplicate,
            Self::Missing => Outcome::Missing,
            Self::Ignored => Outcome::Ignored,
            Self::Discarded => Outcome::Discarded,
        }
    }

    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.reason),
            _ => None,
        }
    }

    /// The records that were left out of an output.
    pub fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Converted { rejected, .. } => Some(rejected),
            _ => None,
        }
    }

    fn version(&self) -> Option<&Version> {
        match self {
            Self::Converted { source, .. } => Some(source),
            Self::Refused { source, .. } => source.as_ref(),
            Self::Superseded { current } => Some(current),
            _ => None,
        }
    }
}

/// The feed that matched an object.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    pub name: &'a str,
    pub mapping_hash: &'a str,
}

/// Everything an answer is made from.
pub struct Answer<'a> {
    pub topics: &'a TopicNames,
    pub worker: &'a str,
    pub event: &'a ObjectEvent,
    pub position: Position,
    pub state: Option<&'a Settled>,
    pub feed: Option<Matched<'a>>,
    pub ending: &'a Ending,
    /// Whether letters and results may show what stands in the file.
    pub excerpts: bool,
}

/// Names of the topics that answers go to, shared by all records.
#[derive(Debug, Clone)]
pub struct TopicNames {
    results: Arc<str>,
    objects: Arc<str>,
    dead_letters: Arc<str>,
}

impl From<&Topics> for TopicNames {
    fn from(topics: &Topics) -> Self {
        Self {
            results: topics.results.as_str().into(),
            objects: topics.objects.as_str().into(),
            dead_letters: topics.dead_letters.as_str().into(),
        }
    }
}

/// What becomes of an object's state.
enum Change {
    None,
    Settle(Box<ObjectState>),
    Forget,
}

/// What becomes of an object's dead letter.
enum Letter {
    None,
    Open(Box<DeadLetter>),
    Close,
}

impl Answer<'_> {
    /// The records of this answer; they are committed together with the event's offset.
    pub fn records(&self) -> Finished {
        let now = Millis::now();
        let change = self.change(now);
        let letter = self.letter(&change, now);
        let result = self.result(&change, &letter, now);
        let mut records = vec![self.record(&self.topics.results, Some(encode(&result)))];
        match change {
            Change::None => {}
            Change::Settle(state) => {
                records.push(self.record(&self.topics.objects, Some(encode(&*state))))
            }
            Change::Forget => records.push(self.record(&self.topics.objects, None)),
        }
        match letter {
            Letter::None => {}
            Letter::Open(letter) => {
                let mut record = self.record(&self.topics.dead_letters, Some(encode(&*letter)));
                record.headers.extend(essentials(&letter));
                records.push(record);
            }
            Letter::Close => records.push(self.record(&self.topics.dead_letters, None)),
        }
        Finished {
            records,
            ..Finished::default()
        }
    }

    fn record(&self, topic: &Arc<str>, value: Option<Vec<u8>>) -> OutRecord {
        let event = self.event;
        let mut headers = vec![
            ("event-id", event.id.to_string()),
            ("outcome", self.ending.outcome().name().to_owned()),
        ];
        headers.extend(
            self.ending
                .reason()
                .map(|reason| ("reason", reason.to_owned())),
        );
        headers.extend(
            event
                .trace_parent
                .clone()
                .map(|trace| ("traceparent", trace)),
        );
        OutRecord {
            topic: Arc::clone(topic),
            partition: None,
            key: Some(format!("{}/{}", event.bucket, event.key).into_bytes()),
            value,
            headers,
        }
    }

    /// The state after this ending. A duplicate changes nothing and writes nothing.
    fn change(&self, now: Millis) -> Change {
        let event = self.event;
        let old = self.state.cloned().unwrap_or_default();
        let settled =
            |version: Option<&Version>, status: Option<Status>, outputs, letter: Option<String>| {
                // Without a version nothing new is settled: what was stays.
                let (etag, version_id, feed, mapping_hash) = match version {
                    None => (
                        old.etag.clone(),
                        old.version_id.clone(),
                        old.feed.clone(),
                        old.mapping_hash.clone(),
                    ),
                    Some(version) => (
                        Some(version.etag.clone()),
                        version.version_id.clone(),
                        self.feed.map(|feed| feed.name.to_owned()),
                        self.feed.map(|feed| feed.mapping_hash.to_owned()),
                    ),
                };
                // A letter that settles nothing does not make the state a newer one, and its request is not done.
                let settles_nothing = version.is_none() && letter.is_some();
                let generation = match self.state {
                    Some(old) if settles_nothing => old.generation,
                    _ => self.position.offset,
                };
                let last_request_id = match event.intent {
                    Intent::Reconvert if !settles_nothing => event.intent_id.clone(),
                    _ => old.last_request_id.clone(),
                };
                Change::Settle(Box::new(ObjectState {
                    bucket: event.bucket.clone(),
                    key: event.key.clone(),
                    etag,
                    version_id,
                    status,
                    outputs,
                    feed,
                    mapping_hash,
                    dead_letter_id: letter,
                    last_request_id,
                    generation,
                    settled_at: now,
                }))
            };
        match self.ending {
            Ending::Converted {
                source, outputs, ..
            } => settled(Some(source), Some(Status::Converted), outputs.clone(), None),
            // The output of an earlier version still stands, and the state goes on naming it.
            Ending::Refused { source, .. } => {
                let status = source.as_ref().map(|_| Status::DeadLettered).or(old.status);
                settled(
                    source.as_ref(),
                    status,
                    old.outputs.clone(),
                    Some(event.id.to_string()),
                )
            }
            // The version that failed counts as settled, or the sweep would bring it back.
            Ending::Discarded => {
                let version = event.etag.clone().map(|etag| Version {
                    etag,
                    version_id: event.version_id.clone(),
                });
                let outputs = old.outputs.clone();
                settled(version.as_ref(), Some(Status::Discarded), outputs, None)
            }
            Ending::Missing if self.state.is_some() => Change::Forget,
            Ending::Missing | Ending::Duplicate | Ending::Superseded { .. } | Ending::Ignored => {
                Change::None
            }
        }
    }

    /// A letter is open if and only if the state names it: whatever drops its id closes it in the same transaction.
    fn letter(&self, change: &Change, now: Millis) -> Letter {
        if let Ending::Refused { source, refusal } = self.ending {
            return Letter::Open(Box::new(self.dead_letter(source.as_ref(), refusal, now)));
        }
        let was_open = self
            .state
            .is_some_and(|state| state.dead_letter_id.is_some());
        let stays_open = match change {
            Change::None => true,
            Change::Settle(state) => state.dead_letter_id.is_some(),
            Change::Forget => false,
        };
        match was_open && !stays_open {
            true => Letter::Close,
            false => Letter::None,
        }
    }

    fn dead_letter(&self, source: Option<&Version>, refusal: &Refusal, now: Millis) -> DeadLetter {
        let event = self.event;
        DeadLetter {
            id: event.id.to_string(),
            bucket: event.bucket.clone(),
            key: event.key.clone(),
            etag: source
                .map(|source| source.etag.clone())
                .or_else(|| event.etag.clone()),
            version_id: source.and_then(|source| source.version_id.clone()),
            size: event.size,
            stage: "convert".into(),
            reason: refusal.reason.into(),
            message: self.message(refusal),
            record: refusal.record,
            line: refusal.line,
            column: refusal.column,
            byte_offset: refusal.byte_offset,
            path: refusal.path.clone(),
            excerpt: refusal.excerpt.clone().filter(|_| self.excerpts),
            feed: self.feed.map(|feed| feed.name.to_owned()),
            mapping_hash: self.feed.map(|feed| feed.mapping_hash.to_owned()),
            attempts: event.attempt.saturating_add(1),
            first_failed_at: event.history.first().map_or(now, |attempt| attempt.at),
            last_failed_at: now,
            replays: match event.intent {
                // One that does not count was replayed all the same.
                Intent::Replay => event.replays.max(1),
                _ => 0,
            },
            event_partition: self.position.partition,
            event_offset: self.position.offset,
            worker: self.worker.to_owned(),
            trace_parent: event.trace_parent.clone(),
        }
    }

    /// A message about the file may quote it.
    fn message(&self, refusal: &Refusal) -> String {
        match refusal.is_of_engine && !self.excerpts {
            true => NO_EXCERPTS.to_owned(),
            false => refusal.message.clone(),
        }
    }

    /// What the operator said who closed the letter.
    fn why_discarded(&self) -> Option<String> {
        let said = self.event.history.last().map(|last| last.message.clone());
        said.filter(|_| matches!(self.ending, Ending::Discarded))
    }

    fn result(&self, change: &Change, letter: &Letter, now: Millis) -> ResultRecord {
        let event = self.event;
        let refusal = match self.ending {
            Ending::Refused { refusal, .. } => Some(refusal),
            _ => None,
        };
        let rejected = match self.ending {
            Ending::Converted { rejected, .. } => rejected.clone(),
            Ending::Refused { refusal, .. } => refusal.rejected.clone(),
            _ => Rejected::default(),
        };
        let mut rejected = rejected;
        if !self.excerpts {
            for record in &mut rejected.first {
                record.excerpt = None;
                record.message = NO_EXCERPTS.to_owned();
            }
        }
        let version = self.ending.version();
        let (generation, status) = match change {
            Change::Settle(state) => (Some(state.generation), state.status),
            Change::None => (
                self.state.map(|state| state.generation),
                self.state.and_then(|state| state.status),
            ),
            Change::Forget => (None, None),
        };
        let settled_etag = match change {
            Change::Settle(state) => state.etag.clone(),
            _ => version
                .map(|version| version.etag.clone())
                .or_else(|| self.state.and_then(|state| state.etag.clone())),
        };
        ResultRecord {
            event_id: event.id,
            outcome: self.ending.outcome(),
            reason: refusal.map(|refusal| refusal.reason.to_owned()),
            message: refusal
                .map(|refusal| self.message(refusal))
                .or_else(|| self.why_discarded()),
            bucket: event.bucket.clone(),
            key: event.key.clone(),
            etag: event.etag.clone(),
            settled_etag,
            version_id: version.and_then(|version| version.version_id.clone()),
            feed: self.feed.map(|feed| feed.name.to_owned()),
            mapping_hash: self.feed.map(|feed| feed.mapping_hash.to_owned()),
            outputs: match self.ending {
                Ending::Converted { outputs, .. } => outputs.clone(),
                _ => Vec::new(),
            },
            generation,
            status,
            dead_letter_id: match letter {
                Letter::None => None,
                Letter::Open(letter) => Some(letter.id.clone()),
                Letter::Close => self.state.and_then(|state| state.dead_letter_id.clone()),
            },
            intent: event.intent,
            intent_id: event.intent_id.clone(),
            attempt: event.attempt,
            event_partition: self.position.partition,
            event_offset: self.position.offset,
            event_time: event.event_time,
            received_at: event.received_at,
            finished_at: now,
            worker: self.worker.to_owned(),
            trace_parent: event.trace_parent.clone(),
            rejected: rejected.count,
            rejections: rejected.first,
            rejected_output: rejected.output,
        }
    }
}

/// What tools that only show headers can show of a letter, beside the event's id and the reason.
fn essentials(letter: &DeadLetter) -> impl Iterator<Item = (&'static str, String)> {
    let place = |name, place: Option<i64>| place.map(|place| (name, place.to_string()));
    [
        Some(("bucket", letter.bucket.clone())),
        Some(("key", letter.key.clone())),
        Some(("stage", letter.stage.clone())),
        Some(("message", cut(&letter.message, HEADER_BYTES))),
        Some(("attempts", letter.attempts.to_string())),
        letter.feed.clone().map(|feed| ("feed", feed)),
        place("record", letter.record),
        place("line", letter.line),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
