//! What becomes of an event whose attempt failed for a reason that may pass: it waits in a retry topic, or has waited enough.
//!
//! | why | where to | attempts |
//! |---|---|---|
//! | the attempt failed, and failed again on the spot | the tier of this attempt | one more |
//! | its bucket is away (see [`breaker`](super::breaker)) | the first tier | not counted, until `retry.max_age` |
//! | no tier is left, or it waited for `retry.max_age` | a dead letter that settles nothing | |
//! | the same, and the object was settled since its first attempt | it is superseded | |

use std::{sync::Arc, time::Duration};

use super::{
    answer::{Ending, Refusal},
    source::Version,
    state::Settled,
};
use crate::{
    config,
    kafka::{Finished, OutRecord, Position},
    s3::S3Error,
    topics::{Attempt, Millis, ObjectEvent, Topics, encode},
};

/// As `schemas/ObjectEvent.avsc` says.
const MAX_HISTORY: usize = 20;

/// The tiers of the configuration.
pub struct Tiers {
    tiers: Vec<Tier>,
    max_age: Duration,
}

/// One wait, and the topic that it takes place in.
#[derive(Debug, Clone)]
pub struct Tier {
    /// As metrics and logs name it: `1m`.
    pub name: Arc<str>,
    topic: Arc<str>,
    wait: Duration,
}

/// Why an attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It failed by itself.
    Failed,
    /// The bucket is away, for everybody.
    Away,
}

/// What follows.
#[derive(Debug)]
pub enum After {
    Wait(Box<Wait>),
    /// It has waited enough.
    End(Ending),
}

/// An event on its way to a retry topic.
#[derive(Debug)]
pub struct Wait {
    pub tier: Tier,
    pub event: ObjectEvent,
    pub reason: &'static str,
}

impl Tiers {
    pub fn new(settings: &config::Retry, topics: &Topics) -> Self {
        let tiers = settings.tiers.iter();
        Self {
            tiers: tiers
                .map(|tier| Tier {
                    name: tier.to_string().into(),
                    topic: topics.retry(tier).into(),
                    wait: tier.0,
                })
                .collect(),
            max_age: settings.max_age,
        }
    }

    /// Decides about an event that was read at `position` and can't go on now.
    pub fn after(
        &self,
        event: &ObjectEvent,
        position: Position,
        state: Option<&Settled>,
        over: Over,
        error: &S3Error,
        now: Millis,
    ) -> After {
        let waited = event.history.first().map_or(0, |first| now.0 - first.at.0);
        let is_old = u128::try_from(waited).is_ok_and(|ms| ms >= self.max_age.as_millis());
        let attempts = usize::try_from(event.attempt).unwrap_or(usize::MAX);
        let tier = match over {
            Over::Failed => self.tiers.get(attempts),
            Over::Away if is_old => None,
            Over::Away => self.tiers.first(),
        };
        match tier {
            Some(tier) => After::Wait(Box::new(Wait {
                tier: tier.clone(),
                event: waiting(event, position, over, tier.wait, error, now),
                reason: error.failure.code(),
            })),
            None => After::End(exhausted(event, position, state, error)),
        }
    }
}

/// The event as it comes back.
fn waiting(
    event: &ObjectEvent,
    position: Position,
    over: Over,
    wait: Duration,
    error: &S3Error,
    now: Millis,
) -> ObjectEvent {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let reason = error.failure.code();
    let mut history = event.history.clone();
    // Of a bucket that stays away, once is enough.
    let is_news = history.last().is_none_or(|last| last.reason != reason);
    if over == Over::Failed || is_news {
        // The first stays: it says since when.
        if history.len() >= MAX_HISTORY {
            history.remove(1);
        }
        history.push(Attempt {
            at: now,
            reason: reason.into(),
            message: error.to_string(),
        });
    }
    ObjectEvent {
        attempt: event.attempt + i32::from(over == Over::Failed),
        first_attempt_offset: event.first_attempt_offset.or(Some(position.offset)),
        not_before: Some(Millis(now.0.saturating_add(wait))),
        history,
        ..event.clone()
    }
}

/// An old failure says nothing about a newer version that was settled meanwhile. Otherwise a letter is opened and nothing is
/// settled, so that the next event, or the sweep, tries again.
fn exhausted(
    event: &ObjectEvent,
    position: Position,
    state: Option<&Settled>,
    error: &S3Error,
) -> Ending {
    let first = event.first_attempt_offset.unwrap_or(position.offset);
    let settled = state.filter(|state| state.was_settled_after(first));
    if let Some((state, etag)) = settled.and_then(|state| Some((state, state.etag.clone()?))) {
        return Ending::Superseded {
            current: Version {
                etag,
                version_id: state.version_id.clone(),
            },
        };
    }
    Ending::Refused {
        source: None,
        refusal: Box::new(Refusal::new(error.failure.code(), error.to_string())),
    }
}

impl Wait {
    /// The record that waits; it is committed together with the offset of the event it came from.
    pub fn records(&self) -> Finished {
        let event = &self.event;
        let mut headers = vec![
            ("event-id", event.id.to_string()),
            ("attempt", event.attempt.to_string()),
            ("reason", self.reason.to_owned()),
        ];
        headers.extend(event.not_before.map(|due| ("not-before", due.to_string())));
        let trace = event.trace_parent.clone();
        headers.extend(trace.map(|trace| ("traceparent", trace)));
        Finished {
            records: vec![OutRecord {
                topic: Arc::clone(&self.tier.topic),
                partition: None,
                key: Some(format!("{}/{}", event.bucket, event.key).into_bytes()),
                value: Some(encode(event)),
                headers,
            }],
            ..Finished::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Retry, Tier},
        object::{ETag, ObjectRef},
        topics::{Status, decode},
    };

    const AT: Position = Position {
        partition: 2,
        offset: 40,
    };

    fn tiers() -> Tiers {
        let settings = Retry {
            tiers: [1, 10].map(|s| Tier(Duration::from_secs(s))).to_vec(),
            max_age: Duration::from_secs(100),
            ..Retry::default()
        };
        Tiers::new(&settings, &Topics::with_prefix("t"))
    }

    fn event() -> ObjectEvent {
        ObjectEvent::observed(&ObjectRef::try_new("b", "k").unwrap(), "test")
    }

    fn error() -> S3Error {
        S3Error::unavailable("GetObject", "HTTP 503")
    }

    fn after(event: &ObjectEvent, state: Option<&Settled>, over: Over, now: i64) -> After {
        tiers().after(event, AT, state, over, &error(), Millis(now))
    }

    fn waits(after: After) -> Box<Wait> {
        match after {
            After::Wait(wait) => wait,
            After::End(ending) => panic!("{ending:?}"),
        }
    }

    fn ends(after: After) -> Ending {
        match after {
            After::End(ending) => ending,
            After::Wait(wait) => panic!("{wait:?}"),
        }
    }

    #[test]
    fn each_failed_attempt_waits_longer_and_the_event_keeps_its_id_and_its_history() {
        let first = waits(after(&event(), None, Over::Failed, 1_000));
        assert_eq!((&*first.tier.name, first.event.attempt), ("1s", 1));
        assert_eq!(first.event.not_before, Some(Millis(2_000)));
        assert_eq!(first.event.first_attempt_offset, Some(40));
        let later = Position { offset: 90, ..AT };
        let second = waits(tiers().after(
            &first.event,
            later,
            None,
            Over::Failed,
            &error(),
            Millis(5_000),
        ));
        assert_eq!(
            (&*second.tier.topic, second.event.attempt),
            ("t.retries.10s", 2)
        );
        assert_eq!(second.event.id, first.event.id);
        assert_eq!(second.event.first_attempt_offset, Some(40));
        let at: Vec<i64> = second.event.history.iter().map(|past| past.at.0).collect();
        assert_eq!(at, [1_000, 5_000]);
        let record = &second.records().records[0];
        assert_eq!(record.partition, None);
        assert_eq!(
            decode::<ObjectEvent>(record.value.as_deref().unwrap()).unwrap(),
            second.event
        );
    }

    #[test]
    fn after_the_last_attempt_a_letter_is_opened_and_nothing_is_settled() {
        let event = ObjectEvent {
            attempt: 2,
            ..event()
        };
        let Ending::Refused { source, refusal } = ends(after(&event, None, Over::Failed, 0)) else {
            panic!("no letter");
        };
        assert_eq!((source, refusal.reason), (None, "s3_unavailable"));
    }

    #[test]
    fn an_event_whose_object_was_settled_since_its_first_attempt_is_superseded() {
        let event = ObjectEvent {
            attempt: 2,
            first_attempt_offset: Some(10),
            ..event()
        };
        let settled_at = |generation, status| Settled {
            etag: ETag::parse("B"),
            status,
            generation,
            ..Settled::default()
        };
        let newer = settled_at(11, Some(Status::Converted));
        let ending = ends(after(&event, Some(&newer), Over::Failed, 0));
        assert!(matches!(ending, Ending::Superseded { .. }), "{ending:?}");
        // Settled before, or a letter that was opened and settled nothing.
        for state in [
            settled_at(10, Some(Status::Converted)),
            settled_at(11, None),
        ] {
            let ending = ends(after(&event, Some(&state), Over::Failed, 0));
            assert!(matches!(ending, Ending::Refused { .. }), "{ending:?}");
        }
    }

    #[test]
    fn a_bucket_that_is_away_burns_no_attempt_and_is_waited_for_until_the_event_is_too_old() {
        let mut event = event();
        for round in 0..100 {
            let wait = waits(after(&event, None, Over::Away, 1_000 * round));
            assert_eq!((&*wait.tier.name, wait.event.attempt), ("1s", 0));
            event = wait.event;
        }
        assert_eq!(event.history.len(), 1);
        let ending = ends(after(&event, None, Over::Away, 100_000));
        assert!(matches!(ending, Ending::Refused { source: None, .. }));
    }

    #[test]
    fn a_history_is_bounded_and_keeps_its_beginning() {
        let mut event = event();
        for round in 0..50 {
            event.attempt = 0;
            event = waits(after(&event, None, Over::Failed, round)).event;
        }
        assert_eq!(event.history.len(), MAX_HISTORY);
        assert_eq!(
            (event.history[0].at, event.history[MAX_HISTORY - 1].at),
            (Millis(0), Millis(49))
        );
    }

    #[test]
    fn without_tiers_the_first_failure_is_the_last() {
        let settings = Retry {
            tiers: vec![],
            ..Retry::default()
        };
        let tiers = Tiers::new(&settings, &Topics::with_prefix("t"));
        for over in [Over::Failed, Over::Away] {
            let after = tiers.after(&event(), AT, None, over, &error(), Millis(0));
            assert!(matches!(after, After::End(_)), "{after:?}");
        }
    }
}
