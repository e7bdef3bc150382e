//! `feedmill feed infer` as a person runs it: from a sample in a folder to a feed in `feeds.d` that converts the sample.

#[path = "support/binary.rs"]
mod binary;

use std::fs;
use std::path::Path;

use binary::{Ended, feedmill, run, run_with_input};
use serde_json::Value;
use tempfile::TempDir;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const FINDINGS: i32 = 4;

const MAIN: &str = r#"
kafka.brokers = ["127.0.0.1:1"]
output.bucket = "json"
"#;

/// A folder with a configuration without feeds, the fixtures of inference beside it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "feedmill.toml", MAIN);
    fs::create_dir(folder.path().join("feeds.d")).expect("a writable folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/infer");
    for name in ["acme.xml", "artikel.csv", "orders.json"] {
        fs::copy(fixtures.join(name), folder.path().join(name)).expect("a fixture");
    }
    folder
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.path().join(name), bytes).expect("a writable folder");
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).expect("it was written")
}

fn ended(folder: &TempDir, args: &[&str]) -> Ended {
    run(&mut feedmill(folder.path(), args))
}

fn infer(folder: &TempDir, args: &[&str]) -> Ended {
    ended(folder, &[&["feed", "infer"], args].concat())
}

#[test]
fn what_is_inferred_is_a_feed_that_converts_its_sample() {
    let folder = folder();
    for (sample, name, records) in [
        ("acme.xml", "acme", 3),
        ("artikel.csv", "artikel", 3),
        ("orders.json", "orders", 2),
    ] {
        let output = format!("feeds.d/{name}.toml");
        let written = infer(&folder, &[sample, "-o", &output]).expect_code(DONE);
        assert_eq!((written.stdout, written.stderr), Default::default());
        let json = ended(&folder, &["convert", sample, "--feed", name]).expect_code(DONE);
        let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(records), "{sample}");
    }
    let checked = ended(&folder, &["config", "check"]).expect_code(DONE);
    assert!(checked.stdout.contains("3 feeds"), "{checked:?}");
}

#[test]
fn the_text_is_that_of_the_library_and_goes_to_standard_output() {
    let folder = folder();
    let expected = include_str!("fixtures/infer/acme.xml.toml");
    assert_eq!(
        infer(&folder, &["acme.xml"]).expect_code(DONE).stdout,
        expected
    );
    let whole = infer(&folder, &["acme.xml", "--whole"]).expect_code(DONE);
    assert_eq!(
        whole.stdout,
        include_str!("fixtures/infer/acme.xml.whole.toml")
    );
    let named = ["acme.xml", "--name", "x.y", "--match", "s3://b/{a,c}/*.xml"];
    let named = infer(&folder, &named).expect_code(DONE).stdout;
    assert!(named.contains("name          = \"x.y\"\n"), "{named}");
    assert!(
        named.contains("match         = \"s3://b/{a,c}/*.xml\"\n"),
        "{named}"
    );
}

#[test]
fn a_sample_may_come_by_standard_input() {
    let folder = folder();
    let from = |file| ["feed", "infer", file, "--name", "a", "--match", "s3://b/**"];
    let sample = fs::read(folder.path().join("acme.xml")).expect("a fixture");
    let piped = run_with_input(&mut feedmill(folder.path(), &from("-")), &sample);
    let read = ended(&folder, &from("acme.xml")).expect_code(DONE).stdout;
    assert_eq!(
        piped.expect_code(DONE).stdout,
        read.replace("acme.xml", "-")
    );
}

#[test]
fn a_file_that_is_there_is_overwritten_only_by_force() {
    let folder = folder();
    write(&folder, "mine.toml", "mine");
    let args = ["acme.xml", "-o", "mine.toml"];
    infer(&folder, &args).expect_code(USAGE).expect_said(&[
        "write mine.toml",
        "there already",
        "--force",
    ]);
    assert_eq!(read(&folder, "mine.toml"), "mine");
    infer(&folder, &[&args[..], &["--force"]].concat()).expect_code(DONE);
    assert!(read(&folder, "mine.toml").contains("[[feeds]]"));
}

#[test]
fn a_file_that_is_no_feed_is_refused_with_reason_and_place_and_nothing_is_written() {
    let folder = folder();
    write(
        &folder,
        "cut.xml",
        "<items>\n<item><id>1</id></item>\n<item><id>",
    );
    infer(&folder, &["cut.xml", "-o", "cut.toml"])
        .expect_code(FINDINGS)
        .expect_said(&["cut.xml: malformed_xml: ", "line 3"]);
    assert!(!folder.path().join("cut.toml").exists());
    write(&folder, "text", "This is no feed.\n");
    infer(&folder, &["text"])
        .expect_code(FINDINGS)
        .expect_said(&["text: unknown_format: ", "--format csv"]);
    write(&folder, "empty.csv", "");
    infer(&folder, &["acme.xml", "empty.csv"])
        .expect_code(FINDINGS)
        .expect_said(&["empty.csv: empty_file: "]);
}

#[test]
fn what_a_file_does_not_say_can_be_said() {
    let folder = folder();
    write(&folder, "town.csv", b"name;town\nJ\xf8rn;\xc5s\nKari\n");
    infer(&folder, &["town.csv", "--format", "csv"])
        .expect_code(FINDINGS)
        .expect_said(&["town.csv: invalid_encoding: ", "--encoding windows-1252"]);
    let args = ["town.csv", "--format", "csv", "--encoding", "windows-1252"];
    let text = infer(&folder, &args).expect_code(DONE).stdout;
    assert!(text.contains("encoding      = \"windows-1252\""), "{text}");
    assert!(text.contains("\"Jørn\""), "{text}");
    assert!(
        text.contains("1 row without a cell for each column"),
        "{text}"
    );
}

#[test]
fn wrong_usage_says_what_is_wrong() {
    let folder = folder();
    for (args, said) in [
        (&["none.xml"][..], "open none.xml"),
        (
            &["acme.xml", "orders.json"],
            "several formats: XML and JSON",
        ),
        (&["acme.xml", "--name", "a b"], "name the feed \"a b\""),
        (
            &["acme.xml", "--match", "acme/**"],
            "expected s3://bucket/glob",
        ),
        (&["acme.xml", "--format", "yaml"], "unknown variant `yaml`"),
        (&["acme.xml", "--encoding", "klingon"], "klingon"),
        (&["acme.xml", "--force"], "--output"),
        (&[], "FILE"),
    ] {
        infer(&folder, args).expect_code(USAGE).expect_said(&[said]);
    }
}
