//! What a sweep concludes from what it sees and what is settled. Pure: no Kafka, no S3.

use std::time::Duration;

use crate::{
    cleanup::state::Cleaned,
    config::After,
    convert::state::Settled,
    object::{ETag, ObjectRef},
    topics::{ALTERED_OUTPUT, Intent, Millis, ObjectEvent, Status},
};

/// The name of the sweep in events.
pub const SOURCE: &str = "sweep";

/// Something seen in a bucket that may have to be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub object: ObjectRef,
    pub seen: Seen,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The object itself.
    Source {
        etag: ETag,
        size: Option<i64>,
        modified: Option<Millis>,
        /// What is to be done with it if it is converted; `None` when it may stay, or its result is on its way.
        clean_up: Option<After>,
    },
    /// Its output.
    Output {
        bucket: String,
        key: String,
        etag: ETag,
    },
    /// It is listed no more, and this old state is left of it.
    Nothing(Box<Settled>),
}

/// Why an object is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What is there is not what is settled.
    New,
    /// Its output is not the one that was written.
    AlteredOutput,
    /// It is gone, and what is settled of it is old.
    Gone,
    /// It is converted, and was not cleaned up as its feed asks.
    Uncleaned,
}

impl Kind {
    /// The name in metrics and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::AlteredOutput => "altered_output",
            Self::Gone => "gone",
            Self::Uncleaned => "uncleaned",
        }
    }
}

/// An event to append, unless an earlier announcement of the same still covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub kind: Kind,
    pub event: ObjectEvent,
    /// What the event says of its object: the ETag seen, the id of the request, or the generation of what is to be forgotten.
    pub mark: String,
}

impl Announcement {
    pub fn message_key(&self) -> String {
        format!("{}/{}", self.event.bucket, self.event.key)
    }

    /// What it is about, among all announcements.
    pub fn subject(&self) -> String {
        format!("{}:{}", self.kind.name(), self.message_key())
    }
}

impl Candidate {
    /// Whether it counts what was done to the source.
    pub fn may_be_cleaned_up(&self) -> bool {
        matches!(
            self.seen,
            Seen::Source {
                clean_up: Some(_),
                ..
            }
        )
    }

    /// The announcement to make, given what is settled for the object, and what was done to its source if that is known;
    /// `None` when all is as it should be.
    pub fn announcement(
        &self,
        settled: Option<&Settled>,
        cleaned: Option<&Cleaned>,
    ) -> Option<Announcement> {
        match &self.seen {
            Seen::Source {
                etag,
                size,
                modified,
                clean_up,
            } => {
                let settled = settled.filter(|settled| settled.etag.as_ref() == Some(etag));
                let Some(settled) = settled else {
                    return Some(self.new_object(etag, *size, *modified));
                };
                let after = clean_up.as_ref()?;
                let is_left = settled.status == Some(Status::Converted)
                    && !cleaned.is_some_and(|cleaned| cleaned.is_final(settled.generation, after));
                is_left.then(|| Announcement {
                    kind: Kind::Uncleaned,
                    ..self.new_object(etag, *size, *modified)
                })
            }
            Seen::Output { bucket, key, etag } => {
                let settled = settled?;
                let written = settled
                    .outputs
                    .iter()
                    .find(|output| output.bucket == *bucket && output.key == *key)?;
                let altered = settled.status == Some(Status::Converted) && written.etag != *etag;
                altered.then(|| self.altered_output(settled, etag))
            }
            Seen::Nothing(old) => (settled == Some(&**old)).then(|| self.gone(old)),
        }
    }

    /// Without an ETag: convert looks at what is there, and ends it as `missing` if nothing is.
    fn gone(&self, old: &Settled) -> Announcement {
        Announcement {
            kind: Kind::Gone,
            mark: old.generation.to_string(),
            event: ObjectEvent::observed(&self.object, SOURCE),
        }
    }

    fn new_object(&self, etag: &ETag, size: Option<i64>, modified: Option<Millis>) -> Announcement {
        Announcement {
            kind: Kind::New,
            mark: etag.as_str().to_owned(),
            event: ObjectEvent {
                etag: Some(etag.clone()),
                size,
                event_time: modified,
                ..ObjectEvent::observed(&self.object, SOURCE)
            },
        }
    }

    /// The id names the state and what stands in its place, so that convert can look again before it does the work.
    fn altered_output(&self, settled: &Settled, seen: &ETag) -> Announcement {
        let id = format!("{ALTERED_OUTPUT}{}:{seen}", settled.generation);
        Announcement {
            kind: Kind::AlteredOutput,
            mark: id.clone(),
            event: ObjectEvent {
                etag: settled.etag.clone(),
                intent: Intent::Reconvert,
                intent_id: Some(id),
                ..ObjectEvent::observed(&self.object, SOURCE)
            },
        }
    }
}

/// Whether an object is left to the notification that is still on its way. Its time is the server's and `now` is ours: a
/// clock that is wrong makes the wait longer or shorter, which does no harm.
pub fn is_young(modified: Option<Millis>, min_age: Duration, now: Millis) -> bool {
    let min_age_ms = i64::try_from(min_age.as_millis()).unwrap_or(i64::MAX);
    min_age_ms > 0 && modified.is_some_and(|modified| now.0.saturating_sub(modified.0) < min_age_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::{Cleanup, CleanupAction, CleanupOutcome, Id, Output};

    fn tag(etag: &str) -> ETag {
        ETag::parse(etag).unwrap()
    }

    fn source(etag: &str) -> Candidate {
        Candidate {
            object: ObjectRef::try_new("in", "a.xml").unwrap(),
            seen: Seen::Source {
                etag: tag(etag),
                size: Some(7),
                modified: Some(Millis(5)),
                clean_up: None,
            },
        }
    }

    fn output(etag: &str) -> Candidate {
        Candidate {
            object: ObjectRef::try_new("in", "a.xml").unwrap(),
            seen: Seen::Output {
                bucket: "out".into(),
                key: "a.xml.json".into(),
                etag: tag(etag),
            },
        }
    }

    fn settled(etag: Option<&str>, status: Status) -> Settled {
        Settled {
            etag: etag.map(tag),
            status: Some(status),
            generation: 42,
            outputs: vec![Output {
                bucket: "out".into(),
                key: "a.xml.json".into(),
                etag: tag("written"),
                sha256: String::new(),
                size: 1,
                records: 1,
            }],
            ..Settled::default()
        }
    }

    #[test]
    fn an_object_is_announced_if_and_only_if_its_etag_is_not_the_settled_one() {
        let announced =
            |settled: Option<&Settled>| source("A").announcement(settled, None).is_some();
        assert!(announced(None));
        assert!(announced(Some(&settled(Some("B"), Status::Converted))));
        assert!(
            announced(Some(&settled(None, Status::DeadLettered))),
            "only a letter is open"
        );
        for status in [Status::Converted, Status::DeadLettered, Status::Discarded] {
            assert!(!announced(Some(&settled(Some("A"), status))), "{status:?}");
        }
    }

    #[test]
    fn an_announced_object_is_an_observation_of_what_was_listed() {
        let announcement = source("A").announcement(None, None).unwrap();
        let event = &announcement.event;
        assert_eq!(
            (event.intent, event.source.as_str()),
            (Intent::Observe, "sweep")
        );
        assert_eq!((&event.etag, event.size), (&Some(tag("A")), Some(7)));
        assert_eq!(event.event_time, Some(Millis(5)));
        assert_eq!(announcement.subject(), "new:in/a.xml");
    }

    #[test]
    fn an_output_is_announced_only_when_the_state_names_it_with_another_etag() {
        let announced =
            |settled: &Settled| output("stray").announcement(Some(settled), None).is_some();
        assert!(announced(&settled(Some("A"), Status::Converted)));
        assert!(!announced(&settled(Some("A"), Status::DeadLettered)));
        let mut elsewhere = settled(Some("A"), Status::Converted);
        elsewhere.outputs[0].key = "other.json".into();
        assert!(!announced(&elsewhere));
        let as_written = settled(Some("A"), Status::Converted);
        assert_eq!(
            output("written").announcement(Some(&as_written), None),
            None
        );
        assert_eq!(output("stray").announcement(None, None), None);
    }

    #[test]
    fn a_reconversion_names_the_state_and_what_stands_in_its_place() {
        let settled = settled(Some("A"), Status::Converted);
        let announcement = output("stray").announcement(Some(&settled), None).unwrap();
        let event = &announcement.event;
        assert_eq!(event.intent, Intent::Reconvert);
        assert_eq!(event.intent_id.as_deref(), Some("altered-output:42:stray"));
        assert_eq!(event.etag, Some(tag("A")));
    }

    #[test]
    fn what_is_gone_is_announced_without_an_etag_while_its_old_state_stands() {
        let old = settled(Some("A"), Status::Converted);
        let gone = Candidate {
            object: ObjectRef::try_new("in", "a.xml").unwrap(),
            seen: Seen::Nothing(Box::new(old.clone())),
        };
        let announcement = gone.announcement(Some(&old), None).unwrap();
        let event = &announcement.event;
        assert_eq!((event.intent, &event.etag), (Intent::Observe, &None));
        assert_eq!(announcement.subject(), "gone:in/a.xml");
        let newer = Settled {
            dead_letter_id: Some("opened since".into()),
            ..old
        };
        assert_eq!(gone.announcement(Some(&newer), None), None);
        assert_eq!(gone.announcement(None, None), None);
    }

    #[test]
    fn an_object_is_young_until_it_has_the_age() {
        let minute = Duration::from_secs(60);
        let young = |modified| is_young(Some(Millis(modified)), minute, Millis(100_000));
        assert!(young(40_001) && young(100_000) && young(200_000));
        assert!(!young(40_000));
        assert!(!is_young(None, minute, Millis(100_000)));
        assert!(!is_young(
            Some(Millis(200_000)),
            Duration::ZERO,
            Millis(100_000)
        ));
    }

    /// What a sweep says of a source that is settled as it is listed.
    fn handed_over(
        status: Status,
        after: Option<After>,
        cleaned: Option<&Cleaned>,
    ) -> Option<Kind> {
        let mut candidate = source("A");
        if let Seen::Source { clean_up, .. } = &mut candidate.seen {
            *clean_up = after;
        }
        let state = settled(Some("A"), status);
        let announcement = candidate.announcement(Some(&state), cleaned)?;
        assert_eq!(announcement.event.intent, Intent::Observe);
        assert_eq!(announcement.event.etag, Some(tag("A")));
        Some(announcement.kind)
    }

    #[test]
    fn a_converted_source_that_was_not_cleaned_up_is_handed_over_as_what_it_is() {
        let delete = || Some(After::Delete);
        let converted = Status::Converted;
        assert_eq!(
            handed_over(converted, delete(), None),
            Some(Kind::Uncleaned)
        );
        assert_eq!(handed_over(converted, None, None), None);
        for status in [Status::DeadLettered, Status::Discarded] {
            assert_eq!(handed_over(status, delete(), None), None, "{status:?}");
        }
    }

    #[test]
    fn what_must_not_be_cleaned_up_is_not_handed_over_again() {
        let record = |outcome| {
            Cleaned::from(&Cleanup {
                bucket: "in".into(),
                key: "a.xml".into(),
                etag: tag("A"),
                version_id: None,
                event_id: Id::mint(),
                generation: 42,
                feed: "f".into(),
                action: CleanupAction::Delete,
                outcome,
                reason: None,
                message: None,
                target: None,
                cleaned_at: Millis(0),
                worker: "w".into(),
                trace_parent: None,
            })
        };
        let again = |outcome| {
            handed_over(
                Status::Converted,
                Some(After::Delete),
                Some(&record(outcome)),
            )
        };
        assert_eq!(again(CleanupOutcome::Skipped), None);
        assert_eq!(again(CleanupOutcome::Failed), Some(Kind::Uncleaned));
        assert_eq!(
            again(CleanupOutcome::Done),
            Some(Kind::Uncleaned),
            "it came again"
        );
    }
}
