//! The local copy of what decisions need of a changelog partition, on disk: fjall, one keyspace per partition.
//!
//! It is a cache of committed records and never the truth: it is written only after a commit, in one batch with the
//! changelog position it reflects, so that a restore reads only the tail. On any doubt a partition is wiped and read
//! again from the start; deleting the folder is always safe. Keys are cut SHA-256 hashes: partners choose the names, so
//! the hash must not be one that two names can be made to share.

use std::{
    collections::HashMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::StateBytes;

/// Raised when the layout of keys or values changes: a store of another format is wiped.
pub const FORMAT: u32 = 2;

/// Tombstones live 14 days on the changelog (`delete.retention.ms`); a copy that was last written earlier than this may
/// have missed one that is gone by now.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Block cache, in bytes, whatever the store's size on disk.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Journal on disk, in bytes, from which tables that hold its oldest part back are written out.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// What the memory tables of all partitions may hold together, about, in bytes. fjall writes one out when it holds 64 MiB, each
/// partition has one, and the library's own limit on all of them does nothing (lsm-tree issue 317).
const BUFFER_BYTES: u64 = 16 * 1024 * 1024;

/// How long a restore waits for tables to be written out: longer than any disk should need for some 16 MiB.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("use the state store in {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("use the state store")]
    Fjall(#[from] fjall::Error),
    #[error("read the state store: a value is damaged: {0}")]
    Damaged(String),
}

/// Which log a partition's copy was made from; a copy of another log is worthless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdentity {
    pub cluster_id: String,
    pub topic_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    format: u32,
    log: LogIdentity,
    next_offset: i64,
    applied_at_ms: i64,
}

/// A change to one key: its new value, or `None` to forget it.
pub type Change<'a> = (&'a [u8], Option<StateBytes>);

pub struct Store {
    db: Database,
    copies: Keyspace,
    partitions: Mutex<HashMap<i32, Keyspace>>,
    /// All there are, also of partitions that are not ours any more: what was in memory when the last process ended is there again.
    keyspaces: Mutex<Vec<Keyspace>>,
}

impl Store {
    /// Opens the store, making it anew when it can't be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        match catch_unwind(AssertUnwindSafe(|| Self::try_open(path))) {
            Ok(Ok(store)) => return Ok(store),
            Ok(Err(error)) => {
                warn!(path = %path.display(), %error, "state store unreadable, making it anew")
            }
            Err(_) => warn!(path = %path.display(), "state store unreadable, making it anew"),
        }
        fs::remove_dir_all(path).map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::try_open(path)
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let copies = db.keyspace("copies", KeyspaceCreateOptions::default)?;
        let open = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        let names = db.list_keyspace_names();
        let keyspaces = names
            .iter()
            .map(|name| open(name))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            copies,
            partitions: Mutex::default(),
            keyspaces: Mutex::new(keyspaces),
            db,
        })
    }

    fn partitions(&self) -> MutexGuard<'_, HashMap<i32, Keyspace>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keyspaces(&self) -> MutexGuard<'_, Vec<Keyspace>> {
        self.keyspaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keyspace(&self, partition: i32) -> Result<Keyspace, StoreError> {
        let mut partitions = self.partitions();
        if let Some(keyspace) = partitions.get(&partition) {
            return Ok(keyspace.clone());
        }
        let name = format!("partition-{partition}");
        let is_new = !self.db.keyspace_exists(&name);
        let keyspace = self.db.keyspace(&name, KeyspaceCreateOptions::default)?;
        if is_new {
            self.keyspaces().push(keyspace.clone());
        }
        partitions.insert(partition, keyspace.clone());
        Ok(keyspace)
    }

    /// The changelog offset from which to read on, among `log_start..=log_end`. A copy of another log, one whose position
    /// lies outside the log, and one too old to have seen every tombstone are wiped first.
    pub fn resume(
        &self,
        partition: i32,
        log: &LogIdentity,
        log_start: i64,
        log_end: i64,
        now_ms: i64,
    ) -> Result<i64, StoreError> {
        let copy = match self.copies.get(partition.to_be_bytes())? {
            None => None,
            Some(bytes) => match postcard::from_bytes::<Copy>(&bytes) {
                Ok(copy) => Some(copy),
                Err(_) => return self.start_over(partition, log_start, "its position is damaged"),
            },
        };
        let Some(copy) = copy else {
            return self.start_over(partition, log_start, "there is none yet");
        };
        let age = now_ms.saturating_sub(copy.applied_at_ms);
        let max_age = i64::try_from(MAX_AGE.as_millis()).unwrap_or(i64::MAX);
        let doubt = if copy.format != FORMAT {
            Some("it has another format")
        } else if copy.log != *log {
            Some("it was made from another log")
        } else if !(log_start..=log_end).contains(&copy.next_offset) {
            Some("its position lies outside the log")
        } else if age > max_age || age < 0 {
            Some("it is too old")
        } else {
            None
        };
        match doubt {
            Some(why) => self.start_over(partition, log_start, why),
            None => Ok(copy.next_offset),
        }
    }

    fn start_over(&self, partition: i32, log_start: i64, why: &str) -> Result<i64, StoreError> {
        info!(partition, why, "local state starts over");
        self.wipe(partition)?;
        Ok(log_start)
    }

    /// Forgets a partition. The position goes first: without one, what is left of the data is never used.
    pub fn wipe(&self, partition: i32) -> Result<(), StoreError> {
        self.copies.remove(partition.to_be_bytes())?;
        // To the disk: the data goes from there at once.
        self.db.persist(PersistMode::SyncAll)?;
        self.keyspace(partition)?.clear()?;
        Ok(())
    }

    /// Writes committed changes and the position they lead to, all or nothing.
    pub fn apply<'a>(
        &self,
        partition: i32,
        log: &LogIdentity,
        changes: impl IntoIterator<Item = Change<'a>>,
        next_offset: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let keyspace = self.keyspace(partition)?;
        let mut batch = self.db.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&keyspace, hash(key), value),
                None => batch.remove(&keyspace, hash(key)),
            }
        }
        let copy = Copy {
            format: FORMAT,
            log: log.clone(),
            next_offset,
            applied_at_ms: now_ms,
        };
        let copy =
            postcard::to_allocvec(&copy).map_err(|error| StoreError::Damaged(error.to_string()))?;
        batch.insert(&self.copies, partition.to_be_bytes(), copy);
        batch.commit()?;
        self.bound_buffers()
    }

    /// Has the largest memory tables written out, beside what goes on, when all of them hold too much together: so many that what
    /// is left is half of that, for not every write to add a small one.
    fn bound_buffers(&self) -> Result<(), StoreError> {
        let mut tables: Vec<(u64, Keyspace)> = self
            .keyspaces()
            .iter()
            .map(|keyspace| (keyspace.tree.active_memtable().size(), keyspace.clone()))
            .collect();
        let mut held: u64 = tables.iter().map(|(bytes, _)| bytes).sum();
        if held <= BUFFER_BYTES {
            return Ok(());
        }
        tables.sort_unstable_by_key(|(bytes, _)| *bytes);
        while let Some((bytes, keyspace)) = tables.pop()
            && held > BUFFER_BYTES / 2
        {
            keyspace.rotate_memtable()?;
            held -= bytes;
        }
        Ok(())
    }

    /// Waits until most of what is to be written out is: for whoever writes much, and can wait.
    pub fn catch_up(&self) {
        let began = Instant::now();
        while self.db.outstanding_flushes() > 1 {
            if began.elapsed() > FLUSH_PATIENCE {
                warn!(
                    "the state store is slow: its tables are still not on disk after {FLUSH_PATIENCE:?}"
                );
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn get(&self, partition: i32, key: &[u8]) -> Result<Option<StateBytes>, StoreError> {
        let value = self.keyspace(partition)?.get(hash(key))?;
        Ok(value.map(|bytes| bytes.to_vec()))
    }

    /// Keys of the partitions that were opened, about, and bytes on disk.
    pub fn size(&self) -> Result<(u64, u64), StoreError> {
        let partitions: Vec<Keyspace> = self.partitions().values().cloned().collect();
        let keys = partitions
            .iter()
            .map(Keyspace::approximate_len)
            .sum::<usize>();
        Ok((keys as u64, self.db.disk_space()?))
    }

    /// All values of a partition, in no order that means anything.
    pub fn values(
        &self,
        partition: i32,
    ) -> Result<impl Iterator<Item = Result<StateBytes, StoreError>>, StoreError> {
        let rows = self.keyspace(partition)?.iter();
        Ok(rows.map(|row| Ok(row.value()?.to_vec())))
    }

    /// Whether nothing is known of any key.
    pub fn is_empty(&self, partition: i32) -> Result<bool, StoreError> {
        Ok(self.keyspace(partition)?.is_empty()?)
    }
}

fn hash(key: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(key);
    let mut cut = [0; 16];
    cut.copy_from_slice(&digest[..16]);
    cut
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

    const DAY_MS: i64 = 24 * 3600 * 1000;

    /// A store with one key in partition 3, at changelog position 10, written on day 100.
    fn filled(path: &Path) -> Store {
        let store = Store::open(path).unwrap();
        assert_eq!(store.resume(3, &log("t"), 0, 10, 0).unwrap(), 0);
        store
            .apply(3, &log("t"), [(&b"k"[..], Some(vec![1]))], 10, 100 * DAY_MS)
            .unwrap();
        store
    }

    fn value(store: &Store) -> Option<Vec<u8>> {
        store.get(3, b"k").unwrap()
    }

    #[test]
    fn state_and_position_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.resume(3, &log("t"), 0, 20, 101 * DAY_MS).unwrap(), 10);
        assert_eq!(value(&store), Some(vec![1]));
        store
            .apply(3, &log("t"), [(&b"k"[..], None)], 11, 101 * DAY_MS)
            .unwrap();
        assert_eq!(value(&store), None);
        assert!(store.is_empty(3).unwrap());
    }

    /// What the memory tables hold that are written to.
    fn buffered(store: &Store) -> u64 {
        let names = store.db.list_keyspace_names();
        let tables = names.iter().map(|name| {
            let keyspace = store.db.keyspace(name, KeyspaceCreateOptions::default);
            keyspace.unwrap().tree.active_memtable().size()
        });
        tables.sum()
    }

    #[test]
    fn what_was_in_memory_at_the_end_does_not_add_up_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        for start in 0..6 {
            let store = Store::open(dir.path()).unwrap();
            // Other partitions each time, as a group gives them.
            for number in 0..12_000_u32 {
                let key = [start, number].map(u32::to_be_bytes).concat();
                let change = (&key[..], Some(vec![7; 1_000]));
                let partition = start as i32;
                store
                    .apply(partition, &log("t"), [change], number.into(), 0)
                    .unwrap();
            }
            assert!(buffered(&store) <= BUFFER_BYTES, "start {start}");
        }
    }

    #[test]
    fn many_partitions_hold_no_more_in_memory_than_one_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = |number: u32| number.to_be_bytes();
        let value = |number: u32| vec![number as u8; 1_000];
        let (partitions, batches, batch) = (40, 8, 200);
        for first in (0..batches * batch).step_by(batch as usize) {
            for partition in 0..partitions {
                let keys: Vec<_> = (first..first + batch).map(key).collect();
                let values = (first..first + batch).map(value);
                let changes = keys.iter().zip(values);
                let changes = changes.map(|(key, value)| (&key[..], Some(value)));
                let next = i64::from(first + batch);
                store.apply(partition, &log("t"), changes, next, 0).unwrap();
            }
            assert!(buffered(&store) <= BUFFER_BYTES);
        }
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        for partition in 0..partitions {
            for number in [0, 777, batches * batch - 1] {
                let found = store.get(partition, &key(number)).unwrap();
                assert_eq!(found, Some(value(number)), "{partition}: {number}");
            }
        }
    }

    #[test]
    fn the_copy_of_another_log_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path());
        assert_eq!(
            store
                .resume(3, &log("made again"), 0, 20, 100 * DAY_MS)
                .unwrap(),
            0
        );
        assert_eq!(value(&store), None);
    }

    #[test]
    fn a_position_outside_the_log_wipes_the_copy() {
        for (start, end) in [(0, 9), (11, 20)] {
            let dir = tempfile::tempdir().unwrap();
            let store = filled(dir.path());
            assert_eq!(
                store
                    .resume(3, &log("t"), start, end, 100 * DAY_MS)
                    .unwrap(),
                start
            );
            assert_eq!(value(&store), None);
        }
    }

    #[test]
    fn a_copy_older_than_seven_days_may_have_missed_a_tombstone_and_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path());
        assert_eq!(store.resume(3, &log("t"), 0, 20, 107 * DAY_MS).unwrap(), 10);
        assert_eq!(
            store.resume(3, &log("t"), 0, 20, 107 * DAY_MS + 1).unwrap(),
            0
        );
        assert_eq!(value(&store), None);
    }

    #[test]
    fn a_corrupted_folder_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        drop(filled(&path));
        damage(&path);
        let store = Store::open(&path).unwrap();
        let from = store.resume(3, &log("t"), 0, 20, 100 * DAY_MS).unwrap();
        // Either nothing was lost, or the tail is read again from where the copy is whole: never a position without its data.
        assert!(
            from == 0 || value(&store) == Some(vec![1]),
            "position {from} without its data"
        );
    }

    fn damage(path: &Path) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                damage(&entry.path());
                continue;
            }
            let mut bytes = fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            for byte in bytes.iter_mut().skip(middle).take(64) {
                *byte = !*byte;
            }
            fs::write(entry.path(), bytes).unwrap();
        }
    }
}
