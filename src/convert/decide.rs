//! What an event asks for, given what is settled for its object. Pure: no Kafka, no S3.
//!
//! Dedup is on the object's ETag within its state: only the settled version is a duplicate, so A, B, A converts three
//! times. No sequencer is ever compared; what is in the bucket now decides.

use super::state::Settled;
use crate::{
    object::ETag,
    topics::{Intent, ObjectEvent, Outcome, Output, Status},
};

/// What to do first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing more is needed: this is how the event ends.
    Answer(Outcome),
    /// Look at the object.
    Read(Wanted),
}

/// How much the event insists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Convert what is not settled.
    IfUnsettled,
    /// Convert if the output is not the one the state names; what is settled of the source does not matter.
    IfAltered,
    /// Convert in any case.
    InAnyCase,
}

/// Before any S3 request.
pub fn first_look(event: &ObjectEvent, state: Option<&Settled>, feed_matches: bool) -> Look {
    let names = |known: Option<&String>| known.is_some() && known == event.intent_id.as_ref();
    let letter_is_open = names(state.and_then(|state| state.dead_letter_id.as_ref()));
    let already_requested = names(state.and_then(|state| state.last_request_id.as_ref()));
    match event.intent {
        Intent::Discard if letter_is_open => Look::Answer(Outcome::Discarded),
        _ if !feed_matches => Look::Answer(Outcome::Ignored),
        Intent::Replay if letter_is_open => Look::Read(Wanted::InAnyCase),
        Intent::Reconvert if already_requested => Look::Answer(Outcome::Duplicate),
        Intent::Reconvert if event.is_about_an_altered_output() => Look::Read(Wanted::IfAltered),
        Intent::Reconvert => Look::Read(Wanted::InAnyCase),
        // A replay or discard whose letter is closed is an ordinary event.
        Intent::Observe | Intent::Replay | Intent::Discard => {
            match (&event.etag, settled_etag(state)) {
                (Some(etag), Some(settled)) if etag == settled => Look::Answer(Outcome::Duplicate),
                _ => Look::Read(Wanted::IfUnsettled),
            }
        }
    }
}

/// What to do with the version that a GET returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is settled already; the event ends like this, unless the output is not what the state says.
    Settled(Outcome),
    Convert,
}

/// After a GET: the ETag of what is there now decides.
pub fn found(
    event: &ObjectEvent,
    state: Option<&Settled>,
    wanted: Wanted,
    current: &ETag,
) -> Found {
    match wanted {
        Wanted::InAnyCase | Wanted::IfAltered => Found::Convert,
        Wanted::IfUnsettled if settled_etag(state) != Some(current) => Found::Convert,
        Wanted::IfUnsettled if event.etag.is_none() => Found::Settled(Outcome::Duplicate),
        Wanted::IfUnsettled => Found::Settled(Outcome::Superseded),
    }
}

/// The outputs that must stand as the state names them; one that differs is made again from what is in the bucket now.
///
/// None of a state that is not `converted`: a dead-lettered version can't be converted again, and each try would open
/// another letter. None outside the present output bucket either: a bucket that was left may be gone.
pub fn outputs_to_compare<'a>(
    state: Option<&'a Settled>,
    output_bucket: &str,
) -> impl Iterator<Item = &'a Output> {
    state
        .filter(|state| state.status == Some(Status::Converted))
        .into_iter()
        .flat_map(|state| &state.outputs)
        .filter(move |output| output.bucket == output_bucket)
}

fn settled_etag(state: Option<&Settled>) -> Option<&ETag> {
    state.and_then(|state| state.etag.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectRef;

    fn event(etag: Option<&str>) -> ObjectEvent {
        let object = ObjectRef::try_new("b", "k").unwrap();
        ObjectEvent {
            etag: etag.and_then(ETag::parse),
            ..ObjectEvent::observed(&object, "test")
        }
    }

    fn asking(intent: Intent, id: &str, etag: Option<&str>) -> ObjectEvent {
        ObjectEvent {
            intent,
            intent_id: Some(id.into()),
            ..event(etag)
        }
    }

    fn settled(etag: &str) -> Settled {
        Settled {
            etag: ETag::parse(etag),
            ..Settled::default()
        }
    }

    fn tag(etag: &str) -> ETag {
        ETag::parse(etag).unwrap()
    }

    #[test]
    fn the_settled_version_is_a_duplicate_at_once() {
        assert_eq!(
            first_look(&event(Some("A")), Some(&settled("A")), true),
            Look::Answer(Outcome::Duplicate)
        );
    }

    #[test]
    fn a_return_to_an_earlier_version_is_converted_because_another_one_is_settled() {
        let state = settled("B");
        assert_eq!(
            first_look(&event(Some("A")), Some(&state), true),
            Look::Read(Wanted::IfUnsettled)
        );
        assert_eq!(
            found(
                &event(Some("A")),
                Some(&state),
                Wanted::IfUnsettled,
                &tag("A")
            ),
            Found::Convert
        );
    }

    #[test]
    fn an_old_notification_of_a_replaced_version_is_superseded_when_the_current_one_is_settled() {
        let state = settled("B");
        let found = found(
            &event(Some("A")),
            Some(&state),
            Wanted::IfUnsettled,
            &tag("B"),
        );
        assert_eq!(found, Found::Settled(Outcome::Superseded));
    }

    #[test]
    fn an_old_notification_converts_the_current_version_when_that_is_not_settled() {
        let found = found(
            &event(Some("A")),
            Some(&settled("A0")),
            Wanted::IfUnsettled,
            &tag("B"),
        );
        assert_eq!(found, Found::Convert);
    }

    #[test]
    fn an_event_without_an_etag_is_a_duplicate_when_what_is_there_is_settled() {
        let state = settled("A");
        assert_eq!(
            first_look(&event(None), Some(&state), true),
            Look::Read(Wanted::IfUnsettled)
        );
        let found = found(&event(None), Some(&state), Wanted::IfUnsettled, &tag("A"));
        assert_eq!(found, Found::Settled(Outcome::Duplicate));
    }

    #[test]
    fn a_key_that_no_feed_matches_is_ignored_whatever_is_asked() {
        for event in [event(Some("A")), asking(Intent::Reconvert, "r", None)] {
            assert_eq!(
                first_look(&event, Some(&settled("A")), false),
                Look::Answer(Outcome::Ignored)
            );
        }
    }

    #[test]
    fn a_reconvert_runs_once_per_request_id_whatever_the_etag() {
        let event = asking(Intent::Reconvert, "r1", Some("A"));
        let mut state = settled("A");
        assert_eq!(
            first_look(&event, Some(&state), true),
            Look::Read(Wanted::InAnyCase)
        );
        assert_eq!(
            found(&event, Some(&state), Wanted::InAnyCase, &tag("A")),
            Found::Convert
        );
        state.last_request_id = Some("r1".into());
        assert_eq!(
            first_look(&event, Some(&state), true),
            Look::Answer(Outcome::Duplicate)
        );
    }

    #[test]
    fn replays_and_discards_count_only_while_their_letter_is_open() {
        let mut state = Settled {
            dead_letter_id: Some("l1".into()),
            ..settled("A")
        };
        let (replay, discard) = (
            asking(Intent::Replay, "l1", Some("A")),
            asking(Intent::Discard, "l1", Some("A")),
        );
        assert_eq!(
            first_look(&replay, Some(&state), true),
            Look::Read(Wanted::InAnyCase)
        );
        assert_eq!(
            first_look(&discard, Some(&state), false),
            Look::Answer(Outcome::Discarded)
        );
        state.dead_letter_id = Some("l2".into());
        for event in [replay, discard] {
            assert_eq!(
                first_look(&event, Some(&state), true),
                Look::Answer(Outcome::Duplicate)
            );
        }
    }

    #[test]
    fn a_sweeps_request_looks_at_the_output_first_once_per_id_and_then_converts_whatever_is_settled()
     {
        let id = "altered-output:7:e1";
        let event = asking(Intent::Reconvert, id, Some("A"));
        let mut state = settled("A");
        let look = first_look(&event, Some(&state), true);
        assert_eq!(look, Look::Read(Wanted::IfAltered));
        let found = found(&event, Some(&state), Wanted::IfAltered, &tag("A"));
        assert_eq!(found, Found::Convert);
        state.last_request_id = Some(id.into());
        assert_eq!(
            first_look(&event, Some(&state), true),
            Look::Answer(Outcome::Duplicate)
        );
        // The id of any other intent means what it says there.
        assert_eq!(
            first_look(&asking(Intent::Replay, id, Some("B")), Some(&state), true),
            Look::Read(Wanted::IfUnsettled)
        );
    }

    #[test]
    fn only_a_converted_states_outputs_in_the_present_bucket_are_compared() {
        let output = |bucket: &str| Output {
            bucket: bucket.into(),
            key: "k.json".into(),
            etag: tag("O"),
            sha256: String::new(),
            size: 1,
            records: 1,
        };
        let compared = |status| {
            let state = Settled {
                status,
                outputs: vec![output("old"), output("out")],
                ..settled("A")
            };
            let outputs = outputs_to_compare(Some(&state), "out");
            outputs.map(|output| output.bucket.clone()).collect()
        };
        let buckets: Vec<String> = compared(Some(Status::Converted));
        assert_eq!(buckets, ["out"]);
        for status in [None, Some(Status::DeadLettered), Some(Status::Discarded)] {
            let buckets: Vec<String> = compared(status);
            assert!(buckets.is_empty(), "{status:?}");
        }
        assert_eq!(outputs_to_compare(None, "out").count(), 0);
    }
}
