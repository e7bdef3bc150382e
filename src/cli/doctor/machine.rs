//! This machine: the disk of the state folder.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use rustix::fs::{Access, access, statvfs};

use super::{
    needs::Needs,
    report::{Report, Verdict},
};
use crate::{config::Config, failure::Failure};

/// 10 million objects took 1.2 GB (README, Measured), and compaction needs room beside them.
const LITTLE_SPACE: u64 = 2_000_000_000;

pub fn check(config: &Config, needs: &Needs, report: &mut Report) -> Result<(), Failure> {
    let dir = &config.state.dir;
    let verdict = match needs.keeps_state {
        true => state_folder(dir),
        false => Verdict::skipped("these stages keep no state"),
    };
    report.add("state", &dir.display().to_string(), verdict)?;
    Ok(())
}

fn state_folder(dir: &Path) -> Verdict {
    let Some(standing) = nearest_standing(dir) else {
        return Verdict::failed("no folder above it can be seen").remedy(OTHER_FOLDER);
    };
    if !standing.is_dir() {
        let what = format!("{} is not a folder", standing.display());
        return Verdict::failed(what).remedy(OTHER_FOLDER);
    }
    if let Err(error) = access(standing, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        return Verdict::failed(format!("can't write to {}: {error}", standing.display()))
            .remedy("give the user that runs feedmill the right to write there")
            .remedy(OTHER_FOLDER);
    }
    let free = match free_bytes(standing) {
        Ok(free) => free,
        Err(error) => return Verdict::warning(format!("its free space can't be told: {error}")),
    };
    let there = match standing == dir {
        true => format!("writable, {}", slots(dir)),
        false => "not there yet, can be made".to_owned(),
    };
    let seen = format!("{there}, {:.1} GB free", free as f64 / 1e9);
    match free < LITTLE_SPACE {
        true => Verdict::warning(seen).remedy(
            "make room: 10 million objects take 1.2 GB, and twice that while files are rewritten",
        ),
        false => Verdict::ok(seen),
    }
}

const OTHER_FOLDER: &str = "name another folder as state.dir";

/// The folder itself, or the one that it would be made in.
fn nearest_standing(dir: &Path) -> Option<&Path> {
    dir.ancestors()
        .map(|path| match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        })
        .find(|path| path.symlink_metadata().is_ok())
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn slots(dir: &Path) -> String {
    let locks: Vec<File> = (0..)
        .map_while(|slot| File::open(dir.join(format!("slot-{slot}/lock"))).ok())
        .collect();
    // A worker that starts in this very moment takes the next slot: harmless.
    let held = |lock: &&File| matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
    let in_use = locks.iter().filter(held).count();
    format!("{in_use} of {} slots in use", locks.len())
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};

    #[test]
    fn a_folder_that_is_not_there_can_be_made_and_is_not_made_by_looking() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let verdict = state_folder(&state);
        assert_ne!(verdict.status, Status::Failed, "{verdict:?}");
        assert!(verdict.seen.starts_with("not there yet"), "{verdict:?}");
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn slots_in_use_are_counted_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = crate::kafka::StateFolder::claim(dir.path()).unwrap();
        let second = crate::kafka::StateFolder::claim(dir.path()).unwrap();
        drop(second);
        assert_eq!(slots(dir.path()), "1 of 2 slots in use");
        drop(first);
        assert_eq!(slots(dir.path()), "0 of 2 slots in use");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let verdict = state_folder(&file.path().join("state"));
        assert_eq!(verdict.status, Status::Failed);
        assert!(
            verdict.seen.contains(&file.path().display().to_string()),
            "{verdict:?}"
        );
    }
}
