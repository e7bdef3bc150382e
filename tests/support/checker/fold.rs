//! What the Results of one object amount to: the state that `objects` must hold, and whether each outcome was decided on
//! the state that the outcomes before it had left.

use std::fmt;

use super::values::{EventResult, Outcome, Output, State, Status};
use super::violation::Violation;

/// What is settled for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub etag: Option<String>,
    pub status: Option<Status>,
    pub outputs: Vec<Output>,
    pub generation: i64,
}

impl From<&State> for Settled {
    fn from(state: &State) -> Self {
        Self {
            etag: state.etag.clone(),
            status: state.status,
            outputs: state.outputs.clone(),
            generation: state.generation,
        }
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<_> = self
            .outputs
            .iter()
            .map(|output| format!("{} {}", output.key, output.etag))
            .collect();
        write!(
            f,
            "{:?} with ETag {:?}, generation {}, outputs [{}]",
            self.status,
            self.etag,
            self.generation,
            outputs.join(", ")
        )
    }
}

/// A state in words, `nothing` when there is none.
pub fn describe(settled: Option<&Settled>) -> String {
    settled.map_or_else(|| "nothing".into(), Settled::to_string)
}

/// Folds the Results of one key, given in the order of their events' offsets.
pub fn fold(key: &str, results: &[&EventResult], found: &mut Vec<Violation>) -> Option<Settled> {
    let mut settled: Option<Settled> = None;
    for result in results {
        if !decided_on(settled.as_ref(), result) {
            found.push(Violation::DecidedOnOldState {
                key: key.into(),
                event_offset: result.event_offset,
                outcome: result.outcome,
                about: format!("{:?}", about(result)),
                settled: describe(settled.as_ref()),
            });
        }
        settled = apply(settled, result);
        found.extend(misreported(key, result, settled.as_ref()));
    }
    settled
}

/// The ETag that an outcome is about.
fn about(result: &EventResult) -> Option<&str> {
    result.settled_etag.as_deref().or(result.etag.as_deref())
}

/// Whether an outcome agrees with what was settled when it was decided: the settled version is not done again by an
/// ordinary event, and what is called settled is.
fn decided_on(settled: Option<&Settled>, result: &EventResult) -> bool {
    let etag = settled.and_then(|settled| settled.etag.as_deref());
    match result.outcome {
        Outcome::Ignored => true,
        Outcome::Duplicate | Outcome::Superseded => etag.is_some() && about(result) == etag,
        _ => result.intent != "observe" || etag.is_none() || result.etag.as_deref() != etag,
    }
}

/// The state after an outcome. An output stays until the next conversion replaces it, also when the bytes that follow
/// are refused; only a source that is gone takes its state along.
fn apply(before: Option<Settled>, result: &EventResult) -> Option<Settled> {
    let kept_outputs = |before: Option<Settled>| before.map_or_else(Vec::new, |s| s.outputs);
    let settle = |outputs| Settled {
        etag: result.settled_etag.clone(),
        status: result.status,
        outputs,
        generation: result.event_offset,
    };
    match result.outcome {
        Outcome::Converted => Some(settle(result.outputs.clone())),
        Outcome::Missing => None,
        Outcome::DeadLettered | Outcome::Discarded if settles(result) => {
            Some(settle(kept_outputs(before)))
        }
        _ => before,
    }
}

/// Whether a state was written: its generation is the offset of the event that wrote it.
fn settles(result: &EventResult) -> bool {
    result.generation == Some(result.event_offset)
}

/// Each Result says which state it leaves: that must be the state it does leave.
fn misreported(key: &str, result: &EventResult, settled: Option<&Settled>) -> Option<Violation> {
    let said = (result.generation, result.status);
    let left = (
        settled.map(|settled| settled.generation),
        settled.and_then(|settled| settled.status),
    );
    let differs = said != left && result.outcome != Outcome::Ignored;
    differs.then(|| Violation::LeavesDiffers {
        key: key.into(),
        event_offset: result.event_offset,
        said: format!("{said:?}"),
        left: format!("{left:?}"),
    })
}
