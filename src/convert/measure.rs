//! What is measured of logs beside the work: sizes of the events that wait, open dead letters, what feeds delivered before
//! this worker started.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    kafka::{Beside, RawRecord, ReadFrom},
    telemetry::metrics::{FeedMetrics, Letters},
    topics::{DeadLetter, ObjectEvent, ResultRecord, Topics, decode},
};

/// Open letters that are kept apart, of all partitions: some 50 bytes each. What is open beyond them is not counted.
const MOST_LETTERS: usize = 1_000_000;

/// Results of each partition that are looked at for when feeds deliver.
const LAST_RESULTS: i64 = 500;

/// The topics, by their numbers in [`Beside::topics`].
const DEAD_LETTERS: usize = 0;
const RESULTS: usize = 1;

/// What the convert stage reads beside its work.
pub struct Measures {
    dead_letters: String,
    results: String,
    feeds: FeedMetrics,
    open: Mutex<Open>,
}

/// The open letters of the partitions that are ours.
#[derive(Default)]
struct Open {
    partitions: HashMap<i32, HashMap<u64, u32>>,
    /// Feed and reason, numbered, because many letters share them.
    kinds: Vec<(Option<String>, String)>,
    numbers: HashMap<(Option<String>, String), u32>,
}

impl Measures {
    pub fn new(topics: &Topics, feeds: FeedMetrics) -> Self {
        Self {
            dead_letters: topics.dead_letters.clone(),
            results: topics.results.clone(),
            feeds,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beside for Measures {
    fn size(&self, record: &RawRecord) -> Option<u64> {
        let event: ObjectEvent = decode(record.value.as_deref()?).ok()?;
        u64::try_from(event.size?).ok()
    }

    fn topics(&self) -> Vec<(String, ReadFrom)> {
        vec![
            (self.dead_letters.clone(), ReadFrom::Start),
            (self.results.clone(), ReadFrom::Last(LAST_RESULTS)),
        ]
    }

    /// What can't be read is for others to complain of.
    fn read(&self, topic: usize, record: &RawRecord) {
        let value = record.value.as_deref();
        match topic {
            DEAD_LETTERS => {
                let letter = value.and_then(|value| decode::<DeadLetter>(value).ok());
                let kind = letter.map(|letter| (letter.feed, letter.reason));
                self.open()
                    .change(record.position.partition, &record.key, kind);
            }
            RESULTS => {
                let result = value.and_then(|value| decode::<ResultRecord>(value).ok());
                if let Some((result, feed)) = result.and_then(|mut r| r.feed.take().map(|f| (r, f)))
                {
                    self.feeds
                        .was_delivered(&feed, result.outcome, result.finished_at);
                }
            }
            _ => {}
        }
    }

    /// Shown only now: on the way there, letters are open that were closed later.
    fn caught_up(&self, topic: usize, _: i32) {
        if topic == DEAD_LETTERS {
            self.feeds.show_letters(&self.open().sums());
        }
    }

    fn left(&self, partition: i32) {
        let mut open = self.open();
        open.partitions.remove(&partition);
        self.feeds.show_letters(&open.sums());
    }
}

impl Open {
    /// A key's letter is open, of this kind, or it has none.
    fn change(&mut self, partition: i32, key: &[u8], kind: Option<(Option<String>, String)>) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let key = hasher.finish();
        let kind = kind.map(|kind| self.number(kind));
        let count: usize = self.partitions.values().map(HashMap::len).sum();
        let letters = self.partitions.entry(partition).or_default();
        match kind {
            Some(kind) if count < MOST_LETTERS || letters.contains_key(&key) => {
                letters.insert(key, kind);
            }
            Some(_) => {}
            None => {
                letters.remove(&key);
            }
        }
    }

    fn number(&mut self, kind: (Option<String>, String)) -> u32 {
        if let Some(number) = self.numbers.get(&kind) {
            return *number;
        }
        let number = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        self.kinds.push(kind.clone());
        self.numbers.insert(kind, number);
        number
    }

    fn sums(&self) -> Letters {
        let mut counts = vec![0; self.kinds.len()];
        for kind in self.partitions.values().flat_map(HashMap::values) {
            counts[*kind as usize] += 1;
        }
        let kinds = self.kinds.iter().cloned().zip(counts);
        kinds.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(feed: &str, reason: &str) -> (Option<String>, String) {
        (Some(feed.into()), reason.into())
    }

    #[test]
    fn a_letter_is_open_until_its_tombstone_and_as_long_as_its_partition_is_ours() {
        let mut open = Open::default();
        let xml = kind("nsx", "malformed_xml");
        open.change(0, b"in/a.xml", Some(xml.clone()));
        open.change(0, b"in/b.xml", Some(xml.clone()));
        open.change(0, b"in/a.xml", Some(kind("nsx", "too_deep")));
        open.change(1, b"in/c.xml", Some(xml.clone()));
        open.change(1, b"in/d.xml", None);
        let sums = open.sums();
        assert_eq!(
            sums,
            [(xml.clone(), 2), (kind("nsx", "too_deep"), 1)].into()
        );
        open.change(0, b"in/a.xml", None);
        open.partitions.remove(&1);
        assert_eq!(open.sums(), [(xml, 1)].into());
    }
}
