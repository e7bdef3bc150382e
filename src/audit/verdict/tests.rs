use super::*;
use crate::convert::state::Settled;

const GENERATION: i64 = 42;
const AGE: Age = Age {
    min: Duration::from_secs(60),
    now: Millis(1_000_000),
};

fn tag(etag: &str) -> ETag {
    ETag::parse(etag).unwrap()
}

fn seen(etag: &str) -> Seen {
    Seen {
        etag: tag(etag),
        size: Some(7),
        modified: Some(Millis(5)),
    }
}

fn object() -> ObjectRef {
    ObjectRef::try_new("in", "a.xml").unwrap()
}

/// The source in this version, and the output that its state names in that.
fn sighting(source: &str, output: Option<&str>) -> Sighting {
    Sighting {
        source: seen(source),
        outputs: vec![Standing {
            bucket: "out".into(),
            key: "a.xml.json".into(),
            seen: output.map(seen),
        }],
    }
}

fn state(etag: Option<&str>, status: Option<Status>, letter: Option<&str>) -> State {
    let output = Output {
        bucket: "out".into(),
        key: "a.xml.json".into(),
        etag: tag("written"),
        sha256: "aa".into(),
        size: 1,
        records: 1,
    };
    State {
        settled: Settled {
            etag: etag.map(tag),
            status,
            outputs: vec![output],
            dead_letter_id: letter.map(str::to_owned),
            generation: GENERATION,
            ..Settled::default()
        },
        settled_at: Millis(9),
    }
}

fn converted(etag: &str) -> Facts {
    Facts {
        state: Some(state(Some(etag), Some(Status::Converted), None)),
        ..Facts::default()
    }
}

fn pending(facts: Facts) -> Facts {
    Facts {
        pending: Some(Pending {
            since: Some(Millis(3)),
            waiting: Waiting::ForConvert,
        }),
        ..facts
    }
}

fn with_letter(facts: Facts, etag: Option<&str>) -> Facts {
    Facts {
        letter: Some(Letter {
            id: "l1".into(),
            etag: etag.map(tag),
            reason: "s3_unavailable".into(),
            failed_at: Millis(4),
        }),
        ..facts
    }
}

fn judged(seen: &Sighting, facts: &Facts) -> Verdict {
    judge(&object(), seen, facts, AGE)
}

#[track_caller]
fn suspected(seen: &Sighting, facts: &Facts, kind: Kind) -> Finding {
    match judged(seen, facts) {
        Verdict::Suspected(finding) if finding.kind == kind => finding,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn named(seen: &Sighting, facts: &Facts, kind: Kind) -> Finding {
    match judged(seen, facts) {
        Verdict::Named(finding) if finding.kind == kind => finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_settled_version_with_the_output_that_was_written_is_fine_whatever_is_pending() {
    let seen = sighting("A", Some("written"));
    for facts in [converted("A"), pending(converted("A"))] {
        assert_eq!(judged(&seen, &facts), Verdict::Fine(Fine::Converted));
    }
    let discarded = Facts {
        state: Some(state(Some("A"), Some(Status::Discarded), None)),
        ..Facts::default()
    };
    let fine = judged(&sighting("A", None), &discarded);
    assert_eq!(fine, Verdict::Fine(Fine::Discarded));
}

#[test]
fn a_version_that_nobody_settled_is_missing_or_stale_and_its_repair_names_what_was_seen() {
    let seen = sighting("A", Some("written"));
    let missing = suspected(&seen, &Facts::default(), Kind::Missing);
    let stale = suspected(&seen, &converted("B"), Kind::Stale);
    for finding in [missing, stale] {
        let announced = Repair::Observe {
            seen: seen.source.clone(),
        };
        assert_eq!(finding.repair, Some(announced));
        assert!(finding.kind.is_off());
    }
}

#[test]
fn what_is_under_way_or_young_is_pending_and_nothing_is_sent_for_it() {
    let seen = sighting("A", Some("written"));
    for facts in [pending(Facts::default()), pending(converted("B"))] {
        let finding = named(&seen, &facts, Kind::Pending);
        assert_eq!((finding.since, &finding.repair), (Some(Millis(3)), &None));
        assert!(!finding.kind.is_off());
    }
    let mut young = seen.clone();
    young.source.modified = Some(Millis(AGE.now.0 - 59_999));
    for facts in [Facts::default(), converted("B")] {
        assert!(named(&young, &facts, Kind::Pending).what.contains("young"));
    }
    young.source.modified = None;
    suspected(&young, &Facts::default(), Kind::Missing);
}

#[test]
fn an_output_must_stand_as_it_was_written_unless_an_event_is_under_way() {
    let absent = suspected(&sighting("A", None), &converted("A"), Kind::OutputAbsent);
    let altered = sighting("A", Some("other"));
    let altered = suspected(&altered, &converted("A"), Kind::OutputAltered);
    for (finding, request) in [
        (absent, "audit:absent:42"),
        (altered, "audit:altered:42:other"),
    ] {
        let again = Repair::Reconvert {
            etag: Some(tag("A")),
            id: request.into(),
        };
        assert_eq!(finding.repair, Some(again));
        assert_eq!(finding.output.as_deref(), Some("s3://out/a.xml.json"));
    }
    named(
        &sighting("A", None),
        &pending(converted("A")),
        Kind::Pending,
    );
    let unseen = Sighting {
        outputs: vec![],
        ..sighting("A", None)
    };
    assert_eq!(judged(&unseen, &converted("A")), Verdict::Unseen);
}

#[test]
fn an_open_letter_is_named_for_the_version_that_it_is_about() {
    let seen = sighting("A", None);
    let refused = Facts {
        state: Some(state(Some("A"), Some(Status::DeadLettered), Some("l1"))),
        ..Facts::default()
    };
    let finding = named(
        &seen,
        &with_letter(refused.clone(), Some("A")),
        Kind::DeadLettered,
    );
    assert_eq!(finding.letter.as_deref(), Some("l1"));
    assert!(finding.what.contains("s3_unavailable") && finding.advice().contains("l1"));
    // A newer version of a refused file is no matter of its letter.
    suspected(&sighting("B", None), &refused, Kind::Stale);

    // Attempts were used up: the letter settles nothing, and says which version it is about.
    for (etag, status) in [(None, None), (Some("B"), Some(Status::Converted))] {
        let exhausted = Facts {
            state: Some(state(etag, status, Some("l1"))),
            ..Facts::default()
        };
        for about in [Some("A"), None] {
            named(
                &seen,
                &with_letter(exhausted.clone(), about),
                Kind::DeadLettered,
            );
        }
        let of_another = with_letter(exhausted.clone(), Some("C"));
        let kind = etag.map_or(Kind::Missing, |_| Kind::Stale);
        suspected(&seen, &of_another, kind);
        named(&seen, &pending(exhausted), Kind::Pending);
    }
}

#[test]
fn a_wrong_output_is_named_before_the_letter_of_a_later_attempt() {
    let facts = Facts {
        state: Some(state(Some("A"), Some(Status::Converted), Some("l1"))),
        ..Facts::default()
    };
    suspected(&sighting("A", None), &facts, Kind::OutputAbsent);
    named(&sighting("A", Some("written")), &facts, Kind::DeadLettered);
}

#[test]
fn a_sighting_is_the_same_when_its_times_are_to_the_second() {
    let before = sighting("A", Some("written"));
    let mut now = before.clone();
    now.source.modified = Some(Millis(999));
    assert!(now.is(&before));
    now.source.modified = Some(Millis(1_000));
    assert!(!now.is(&before), "it was written again");
    for other in [sighting("B", Some("written")), sighting("A", None)] {
        assert!(!other.is(&before));
    }
}
