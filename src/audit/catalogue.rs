//! What an audit has seen so far, on disk: nothing that grows with the bucket is held in memory. Tables are sorted by their
//! keys.

use std::{
    marker::PhantomData,
    ops::Bound,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    books::Pending,
    verdict::{Finding, Seen, Sighting},
};

/// Block cache, in bytes, whatever the size on disk.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes written to a table before it is waited for that they are on disk. The library's own limit only asks its threads to
/// come to it; on a busy machine these come late, and what is held in memory meanwhile has no bound.
const UNWRITTEN_BYTES: usize = 4 * 1024 * 1024;

/// What a row takes in memory beside its key and value, in bytes: about that.
const ROW_BYTES: usize = 100;

/// Journal on disk, in bytes; the smallest that the library takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Why what was seen could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("keep what was seen in the temporary folder; see whether its disk is full")]
    Fjall(#[from] fjall::Error),
    #[error("read back what was seen: {0}")]
    Damaged(#[from] postcard::Error),
}

/// The tables of one audit. Keys are those of objects in the one bucket that a table is about, unless said.
pub struct Catalogue {
    /// The listing of the sources that feeds take.
    pub sources: Table<Seen>,
    /// The listing of the outputs.
    pub outputs: Table<Seen>,
    /// Objects with events that are not finished, by `bucket/key`.
    pub pending: Table<Pending>,
    /// What seems wrong, or had changed when it was looked at again: to be judged by newer books.
    pub doubtful: Table<Sighting>,
    /// What has to be looked at again before it is named; `None` when all that is known is that something changed.
    pub suspects: Table<(Sighting, Option<Finding>)>,
    /// Outputs that no state names, each with its source's key.
    pub strays: Table<(Seen, String)>,
    /// What is named, by [`Finding::place`].
    pub findings: Table<Finding>,
}

impl Catalogue {
    /// Makes empty tables in a folder that is nobody else's; it can go when they do.
    pub fn create(folder: &Path) -> Result<Self, CatalogueError> {
        let db = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(2)
            .open()?;
        Ok(Self {
            sources: Table::open(&db, "sources")?,
            outputs: Table::open(&db, "outputs")?,
            pending: Table::open(&db, "pending")?,
            doubtful: Table::open(&db, "doubtful")?,
            suspects: Table::open(&db, "suspects")?,
            strays: Table::open(&db, "strays")?,
            findings: Table::open(&db, "findings")?,
        })
    }
}

/// Rows of one kind, sorted by key.
pub struct Table<T> {
    db: Database,
    rows: Keyspace,
    /// Bytes that may not be on disk yet.
    unwritten: AtomicUsize,
    kind: PhantomData<fn() -> T>,
}

/// A row with its key.
pub type Row<T> = (Vec<u8>, T);

impl<T: Serialize + DeserializeOwned> Table<T> {
    fn open(db: &Database, name: &str) -> Result<Self, CatalogueError> {
        Ok(Self {
            db: db.clone(),
            rows: db.keyspace(name, KeyspaceCreateOptions::default)?,
            unwritten: AtomicUsize::new(0),
            kind: PhantomData,
        })
    }

    /// Adds rows, each in place of an earlier one of its key.
    pub fn put<K: AsRef<[u8]>>(
        &self,
        rows: impl IntoIterator<Item = (K, T)>,
    ) -> Result<(), CatalogueError> {
        let mut batch = self.db.batch();
        let mut bytes = 0;
        for (key, row) in rows {
            let (key, row) = (key.as_ref(), postcard::to_allocvec(&row)?);
            bytes += ROW_BYTES + key.len() + row.len();
            batch.insert(&self.rows, key, row);
        }
        batch.commit()?;
        if self.unwritten.fetch_add(bytes, Relaxed) + bytes > UNWRITTEN_BYTES {
            self.unwritten.store(0, Relaxed);
            self.rows.rotate_memtable_and_wait()?;
        }
        Ok(())
    }

    pub fn get(&self, key: &str) -> Result<Option<T>, CatalogueError> {
        let bytes = self.rows.get(key)?;
        let row = bytes.map(|bytes| postcard::from_bytes(&bytes));
        Ok(row.transpose()?)
    }

    pub fn has(&self, key: &str) -> Result<bool, CatalogueError> {
        Ok(self.rows.contains_key(key)?)
    }

    pub fn remove(&self, key: &str) -> Result<(), CatalogueError> {
        Ok(self.rows.remove(key)?)
    }

    pub fn clear(&self) -> Result<(), CatalogueError> {
        Ok(self.rows.clear()?)
    }

    pub fn is_empty(&self) -> Result<bool, CatalogueError> {
        Ok(self.rows.is_empty()?)
    }

    /// The next rows behind a key, by the order of keys; from the first without one, and none at the end.
    pub fn page(&self, behind: Option<&[u8]>, count: usize) -> Result<Vec<Row<T>>, CatalogueError> {
        let start = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range::<&[u8], _>((start, Bound::Unbounded));
        rows.take(count)
            .map(|row| {
                let (key, row) = row.into_inner()?;
                Ok((key.to_vec(), postcard::from_bytes(&row)?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ETag;

    fn seen(etag: &str) -> Seen {
        Seen {
            etag: ETag::parse(etag).unwrap(),
            size: None,
            modified: None,
        }
    }

    #[test]
    fn pages_have_every_row_once_in_the_order_of_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(folder.path()).unwrap();
        let table = &catalogue.sources;
        for n in [3, 1, 4, 0, 2, 1] {
            table
                .put([(format!("k{n}"), seen(&n.to_string()))])
                .unwrap();
        }
        let (mut keys, mut behind) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let page = table.page(behind.as_deref(), 2).unwrap();
            let Some((last, _)) = page.last() else { break };
            behind = Some(last.clone());
            keys.extend(page.into_iter().map(|(_, seen)| seen.etag.to_string()));
        }
        assert_eq!(keys, ["0", "1", "2", "3", "4"]);
        table.remove("k0").unwrap();
        assert!(!table.has("k0").unwrap() && table.has("k1").unwrap());
        table.clear().unwrap();
        assert!(table.is_empty().unwrap());
    }
}
