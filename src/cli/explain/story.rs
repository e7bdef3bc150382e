//! What was read of one object.

use std::collections::{BTreeSet, VecDeque, vec_deque};

use serde::Serialize;

use crate::{
    object::ObjectRef,
    topics::{Cleanup, DeadLetter, Id, Millis, ObjectEvent, ObjectState, ResultRecord},
};

/// Records kept of each topic: the newest.
pub const KEPT: usize = 1_000;

/// All that the topics say of an object, as it was read; nothing concluded yet.
#[derive(Debug)]
pub struct Story {
    pub object: ObjectRef,
    /// The event that was asked for; its records are kept, however old.
    pub asked: Option<Id>,
    /// Of every topic.
    pub partition: i32,
    pub events: Newest<ObjectEvent>,
    pub results: Newest<ResultRecord>,
    pub letters: Newest<DeadLetter>,
    pub state: Option<ObjectState>,
    pub cleanups: Newest<Cleanup>,
    /// Records of the retry topics, each with the tier it waited in.
    pub waits: Vec<(String, ObjectEvent)>,
    pub queue: Queue,
    /// The feed that matches the object now; an error when the configuration has matches that can't be read.
    pub feed: Result<Option<String>, String>,
    /// What could not be read, a sentence each.
    pub damaged: Vec<String>,
    /// What `rejected-notifications` holds; looked at only when nothing else is known.
    pub rejected: Option<Rejected>,
}

/// A record and where it lies.
#[derive(Debug)]
pub struct Told<T> {
    pub offset: i64,
    pub appended_at: Option<Millis>,
    pub record: T,
}

/// The newest records of a topic, [`KEPT`] at most, oldest first.
#[derive(Debug)]
pub struct Newest<T> {
    items: VecDeque<Told<T>>,
    pub left_out: u64,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            left_out: 0,
        }
    }
}

impl<T> Newest<T> {
    /// Adds a newer one; the oldest that is not to be kept gives way.
    pub fn push(&mut self, told: Told<T>, keep: impl Fn(&T) -> bool) {
        if self.items.len() >= KEPT {
            let oldest = self.items.iter().position(|told| !keep(&told.record));
            self.items.remove(oldest.unwrap_or(0));
            self.left_out += 1;
        }
        self.items.push_back(told);
    }

    pub fn iter(&self) -> vec_deque::Iter<'_, Told<T>> {
        self.items.iter()
    }

    pub fn into_records(self) -> impl Iterator<Item = T> {
        self.items.into_iter().map(|told| told.record)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// The partition of `events`, and how far the convert stage is in it.
#[derive(Debug, Default, Serialize)]
pub struct Queue {
    pub group: String,
    /// Offsets of the log: the first that is kept, and the next to be written.
    pub log_start: i64,
    pub log_end: i64,
    /// All events below it are done; `None` when nothing was committed yet.
    pub committed: Option<i64>,
    /// Events above it that are done.
    #[serde(skip)]
    pub finished: BTreeSet<i64>,
    /// Why the committed offset is not one of feedmill's.
    pub damage: Option<String>,
    /// Processes that convert; `None` when the broker did not say.
    pub workers: Option<usize>,
}

impl Queue {
    /// Why the partition stands still until somebody decides where it goes on.
    pub fn hole(&self) -> Option<String> {
        let (start, end) = (self.log_start, self.log_end);
        let outside = self
            .committed
            .filter(|offset| !(start..=end).contains(offset));
        let outside = outside.map(|offset| {
            format!("the committed offset {offset} lies outside the log ({start} to {end})")
        });
        self.damage.clone().or(outside)
    }

    /// All events below it are done, those above it unless they are among the finished; a hole says nothing of any event.
    fn prefix(&self) -> i64 {
        let committed = self.committed.filter(|_| self.hole().is_none());
        committed.unwrap_or(self.log_start)
    }

    pub fn is_done(&self, offset: i64) -> bool {
        offset < self.prefix() || self.finished.contains(&offset)
    }

    /// Records before this one that are not done, at most: the ends of transactions count as records.
    pub fn ahead(&self, offset: i64) -> u64 {
        let finished = self.finished.range(..offset).count() as u64;
        let before = u64::try_from(offset - self.prefix()).unwrap_or(0);
        before.saturating_sub(finished)
    }
}

/// How many notifications nobody could read, and how many of them name the object's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    pub all: u64,
    pub naming_it: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_what_was_asked_for() {
        let mut newest = Newest::default();
        for offset in 0..KEPT as i64 + 5 {
            let told = Told {
                offset,
                appended_at: None,
                record: offset,
            };
            newest.push(told, |record| *record == 2);
        }
        let kept: Vec<i64> = newest.iter().map(|told| told.offset).collect();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[..3], [2, 6, 7]);
        assert_eq!(newest.left_out, 5);
    }

    #[test]
    fn what_is_ahead_of_an_event_is_what_lies_between_it_and_the_committed_offset_and_is_not_done()
    {
        let queue = Queue {
            log_start: 5,
            log_end: 30,
            committed: Some(10),
            finished: [11, 12, 20].into(),
            ..Queue::default()
        };
        assert_eq!(queue.ahead(15), 3);
        assert_eq!(queue.ahead(10), 0);
        assert!(queue.is_done(9) && queue.is_done(11) && !queue.is_done(10));
        let never_committed = Queue {
            committed: None,
            finished: BTreeSet::new(),
            ..queue
        };
        assert_eq!(never_committed.ahead(15), 10);
        assert!(!never_committed.is_done(5));
    }
}
