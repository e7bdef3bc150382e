//! What is kept locally of what was done to a source: what decides whether something is left to do.

use serde::{Deserialize, Serialize};

use crate::{
    config::After,
    kafka::StateBytes,
    topics::{Cleanup, CleanupAction, CleanupOutcome, Id, decode},
};

/// What was done last to a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    pub generation: i64,
    event_id: u128,
    pub action: CleanupAction,
    pub outcome: CleanupOutcome,
    pub reason: Option<String>,
    pub target: Option<String>,
}

/// Folds a record of `cleanups`; a tombstone forgets the object.
pub fn fold(value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
    let Some(value) = value else { return Ok(None) };
    let cleanup: Cleanup = decode(value).map_err(|error| error.to_string())?;
    postcard::to_allocvec(&Cleaned::from(&cleanup))
        .map(Some)
        .map_err(|error| error.to_string())
}

impl From<&Cleanup> for Cleaned {
    fn from(cleanup: &Cleanup) -> Self {
        Self {
            generation: cleanup.generation,
            event_id: cleanup.event_id.0.as_u128(),
            action: cleanup.action,
            outcome: cleanup.outcome,
            reason: cleanup.reason.clone(),
            target: cleanup.target.clone(),
        }
    }
}

impl Cleaned {
    /// Reads back what [`fold`] made.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }

    /// Whether the result of this event was acted on already.
    pub fn answers(&self, event: Id) -> bool {
        self.event_id == event.0.as_u128() && self.outcome != CleanupOutcome::Failed
    }

    /// Whether nothing is left to do for a source that is still listed with the version this state settled. One that was
    /// deleted or moved and is listed again came again.
    pub fn is_final(&self, generation: i64, after: &After) -> bool {
        let same =
            self.generation == generation && super::rules::action(after) == Some(self.action);
        match (self.outcome, after) {
            (CleanupOutcome::Skipped, _) => same,
            (CleanupOutcome::Done, After::Tag(tag)) => {
                same && self.target.as_deref() == Some(tag.to_string().as_str())
            }
            _ => false,
        }
    }

    /// Whether this tells more than the record before it: a notification that comes twice is no news.
    pub fn is_news_after(&self, before: Option<&Self>) -> bool {
        let Some(before) = before else { return true };
        let same =
            |other: &Self| (other.generation, other.action) == (self.generation, self.action);
        match self.outcome {
            _ if !same(before) => true,
            CleanupOutcome::Done => {
                self.action != CleanupAction::Tag || before != &self.with_event_of(before)
            }
            CleanupOutcome::Gone => {
                before.outcome != CleanupOutcome::Done && before.outcome != CleanupOutcome::Gone
            }
            _ => (before.outcome, &before.reason) != (self.outcome, &self.reason),
        }
    }

    fn with_event_of(&self, other: &Self) -> Self {
        Self {
            event_id: other.event_id,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        object::ETag,
        topics::{Millis, encode},
    };
    use CleanupAction::{Delete, Move, Tag};
    use CleanupOutcome::{Changed, Done, Failed, Gone, Skipped};

    fn record(action: CleanupAction, outcome: CleanupOutcome) -> Cleanup {
        Cleanup {
            bucket: "in".into(),
            key: "a.xml".into(),
            etag: ETag::parse("A").unwrap(),
            version_id: None,
            event_id: Id::mint(),
            generation: 7,
            feed: "f".into(),
            action,
            outcome,
            reason: None,
            message: None,
            target: (action == Tag).then(|| "feedmill=done".to_owned()),
            cleaned_at: Millis(1),
            worker: "w".into(),
            trace_parent: None,
        }
    }

    fn cleaned(action: CleanupAction, outcome: CleanupOutcome) -> Cleaned {
        Cleaned::from(&record(action, outcome))
    }

    fn after(text: &str) -> After {
        let config: Config = toml::from_str(&format!(
            "feeds = [{{ name = 'f', match = 's3://in/**', after = {text} }}]"
        ))
        .unwrap();
        config.feeds[0].after.clone()
    }

    #[test]
    fn what_was_done_reads_back_and_a_tombstone_forgets_it() {
        let record = record(Move, Done);
        let bytes = fold(Some(&encode(&record))).unwrap().unwrap();
        assert_eq!(Cleaned::read(&bytes), Ok(Cleaned::from(&record)));
        assert!(bytes.len() < 64, "{} bytes", bytes.len());
        assert_eq!(fold(None), Ok(None));
        assert!(fold(Some(b"no avro")).is_err());
    }

    #[test]
    fn a_listed_source_is_left_alone_only_when_it_is_tagged_or_must_not_be_touched() {
        let (delete, tag, moved) = (
            after("'delete'"),
            after("'tag'"),
            after("{ move = 's3://x/' }"),
        );
        assert!(cleaned(Delete, Skipped).is_final(7, &delete));
        assert!(cleaned(Move, Skipped).is_final(7, &moved));
        assert!(cleaned(Tag, Done).is_final(7, &tag));
        for outcome in [Done, Gone, Changed, Failed] {
            assert!(
                !cleaned(Delete, outcome).is_final(7, &delete),
                "{outcome:?}"
            );
        }
        assert!(!cleaned(Tag, Failed).is_final(7, &tag));
        // Another version, another action, another tag.
        assert!(!cleaned(Tag, Done).is_final(8, &tag));
        assert!(!cleaned(Tag, Done).is_final(7, &delete));
        assert!(!cleaned(Tag, Done).is_final(7, &after("{ tag = 'a=b' }")));
    }

    #[test]
    fn a_result_is_acted_on_once_unless_that_failed() {
        let done = record(Delete, Done);
        assert!(Cleaned::from(&done).answers(done.event_id));
        assert!(!Cleaned::from(&done).answers(Id::mint()));
        let failed = record(Delete, Failed);
        assert!(!Cleaned::from(&failed).answers(failed.event_id));
    }

    #[test]
    fn what_happened_to_nothing_is_no_news() {
        let news = |before: Option<Cleaned>, now: Cleaned| now.is_news_after(before.as_ref());
        assert!(news(None, cleaned(Delete, Gone)));
        assert!(!news(Some(cleaned(Delete, Done)), cleaned(Delete, Gone)));
        assert!(
            news(Some(cleaned(Delete, Done)), cleaned(Delete, Done)),
            "it had come again"
        );
        assert!(news(Some(cleaned(Delete, Done)), cleaned(Delete, Changed)));
        assert!(!news(
            Some(cleaned(Delete, Skipped)),
            cleaned(Delete, Skipped)
        ));
        assert!(!news(Some(cleaned(Tag, Done)), cleaned(Tag, Done)));
        let later = Cleaned {
            generation: 8,
            ..cleaned(Delete, Gone)
        };
        assert!(news(Some(cleaned(Delete, Done)), later));
    }
}
