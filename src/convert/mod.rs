//! The convert stage: an event in, its outcome out, and the object's JSON in the output bucket.
//!
//! * [`decide`]: what an event asks for, given what is settled; pure
//! * [`feeds`]: which feed an object belongs to, and how it converts; replaced while running
//! * [`settle`]: one event to one ending, or to a wait: look, read, convert, write
//! * [`postpone`], [`breaker`]: what waits in a retry topic, and which buckets are away
//! * [`source`], [`conversion`], [`output`]: the object as a stream, the engine, the fenced write
//! * [`report`]: the rejected records, beside the output
//! * [`measure`]: what waits and what is open, for metrics
//! * [`answer`]: the records that say how an event ended
//! * [`state`]: what is kept locally of an object's state

pub mod answer;
mod breaker;
mod conversion;
mod decide;
mod feeds;
mod measure;
pub(crate) mod output;
mod postpone;
mod report;
mod settle;
mod source;
pub mod state;

use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::{
    config::{self, Config, Output, template::KeyTemplate},
    feed::{
        Plan,
        spec::{Compression, OutputFormat},
    },
    kafka::{
        Beside, Decoded, Finished, GivenUp, Input, OnCommit, Position, RawRecord, Slot, Stage,
        StageSettings, StateBytes,
    },
    live::Live,
    s3::Accounts,
    telemetry::{
        metrics::{ConvertMetrics, Ended, FeedMetrics, Metrics, RetryMetrics},
        trace::TraceContext,
    },
    topics::{
        DecodeError, Intent, MESSAGE_BYTES, Millis, ObjectEvent, Outcome, Topics, cut, decode,
    },
    unreadable::Copies,
};
use answer::{Answer, Ending, Matched, Refusal, TopicNames};
use breaker::Breakers;
pub use feeds::Feeds;
use measure::Measures;
use postpone::{After, Tiers, Wait};
use settle::Settling;
use source::Version;
use state::Settled;

/// The stage's name in groups, transactional ids and dead letters.
pub const STAGE: &str = "convert";

/// Memory counted for a file beside its parts, in bytes: the parser's buffers, one ordinary record, and what is
/// decompressed ahead of the parser.
const BASE_WEIGHT: u64 = 768 * 1024;

/// A feed, ready to convert.
pub struct Feed {
    pub name: String,
    pub plan: Arc<Plan>,
    /// Hash of everything that decides output bytes or keys.
    pub mapping_hash: String,
    pub content_type: &'static str,
    pub content_encoding: Option<&'static str>,
}

/// Why the stage can't be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("output.key")]
    Template(#[from] config::template::TemplateError),
    #[error("match of a feed")]
    Match(#[from] config::matcher::MatchError),
    #[error("feed {feed:?}")]
    Plan {
        feed: String,
        source: crate::feed::PlanError,
    },
}

/// The convert stage of one worker.
pub struct Convert {
    feeds: Arc<Live<Feeds>>,
    s3: Arc<Live<Accounts>>,
    template: KeyTemplate,
    output: Output,
    topics: TopicNames,
    unreadable: Copies,
    worker: String,
    /// Whether letters and results may show what stands in a file.
    excerpts: bool,
    /// Longest wait for a byte of a source's body.
    stall: Duration,
    /// How long a failing attempt is repeated before its event waits in a retry topic.
    in_place: Duration,
    tiers: Tiers,
    breakers: Breakers,
    metrics: ConvertMetrics,
    feed_metrics: FeedMetrics,
    retry_metrics: RetryMetrics,
    measures: Arc<Measures>,
}

impl Convert {
    pub fn new(
        config: &Config,
        feeds: Arc<Live<Feeds>>,
        s3: Arc<Live<Accounts>>,
        topics: &Topics,
        worker: String,
        metrics: &Metrics,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            feeds,
            template: KeyTemplate::parse(&config.output.key)?,
            output: config.output.clone(),
            topics: topics.into(),
            unreadable: Copies::new(topics, "events"),
            stall: Duration::from_millis(config.s3.read_timeout_ms),
            s3,
            worker,
            excerpts: config.dead_letters.excerpts,
            in_place: config.retry.in_place,
            tiers: Tiers::new(&config.retry, topics),
            breakers: Breakers::new(&config.retry.breaker, metrics.breaker.clone()),
            metrics: metrics.convert.clone(),
            feed_metrics: metrics.feeds.clone(),
            measures: Arc::new(Measures::new(topics, metrics.feeds.clone())),
            retry_metrics: metrics.retry.clone(),
        })
    }

    /// What the Kafka runtime needs to know of this stage.
    pub fn settings(config: &Config, topics: &Topics) -> StageSettings {
        StageSettings {
            name: STAGE.into(),
            input_topic: topics.events.clone(),
            input: Input::Own {
                changelog_topic: topics.objects.clone(),
            },
            max_in_flight: config.convert.max_in_flight,
            max_in_flight_bytes: config.memory.in_flight(),
        }
    }

    fn part_bytes(&self) -> usize {
        usize::try_from(self.output.part_bytes).unwrap_or(usize::MAX)
    }

    fn answer(
        &self,
        event: &ObjectEvent,
        position: Position,
        state: Option<&Settled>,
        feed: Option<&Feed>,
        ending: &Ending,
    ) -> Finished {
        let feed = feed.map(|feed| Matched {
            name: &feed.name,
            mapping_hash: &feed.mapping_hash,
        });
        Answer {
            topics: &self.topics,
            worker: &self.worker,
            event,
            position,
            state,
            feed,
            ending,
            excerpts: self.excerpts,
        }
        .records()
    }

    fn postponed(&self, wait: &Wait) -> Finished {
        let event = &wait.event;
        warn!(
            bucket = event.bucket,
            key = event.key,
            event_id = %event.id,
            traceparent = event.trace_parent,
            attempt = event.attempt,
            reason = wait.reason,
            tier = &*wait.tier.name,
            "event waits"
        );
        let (metrics, tier, reason) = (
            self.retry_metrics.clone(),
            Arc::clone(&wait.tier.name),
            wait.reason,
        );
        Finished {
            on_commit: OnCommit::new(move || metrics.postponed(&tier, reason)),
            ..wait.records()
        }
    }

    /// Counts an ending once it is committed.
    fn count(&self, event: &ObjectEvent, feed: Option<&Feed>, ending: &Ending) -> OnCommit {
        let (metrics, feeds) = (self.metrics.clone(), self.feed_metrics.clone());
        let rejected = ending.rejected();
        let ended = Ended {
            feed: feed.map(|feed| feed.name.clone()),
            outcome: ending.outcome(),
            bytes: event.size.and_then(|size| u64::try_from(size).ok()),
            rejected: rejected.map_or(Vec::new(), |rejected| {
                let reasons = rejected.first.iter().map(|first| first.reason.clone());
                reasons.collect()
            }),
            rejected_count: rejected.map_or(0, |rejected| rejected.count.unsigned_abs()),
        };
        let reason = ending.reason();
        let since = event.event_time.unwrap_or(event.received_at);
        let is_observed = event.intent == Intent::Observe
            && matches!(ended.outcome, Outcome::Converted | Outcome::DeadLettered);
        OnCommit::new(move || {
            feeds.ended(&ended);
            if let Some(reason) = reason {
                metrics.dead_lettered(reason);
            }
            if is_observed {
                let millis = Millis::now().0.saturating_sub(since.0);
                let took = u64::try_from(millis).unwrap_or(0);
                metrics.committed_after(Duration::from_millis(took));
            }
        })
    }

    fn log(
        &self,
        event: &ObjectEvent,
        position: Position,
        feed: Option<&Feed>,
        ending: &Ending,
        took: Duration,
    ) {
        info!(
            bucket = event.bucket,
            key = event.key,
            etag = event.etag.as_ref().map(|etag| etag.as_str()),
            partition = position.partition,
            offset = position.offset,
            event_id = %event.id,
            traceparent = event.trace_parent,
            feed = feed.map(|feed| feed.name.as_str()),
            outcome = ending.outcome().name(),
            reason = ending.reason(),
            took_ms = took.as_millis() as u64,
            "event ended"
        );
    }
}

impl Feed {
    pub fn compile(feed: &config::Feed, config: &Config) -> Result<Self, BuildError> {
        let spec = feed.spec();
        let plan = Plan::compile(&spec, config.convert.limits.clone()).map_err(|source| {
            BuildError::Plan {
                feed: feed.name.clone(),
                source,
            }
        })?;
        // The plan's own hash covers the bytes; the key and the layout come on top.
        let output = &config.output;
        let decides = [
            plan.mapping_hash(),
            &output.bucket,
            &output.key,
            &format!("{:?}", output.layout),
        ]
        .join("\n");
        Ok(Self {
            name: feed.name.clone(),
            mapping_hash: state::hex(&Sha256::digest(decides)[..8]),
            plan: Arc::new(plan),
            content_type: match spec.output {
                OutputFormat::Array | OutputFormat::Pretty => "application/json",
                OutputFormat::Lines => "application/x-ndjson",
            },
            content_encoding: spec.compress.map(Compression::content_encoding),
        })
    }
}

/// Whether something newer was settled since the event's first attempt: an old failure must not replace it.
fn is_overtaken(event: &ObjectEvent, state: Option<&Settled>) -> bool {
    let attempt = event.first_attempt_offset.zip(state);
    attempt.is_some_and(|(first, state)| state.was_settled_after(first))
}

impl Stage for Convert {
    type Event = ObjectEvent;
    type State = Settled;

    fn decode(&self, record: &RawRecord) -> Decoded<ObjectEvent> {
        let mut event: ObjectEvent = match record.value.as_deref().map(decode) {
            None => return Decoded::Unreadable("it has no value".into()),
            Some(Err(error @ DecodeError::UnknownSchema { .. })) => {
                return Decoded::Wait(format!(
                    "the event at offset {} was written by a newer feedmill or by another program ({error}); upgrade the workers that convert before those that take events in",
                    record.position.offset
                ));
            }
            Some(Err(error)) => return Decoded::Unreadable(error.to_string()),
            Some(Ok(event)) => event,
        };
        // It goes into headers and logs: one that is none, whoever wrote it, is left out (W3C says to ignore it).
        event.trace_parent = event
            .trace_parent
            .filter(|text| TraceContext::read(text).is_some());
        match event.object() {
            Err(error) => Decoded::Unreadable(error.to_string()),
            Ok(object) if object.message_key().as_bytes() != record.key => {
                Decoded::Unreadable("its record key is not bucket/key".into())
            }
            Ok(_) => {
                // For a small file no more than itself.
                let most = self.output.memory_of_a_file();
                let size = event
                    .size
                    .and_then(|size| u64::try_from(size).ok())
                    .unwrap_or(most);
                let weight = BASE_WEIGHT + size.saturating_mul(2).min(most);
                Decoded::Event { event, weight }
            }
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

    async fn process(
        self: Arc<Self>,
        event: Arc<ObjectEvent>,
        position: Position,
        state: Option<Arc<Settled>>,
        slot: &mut Slot,
    ) -> Finished {
        let began = std::time::Instant::now();
        let object = event
            .object()
            .expect("decode refuses events that name no object");
        let feeds = self.feeds.current();
        let feed = feeds.of(&object);
        let settling = Settling {
            stage: &self,
            event: &event,
            position,
            object: &object,
            state: state.as_deref(),
            feed,
        };
        let ending = match settling.settle(slot).await {
            After::End(ending) => ending,
            After::Wait(wait) => return self.postponed(&wait),
        };
        self.log(&event, position, feed, &ending, began.elapsed());
        Finished {
            on_commit: self.count(&event, feed, &ending),
            ..self.answer(&event, position, state.as_deref(), feed, &ending)
        }
    }

    fn give_up(
        &self,
        event: &ObjectEvent,
        position: Position,
        state: Option<Arc<Settled>>,
        why: GivenUp<'_>,
    ) -> Finished {
        let ending = match why {
            // What was found and done can't be said, so nothing is settled by it: only a letter is opened.
            GivenUp::TooLarge(refusal) => Ending::Refused {
                source: None,
                refusal: Refusal::new("outcome_too_large", cut(refusal, 200)).into(),
            },
            // Settled, as far as the version is known: or every sweep would bring the crashes back.
            GivenUp::Crashed { times } => Ending::Refused {
                source: event.etag.clone().filter(|_| !is_overtaken(event, state.as_deref())).map(|etag| Version {
                    etag,
                    version_id: event.version_id.clone(),
                }),
                refusal: Refusal::new("worker_crashed", format!("the worker died {times} times while it converted this file and no other; see its last words, and the memory it may use")).into(),
            },
        };
        let feeds = self.feeds.current();
        let feed = match why {
            GivenUp::TooLarge(_) => None,
            GivenUp::Crashed { .. } => event.object().ok().and_then(|object| feeds.of(&object)),
        };
        // What was too large to say has been logged when its work ended.
        if let GivenUp::Crashed { .. } = why {
            self.log(event, position, feed, &ending, Duration::ZERO);
        }
        let on_commit = self.count(event, feed, &ending);
        // Without the history and the names that can be long.
        let event = ObjectEvent {
            history: Vec::new(),
            source_id: None,
            sequencer: None,
            version_id: None,
            trace_parent: None,
            etag: event
                .etag
                .clone()
                .filter(|etag| etag.as_str().len() <= MESSAGE_BYTES),
            intent_id: event
                .intent_id
                .clone()
                .filter(|id| id.len() <= MESSAGE_BYTES),
            ..event.clone()
        };
        Finished {
            on_commit,
            ..self.answer(&event, position, state.as_deref(), feed, &ending)
        }
    }

    fn beside(&self) -> Option<Arc<dyn Beside>> {
        Some(Arc::clone(&self.measures) as _)
    }

    fn read_state(&self, event: &ObjectEvent, bytes: &[u8]) -> Result<Settled, String> {
        Settled::read(bytes, &event.key)
    }

    fn fold(&self, value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
        state::fold(value)
    }
}
