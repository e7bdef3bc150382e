//! `feedmill feed test`: fixtures in folders beside the configuration, run as a partner's integrator runs them. No server is needed.

#[path = "support/binary.rs"]
mod binary;

use std::fs;
use std::path::Path;

use binary::{Ended, feedmill, run};
use tempfile::TempDir;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const FINDINGS: i32 = 4;

const MAIN: &str = r#"
[[feeds]]
name = "nsx"
match = "s3://partners/nsx/**"
output_format = "pretty"
output_compress = "gzip"
fields = { id = "@id", from = "$source.key", seen = "$source.last_modified", feed = "$source.feed" }
"#;

const ACME: &str = r#"
[[feeds]]
name = "acme"
match = "s3://partners/acme/**"
record = "catalog/product"
max_rejected = 1

[feeds.fields]
sku   = { path = "@sku", required = true }
title = { path = "title", trim = true }
price = { path = "price", type = "decimal" }
"#;

const KETTLE: &str = r#"<catalog>
<product sku="A-100"><title> Kettle </title><price>79.90</price></product>
<product sku="A-101"><title>Toaster</title><price>39.00</price></product>
</catalog>"#;

const EXPECTED: &str = r#"[
  {"sku": "A-100", "title": "Kettle", "price": 79.90},
  {"sku": "A-101", "title": "Toaster", "price": 39.00}
]"#;

/// A folder with a main file and a partner's.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "feedmill.toml", MAIN);
    write(&folder, "feeds.d/acme.toml", ACME);
    folder
}

fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("a name in the folder")).expect("a writable folder");
    fs::write(path, text).expect("a writable folder");
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).expect("it was written")
}

fn exists(folder: &TempDir, name: &str) -> bool {
    folder.path().join(name).exists()
}

fn tested(folder: &TempDir, args: &[&str]) -> Ended {
    in_folder(folder.path(), args)
}

fn in_folder(folder: &Path, args: &[&str]) -> Ended {
    let args = [&["feed", "test"], args].concat();
    run(feedmill(folder, &args).env_remove("NO_COLOR"))
}

#[test]
fn a_fixture_passes_when_its_json_is_what_is_expected_however_that_is_laid_out() {
    let folder = folder();
    write(&folder, "feeds.d/acme.tests/kettle.xml", KETTLE);
    write(&folder, "feeds.d/acme.tests/kettle.expected.json", EXPECTED);
    write(&folder, "feeds.d/acme.tests/twin.xml", KETTLE);
    let lines = r#"{"sku":"A-100","title":"Kettle","price":79.90}{"sku":"A-101","title":"Toaster","price":39.00}"#;
    write(&folder, "feeds.d/acme.tests/twin.expected.jsonl", lines);
    let all = tested(&folder, &[]).expect_code(DONE);
    assert_eq!(
        all.stdout,
        "none     nsx: a file of the partner in nsx.tests would be its first fixture\n\
         ok       acme/kettle.xml: 2 records\n\
         ok       acme/twin.xml: 2 records\n\
         2 ok; feeds without fixtures: 1\n"
    );
    let named = tested(&folder, &["acme"]).expect_code(DONE);
    assert!(named.stdout.ends_with("\n2 ok\n"), "{named:#?}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("feedmill.toml");
    let main = main.to_str().expect("UTF-8");
    in_folder(elsewhere.path(), &["acme", "--config", main]).expect_code(DONE);
}

#[test]
fn what_differs_is_shown_with_the_number_of_its_record_and_some_lines_around() {
    let folder = folder();
    write(&folder, "feeds.d/acme.tests/kettle.xml", KETTLE);
    let expected = EXPECTED.replace("39.00", "39.0");
    write(
        &folder,
        "feeds.d/acme.tests/kettle.expected.json",
        &expected,
    );
    let ended = tested(&folder, &["acme"]).expect_code(FINDINGS);
    assert_eq!(
        ended.stdout,
        "differs  acme/kettle.xml: - is expected, + is what it becomes\n    \
         record 2\n      \
         {\n        \
         \"sku\": \"A-101\",\n        \
         \"title\": \"Toaster\",\n    \
         -   \"price\": 39.0\n    \
         +   \"price\": 39.00\n      \
         }\n\
         1 differs\n"
    );
    let mut coloured = feedmill(folder.path(), &["feed", "test", "acme"]);
    let coloured = run(coloured.env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR"));
    assert!(coloured.stdout.contains("\u{1b}[31m"), "{coloured:#?}");
}

#[test]
fn what_a_partner_wrote_does_not_steer_the_terminal() {
    let folder = folder();
    let title = "<catalog><product sku='1'><title>\u{9b}2J</title></product></catalog>";
    write(&folder, "feeds.d/acme.tests/a.xml", title);
    write(&folder, "feeds.d/acme.tests/a.expected.json", "[]");
    let ended = tested(&folder, &["acme"]).expect_code(FINDINGS);
    assert!(ended.stdout.contains("\\u{9b}2J"), "{ended:#?}");
}

#[test]
fn the_first_expected_file_is_written_and_then_passes() {
    let folder = folder();
    write(&folder, "feeds.d/acme.tests/kettle.xml", KETTLE);
    let missing = tested(&folder, &["acme"]).expect_code(FINDINGS);
    let hint = "missing  acme/kettle.xml: no feeds.d/acme.tests/kettle.expected.json yet; --update writes it\n";
    assert!(missing.stdout.starts_with(hint), "{missing:#?}");
    let written = tested(&folder, &["acme", "--update"]).expect_code(DONE);
    assert_eq!(
        written.stdout,
        "written  acme/kettle.xml: feeds.d/acme.tests/kettle.expected.json: 2 records\n1 written\n"
    );
    let text = read(&folder, "feeds.d/acme.tests/kettle.expected.json");
    assert!(text.contains("    \"price\": 79.90\n  },\n"), "{text}");
    tested(&folder, &["acme"]).expect_code(DONE);
    // What passes is left as somebody wrote it.
    write(&folder, "feeds.d/acme.tests/kettle.expected.json", EXPECTED);
    let again = tested(&folder, &["acme", "--update"]).expect_code(DONE);
    assert!(again.stdout.ends_with("\n1 ok\n"), "{again:#?}");
    assert_eq!(
        read(&folder, "feeds.d/acme.tests/kettle.expected.json"),
        EXPECTED
    );
}

#[test]
fn a_refusal_and_records_that_are_left_out_are_expected_by_reason_and_place() {
    let folder = folder();
    let no_sku = "<product><title>x</title></product>";
    let one = KETTLE.replace("</catalog>", &format!("{no_sku}</catalog>"));
    let two = one.replace("</catalog>", &format!("{no_sku}</catalog>"));
    write(&folder, "feeds.d/acme.tests/one.xml", &one);
    write(&folder, "feeds.d/acme.tests/two.xml", &two);
    tested(&folder, &["acme", "--update"]).expect_code(DONE);
    let left_out = read(&folder, "feeds.d/acme.tests/one.rejected.json");
    assert!(left_out.starts_with("[\n  {\n    \"reason\": \"missing_field\",\n    \"record\": 3"));
    assert!(exists(&folder, "feeds.d/acme.tests/one.expected.json"));
    let refused = read(&folder, "feeds.d/acme.tests/two.rejected.json");
    assert!(refused.starts_with("{\n  \"reason\": \"too_many_rejections\","));
    assert!(!exists(&folder, "feeds.d/acme.tests/two.expected.json"));
    let passed = tested(&folder, &["acme"]).expect_code(DONE);
    assert!(
        passed
            .stdout
            .contains("ok       acme/one.xml: 2 records, 1 rejected\n")
    );
    assert!(
        passed
            .stdout
            .contains("ok       acme/two.xml: refused, too_many_rejections\n")
    );

    write(
        &folder,
        "feeds.d/acme.tests/two.rejected.json",
        r#"{"reason": "too_many_rejections"}"#,
    );
    tested(&folder, &["acme"]).expect_code(DONE);
    let wrong = r#"{"reason": "too_many_rejections", "line": 9}"#;
    write(&folder, "feeds.d/acme.tests/two.rejected.json", wrong);
    write(&folder, "feeds.d/acme.tests/one.rejected.json", "[]");
    let differs = tested(&folder, &["acme"]).expect_code(FINDINGS);
    assert!(
        differs
            .stdout
            .contains("    -   \"line\": 9\n    +   \"line\": 4\n"),
        "{differs:#?}"
    );
    assert!(
        differs
            .stdout
            .contains("    +   \"reason\": \"missing_field\",\n"),
        "{differs:#?}"
    );

    // The mapping changes, and what was refused is converted.
    write(
        &folder,
        "feeds.d/acme.toml",
        &ACME.replace("max_rejected = 1", "max_rejected = 2"),
    );
    let kinds = tested(&folder, &["acme"]).expect_code(FINDINGS);
    assert!(
        kinds.stdout.contains(
            "differs  acme/two.xml: 2 records, 2 rejected; expected: refused, too_many_rejections"
        ),
        "{kinds:#?}"
    );
    assert!(
        kinds
            .stdout
            .contains("    +   \"message\": \"a required value is missing or empty\",\n"),
        "{kinds:#?}"
    );
    tested(&folder, &["acme", "--update"]).expect_code(DONE);
    assert!(exists(&folder, "feeds.d/acme.tests/two.expected.json"));
    assert!(read(&folder, "feeds.d/acme.tests/two.rejected.json").starts_with('['));
}

#[test]
fn the_object_is_what_the_fixture_says() {
    let folder = folder();
    write(&folder, "nsx.tests/a.xml", "<r><i id='1'/></r>");
    write(
        &folder,
        "nsx.tests/a.source.toml",
        "key = 'nsx/today.xml'\nlast_modified = 2026-11-21T11:00:00+01:00",
    );
    write(&folder, "nsx.tests/b.xml", "<r><i id='1'/></r>");
    tested(&folder, &["nsx", "--update"]).expect_code(DONE);
    let said = read(&folder, "nsx.tests/a.expected.json");
    assert!(said.contains("\"from\": \"nsx/today.xml\",\n    \"seen\": \"2026-11-21T10:00:00Z\",\n    \"feed\": \"nsx\""));
    let unsaid = read(&folder, "nsx.tests/b.expected.json");
    assert!(unsaid.contains("\"from\": \"b.xml\",\n    \"seen\": null"));
    write(&folder, "nsx.tests/a.source.toml", "keys = 'x'");
    let wrong = tested(&folder, &["nsx"]).expect_code(FINDINGS);
    assert!(
        wrong
            .stdout
            .contains("failed   nsx/a.xml: nsx.tests/a.source.toml: unknown field `keys`"),
        "{wrong:#?}"
    );
    assert!(
        wrong.stdout.contains("ok       nsx/b.xml"),
        "the others go on: {wrong:#?}"
    );
}

#[test]
fn what_cannot_be_tested_is_named() {
    let folder = folder();
    tested(&folder, &["acne"])
        .expect_code(USAGE)
        .expect_said(&["\"acne\"", "nsx, acme"]);
    tested(&folder, &["acme"])
        .expect_code(USAGE)
        .expect_said(&["feeds.d/acme.tests", "--update"]);
    write(&folder, "feeds.d/acme.tests/kettle.expected.json", EXPECTED);
    let alone = tested(&folder, &[]).expect_code(FINDINGS);
    assert!(
        alone
            .stdout
            .contains("failed   acme: feeds.d/acme.tests/kettle.expected.json belongs to no file"),
        "{alone:#?}"
    );
    write(&folder, "feeds.d/acme.tests/kettle.xml", KETTLE);
    write(
        &folder,
        "feeds.d/acme.toml",
        &ACME.replace("\"@sku\"", "\"/\""),
    );
    tested(&folder, &["acme"])
        .expect_code(USAGE)
        .expect_said(&["compile the feed \"acme\" (feeds.d/acme.toml)", "sku"]);
}

#[test]
fn fixtures_are_no_feeds() {
    let folder = folder();
    write(&folder, "feeds.d/acme.tests/a.xml", KETTLE);
    write(&folder, "feeds.d/acme.tests/a.source.toml", "key = 'x'");
    let feeds = run(&mut feedmill(folder.path(), &["config", "feeds"])).expect_code(DONE);
    assert_eq!(feeds.stdout.lines().count(), 3, "{feeds:#?}");
}
