//! The clean-up stage: what feeds want done with a source when its JSON is in the output bucket: delete, move or tag it.
//!
//! In: `results`, and what is settled in `objects`. Out: a record in `cleanups` for what was done, which is also the state
//! that the stage restores. It acts on a Result only when the state that stands is the one that the Result tells of and is
//! `converted`; a newer one has a Result of its own. What `results` no longer holds is handed over by the sweep, as an event
//! that ends as `duplicate`.
//!
//! Promises: a source is deleted or moved only while its outputs stand as they were written, and never in place of a newer
//! upload. What fails is said and left to the next sweep; a partition is never held up.
//!
//! * [`rules`]: what the feeds ask for; [`start`]: how they are proven, and replaced while running
//! * [`objects`]: what is settled, as new as the Result
//! * [`act`]: what is done to one source, on S3
//! * [`state`]: what was done before

pub mod act;
mod objects;
pub mod rules;
pub mod start;
pub mod state;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    backoff::jittered,
    config::Config,
    convert::state::Settled,
    kafka::{
        Decoded, Finished, GivenUp, Input, OutRecord, Position, RawRecord, Slot, Stage,
        StageSettings, StateBytes,
    },
    live::Live,
    object::{ETag, ObjectRef},
    s3::{Accounts, S3Error},
    telemetry::metrics::CleanupMetrics,
    topics::{
        Cleanup, CleanupOutcome, DecodeError, MESSAGE_BYTES, Millis, Outcome, ResultRecord, Status,
        Topics, cut, decode, encode,
    },
    unreadable::Copies,
};
use act::{CopySizes, End, Task};
pub use objects::{KafkaObjects, Objects};
use rules::{Rule, Rules};
use state::Cleaned;

/// The stage's name in groups and transactional ids.
pub const STAGE: &str = "cleanup";

/// Sources worked on at once, per worker. Each costs a few requests and no memory to speak of.
const MAX_IN_FLIGHT: usize = 64;

/// Bytes counted for a source; as many as fit are worked on.
const WEIGHT: u64 = 64 * 1024;

/// How often what is settled is looked at, while it seems older than the Result.
const LOOKS: u32 = 5;

/// Pause after a look or a try, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The clean-up stage of one worker.
pub struct CleanUp<O> {
    objects: O,
    rules: Arc<Live<Rules>>,
    s3: Arc<Live<Accounts>>,
    cleanups: Arc<str>,
    unreadable: Copies,
    worker: String,
    /// How long a failing request is repeated before it is left to the next sweep.
    in_place: Duration,
    metrics: CleanupMetrics,
}

/// What is to be done about a Result, given what is settled.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Act,
    /// Something newer is settled, or nothing that could be cleaned up.
    Pass,
    /// What is settled is not there yet.
    Wait,
}

fn verdict(result: &ResultRecord, settled: Option<&Settled>) -> Verdict {
    let told = result.generation.unwrap_or(i64::MAX);
    match settled {
        Some(settled) if settled.generation > told => Verdict::Pass,
        Some(settled) if settled.generation == told => match (settled.status, &settled.etag) {
            // While a letter is open the source is wanted for its replay, which has a Result of its own.
            _ if settled.dead_letter_id.is_some() => Verdict::Pass,
            (Some(Status::Converted), Some(_)) => Verdict::Act,
            _ => Verdict::Pass,
        },
        _ => Verdict::Wait,
    }
}

/// How the clean-up of a source ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    outcome: CleanupOutcome,
    reason: Option<&'static str>,
    message: Option<String>,
    target: Option<String>,
}

impl Ended {
    fn failed(reason: &'static str, message: impl std::fmt::Display) -> Self {
        Self {
            outcome: CleanupOutcome::Failed,
            reason: Some(reason),
            message: Some(cut(&message.to_string(), MESSAGE_BYTES)),
            target: None,
        }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        let plain = |outcome| Self {
            outcome,
            reason: None,
            message: None,
            target: None,
        };
        match end {
            End::Done(target) => Self {
                target,
                ..plain(CleanupOutcome::Done)
            },
            End::Gone => plain(CleanupOutcome::Gone),
            End::Changed => plain(CleanupOutcome::Changed),
            End::Skipped { reason, message } => Self {
                reason: Some(reason),
                message: Some(cut(&message, MESSAGE_BYTES)),
                ..plain(CleanupOutcome::Skipped)
            },
        }
    }
}

/// Why it can't be done now.
enum Trouble {
    S3(S3Error),
    /// What is settled can't be read, or does not appear.
    State(&'static str, String),
}

impl Trouble {
    fn is_lasting(&self) -> bool {
        matches!(self, Self::S3(error) if act::is_lasting(error))
    }

    fn ended(self) -> Ended {
        match self {
            Self::S3(error) => Ended::failed(error.failure.code(), error),
            Self::State(reason, message) => Ended::failed(reason, message),
        }
    }
}

impl<O: Objects> CleanUp<O> {
    pub fn new(
        config: &Config,
        objects: O,
        rules: Arc<Live<Rules>>,
        s3: Arc<Live<Accounts>>,
        topics: &Topics,
        worker: String,
        metrics: CleanupMetrics,
    ) -> Self {
        Self {
            objects,
            rules,
            s3,
            cleanups: topics.cleanups.as_str().into(),
            unreadable: Copies::new(topics, "results"),
            worker,
            in_place: config.retry.in_place,
            metrics,
        }
    }

    /// What the Kafka runtime needs to know of this stage.
    pub fn settings(topics: &Topics) -> StageSettings {
        StageSettings {
            name: STAGE.into(),
            input_topic: topics.results.clone(),
            input: Input::History {
                changelog_topic: topics.cleanups.clone(),
            },
            max_in_flight: MAX_IN_FLIGHT,
            max_in_flight_bytes: MAX_IN_FLIGHT as u64 * WEIGHT,
        }
    }

    /// Tries until it has ended, or may be left to the next sweep; `None` when there is nothing to do.
    async fn clean(
        &self,
        result: &ResultRecord,
        object: &ObjectRef,
        rule: &Rule,
        slot: &mut Slot,
    ) -> Option<Ended> {
        if let Some(why) = &rule.refused {
            return Some(Ended::failed("delete_unproven", why));
        }
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let trouble = match self.attempt(result, object, rule, slot).await {
                Ok(end) => return end.map(Ended::from),
                Err(trouble) => trouble,
            };
            if trouble.is_lasting() || began.elapsed() + pause > self.in_place {
                return Some(trouble.ended());
            }
            slot.pause(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        result: &ResultRecord,
        object: &ObjectRef,
        rule: &Rule,
        slot: &mut Slot,
    ) -> Result<Option<End>, Trouble> {
        let Some((settled, etag)) = self.settled(result, object, slot).await? else {
            return Ok(None);
        };
        let accounts = self.s3.current();
        let task = Task {
            s3: &accounts,
            object,
            settled: &settled,
            etag: &etag,
            rule,
            copy_sizes: CopySizes::default(),
        };
        task.run().await.map(Some).map_err(Trouble::S3)
    }

    /// The state that the Result tells of; `None` when something newer stands, or nothing that could be cleaned up.
    async fn settled(
        &self,
        result: &ResultRecord,
        object: &ObjectRef,
        slot: &mut Slot,
    ) -> Result<Option<(Settled, ETag)>, Trouble> {
        let mut pause = FIRST_PAUSE;
        for look in 1.. {
            let settled = self.objects.settled(object).await;
            let settled = settled.map_err(|why| Trouble::State("state_unreadable", why))?;
            match verdict(result, settled.as_ref()) {
                Verdict::Act => {
                    return Ok(settled.and_then(|settled| {
                        let etag = settled.etag.clone()?;
                        Some((settled, etag))
                    }));
                }
                Verdict::Pass => return Ok(None),
                Verdict::Wait if look < LOOKS => {
                    slot.pause(pause).await;
                    pause *= 2;
                }
                // Nothing is settled any more: its tombstone is newer than the Result.
                Verdict::Wait if settled.is_none() => return Ok(None),
                Verdict::Wait => break,
            }
        }
        let message = "the state that the result tells of does not appear in the objects topic";
        Err(Trouble::State("state_behind", message.into()))
    }

    /// What is written of an end, if it is news.
    fn answer(
        &self,
        result: &ResultRecord,
        rule: &Rule,
        before: Option<&Cleaned>,
        ended: Ended,
    ) -> Finished {
        let etag = result.settled_etag.clone().or(result.etag.clone());
        let (Some(etag), Some(generation)) = (etag, result.generation) else {
            return Finished::default();
        };
        self.metrics.ended(rule.action, ended.outcome);
        let cleanup = Cleanup {
            bucket: result.bucket.clone(),
            key: result.key.clone(),
            etag,
            version_id: result.version_id.clone(),
            event_id: result.event_id,
            generation,
            feed: rule.feed.clone(),
            action: rule.action,
            outcome: ended.outcome,
            reason: ended.reason.map(str::to_owned),
            message: ended.message,
            target: ended.target,
            cleaned_at: Millis::now(),
            worker: self.worker.clone(),
            trace_parent: result.trace_parent.clone(),
        };
        if !Cleaned::from(&cleanup).is_news_after(before) {
            return Finished::default();
        }
        say(&cleanup);
        self.record(result, Some(encode(&cleanup)))
    }

    fn record(&self, result: &ResultRecord, value: Option<Vec<u8>>) -> Finished {
        let mut headers = vec![("event-id", result.event_id.to_string())];
        let trace = result.trace_parent.clone();
        headers.extend(trace.map(|trace| ("traceparent", trace)));
        Finished {
            records: vec![OutRecord {
                topic: Arc::clone(&self.cleanups),
                partition: None,
                key: Some(format!("{}/{}", result.bucket, result.key).into_bytes()),
                value,
                headers,
            }],
            ..Finished::default()
        }
    }
}

fn say(cleanup: &Cleanup) {
    let Cleanup {
        bucket, key, feed, ..
    } = cleanup;
    let (action, outcome) = (cleanup.action.name(), cleanup.outcome.name());
    let (event_id, traceparent) = (cleanup.event_id, cleanup.trace_parent.as_deref());
    let (reason, why) = (cleanup.reason.as_deref(), cleanup.message.as_deref());
    let target = cleanup.target.as_deref();
    match cleanup.outcome {
        CleanupOutcome::Failed => warn!(
            bucket, key, %event_id, traceparent, feed, action, reason, why,
            "a source was not cleaned up; the next sweep hands it over again"
        ),
        CleanupOutcome::Skipped => warn!(
            bucket, key, %event_id, traceparent, feed, action, reason, why,
            "a source stays, and nothing hands it over again"
        ),
        _ => info!(
            bucket, key, %event_id, traceparent, feed, action, outcome, to = target,
            "clean-up ended"
        ),
    }
}

impl<O: Objects> Stage for CleanUp<O> {
    type Event = ResultRecord;
    type State = Cleaned;

    fn decode(&self, record: &RawRecord) -> Decoded<ResultRecord> {
        let event: ResultRecord = match record.value.as_deref().map(decode) {
            None => return Decoded::Unreadable("it has no value".into()),
            Some(Err(error @ DecodeError::UnknownSchema { .. })) => {
                return Decoded::Wait(format!(
                    "the result at offset {} was written by a newer feedmill ({error}); upgrade the workers that clean up",
                    record.position.offset
                ));
            }
            Some(Err(error)) => return Decoded::Unreadable(error.to_string()),
            Some(Ok(event)) => event,
        };
        let object = match ObjectRef::try_new(event.bucket.as_str(), event.key.as_str()) {
            Ok(object) => object,
            Err(error) => return Decoded::Unreadable(error.to_string()),
        };
        let is_converted = event.status == Some(Status::Converted);
        let may_act = is_converted && self.rules.current().of(&object).is_some();
        match may_act || event.outcome == Outcome::Missing {
            true => Decoded::Event {
                event,
                weight: WEIGHT,
            },
            false => Decoded::Answer(Finished::default()),
        }
    }

    async fn process(
        self: Arc<Self>,
        result: Arc<ResultRecord>,
        _: Position,
        before: Option<Arc<Cleaned>>,
        slot: &mut Slot,
    ) -> Finished {
        if result.outcome == Outcome::Missing {
            // What was settled is forgotten, and with it what was done.
            return match before {
                Some(_) => self.record(&result, None),
                None => Finished::default(),
            };
        }
        let object = ObjectRef::try_new(result.bucket.as_str(), result.key.as_str())
            .expect("decode refuses results that name no object");
        let rules = self.rules.current();
        let before = before.as_deref();
        let answered = before.is_some_and(|before| before.answers(result.event_id));
        let Some(rule) = rules.of(&object).filter(|_| !answered) else {
            return Finished::default();
        };
        match self.clean(&result, &object, rule, slot).await {
            Some(ended) => self.answer(&result, rule, before, ended),
            None => Finished::default(),
        }
    }

    fn unreadable(
        &self,
        position: Position,
        key: &[u8],
        value: Option<&[u8]>,
        reason: &str,
    ) -> Finished {
        self.unreadable.answer(position, key, value, reason)
    }

    fn read_state(&self, _: &ResultRecord, bytes: &[u8]) -> Result<Cleaned, String> {
        Cleaned::read(bytes)
    }

    fn give_up(
        &self,
        result: &ResultRecord,
        _: Position,
        before: Option<Arc<Cleaned>>,
        why: GivenUp<'_>,
    ) -> Finished {
        let object = ObjectRef::try_new(result.bucket.as_str(), result.key.as_str());
        let rules = self.rules.current();
        let Some(rule) = object.ok().and_then(|object| rules.of(&object)) else {
            return Finished::default();
        };
        let ended = match why {
            GivenUp::TooLarge(refusal) => Ended::failed("outcome_too_large", cut(refusal, 200)),
            // Not handed over again, or every sweep would bring the crashes back.
            GivenUp::Crashed { times } => Ended::from(End::Skipped {
                reason: "worker_crashed",
                message: format!(
                    "the worker died {times} times while it did this and nothing else"
                ),
            }),
        };
        self.answer(result, rule, before.as_deref(), ended)
    }

    fn fold(&self, value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
        state::fold(value)
    }
}

#[cfg(test)]
mod tests;
