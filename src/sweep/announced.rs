//! What this sweeper announced, on disk: an announcement is not repeated until convert has passed it.
//!
//! One entry for an object and kind of announcement. A partition's entries are forgotten together when convert has passed
//! the last of them, which is usually before the next sweep; so there are never more than objects, and mostly none.
//! Losing them is harmless: an announcement that is repeated is a duplicate.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    kafka::{
        StateBytes,
        store::{LogIdentity, Store, StoreError},
    },
    topics::Millis,
};

/// Announcements by partition of `events`.
pub struct Announced {
    store: Store,
    log: LogIdentity,
    /// By partition, the offset behind the last announcement.
    ends: Mutex<Vec<i64>>,
}

/// An announcement that Kafka has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub partition: i32,
    /// What it was about.
    pub subject: String,
    /// What it said of it: nothing else is covered by it.
    pub mark: String,
    pub offset: i64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    mark: String,
    offset: i64,
}

impl Announced {
    /// Opens what is in `folder`; what was announced on another log than this one of `events` is forgotten.
    pub fn open(folder: &Path, log: LogIdentity, partitions: i32) -> Result<Self, StoreError> {
        let store = Store::open(folder)?;
        let now = Millis::now().0;
        let ends = (0..partitions)
            .map(|partition| store.resume(partition, &log, 0, i64::MAX, now))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            store,
            log,
            ends: Mutex::new(ends),
        })
    }

    /// The offset at which exactly this was announced last.
    pub fn offset_of(
        &self,
        partition: i32,
        subject: &str,
        mark: &str,
    ) -> Result<Option<i64>, StoreError> {
        let Some(bytes) = self.store.get(partition, subject.as_bytes())? else {
            return Ok(None);
        };
        let saved: Saved =
            postcard::from_bytes(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok((saved.mark == mark).then_some(saved.offset))
    }

    pub fn record(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut partitions: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            partitions.entry(entry.partition).or_default().push(entry);
        }
        for (partition, entries) in partitions {
            let changes = entries
                .iter()
                .map(|entry| Ok((entry.subject.as_bytes(), Some(saved(entry)?))))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let behind = entries.iter().map(|entry| entry.offset + 1).max();
            let end = end_of(&mut ends, partition);
            *end = behind.unwrap_or(0).max(*end);
            self.store
                .apply(partition, &self.log, changes, *end, Millis::now().0)?;
        }
        Ok(())
    }

    /// Forgets the partitions in which convert has passed everything. `committed` by partition: the offset below which
    /// all is finished.
    pub fn forget_passed(&self, committed: &[i64]) -> Result<(), StoreError> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for ((partition, committed), end) in (0..).zip(committed).zip(ends.iter_mut()) {
            if *end > 0 && committed >= end {
                self.store.wipe(partition)?;
                *end = 0;
            }
        }
        Ok(())
    }
}

fn saved(entry: &Entry) -> Result<StateBytes, StoreError> {
    let saved = Saved {
        mark: entry.mark.clone(),
        offset: entry.offset,
    };
    postcard::to_allocvec(&saved).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn end_of(ends: &mut Vec<i64>, partition: i32) -> &mut i64 {
    let index = usize::try_from(partition).unwrap_or_default();
    if ends.len() <= index {
        ends.resize(index + 1, 0);
    }
    &mut ends[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(topic_id: &str) -> LogIdentity {
        LogIdentity {
            cluster_id: "c".into(),
            topic_id: topic_id.into(),
        }
    }

    fn entry(partition: i32, mark: &str, offset: i64) -> Entry {
        Entry {
            partition,
            subject: "b/k".into(),
            mark: mark.into(),
            offset,
        }
    }

    fn open(folder: &Path, topic_id: &str) -> Announced {
        Announced::open(folder, log(topic_id), 2).unwrap()
    }

    fn offset(announced: &Announced, partition: i32, mark: &str) -> Option<i64> {
        announced.offset_of(partition, "b/k", mark).unwrap()
    }

    #[test]
    fn only_the_last_announcement_of_a_subject_counts_and_a_restart_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let announced = open(dir.path(), "t");
        announced
            .record(&[entry(0, "A", 5), entry(1, "A", 7)])
            .unwrap();
        announced.record(&[entry(0, "B", 9)]).unwrap();
        drop(announced);
        let announced = open(dir.path(), "t");
        assert_eq!(offset(&announced, 0, "A"), None);
        assert_eq!(offset(&announced, 0, "B"), Some(9));
        assert_eq!(offset(&announced, 1, "A"), Some(7));
    }

    #[test]
    fn a_partition_is_forgotten_when_convert_has_passed_its_last_announcement() {
        let dir = tempfile::tempdir().unwrap();
        let announced = open(dir.path(), "t");
        announced
            .record(&[entry(0, "A", 5), entry(1, "A", 7)])
            .unwrap();
        announced.forget_passed(&[5, 8]).unwrap();
        assert_eq!(
            offset(&announced, 0, "A"),
            Some(5),
            "offset 5 is not finished"
        );
        assert_eq!(offset(&announced, 1, "A"), None);
        drop(announced);
        let announced = open(dir.path(), "t");
        announced.forget_passed(&[6, 0]).unwrap();
        assert_eq!(offset(&announced, 0, "A"), None);
        // What is announced later starts anew.
        announced.record(&[entry(0, "A", 6)]).unwrap();
        announced.forget_passed(&[6, 0]).unwrap();
        assert_eq!(offset(&announced, 0, "A"), Some(6));
    }

    #[test]
    fn announcements_on_another_log_mean_nothing() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "t").record(&[entry(0, "A", 5)]).unwrap();
        assert_eq!(offset(&open(dir.path(), "made again"), 0, "A"), None);
    }
}
