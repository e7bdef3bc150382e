//! Files that appear whole or not at all. A part file is left behind only by a signal that nobody listens for, SIGKILL or SIGHUP.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The files that are being written.
#[derive(Clone, Default)]
pub struct Parts(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Parts {
    /// A file that is `path` once it is [kept](Part::keep), with the permissions of the one that it replaces. A device or a pipe
    /// can't be replaced: what is written there is there.
    pub fn create(&self, path: &Path) -> io::Result<Part> {
        // A link stays, and the file it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let replaced = fs::metadata(&path).ok();
        if replaced.as_ref().is_some_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(&path)?;
            return Ok(self.part(file, None));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let mut parts = self.lock();
        let file = File::create(&part)?;
        parts.insert(part.clone());
        drop(parts);
        let created = self.part(file, Some((part, path)));
        if let Some(found) = replaced {
            created
                .writer
                .get_ref()
                .set_permissions(found.permissions())?;
        }
        Ok(created)
    }

    fn part(&self, file: File, names: Option<(PathBuf, PathBuf)>) -> Part {
        Part {
            writer: BufWriter::new(file),
            names,
            parts: self.clone(),
        }
    }

    /// Removes all of them. The process must end then: whoever makes or keeps one from now on waits for ever.
    pub fn remove(&self) {
        let parts = self.lock();
        for part in parts.iter() {
            // That it can't be removed is not the news.
            let _ = fs::remove_file(part);
        }
        mem::forget(parts);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is gone when it is dropped before it was kept.
pub struct Part {
    writer: BufWriter<File>,
    /// Its name until it is kept, and the one that it gets.
    names: Option<(PathBuf, PathBuf)>,
    parts: Parts,
}

impl Part {
    /// Gives it its name, in place of the file that has it.
    pub fn keep(mut self) -> io::Result<()> {
        self.writer.flush()?;
        if let Some((part, path)) = &self.names {
            let mut parts = self.parts.lock();
            fs::rename(part, path)?;
            parts.remove(part);
            drop(parts);
            self.names = None;
        }
        Ok(())
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.names {
            let mut parts = self.parts.lock();
            let _ = fs::remove_file(part);
            parts.remove(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
        process::Command,
        thread,
    };

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_replaces_another_one_whole_with_its_permissions_and_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&file, "of yesterday").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("a", &link).unwrap();
        let mut part = Parts::default().create(&link).unwrap();
        part.write_all(b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"of yesterday");
        part.keep().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["a", "link"]);
    }

    #[test]
    fn what_is_not_kept_is_gone_whether_it_is_dropped_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::default();
        drop(parts.create(&folder.path().join("dropped")).unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
        let left = parts.create(&folder.path().join("a")).unwrap();
        let other = parts.create(&folder.path().join("b")).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        parts.remove();
        assert_eq!(names(folder.path()), [""; 0]);
        // Dropped, they would wait for the end of the process.
        mem::forget((left, other));
    }

    #[test]
    fn a_pipe_is_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let path = pipe.clone();
        let reader = thread::spawn(move || fs::read(path).unwrap());
        let mut part = Parts::default().create(&pipe).unwrap();
        part.write_all(b"x").unwrap();
        part.keep().unwrap();
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(reader.join().unwrap(), b"x");
    }
}
