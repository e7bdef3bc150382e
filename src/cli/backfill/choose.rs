//! What is concluded from a listed object and what is settled for it. Pure: no Kafka, no S3.

use crate::{
    convert::state::Settled,
    object::ObjectRef,
    sweep::Listed,
    topics::{Intent, ObjectEvent, Status},
};

/// The name of backfills in events.
const SOURCE: &str = "backfill";

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// What is not settled with the listed ETag.
    Unsettled,
    /// Everything, once for this request.
    Everything { request: String },
    /// What was settled by another mapping or feed than today's, once for this request.
    MappingChanged { request: String },
}

/// The feed that takes an object, as it is configured now.
#[derive(Debug, Clone, Copy)]
pub struct Today<'a> {
    pub feed: &'a str,
    pub mapping_hash: &'a str,
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Announce(Box<ObjectEvent>),
    /// It is as it should be: settled with this ETag, or by today's mapping.
    Settled,
    /// Not settled, or not as converted or dead-lettered, and nothing else was asked for.
    LeftAlone,
    /// Convert has done this request for it.
    Done,
}

impl Asked {
    /// The name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unsettled => "unsettled",
            Self::Everything { .. } => "force",
            Self::MappingChanged { .. } => "mapping_changed",
        }
    }

    /// The id by which convert knows that it has done this already.
    pub fn request(&self) -> Option<&str> {
        match self {
            Self::Unsettled => None,
            Self::Everything { request } | Self::MappingChanged { request } => Some(request),
        }
    }

    pub fn choose(
        &self,
        object: &ObjectRef,
        listed: &Listed,
        today: Today<'_>,
        settled: Option<&Settled>,
    ) -> Choice {
        let last_request = settled.and_then(|settled| settled.last_request_id.as_deref());
        if self.request().is_some() && self.request() == last_request {
            return Choice::Done;
        }
        match self {
            Self::Unsettled => {
                match settled.and_then(|settled| settled.etag.as_ref()) == Some(&listed.etag) {
                    true => Choice::Settled,
                    false => Choice::Announce(Box::new(seen(object, listed))),
                }
            }
            Self::Everything { request } => again(object, listed, request),
            Self::MappingChanged { request } => match settled {
                Some(settled) if !is_of_a_mapping(settled) => Choice::LeftAlone,
                None => Choice::LeftAlone,
                Some(settled) if is_of_today(settled, today) => Choice::Settled,
                Some(_) => again(object, listed, request),
            },
        }
    }
}

/// An observation of what was listed.
fn seen(object: &ObjectRef, listed: &Listed) -> ObjectEvent {
    ObjectEvent {
        etag: Some(listed.etag.clone()),
        size: listed.size,
        event_time: listed.modified,
        ..ObjectEvent::observed(object, SOURCE)
    }
}

fn again(object: &ObjectRef, listed: &Listed, request: &str) -> Choice {
    Choice::Announce(Box::new(ObjectEvent {
        intent: Intent::Reconvert,
        intent_id: Some(request.to_owned()),
        ..seen(object, listed)
    }))
}

/// Whether a mapping settled it: a discarded version was settled by a person, and a letter alone settles nothing.
fn is_of_a_mapping(settled: &Settled) -> bool {
    matches!(
        settled.status,
        Some(Status::Converted | Status::DeadLettered)
    )
}

fn is_of_today(settled: &Settled, today: Today<'_>) -> bool {
    settled.mapping_hash.as_deref() == Some(today.mapping_hash)
        && settled.feed.as_deref() == Some(today.feed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{object::ETag, topics::Millis};

    const TODAY: Today<'_> = Today {
        feed: "nsx",
        mapping_hash: "m2",
    };

    fn settled(etag: &str, status: Status, mapping: &str) -> Settled {
        Settled {
            etag: ETag::parse(etag),
            status: Some(status),
            feed: Some("nsx".into()),
            mapping_hash: Some(mapping.into()),
            ..Settled::default()
        }
    }

    /// What becomes of an object that is listed with the ETag A.
    fn choice(asked: &Asked, settled: Option<&Settled>) -> Choice {
        let object = ObjectRef::try_new("in", "a.xml").unwrap();
        let listed = Listed {
            key: "a.xml".into(),
            etag: ETag::parse("A").unwrap(),
            size: Some(7),
            modified: Some(Millis(5)),
        };
        asked.choose(&object, &listed, TODAY, settled)
    }

    fn event(choice: Choice) -> ObjectEvent {
        match choice {
            Choice::Announce(event) => *event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_default_what_is_not_settled_with_the_listed_etag_is_observed() {
        let asked = Asked::Unsettled;
        let letter_only = Settled {
            dead_letter_id: Some("l".into()),
            ..Settled::default()
        };
        let other = settled("B", Status::Converted, "m2");
        for state in [None, Some(&other), Some(&letter_only)] {
            let event = event(choice(&asked, state));
            assert_eq!((event.intent, &*event.source), (Intent::Observe, SOURCE));
            assert_eq!((event.etag, event.size), (ETag::parse("A"), Some(7)));
            assert_eq!((event.event_time, event.intent_id), (Some(Millis(5)), None));
        }
        for status in [Status::Converted, Status::DeadLettered, Status::Discarded] {
            let state = settled("A", status, "m1");
            assert_eq!(choice(&asked, Some(&state)), Choice::Settled);
        }
    }

    #[test]
    fn force_asks_for_everything_once_for_each_request() {
        let asked = Asked::Everything {
            request: "r1".into(),
        };
        let mut state = settled("A", Status::Discarded, "m2");
        for state in [None, Some(&state)] {
            let event = event(choice(&asked, state));
            assert_eq!(event.intent, Intent::Reconvert);
            assert_eq!(event.intent_id.as_deref(), Some("r1"));
        }
        state.last_request_id = Some("r1".into());
        assert_eq!(choice(&asked, Some(&state)), Choice::Done);
        state.last_request_id = Some("r2".into());
        event(choice(&asked, Some(&state)));
    }

    #[test]
    fn a_changed_mapping_asks_for_what_another_mapping_or_feed_settled_and_for_nothing_else() {
        let asked = Asked::MappingChanged {
            request: "r1".into(),
        };
        // The listed version does not matter: today's mapping converts what is there.
        for etag in ["A", "B"] {
            for status in [Status::Converted, Status::DeadLettered] {
                let changed = settled(etag, status, "m1");
                let moved = Settled {
                    feed: Some("acme".into()),
                    ..settled(etag, status, "m2")
                };
                for state in [&changed, &moved] {
                    assert_eq!(event(choice(&asked, Some(state))).intent, Intent::Reconvert);
                }
                let same = settled(etag, status, "m2");
                assert_eq!(choice(&asked, Some(&same)), Choice::Settled);
            }
        }
        assert_eq!(choice(&asked, None), Choice::LeftAlone);
        let letter_only = Settled::default();
        let discarded = settled("A", Status::Discarded, "m1");
        for state in [letter_only, discarded] {
            assert_eq!(choice(&asked, Some(&state)), Choice::LeftAlone);
        }
    }
}
