//! The fuzz targets without a fuzzer: over their seeds, what was found before among them, and over seeds damaged at random.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{fs, process, thread};

use fuzz::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder().join("seeds").join(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// The names of what is in a folder of `fuzz`, without extensions.
fn names(folder_name: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join(folder_name)).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

/// No input of these takes a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// What goes on for longer can't be stopped: its input and where the threads stand is said, and the process ends.
fn watched<T>(target: &str, input: &[u8], run: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (is_running, ended) = channel::<()>();
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let what = format!("has not ended after {PATIENCE:?}");
                say(&what, target, input);
                say_threads();
                process::abort();
            }
        });
        let done = run();
        drop(is_running);
        done
    })
}

/// Past the test's own output, which is shown when the test has ended: this one may not end.
fn say(what: &str, target: &str, input: &[u8]) {
    let _ = writeln!(io::stderr(), "{target} {what}: {}", input.escape_ascii());
}

/// What each thread does by the kernel's account: its name, its state, what it waits for.
fn say_threads() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    for thread in threads.flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let _ = writeln!(io::stderr(), "{} {}", read("stat").trim(), read("wchan"));
    }
}

#[test]
fn every_target_has_a_binary_a_dictionary_and_seeds() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    for folder_name in ["fuzz_targets", "dictionaries", "seeds"] {
        assert_eq!(names(folder_name), targets, "{folder_name}");
    }
    for target in &targets {
        assert!(!seeds(target).is_empty(), "{target}");
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    for (target, run) in TARGETS {
        for (path, bytes) in seeds(target) {
            println!("{}", path.display());
            watched(target, &bytes, || run(&bytes));
        }
    }
}

/// One thing that may happen to a file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Change(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        any::<(Index, u8)>().prop_map(|(at, byte)| Damage::Change(at, byte)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), "[<>&;,\"'\\[\\]{}:\n\r\t x0-]{1,4}")
            .prop_map(|(at, text)| Damage::Insert(at, text.into_bytes())),
        (any::<Index>(), 1..20usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        (any::<Index>(), 1..40usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
    ]
}

impl Damage {
    fn happen(&self, file: &mut Vec<u8>) {
        let place = |at: &Index| at.index(file.len() + 1);
        let range = |at: &Index, len: &usize| {
            let start = place(at);
            start..(start + len).min(file.len())
        };
        match self {
            Self::Cut(at) => file.truncate(place(at)),
            Self::Change(at, byte) if !file.is_empty() => {
                let index = at.index(file.len());
                file[index] = *byte;
            }
            Self::Change(..) => {}
            Self::Insert(at, bytes) => {
                let start = place(at);
                file.splice(start..start, bytes.iter().copied());
            }
            Self::Remove(at, len) => {
                file.drain(range(at, len));
            }
            Self::Repeat(at, len) => {
                let range = range(at, len);
                let copy = file[range.clone()].to_vec();
                file.splice(range.start..range.start, copy);
            }
        }
    }
}

/// The first failure is said before it is made smaller.
static SAID: Once = Once::new();

proptest! {
    // A failure that takes long would be made smaller for hours.
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_time: 60_000, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_damage_to_a_seed_keeps_the_promises(
        seed: Index,
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        for (target, run) in TARGETS {
            let seeds = seeds(target);
            let (_, mut file) = seed.get(&seeds).clone();
            for damage in &damages {
                damage.happen(&mut file);
            }
            let is_kept = watched(target, &file, || catch_unwind(|| run(&file)).is_ok());
            if !is_kept {
                SAID.call_once(|| say("breaks a promise", target, &file));
            }
            prop_assert!(is_kept, "{}: {}", target, file.escape_ascii());
        }
    }
}
