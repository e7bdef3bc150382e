//! Whether the configuration's files have changed, without reading them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::config::feed_files;

/// What tells one state of the files from another. Links are followed, so that the swap of a mounted ConfigMap is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<Stat>)>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds. The time of the last change of the inode, too: a copy may bring an old time of writing along.
    written: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of the main file, the files of the folder, and those that feeds name; one that can't be looked at counts as absent.
    pub fn take(file: Option<PathBuf>, folder: Option<PathBuf>, documents: Vec<PathBuf>) -> Self {
        let partners = folder.and_then(|folder| feed_files(&folder).ok());
        let paths = file.into_iter().chain(partners.into_iter().flatten());
        let paths = paths.chain(documents);
        Self(
            paths
                .map(|path| {
                    let stat = Stat::of(&path);
                    (path, stat)
                })
                .collect(),
        )
    }
}

impl Stat {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_change_of_a_file_is_seen_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (main, feeds) = (
            folder.path().join("feedmill.toml"),
            folder.path().join("feeds.d"),
        );
        let program = folder.path().join("nsx.jq");
        let look = || {
            Fingerprint::take(
                Some(main.clone()),
                Some(feeds.clone()),
                vec![program.clone()],
            )
        };
        let mut last = look();
        let mut is_new = || {
            let found = look();
            let differs = found != last;
            last = found;
            differs
        };
        fs::write(&main, "a = 1").unwrap();
        assert!(is_new(), "a file that appears");
        fs::write(&main, "a = 12").unwrap();
        assert!(is_new(), "another length");
        fs::write(folder.path().join("new"), "a = 12").unwrap();
        fs::rename(folder.path().join("new"), &main).unwrap();
        assert!(is_new(), "another file in its place");
        fs::create_dir(&feeds).unwrap();
        fs::write(feeds.join("x.toml"), "").unwrap();
        assert!(is_new(), "a partner's file");
        fs::write(feeds.join(".x.toml.swp"), "").unwrap();
        assert!(!is_new(), "what is skipped does not count");
        fs::create_dir(feeds.join("x.tests")).unwrap();
        fs::write(feeds.join("x.tests/a.source.toml"), "").unwrap();
        assert!(!is_new(), "a fixture");
        fs::remove_file(feeds.join("x.toml")).unwrap();
        assert!(is_new(), "a partner's file that goes");
        fs::write(&program, ".").unwrap();
        assert!(is_new(), "a program that a feed names");
    }

    #[test]
    fn the_swap_of_a_mounted_config_map_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("x.toml"), "same length").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/x.toml", at("x.toml")).unwrap();
        let before = Fingerprint::take(None, Some(folder.path().into()), vec![]);
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_ne!(
            Fingerprint::take(None, Some(folder.path().into()), vec![]),
            before
        );
    }
}
