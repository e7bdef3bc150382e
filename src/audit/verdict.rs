//! What is concluded from what stands in the buckets and what is known. Pure: no Kafka, no S3.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::books::{Letter, Pending, State, Waiting};
use crate::{
    object::{ETag, ObjectRef},
    sweep::is_young,
    topics::{Millis, Output, Status},
};

/// An object as a listing or a HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub etag: ETag,
    pub size: Option<i64>,
    /// By the server's clock.
    pub modified: Option<Millis>,
}

impl Seen {
    /// Whether both are the same version. Listings tell times more finely than a HEAD does.
    pub fn is(&self, other: &Self) -> bool {
        let second = |seen: &Self| seen.modified.map(|at| at.0.div_euclid(1_000));
        self.etag == other.etag && second(self) == second(other)
    }
}

/// What stands at the place of an output that a state names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub bucket: String,
    pub key: String,
    /// `None`: nothing does.
    pub seen: Option<Seen>,
}

impl Standing {
    fn is(&self, other: &Self) -> bool {
        let is_same = match (&self.seen, &other.seen) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same && self.bucket == other.bucket && self.key == other.key
    }
}

/// A source and the outputs that its state names, as they were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub source: Seen,
    /// Without those that were not looked at.
    pub outputs: Vec<Standing>,
}

impl Sighting {
    fn standing(&self, output: &Output) -> Option<&Standing> {
        let mut outputs = self.outputs.iter();
        outputs.find(|standing| standing.bucket == output.bucket && standing.key == output.key)
    }

    /// Whether nothing of it has changed since the other.
    pub fn is(&self, other: &Self) -> bool {
        let mut outputs = self.outputs.iter().zip(&other.outputs);
        self.source.is(&other.source)
            && self.outputs.len() == other.outputs.len()
            && outputs.all(|(one, other)| one.is(other))
    }
}

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub pending: Option<Pending>,
    pub state: Option<State>,
    /// The open letter, as far as its record was found.
    pub letter: Option<Letter>,
}

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody knows of the object.
    Missing,
    /// Another version than the one in the bucket is settled, and nothing is under way.
    Stale,
    /// The output that the state names is not there.
    OutputAbsent,
    /// What stands in the output's place is not what was written.
    OutputAltered,
    /// An output that neither a state nor a result names.
    OrphanedOutput,
    /// It can't be looked at.
    Unreadable,
    /// A dead letter is open for it.
    DeadLettered,
    /// It is under way.
    Pending,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::Stale,
        Self::OutputAbsent,
        Self::OutputAltered,
        Self::OrphanedOutput,
        Self::Unreadable,
        Self::DeadLettered,
        Self::Pending,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::OutputAbsent => "output_absent",
            Self::OutputAltered => "output_altered",
            Self::OrphanedOutput => "orphaned_output",
            Self::Unreadable => "unreadable",
            Self::DeadLettered => "dead_lettered",
            Self::Pending => "pending",
        }
    }

    /// Whether something is wrong. A dead letter is an outcome with a name and an alert of its own, and what is pending
    /// will have one.
    pub fn is_off(self) -> bool {
        !matches!(self, Self::DeadLettered | Self::Pending)
    }

    fn is_about_outputs(self) -> bool {
        matches!(self, Self::OutputAbsent | Self::OutputAltered)
    }
}

/// The event that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    /// Convert this version unless it is settled.
    Observe { seen: Seen },
    /// Convert again, once per request id.
    Reconvert { etag: Option<ETag>, id: String },
}

/// Something that is not as it should be, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    /// Of the source; of an orphaned output its own.
    pub bucket: String,
    pub key: String,
    pub etag: Option<ETag>,
    pub since: Option<Millis>,
    pub what: String,
    /// The output that it is about, as `s3://bucket/key`.
    pub output: Option<String>,
    /// The id of the open letter.
    pub letter: Option<String>,
    pub repair: Option<Repair>,
}

impl Finding {
    pub fn new(kind: Kind, object: &ObjectRef, what: impl Into<String>) -> Self {
        Self {
            kind,
            bucket: object.bucket().to_owned(),
            key: object.key().to_owned(),
            etag: None,
            since: None,
            what: what.into(),
            output: None,
            letter: None,
            repair: None,
        }
    }

    /// Sorts findings by kind, then by object.
    pub fn place(&self) -> Vec<u8> {
        let mut place = vec![self.kind as u8];
        place.extend(format!("{}/{}", self.bucket, self.key).into_bytes());
        place
    }

    pub fn is_about_outputs(&self) -> bool {
        self.kind.is_about_outputs()
    }

    /// What an operator does about it.
    pub fn advice(&self) -> String {
        match self.kind {
            Kind::Missing | Kind::Stale => "--repair announces it".into(),
            Kind::OutputAbsent | Kind::OutputAltered => "--repair converts it again".into(),
            Kind::OrphanedOutput => "delete it when nobody reads it".into(),
            Kind::Unreadable => "see the reason; then audit again".into(),
            Kind::DeadLettered => format!(
                "feedmill dead-letters replay {}",
                self.letter.as_deref().unwrap_or_default()
            ),
            Kind::Pending => "wait, then audit again".into(),
        }
    }
}

/// How an object is settled, when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fine {
    Converted,
    Discarded,
}

/// What is concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fine(Fine),
    /// It is known for sure.
    Named(Finding),
    /// It is named if nothing has changed when it is looked at again.
    Suspected(Finding),
    /// The state names an output that was not looked at.
    Unseen,
}

/// Which objects are so young that their notification may still be on its way.
#[derive(Debug, Clone, Copy)]
pub struct Age {
    pub min: Duration,
    pub now: Millis,
}

/// What is to be said of an object. What was seen must have been seen before the facts were, and of these what is pending
/// before what is settled: an event that was done in between then has its state here.
pub fn judge(object: &ObjectRef, seen: &Sighting, facts: &Facts, age: Age) -> Verdict {
    let state = facts.state.as_ref();
    let source = &seen.source;
    let settled = state.filter(|state| state.settled.etag.as_ref() == Some(&source.etag));
    if let Some(state) = settled {
        return judge_settled(object, seen, state, facts);
    }
    if let Some(pending) = &facts.pending {
        return Verdict::Named(under_way(object, seen, pending));
    }
    if let Some(letter) = unsettled_letter(source, state, facts.letter.as_ref()) {
        return Verdict::Named(dead_lettered(object, seen, letter, facts.letter.as_ref()));
    }
    if is_young(source.modified, age.min, age.now) {
        return Verdict::Named(named(
            Kind::Pending,
            object,
            seen,
            "young: its notification may still be on its way".into(),
        ));
    }
    let (kind, what) = match state.and_then(|state| state.settled.etag.as_ref()) {
        Some(etag) => (Kind::Stale, format!("settled is the version {etag}")),
        None => (Kind::Missing, "no event and no state".into()),
    };
    Verdict::Suspected(Finding {
        repair: Some(Repair::Observe {
            seen: source.clone(),
        }),
        ..named(kind, object, seen, what)
    })
}

/// This version is settled; are its outputs as they were written?
fn judge_settled(object: &ObjectRef, seen: &Sighting, state: &State, facts: &Facts) -> Verdict {
    let settled = &state.settled;
    if settled.status == Some(Status::Converted) {
        for output in &settled.outputs {
            let Some(standing) = seen.standing(output) else {
                return Verdict::Unseen;
            };
            let there = standing.seen.as_ref();
            if there.is_some_and(|there| there.etag == output.etag) {
                continue;
            }
            let finding = wrong_output(object, seen, state, output, there);
            return match &facts.pending {
                Some(pending) => Verdict::Named(under_way(object, seen, pending)),
                None => Verdict::Suspected(finding),
            };
        }
    }
    match &settled.dead_letter_id {
        Some(id) => match &facts.pending {
            Some(pending) => Verdict::Named(under_way(object, seen, pending)),
            None => Verdict::Named(dead_lettered(object, seen, id, facts.letter.as_ref())),
        },
        None if settled.status == Some(Status::Discarded) => Verdict::Fine(Fine::Discarded),
        None => Verdict::Fine(Fine::Converted),
    }
}

/// The open letter that is about this version, although another one is settled, or none. The letter of a version that can
/// never be converted is about that version, which is settled by it.
fn unsettled_letter<'a>(
    source: &Seen,
    state: Option<&'a State>,
    letter: Option<&Letter>,
) -> Option<&'a str> {
    let settled = &state?.settled;
    let id = settled.dead_letter_id.as_deref()?;
    let is_of_another = settled.status == Some(Status::DeadLettered)
        || letter
            .and_then(|letter| letter.etag.as_ref())
            .is_some_and(|etag| *etag != source.etag);
    (!is_of_another).then_some(id)
}

fn wrong_output(
    object: &ObjectRef,
    seen: &Sighting,
    state: &State,
    output: &Output,
    there: Option<&Seen>,
) -> Finding {
    let (generation, written) = (state.settled.generation, &output.etag);
    let (kind, since, what, id) = match there {
        None => (
            Kind::OutputAbsent,
            Some(state.settled_at),
            format!("the output {written} that was written is not there"),
            format!("audit:absent:{generation}"),
        ),
        Some(there) => (
            Kind::OutputAltered,
            there.modified,
            format!("the output is {}, written was {written}", there.etag),
            format!("audit:altered:{generation}:{}", there.etag),
        ),
    };
    Finding {
        since,
        output: Some(url(output)),
        ..again(kind, object, seen, what, id)
    }
}

/// The bytes of an output are not those that were written, although its ETag is.
pub fn other_bytes(
    object: &ObjectRef,
    seen: &Sighting,
    state: &State,
    output: &Output,
    sha256: &str,
) -> Finding {
    let what = format!(
        "the output's SHA-256 is {sha256}, written was {}",
        output.sha256
    );
    let id = format!("audit:bytes:{}:{sha256}", state.settled.generation);
    Finding {
        output: Some(url(output)),
        ..again(Kind::OutputAltered, object, seen, what, id)
    }
}

/// An output that has to be made again.
fn again(kind: Kind, object: &ObjectRef, seen: &Sighting, what: String, id: String) -> Finding {
    Finding {
        repair: Some(Repair::Reconvert {
            etag: Some(seen.source.etag.clone()),
            id,
        }),
        ..named(kind, object, seen, what)
    }
}

fn dead_lettered(
    object: &ObjectRef,
    seen: &Sighting,
    id: &str,
    letter: Option<&Letter>,
) -> Finding {
    let letter = letter.filter(|letter| letter.id == id);
    let what = letter.map_or_else(
        || "a dead letter is open".into(),
        |letter| format!("a dead letter is open: {}", letter.reason),
    );
    Finding {
        since: letter.map(|letter| letter.failed_at),
        letter: Some(id.to_owned()),
        ..named(Kind::DeadLettered, object, seen, what)
    }
}

fn under_way(object: &ObjectRef, seen: &Sighting, pending: &Pending) -> Finding {
    let what = match &pending.waiting {
        Waiting::ForConvert => "convert has still to finish its event".to_owned(),
        Waiting::Unreadable => "an event of it can't be read by this version".to_owned(),
        Waiting::InRetry {
            tier,
            attempts,
            reason,
        } => format!("waits in the retry topic {tier}: {reason}, attempts that failed: {attempts}"),
    };
    Finding {
        since: pending.since,
        ..named(Kind::Pending, object, seen, what)
    }
}

fn named(kind: Kind, object: &ObjectRef, seen: &Sighting, what: String) -> Finding {
    Finding {
        etag: Some(seen.source.etag.clone()),
        since: seen.source.modified,
        ..Finding::new(kind, object, what)
    }
}

fn url(output: &Output) -> String {
    format!("s3://{}/{}", output.bucket, output.key)
}

#[cfg(test)]
mod tests;
