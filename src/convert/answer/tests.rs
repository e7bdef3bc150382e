use super::*;
use crate::{
    feed::{self, ConvertError, Limits, Plan, Source, spec::Spec},
    object::{ETag, ObjectRef},
    topics::decode,
};

fn version(etag: &str) -> Version {
    Version {
        etag: ETag::parse(etag).unwrap(),
        version_id: None,
    }
}

struct Read {
    result: ResultRecord,
    state: Option<Option<ObjectState>>,
    letter: Option<Option<DeadLetter>>,
}

fn answer(state: Option<&Settled>, ending: &Ending, event: &ObjectEvent) -> Read {
    let topics = TopicNames::from(&Topics::with_prefix("t"));
    let answer = Answer {
        topics: &topics,
        worker: "w",
        event,
        position: Position {
            partition: 1,
            offset: 7,
        },
        state,
        feed: Some(Matched {
            name: "nsx",
            mapping_hash: "m",
        }),
        ending,
        excerpts: true,
    };
    let records = answer.records().records;
    let find = |topic: &str| records.iter().find(|record| &*record.topic == topic);
    Read {
        result: decode(find("t.results").unwrap().value.as_deref().unwrap()).unwrap(),
        state: find("t.objects")
            .map(|record| record.value.as_deref().map(|value| decode(value).unwrap())),
        letter: find("t.dead-letters")
            .map(|record| record.value.as_deref().map(|value| decode(value).unwrap())),
    }
}

fn event() -> ObjectEvent {
    ObjectEvent::observed(&ObjectRef::try_new("b", "k").unwrap(), "test")
}

fn output() -> Output {
    Output {
        bucket: "o".into(),
        key: "k.json".into(),
        etag: ETag::parse("old").unwrap(),
        sha256: String::new(),
        size: 1,
        records: 1,
    }
}

fn with_letter() -> Settled {
    Settled {
        etag: ETag::parse("A"),
        status: Some(Status::DeadLettered),
        dead_letter_id: Some("l".into()),
        outputs: vec![output()],
        last_request_id: Some("r".into()),
        generation: 3,
        ..Settled::default()
    }
}

#[test]
fn a_refusal_settles_its_version_opens_a_letter_and_keeps_naming_the_old_output() {
    let ending = Ending::Refused {
        source: Some(version("B")),
        refusal: Refusal::new("malformed_xml", "m").into(),
    };
    let event = event();
    let read = answer(
        Some(&Settled {
            dead_letter_id: None,
            ..with_letter()
        }),
        &ending,
        &event,
    );
    let state = read.state.unwrap().unwrap();
    let letter = read.letter.unwrap().unwrap();
    assert_eq!(state.dead_letter_id.as_deref(), Some(letter.id.as_str()));
    assert_eq!(read.result.dead_letter_id, state.dead_letter_id);
    assert_eq!(
        (state.etag, state.outputs),
        (ETag::parse("B"), vec![output()])
    );
    assert_eq!(state.last_request_id.as_deref(), Some("r"));
    assert_eq!((state.generation, read.result.generation), (7, Some(7)));
}

#[test]
fn whatever_drops_a_letter_from_the_state_closes_it_in_the_same_answer() {
    let converted = Ending::Converted {
        source: version("B"),
        outputs: vec![],
        rejected: Rejected::default(),
    };
    for ending in [converted, Ending::Missing, Ending::Discarded] {
        let read = answer(Some(&with_letter()), &ending, &event());
        assert_eq!(read.letter, Some(None), "{ending:?}");
        let named = read.state.unwrap().and_then(|state| state.dead_letter_id);
        assert_eq!(named, None, "{ending:?}");
    }
}

#[test]
fn an_ending_that_changes_nothing_writes_only_a_result_with_the_state_that_stands() {
    for ending in [
        Ending::Duplicate,
        Ending::Ignored,
        Ending::Superseded {
            current: version("A"),
        },
    ] {
        let read = answer(Some(&with_letter()), &ending, &event());
        assert_eq!((&read.state, &read.letter), (&None, &None), "{ending:?}");
        assert_eq!(
            (read.result.generation, read.result.status),
            (Some(3), Some(Status::DeadLettered))
        );
    }
}

#[test]
fn an_object_that_was_never_settled_leaves_no_tombstone_when_it_is_missing() {
    let read = answer(None, &Ending::Missing, &event());
    assert_eq!((read.state, read.letter), (None, None));
}

#[test]
fn a_refusal_of_a_version_that_was_never_read_opens_a_letter_and_settles_nothing() {
    let ending = Ending::Refused {
        source: None,
        refusal: Refusal::new("outcome_too_large", "m").into(),
    };
    let state = answer(Some(&with_letter()), &ending, &event())
        .state
        .unwrap()
        .unwrap();
    assert_eq!(
        (state.etag, state.status),
        (ETag::parse("A"), Some(Status::DeadLettered))
    );
    assert!(state.dead_letter_id.is_some());
    let state = answer(None, &ending, &event()).state.unwrap().unwrap();
    assert_eq!((state.etag, state.status), (None, None));
}

#[test]
fn a_reconvert_is_remembered_by_its_request_id() {
    let event = ObjectEvent {
        intent: Intent::Reconvert,
        intent_id: Some("r2".into()),
        ..event()
    };
    let ending = Ending::Converted {
        source: version("A"),
        outputs: vec![],
        rejected: Rejected::default(),
    };
    let read = answer(Some(&with_letter()), &ending, &event);
    assert_eq!(
        read.state.unwrap().unwrap().last_request_id.as_deref(),
        Some("r2")
    );
}

fn long_rejection() -> Rejection {
    let plan = Plan::compile(&Spec::default(), Limits::default()).unwrap();
    let converted = feed::convert(&plan, &Source::default(), &b"<"[..], Vec::new());
    let Err(ConvertError::Rejected(mut rejection)) = converted else {
        panic!("not rejected");
    };
    let long = "x".repeat(100_000);
    (rejection.message, rejection.path, rejection.excerpt) =
        (long.clone(), Some(long.clone()), Some(long));
    *rejection
}

#[test]
fn an_answer_is_small_whatever_the_file_says() {
    let mut refusal = Refusal::new("malformed_xml", "x".repeat(100_000));
    refusal.path = Some(cut(&"p".repeat(100_000), PLACE_BYTES));
    refusal.rejected.first = rejected_records(vec![long_rejection(); 20]);
    let topics = TopicNames::from(&Topics::with_prefix("t"));
    let event = ObjectEvent {
        key: "k".repeat(1024),
        ..event()
    };
    let answer = Answer {
        topics: &topics,
        worker: "w",
        event: &event,
        position: Position {
            partition: 0,
            offset: 0,
        },
        state: None,
        feed: None,
        ending: &Ending::Refused {
            source: Some(version("B")),
            refusal: refusal.into(),
        },
        excerpts: true,
    };
    let bytes: usize = answer
        .records()
        .records
        .iter()
        .filter_map(|record| record.value.as_ref())
        .map(Vec::len)
        .sum();
    assert!(bytes < 40 * 1024, "{bytes} bytes");
}

#[test]
fn a_discarded_version_is_settled_and_one_that_was_not_named_changes_nothing() {
    let named = ObjectEvent {
        etag: ETag::parse("B"),
        ..event()
    };
    for (event, etag) in [(named, "B"), (event(), "A")] {
        let read = answer(Some(&with_letter()), &Ending::Discarded, &event);
        let state = read.state.unwrap().unwrap();
        assert_eq!(
            (state.etag, state.status),
            (ETag::parse(etag), Some(Status::Discarded))
        );
        assert_eq!(state.outputs, vec![output()]);
    }
}

#[test]
fn a_letter_that_settles_nothing_leaves_the_generation_and_its_request_to_the_next() {
    let asked = ObjectEvent {
        intent: Intent::Reconvert,
        intent_id: Some("r2".into()),
        ..event()
    };
    let ending = Ending::Refused {
        source: None,
        refusal: Refusal::new("s3_unavailable", "m").into(),
    };
    let state = answer(Some(&with_letter()), &ending, &asked).state;
    let state = state.unwrap().unwrap();
    assert_eq!(state.generation, 3);
    assert_eq!(state.last_request_id.as_deref(), Some("r"));
}

#[test]
fn without_excerpts_nothing_of_the_file_is_told_and_what_servers_say_is() {
    const SECRET: &str = "4711-secret";
    let mut rejection = long_rejection();
    rejection.message = format!("{{\"card\":\"{SECRET}\"}} has no keys");
    rejection.excerpt = Some(SECRET.into());
    rejection.rejected = vec![rejection.clone()];
    rejection.path = None;
    let of_engine = Refusal::from(rejection);
    let of_server = Refusal::new("s3_denied", "HTTP 403");
    let topics = TopicNames::from(&Topics::with_prefix("t"));
    let bytes = |refusal: &Refusal, excerpts| {
        let answer = Answer {
            topics: &topics,
            worker: "w",
            event: &event(),
            position: Position {
                partition: 0,
                offset: 0,
            },
            state: None,
            feed: None,
            ending: &Ending::Refused {
                source: Some(version("B")),
                refusal: refusal.clone().into(),
            },
            excerpts,
        };
        format!(
            "{:?}",
            answer
                .records()
                .records
                .iter()
                .map(|record| {
                    let value = record.value.as_deref().map(String::from_utf8_lossy);
                    (value.map(|text| text.into_owned()), record.headers.clone())
                })
                .collect::<Vec<_>>()
        )
    };
    assert!(bytes(&of_engine, true).contains(SECRET));
    let told = bytes(&of_engine, false);
    assert!(!told.contains(SECRET), "{told}");
    assert!(told.contains("excerpts is off"));
    assert!(bytes(&of_server, false).contains("HTTP 403"));
}
