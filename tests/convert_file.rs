//! `feedmill convert` while it works: what a terminal shows, what a signal leaves behind, what stands in for the object.

#[path = "support/binary.rs"]
mod binary;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use binary::{Ended, Running, feedmill, run};
use serde_json::Value;
use tempfile::TempDir;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const FINDINGS: i32 = 4;

/// Longer than anything here may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const FEED: &str = r#"
[[feeds]]
name = "nsx"
match = "s3://partners/nsx/**"
output_format = "lines"
fields = { b = "$source.bucket", k = "$source.key", e = "$source.etag", m = "$source.last_modified", f = "$source.feed" }
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "feedmill.toml", FEED);
    write(&folder, "a.xml", "<r><i/></r>");
    folder
}

fn write(folder: &TempDir, name: &str, text: &str) {
    fs::write(folder.path().join(name), text).expect("a writable folder");
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).expect("it was written")
}

fn converted(folder: &TempDir, args: &[&str]) -> Ended {
    run(&mut feedmill(folder.path(), &[&["convert"], args].concat()))
}

fn parts(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("a folder");
    let is_part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
    entries.flatten().filter(is_part).count()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_said_of_the_object_is_what_the_mapping_gets() {
    let folder = folder();
    let said = [
        "a.xml",
        "--feed=nsx",
        "--source=bucket=partners",
        "--source=key=nsx/today.xml",
        "--source=etag=0123",
        "--source=last_modified=2026-11-21T11:00:00+01:00",
    ];
    assert_eq!(
        converted(&folder, &said).expect_code(DONE).stdout,
        "{\"b\":\"partners\",\"k\":\"nsx/today.xml\",\"e\":\"0123\",\"m\":\"2026-11-21T10:00:00Z\",\"f\":\"nsx\"}\n"
    );
    assert_eq!(
        converted(&folder, &["a.xml", "--feed=nsx"]).stdout,
        "{\"b\":\"\",\"k\":\"a.xml\",\"e\":\"\",\"m\":null,\"f\":\"nsx\"}\n"
    );
    for (wrong, words) in [
        ("feed=nsx", &["unknown field `feed`", "`last_modified`"][..]),
        ("last_modified=yesterday", &["\"yesterday\"", "RFC 3339"]),
        ("bucket", &["KEY=VALUE"]),
    ] {
        converted(&folder, &["a.xml", "--source", wrong])
            .expect_code(USAGE)
            .expect_said(words);
    }
}

#[test]
fn what_it_came_to_can_be_read_by_a_program() {
    let folder = folder();
    let told = |args: &[&str], code| -> Value {
        let ended = converted(&folder, &[args, &["--json"]].concat()).expect_code(code);
        serde_json::from_str(&ended.stderr).expect("one JSON value")
    };
    write(&folder, "b.xml", "<r><i><x/><x/></i></r>");
    let good = told(&["b.xml"], DONE);
    assert_eq!(good["outcome"], "converted");
    assert_eq!(
        (&good["records"], &good["rejected"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&good["input_bytes"], &good["output_bytes"]),
        (&22.into(), &18.into())
    );
    assert!(good["seconds"].is_number());
    let warning = good["warnings"][0].as_str().expect("text");
    assert!(warning.starts_with("`x` is repeated in record 1"));
    write(&folder, "bad.xml", "<r>\n<i></r>");
    let bad = told(&["bad.xml"], FINDINGS);
    assert_eq!(
        (&bad["outcome"], &bad["reason"]),
        (&"refused".into(), &"malformed_xml".into())
    );
    assert_eq!((&bad["line"], &bad["rejected"]), (&2.into(), &0.into()));
}

#[test]
fn a_signal_leaves_neither_a_part_nor_another_output() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = folder();
        write(&folder, "out.json", "of yesterday");
        write(&folder, "r.jsonl", "of yesterday, too");
        let args = ["convert", "-", "-o", "out.json", "--rejected", "r.jsonl"];
        let mut command = feedmill(folder.path(), &args);
        // Its standard input stays open, so that it waits for more.
        let mut running = Running::start(command.stdin(Stdio::piped()).stderr(Stdio::null()));
        wait_until("both part files", || parts(folder.path()) == 2);
        running.signal(signal);
        assert_eq!(running.wait(), Some(code));
        assert_eq!(parts(folder.path()), 0);
        assert_eq!(read(&folder, "out.json"), "of yesterday");
        assert_eq!(read(&folder, "r.jsonl"), "of yesterday, too");
    }
}

#[test]
fn the_rejected_records_of_a_refused_file_are_kept() {
    let folder = folder();
    let feed = FEED.replace(
        "fields = {",
        "max_rejected = 1\nfields = { x = { path = '@x', required = true },",
    );
    write(&folder, "feedmill.toml", &feed);
    write(&folder, "bad.xml", "<r><i/><i/><i/></r>");
    let args = ["bad.xml", "--feed=nsx", "-o=out.json", "--rejected=r.jsonl"];
    converted(&folder, &args).expect_code(FINDINGS);
    assert_eq!(read(&folder, "r.jsonl").lines().count(), 2);
    assert!(!folder.path().join("out.json").exists());
    assert_eq!(parts(folder.path()), 0);
}

#[test]
fn a_terminal_shows_how_far_it_is_until_it_is_done() {
    let folder = folder();
    let made = Command::new("mkfifo")
        .arg(folder.path().join("in"))
        .status();
    assert!(made.expect("mkfifo").success());
    let binary = env!("CARGO_BIN_EXE_feedmill");
    let mut command = Command::new("script");
    command
        .current_dir(folder.path())
        .args([
            "-qec",
            &format!("{binary} convert - -o out.json < in"),
            "/dev/null",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let Ok(mut script) = command.spawn() else {
        return eprintln!("skipped: this system has no script(1), which makes a terminal");
    };
    let shown = read_chunks(script.stdout.take().expect("piped"));
    let mut input = File::options()
        .write(true)
        .open(folder.path().join("in"))
        .expect("a pipe");
    input.write_all(b"<r><i>1</i>").expect("a reader");
    let mut text = String::new();
    wait_until("the line of progress", || {
        text.extend(shown.try_iter());
        text.contains("MB/s")
    });
    assert!(
        text.contains("0.0 MB, 0.0 MB/s, 0 records, 0 rejected"),
        "{text:?}"
    );
    input.write_all(b"</r>").expect("a reader");
    drop(input);
    text.extend(shown.iter());
    assert!(script.wait().expect("our own child").success(), "{text:?}");
    // The line is taken away before anything else is said.
    let (_, last) = text.rsplit_once("\r\u{1b}[K").expect("it was cleared");
    assert!(
        last.starts_with("1 records, 0 rejected, 15 bytes in"),
        "{text:?}"
    );
    assert_eq!(read(&folder, "out.json"), "[\n\"1\"\n]\n");
}

/// What comes through a pipe, as it comes.
fn read_chunks(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, chunks) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = pipe.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            if send.send(text).is_err() {
                break;
            }
        }
    });
    chunks
}
