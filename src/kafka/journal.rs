//! Which events are being worked on, on disk, so that one that kills the process is found.
//!
//! A crash leaves events that were begun and never ended: one of them may be to blame, the others were only near. Each of
//! them is begun again alone, with nothing else under way; whoever ends is innocent, and an event that was alone when the
//! process died is one crash nearer to [`MAX_CRASHES`]. After so many it is not begun any more.
//!
//! The journal has to outlive the process, not the machine: lines are appended without a sync. An orderly stop empties it.
//! Each worker counts for itself, in its own folder; a folder that does not last knows no suspects.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::warn;

use super::{Position, store::LogIdentity};

/// Times that the process may die while an event is alone, before it is given up.
pub const MAX_CRASHES: u32 = 3;

/// The file is written anew above this size, in bytes.
const LONGEST: u64 = 1 << 20;

/// The events of one stage that are under way.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Of which log the positions are; `None` before that is known.
    log: Option<String>,
    begun: HashMap<Position, Begun>,
    /// Events that were under way when the process died, and how often that was while they were alone.
    suspects: HashMap<Position, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begun {
    alone: bool,
}

/// An event under way. Dropped before it has ended, because its work was cancelled, it stays as suspect as it was; a panic is a
/// crash of its own.
#[derive(Debug)]
pub struct UnderWay {
    journal: Journal,
    position: Position,
    has_ended: bool,
}

impl Journal {
    /// Reads what a process before left, and begins anew with its suspects.
    pub fn open(path: &Path) -> io::Result<Self> {
        let left = match fs::read(path) {
            Ok(bytes) => Left::read(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Left::default(),
            Err(error) => return Err(error),
        };
        for (position, crashes) in &left.suspects {
            warn!(
                partition = position.partition,
                offset = position.offset,
                crashes,
                "an event was under way when the process ended; it is begun again alone"
            );
        }
        let mut inner = Inner {
            file: File::create(path.with_extension("new"))?,
            path: path.to_owned(),
            bytes: 0,
            log: left.log,
            begun: HashMap::new(),
            suspects: left.suspects,
        };
        inner.rewrite()?;
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// Says which log the positions are of; suspects of another one are forgotten.
    pub fn is_of(&self, log: &LogIdentity) {
        let log = format!("{} {}", log.cluster_id, log.topic_id);
        let mut inner = self.lock();
        if inner.log.as_ref() == Some(&log) {
            return;
        }
        if inner.log.is_some() {
            inner.suspects.clear();
        }
        inner.log = Some(log);
        inner.kept(Inner::rewrite);
    }

    /// How often the process died while this event was alone; `None` for one that was never under way at such a moment.
    pub fn crashes(&self, position: Position) -> Option<u32> {
        self.lock().suspects.get(&position).copied()
    }

    /// Notes that work on an event begins.
    pub fn begin(&self, position: Position, alone: bool) -> UnderWay {
        let mut inner = self.lock();
        inner.begun.insert(position, Begun { alone });
        inner.note(&line(if alone { '!' } else { '+' }, position));
        UnderWay {
            journal: self.clone(),
            position,
            has_ended: false,
        }
    }

    /// Notes that the process ends in order: nobody is to blame.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.begun.clear();
        inner.suspects.clear();
        inner.kept(Inner::rewrite);
    }

    fn end(&self, position: Position) {
        let mut inner = self.lock();
        inner.begun.remove(&position);
        inner.suspects.remove(&position);
        inner.note(&line('-', position));
    }

    /// What it has begun may still be running, so it is not forgotten; but it is alone no more.
    fn cancelled(&self, position: Position) {
        let mut inner = self.lock();
        inner.begun.insert(position, Begun { alone: false });
        inner.note(&line('+', position));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Its work is over: it is innocent.
    pub fn ended(mut self) {
        self.has_ended = true;
        self.journal.end(self.position);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.has_ended && !std::thread::panicking() {
            self.journal.cancelled(self.position);
        }
    }
}

fn line(what: char, position: Position) -> String {
    format!("{what} {} {}\n", position.partition, position.offset)
}

impl Inner {
    fn note(&mut self, line: &str) {
        self.kept(|inner| {
            inner.file.write_all(line.as_bytes())?;
            inner.bytes += line.len() as u64;
            match inner.bytes > LONGEST {
                true => inner.rewrite(),
                false => Ok(()),
            }
        });
    }

    /// A journal that can't be written protects nobody any more; that is said, and the work goes on.
    fn kept(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = write(self) {
            warn!(path = %self.path.display(), %error, "the journal of files under way can't be written");
        }
    }

    /// The file as it has to be now, in place of the one there is.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = String::new();
        if let Some(log) = &self.log {
            text += &format!("log {log}\n");
        }
        for (position, crashes) in &self.suspects {
            text += &format!("? {} {} {crashes}\n", position.partition, position.offset);
        }
        for (position, begun) in &self.begun {
            text += &line(if begun.alone { '!' } else { '+' }, *position);
        }
        let path = self.path.with_extension("new");
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&path, &self.path)?;
        self.file = file;
        self.bytes = text.len() as u64;
        Ok(())
    }
}

/// What a process left behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    log: Option<String>,
    suspects: HashMap<Position, u32>,
}

impl Left {
    /// A line that was cut by the crash, or is none of ours, says nothing.
    fn read(text: &str) -> Self {
        let mut left = Self::default();
        let mut begun: HashMap<Position, Begun> = HashMap::new();
        for line in text.lines() {
            if let Some(log) = line.strip_prefix("log ") {
                left.log = Some(log.to_owned());
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let (Some(what), Some(position)) = (words.first(), position(&words)) else {
                continue;
            };
            match *what {
                "+" => drop(begun.insert(position, Begun { alone: false })),
                "!" => drop(begun.insert(position, Begun { alone: true })),
                "-" => {
                    begun.remove(&position);
                    left.suspects.remove(&position);
                }
                "?" => {
                    let crashes = words.get(3).and_then(|word| word.parse().ok());
                    left.suspects.insert(position, crashes.unwrap_or(0));
                }
                _ => {}
            }
        }
        for (position, Begun { alone }) in begun {
            *left.suspects.entry(position).or_default() += u32::from(alone);
        }
        left
    }
}

fn position(words: &[&str]) -> Option<Position> {
    Some(Position {
        partition: words.get(1)?.parse().ok()?,
        offset: words.get(2)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::mem::forget;

    use super::*;

    fn at(offset: i64) -> Position {
        Position {
            partition: 3,
            offset,
        }
    }

    fn log(topic_id: &str) -> LogIdentity {
        LogIdentity {
            cluster_id: "c".into(),
            topic_id: topic_id.into(),
        }
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("convert.journal")
        }

        /// As a new process finds it.
        fn journal(&self) -> Journal {
            let journal = Journal::open(&self.path()).unwrap();
            journal.is_of(&log("t"));
            journal
        }
    }

    #[test]
    fn what_was_under_way_is_suspect_and_what_had_ended_is_not() {
        let folder = Folder::new();
        let journal = folder.journal();
        journal.begin(at(1), false).ended();
        forget(journal.begin(at(2), false));
        forget(journal.begin(at(4), false));
        let next = folder.journal();
        let crashes = [1, 2, 3, 4].map(|offset| next.crashes(at(offset)));
        assert_eq!(crashes, [None, Some(0), None, Some(0)]);
    }

    #[test]
    fn only_who_was_alone_comes_nearer_to_the_limit_and_who_ends_is_innocent() {
        let folder = Folder::new();
        let journal = folder.journal();
        forget(journal.begin(at(1), false));
        forget(journal.begin(at(2), false));
        for crashes in 0..MAX_CRASHES {
            let journal = folder.journal();
            assert_eq!(journal.crashes(at(1)), Some(crashes));
            forget(journal.begin(at(1), true));
        }
        let journal = folder.journal();
        assert_eq!(journal.crashes(at(1)), Some(MAX_CRASHES));
        assert_eq!(journal.crashes(at(2)), Some(0));
        journal.begin(at(2), true).ended();
        assert_eq!(journal.crashes(at(2)), None);
        assert_eq!(folder.journal().crashes(at(2)), None);
    }

    #[test]
    fn an_orderly_stop_blames_nobody_and_another_log_has_other_events() {
        let folder = Folder::new();
        let journal = folder.journal();
        let under_way = journal.begin(at(1), false);
        journal.clear();
        forget(under_way);
        assert_eq!(folder.journal().crashes(at(1)), None);

        forget(folder.journal().begin(at(1), false));
        let other = Journal::open(&folder.path()).unwrap();
        assert_eq!(other.crashes(at(1)), Some(0));
        other.is_of(&log("another"));
        assert_eq!(other.crashes(at(1)), None);
    }

    #[test]
    fn who_is_cancelled_stays_as_suspect_as_before() {
        let folder = Folder::new();
        forget(folder.journal().begin(at(1), true));
        let journal = folder.journal();
        assert_eq!(journal.crashes(at(1)), Some(1));
        drop(journal.begin(at(1), true));
        assert_eq!(journal.crashes(at(1)), Some(1));
        assert_eq!(folder.journal().crashes(at(1)), Some(1));
    }

    #[test]
    fn a_panic_is_a_crash() {
        let folder = Folder::new();
        let journal = folder.journal();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _under_way = journal.begin(at(1), true);
            panic!("as asked");
        }));
        assert!(panicked.is_err());
        assert_eq!(folder.journal().crashes(at(1)), Some(1));
    }

    #[test]
    fn lines_that_are_cut_or_foreign_say_nothing() {
        let left = Left::read("log c t\n+ 3 1\n? 3 9 2\nnonsense\n+ 3");
        assert_eq!(left.log.as_deref(), Some("c t"));
        assert_eq!(left.suspects, HashMap::from([(at(1), 0), (at(9), 2)]));
    }

    #[test]
    fn the_file_stays_short_however_many_events_there_are() {
        let folder = Folder::new();
        let journal = folder.journal();
        let long = journal.begin(at(0), false);
        for offset in 1..100_000 {
            journal.begin(at(offset), false).ended();
        }
        assert!(fs::metadata(folder.path()).unwrap().len() <= LONGEST + 100);
        forget(long);
        assert_eq!(folder.journal().crashes(at(0)), Some(0));
    }
}
