//! The state folder: one slot per process, locked; it keeps the transactional id and the local state store.
//!
//! A stable transactional id lets a restarted process abort its predecessor's open transaction at once, instead of
//! letting it pin every reader until the broker's timeout. Two processes never share one: the lock is the operating
//! system's, and goes with the process however it ends.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Slots tried before giving up; more processes than this on one machine should have folders of their own.
const MAX_SLOTS: usize = 256;

/// Why no slot could be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("use the state folder {path}; state.dir names another")]
    Io { path: PathBuf, source: io::Error },
    #[error("find a free slot in the state folder {path}: {MAX_SLOTS} processes are using it")]
    Full { path: PathBuf },
}

/// A slot of the state folder, ours until dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    id: Uuid,
    _lock: File,
}

impl StateFolder {
    /// Takes the first slot nobody holds, making it when it is not there.
    pub fn claim(dir: &Path) -> Result<Self, FolderError> {
        (0..MAX_SLOTS)
            .find_map(|slot| Self::claim_slot(&dir.join(format!("slot-{slot}"))).transpose())
            .unwrap_or_else(|| {
                Err(FolderError::Full {
                    path: dir.to_owned(),
                })
            })
    }

    fn claim_slot(path: &Path) -> Result<Option<Self>, FolderError> {
        let failed = |source| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let id = read_or_make_id(&path.join("id")).map_err(failed)?;
        Ok(Some(Self {
            path: path.to_owned(),
            id,
            _lock: lock,
        }))
    }

    /// Where a stage's local state lives.
    pub fn store_path(&self, stage: &str) -> PathBuf {
        self.path.join(format!("{stage}.store"))
    }

    /// Where a stage notes what is under way.
    pub fn journal_path(&self, stage: &str) -> PathBuf {
        self.path.join(format!("{stage}.journal"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `group-stage-uuid`; steady over restarts as long as the folder is kept.
    pub fn transactional_id(&self, group: &str) -> String {
        format!("{group}-{}", self.id)
    }

    /// A short name for logs and results: the start of the slot's id.
    pub fn worker(&self) -> String {
        self.id.to_string()[..8].to_owned()
    }
}

/// A damaged id file is replaced: a new id is always safe, it only forgets whose open transaction to abort.
fn read_or_make_id(path: &Path) -> io::Result<Uuid> {
    match fs::read_to_string(path) {
        Ok(text) => {
            if let Ok(id) = text.trim().parse() {
                return Ok(id);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(error) => return Err(error),
    }
    let id = Uuid::new_v4();
    let fresh = path.with_extension("new");
    fs::write(&fresh, id.to_string())?;
    fs::rename(fresh, path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_takes_the_next_slot_and_a_restart_gets_its_id_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateFolder::claim(dir.path()).unwrap();
        let second = StateFolder::claim(dir.path()).unwrap();
        assert_ne!(first.id, second.id);
        assert_ne!(first.path, second.path);
        let id = first.id;
        drop(first);
        assert_eq!(StateFolder::claim(dir.path()).unwrap().id, id);
    }

    #[test]
    fn a_damaged_id_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = StateFolder::claim(dir.path()).unwrap().path;
        fs::write(path.join("id"), b"\xFF\xFEnonsense").unwrap();
        let id = StateFolder::claim(dir.path()).unwrap().id;
        assert_eq!(fs::read_to_string(path.join("id")).unwrap(), id.to_string());
    }
}
