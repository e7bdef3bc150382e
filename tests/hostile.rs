//! Files that mean harm, or are merely broken: each is refused for the reason it should be, soon, and in little memory.
//!
//! `hostile/make.py` makes the corpus and says what each file is to come to; here `feedmill convert` gets one after the other.

#[path = "support/binary.rs"]
mod binary;
#[path = "support/measured.rs"]
mod measured;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use measured::{Measured, run};
use serde::Deserialize;

/// The slowest file takes a few seconds of an unoptimised binary; what hangs takes for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code of a refused file.
const FINDINGS: i32 = 4;

/// The most memory that any of these files may take. A decompressor may have 64 MiB for its window (`decompressor_bytes`, rounded down to a power
/// of two), and three of them may lie in one another (`nesting`). The rest is for a record (`record_bytes`) as it is read, held and
/// written, and the process itself.
const MOST_BYTES: u64 = (3 * 64 + 64) << 20;

/// The same for files with no such windows: eight times `record_bytes`.
const MOST_BYTES_UNPACKED: u64 = (8 * 16) << 20;

/// The one file that needs more: see [`MOST_BYTES`].
const LARGE_WINDOWS: &str = "three-large-windows.zst";

#[derive(Deserialize)]
struct Case {
    file: String,
    feed: String,
    expect: Vec<String>,
}

impl Case {
    fn convert(&self, folder: &Path) -> Measured {
        let file = File::open(folder.join(&self.file)).expect("the corpus has it");
        let args = ["--config", CONFIG, "convert", "-", "--feed", &self.feed];
        let mut command = binary::feedmill(folder, &args);
        run(command.stdin(file).stdout(Stdio::null()), PATIENCE)
    }

    /// What is wrong with how it went.
    fn judge(&self, measured: &Measured) -> Option<String> {
        let result = match measured.code {
            Some(0) => "converted",
            Some(FINDINGS) => reason(&measured.stderr),
            _ => "neither converted nor refused",
        };
        let most = match self.file == LARGE_WINDOWS {
            true => MOST_BYTES,
            false => MOST_BYTES_UNPACKED,
        };
        let is_expected = self.expect.iter().any(|expected| expected == result);
        let is_small = measured.peak_bytes <= most;
        (!is_expected || !is_small).then(|| {
            format!(
                "{}: {result} instead of {} after {:.1} s, {} MiB\n{}",
                self.file,
                self.expect.join(" or "),
                measured.took.as_secs_f64(),
                measured.peak_bytes >> 20,
                measured.stderr
            )
        })
    }
}

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/feedmill.toml");
const MAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/make.py");

fn is_everything_required() -> bool {
    std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|value| value == "1")
}

/// The code in `-: CODE: MESSAGE`.
fn reason(stderr: &str) -> &str {
    let refusal = stderr.lines().find_map(|line| line.strip_prefix("-: "));
    refusal
        .and_then(|refusal| refusal.split_once(": "))
        .map_or("refused without a reason", |(code, _)| code)
}

#[test]
fn every_hostile_file_comes_to_what_it_should_in_little_time_and_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut make = Command::new("python3");
    make.args(["-B", MAKE]).arg(folder.path());
    let made = match make.status() {
        Err(error) if error.kind() == ErrorKind::NotFound && !is_everything_required() => {
            let note = "skipped the hostile corpus: needs python3";
            return writeln!(std::io::stderr(), "{note}").expect("standard error");
        }
        made => made.expect("python3 makes the corpus"),
    };
    assert!(made.success(), "{made}");
    let manifest = File::open(folder.path().join("manifest.json")).expect("make.py wrote it");
    let cases: Vec<Case> = serde_json::from_reader(manifest).expect("the manifest is JSON");
    assert!(cases.len() >= 60);

    let waiting = Mutex::new(cases.iter());
    let wrong = Mutex::new(Vec::new());
    let peaks = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(case) = waiting.lock().expect("no test has failed").next() else {
                return;
            };
            let measured = case.convert(folder.path());
            wrong
                .lock()
                .expect("as before")
                .extend(case.judge(&measured));
            let peak = (measured.peak_bytes, &*case.file);
            peaks.lock().expect("as before").push(peak);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().expect("as before");
    assert!(
        wrong.is_empty(),
        "{} of {} files:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let mut peaks = peaks.into_inner().expect("as before");
    peaks.sort_unstable_by(|a, b| b.cmp(a));
    println!("{} files, those that took most memory:", cases.len());
    for (bytes, file) in &peaks[..5] {
        println!("{} MiB for {file}", bytes >> 20);
    }
    // A measurement that sees nothing would pass everything.
    assert!(peaks[0].0 > (3 * 64) << 20, "no windows were filled");
}
