//! What follows from an object's story: the order of what happened, what is pending, and what a reader should know.

use serde::Serialize;

use super::story::{KEPT, Queue, Story, Told};
use crate::topics::{
    Attempt, Cleanup, DeadLetter, Id, Millis, ObjectEvent, ObjectState, Outcome, ResultRecord,
};

/// The story as it is told; as JSON, the document of `explain --json`.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub object: Address<'a>,
    pub asked_event: Option<Id>,
    /// Whether any topic has a record of it.
    pub known: bool,
    /// Of `events`, `results`, `objects` and `dead-letters`.
    pub partition: i32,
    pub timeline: Vec<Happening<'a>>,
    /// Older events that are not told.
    pub events_left_out: u64,
    /// What is settled now.
    pub state: Option<&'a ObjectState>,
    /// The letter that the state names; its record may be gone although the letter is open.
    pub open_letter: Option<&'a DeadLetter>,
    pub pending: Vec<Pending>,
    pub waiting: Vec<Waiting<'a>>,
    pub queue: &'a Queue,
    /// The feed that matches the key now, whichever did before.
    pub feed_now: Option<&'a str>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Address<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
}

/// Something that happened to the object.
#[derive(Debug, Serialize)]
pub struct Happening<'a> {
    pub at: Millis,
    pub event_id: Id,
    /// Whether it belongs to the event that was asked for.
    pub asked: bool,
    #[serde(flatten)]
    pub what: What<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What<'a> {
    Event {
        offset: i64,
        event: &'a ObjectEvent,
    },
    /// An attempt that failed and was made again.
    Attempt {
        number: usize,
        reason: &'a str,
        message: &'a str,
    },
    Outcome {
        offset: i64,
        result: &'a ResultRecord,
        /// The letter it opened, with the place of the failure.
        letter: Option<&'a DeadLetter>,
    },
    /// What was done to the source afterwards.
    Cleanup {
        cleanup: &'a Cleanup,
    },
}

impl What<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Event { .. } => 0,
            Self::Attempt { .. } => 1,
            Self::Outcome { .. } => 2,
            Self::Cleanup { .. } => 3,
        }
    }
}

/// An event that waits for another attempt.
#[derive(Debug, Serialize)]
pub struct Waiting<'a> {
    pub event_id: Id,
    pub tier: &'a str,
    pub not_before: Option<Millis>,
    /// Attempts that are counted.
    pub attempts: i32,
    pub last_failure: Option<&'a Attempt>,
}

/// An event that waits for its outcome.
#[derive(Debug, Serialize)]
pub struct Pending {
    pub event_id: Id,
    pub offset: i64,
    pub received_at: Millis,
    pub attempt: i32,
    pub not_before: Option<Millis>,
    /// Records of the partition before it that are not done, at most.
    pub ahead: u64,
}

impl<'a> Report<'a> {
    pub fn of(story: &'a Story) -> Self {
        let known = !(story.events.is_empty()
            && story.results.is_empty()
            && story.letters.is_empty()
            && story.cleanups.is_empty()
            && story.damaged.is_empty())
            || story.state.is_some();
        let mut report = Self {
            object: Address {
                bucket: story.object.bucket(),
                key: story.object.key(),
            },
            asked_event: story.asked,
            known,
            partition: story.partition,
            timeline: timeline(story),
            events_left_out: story.events.left_out,
            state: story.state.as_ref(),
            open_letter: open_letter(story),
            pending: pending(story),
            waiting: waiting(story),
            queue: &story.queue,
            feed_now: story.feed.as_ref().ok().and_then(Option::as_deref),
            notes: Vec::new(),
        };
        report.notes = match known {
            true => report.notes_of_known(story),
            false => report.notes_of_unknown(story),
        };
        report
    }

    /// Nothing is known, or something is wrong that somebody should look at.
    pub fn has_findings(&self) -> bool {
        let open = self.state.and_then(|state| state.dead_letter_id.as_ref());
        !self.known || open.is_some()
    }

    fn notes_of_known(&self, story: &Story) -> Vec<String> {
        let mut notes = story.damaged.clone();
        let queue = self.queue;
        if self.events_left_out > 0 {
            notes.push(format!(
                "{} older events are not told, only the newest {KEPT}",
                self.events_left_out
            ));
        }
        let expired = story
            .results
            .iter()
            .filter(|told| told.record.event_offset < queue.log_start)
            .count();
        if expired > 0 {
            notes.push(format!(
                "{expired} outcomes are told without their events, which are older than the events that are kept (offset {} is the first)",
                queue.log_start
            ));
        }
        let last = story.state.as_ref().filter(|_| story.results.is_empty());
        notes.extend(last.map(|state| {
            format!(
                "no outcome is told of what was settled at {}: results that old are no longer kept",
                state.settled_at
            )
        }));
        let waits = |id: Id| self.waiting.iter().any(|waiting| waiting.event_id == id);
        let unanswered =
            unanswered(story).filter(|told| queue.is_done(told.offset) && !waits(told.record.id));
        notes.extend(unanswered.map(|told| {
            format!(
                "event {} is done, but its result is not there: it is no longer kept, or not visible yet; look again in a moment",
                told.record.id
            )
        }));
        if !self.pending.is_empty() {
            notes.extend(self.notes_on_the_queue());
        }
        notes.extend(self.notes_on_the_feed(story));
        notes
    }

    /// Why what is pending may stay so.
    fn notes_on_the_queue(&self) -> Vec<String> {
        let (queue, partition) = (self.queue, self.partition);
        let nobody = (queue.workers == Some(0)).then(|| {
            let group = &queue.group;
            format!("no worker of group {group} is running: start `feedmill run`")
        });
        let hole = queue.hole().map(|hole| {
            format!("{hole}: partition {partition} stands still until `feedmill topics accept-hole {partition}`")
        });
        nobody.into_iter().chain(hole).collect()
    }

    fn notes_on_the_feed(&self, story: &Story) -> Option<String> {
        match &story.feed {
            Ok(Some(_)) => None,
            Ok(None) => Some(
                "no feed of this configuration matches its key: an event of it ends as `ignored`"
                    .into(),
            ),
            Err(error) => Some(format!("which feed matches now can't be told: {error}")),
        }
    }

    /// What it means, and what to check.
    fn notes_of_unknown(&self, story: &Story) -> Vec<String> {
        let (bucket, key) = (self.object.bucket, self.object.key);
        let name = key.rsplit('/').next().unwrap_or(key);
        let mut notes = vec![
            "no notification of it became an event within the time that events and results are kept, and it was never settled"
                .to_owned(),
        ];
        notes.push(match &story.feed {
            Ok(Some(feed)) => format!("the feed {feed} matches its key, so that an event of it would be converted"),
            Ok(None) => "no feed of this configuration matches its key; an event of it would still have a result, `ignored`".to_owned(),
            Err(error) => format!("which feed matches can't be told: {error}"),
        });
        notes.push(format!(
            "check the spelling, the key is taken literally: feedmill results --bucket '{bucket}' --key '**/{name}'"
        ));
        notes.push(format!(
            "check that bucket {bucket} sends its notifications to feedmill's webhook, and that the webhook answered 202"
        ));
        notes.extend(story.rejected.map(|rejected| match rejected.all {
            0 => "no notification was rejected as unreadable".to_owned(),
            all => format!(
                "notifications that were rejected as unreadable: {all}, of which {} name {name:?}; see the topic rejected-notifications",
                rejected.naming_it
            ),
        }));
        notes
    }
}

/// In the order of time. An outcome never stands before its event, whatever the clocks of two machines say.
fn timeline(story: &Story) -> Vec<Happening<'_>> {
    let events = story.events.iter().map(|told| {
        let event = &told.record;
        // One that came back from a retry says when it was first received; that stands in the timeline already.
        let at = match event.attempt {
            0 => event.received_at,
            _ => told.appended_at.unwrap_or(event.received_at),
        };
        let what = What::Event {
            offset: told.offset,
            event,
        };
        (at, event.id, what)
    });
    let attempts = latest(story).flat_map(|told| {
        let event = &told.record;
        event.history.iter().enumerate().map(|(index, attempt)| {
            let what = What::Attempt {
                number: index + 1,
                reason: &attempt.reason,
                message: &attempt.message,
            };
            (attempt.at, event.id, what)
        })
    });
    let outcomes = story.results.iter().map(|told| {
        let result = &told.record;
        let what = What::Outcome {
            offset: told.offset,
            result,
            letter: letter(story, result),
        };
        (
            result.finished_at.max(result.received_at),
            result.event_id,
            what,
        )
    });
    let cleanups = story.cleanups.iter().map(|told| {
        let cleanup = &told.record;
        let what = What::Cleanup { cleanup };
        (cleanup.cleaned_at, cleanup.event_id, what)
    });
    let mut timeline: Vec<Happening<'_>> = events
        .chain(attempts)
        .chain(outcomes)
        .chain(cleanups)
        .map(|(at, event_id, what)| Happening {
            at,
            event_id,
            asked: story.asked == Some(event_id),
            what,
        })
        .collect();
    timeline.sort_by_key(|happening| (happening.at, happening.what.rank()));
    timeline
}

/// Each event as it was appended last; it has the whole history.
fn latest(story: &Story) -> impl Iterator<Item = &Told<ObjectEvent>> {
    let last: std::collections::HashMap<Id, i64> = story
        .events
        .iter()
        .map(|told| (told.record.id, told.offset))
        .collect();
    story
        .events
        .iter()
        .filter(move |told| last.get(&told.record.id) == Some(&told.offset))
}

/// Events, as they were appended last, that have no result.
fn unanswered(story: &Story) -> impl Iterator<Item = &Told<ObjectEvent>> {
    let answered: std::collections::HashSet<Id> = story
        .results
        .iter()
        .map(|told| told.record.event_id)
        .collect();
    latest(story).filter(move |told| !answered.contains(&told.record.id))
}

fn pending(story: &Story) -> Vec<Pending> {
    let queue = &story.queue;
    unanswered(story)
        .filter(|told| !queue.is_done(told.offset))
        .map(|told| Pending {
            event_id: told.record.id,
            offset: told.offset,
            received_at: told.record.received_at,
            attempt: told.record.attempt,
            not_before: told.record.not_before,
            ahead: queue.ahead(told.offset),
        })
        .collect()
}

/// What went to a retry topic and has neither come back nor a result.
fn waiting(story: &Story) -> Vec<Waiting<'_>> {
    let is_over = |event: &ObjectEvent| {
        let results = story.results.iter();
        let mut events = story.events.iter().map(|told| &told.record);
        results
            .map(|told| told.record.event_id)
            .any(|id| id == event.id)
            || events.any(|back| back.id == event.id && back.not_before == event.not_before)
    };
    (story.waits.iter())
        .filter(|(_, event)| !is_over(event))
        .map(|(tier, event)| Waiting {
            event_id: event.id,
            tier,
            not_before: event.not_before,
            attempts: event.attempt,
            last_failure: event.history.last(),
        })
        .collect()
}

/// The letter that this result opened.
fn letter<'a>(story: &'a Story, result: &ResultRecord) -> Option<&'a DeadLetter> {
    let id = result.dead_letter_id.as_ref();
    let id = id.filter(|_| result.outcome == Outcome::DeadLettered)?;
    find_letter(story, id)
}

fn open_letter(story: &Story) -> Option<&DeadLetter> {
    find_letter(story, story.state.as_ref()?.dead_letter_id.as_ref()?)
}

fn find_letter<'a>(story: &'a Story, id: &str) -> Option<&'a DeadLetter> {
    let mut letters = story.letters.iter().map(|told| &told.record);
    letters.find(|letter| letter.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{explain::story::Newest, results::testing},
        object::ObjectRef,
        topics::Attempt,
    };

    fn told<T>(offset: i64, record: T) -> Told<T> {
        Told {
            offset,
            appended_at: None,
            record,
        }
    }

    fn newest<T>(records: Vec<Told<T>>) -> Newest<T> {
        let mut newest = Newest::default();
        for record in records {
            newest.push(record, |_| false);
        }
        newest
    }

    /// A story of these events, each at the offset of its place, of which some are answered; convert is at `committed`.
    fn story(events: Vec<ObjectEvent>, answered: &[usize], committed: i64) -> Story {
        let results = answered.iter().map(|index| {
            let event = &events[*index];
            let result = ResultRecord {
                event_id: event.id,
                event_offset: *index as i64,
                received_at: event.received_at,
                finished_at: Millis(event.received_at.0 - 5),
                ..testing::result("b", "k", Outcome::Converted)
            };
            told(*index as i64, result)
        });
        Story {
            object: ObjectRef::try_new("b", "k").unwrap(),
            asked: None,
            partition: 0,
            results: newest(results.collect()),
            queue: Queue {
                log_end: events.len() as i64,
                committed: Some(committed),
                workers: Some(1),
                ..Queue::default()
            },
            events: newest((0..).zip(events).map(|(n, event)| told(n, event)).collect()),
            letters: Newest::default(),
            cleanups: Newest::default(),
            state: None,
            waits: vec![],
            feed: Ok(Some("nsx".into())),
            damaged: vec![],
            rejected: None,
        }
    }

    fn event(received_at: i64) -> ObjectEvent {
        ObjectEvent {
            received_at: Millis(received_at),
            ..ObjectEvent::observed(&ObjectRef::try_new("b", "k").unwrap(), "test")
        }
    }

    #[test]
    fn an_event_waits_until_it_has_come_back_or_has_a_result() {
        let waits_until = |event: &ObjectEvent, due| ObjectEvent {
            not_before: Some(Millis(due)),
            attempt: 1,
            ..event.clone()
        };
        let count = |story: &Story| Report::of(story).waiting.len();
        let mut story = story(vec![event(100)], &[], 1);
        let first = story.events.iter().next().unwrap().record.clone();
        story.waits = vec![("1m".into(), waits_until(&first, 500))];
        assert_eq!(count(&story), 1);
        story
            .events
            .push(told(1, waits_until(&first, 500)), |_| true);
        assert_eq!(count(&story), 0);
        story.waits.push(("10m".into(), waits_until(&first, 900)));
        assert_eq!(count(&story), 1);
    }

    #[test]
    fn an_outcome_stands_after_its_event_whatever_the_clocks_say() {
        let story = story(vec![event(100), event(200)], &[0, 1], 2);
        let report = Report::of(&story);
        let order: Vec<(i64, u8)> = report
            .timeline
            .iter()
            .map(|happening| (happening.at.0, happening.what.rank()))
            .collect();
        assert_eq!(order, [(100, 0), (100, 2), (200, 0), (200, 2)]);
    }

    #[test]
    fn an_event_is_pending_until_it_is_committed_or_has_a_result() {
        let story = story(vec![event(1), event(2), event(3)], &[1], 1);
        let report = Report::of(&story);
        let pending: Vec<(i64, u64)> = report
            .pending
            .iter()
            .map(|pending| (pending.offset, pending.ahead))
            .collect();
        assert_eq!(pending, [(2, 1)]);
        let id = story.events.iter().next().unwrap().record.id.to_string();
        let note = report.notes.iter().find(|note| note.contains(&id));
        assert!(note.is_some_and(|note| note.contains("result is not there")));
        assert!(report.known && !report.has_findings());
    }

    #[test]
    fn the_attempts_of_an_event_that_came_back_are_told_once() {
        let attempt = |at| Attempt {
            at: Millis(at),
            reason: "s3_unavailable".into(),
            message: "503".into(),
        };
        let first = event(1);
        let again = |history: Vec<Attempt>| ObjectEvent {
            attempt: history.len() as i32,
            history,
            ..first.clone()
        };
        let events = vec![
            first.clone(),
            again(vec![attempt(10)]),
            again(vec![attempt(10), attempt(20)]),
        ];
        let story = story(events, &[], 2);
        let report = Report::of(&story);
        let attempts: Vec<i64> = report
            .timeline
            .iter()
            .filter(|happening| matches!(happening.what, What::Attempt { .. }))
            .map(|happening| happening.at.0)
            .collect();
        assert_eq!(attempts, [10, 20]);
        let pending: Vec<_> = report
            .pending
            .iter()
            .map(|p| (p.offset, p.attempt))
            .collect();
        assert_eq!(pending, [(2, 2)]);
    }

    #[test]
    fn what_keeps_pending_events_waiting_is_said() {
        let notes = |change: fn(&mut Queue)| {
            let mut story = story(vec![event(1)], &[], 0);
            change(&mut story.queue);
            Report::of(&story).notes.join("\n")
        };
        assert_eq!(notes(|_| {}), "");
        assert!(notes(|queue| queue.workers = Some(0)).contains("feedmill run"));
        let hole = notes(|queue| queue.committed = Some(9));
        assert!(hole.contains("outside the log (0 to 1)") && hole.contains("accept-hole 0"));
        let reset = notes(|queue| queue.damage = Some("somebody reset the group".into()));
        assert!(reset.contains("somebody reset the group") && reset.contains("accept-hole 0"));
    }

    #[test]
    fn an_object_with_very_many_events_is_told_from_its_newest() {
        let count = KEPT as i64 + 7;
        let story = story((0..count).map(event).collect(), &[], count);
        let report = Report::of(&story);
        assert_eq!(report.timeline.len(), KEPT);
        assert_eq!((report.timeline[0].at.0, report.events_left_out), (7, 7));
        assert!(report.notes[0].starts_with("7 older events are not told"));
    }
}
