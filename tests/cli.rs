//! The command line, as people and scripts meet it: what is printed where, exit codes, and what is left behind.
//!
//! Exit codes: 0 done, 1 a bug, 2 usage or configuration, 3 an outside service, 4 done, with findings. Most of it needs
//! no server; topics and results are tried on the real ones.

mod support;

#[path = "support/binary.rs"]
mod binary;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use binary::{Ended, Running, feedmill, run, run_unread, run_with_input};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::checker::Topic;
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World};
use tempfile::TempDir;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const SERVICE: i32 = 3;
const FINDINGS: i32 = 4;

const TIMEOUT: Duration = Duration::from_secs(60);

const SOUND: &str = r#"
[kafka]
brokers = ["127.0.0.1:1"]

[intake]
token = "hush-token"

[output]
bucket = "json"

[[feeds]]
name = "products"
match = "s3://partners/products/**"
record = "items/item"

[feeds.fields]
id = "@id"
name = "name"
version = "version"

[profile.production.kafka.security]
sasl_mechanism = "SCRAM-SHA-512"
username = "feedmill"
password = "hush-password"
"#;

/// A folder with a sound `feedmill.toml`.
fn folder() -> TempDir {
    folder_with(SOUND)
}

fn folder_with(toml: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("feedmill.toml"), toml).expect("a writable folder");
    folder
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.path().join(name), bytes).expect("a writable folder");
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).expect("it was written")
}

/// Runs a command in the folder to its end.
fn ended(folder: &TempDir, args: &[&str]) -> Ended {
    run(&mut feedmill(folder.path(), args))
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

fn parsed(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).expect("JSON")
}

fn product_file() -> ProductFile {
    ProductFile::new("Öl", 1)
}

// convert

#[test]
fn a_file_is_converted_whole_to_standard_output_and_what_it_took_is_said_beside_it() {
    let folder = folder();
    write(
        &folder,
        "a.xml",
        r#"<items><item id="1"><name>A</name></item></items>"#,
    );
    let ended = ended(&folder, &["convert", "a.xml"]).expect_code(DONE);
    assert_eq!(parsed(&ended.stdout), json!([{ "@id": "1", "name": "A" }]));
    ended.expect_said(&["1 records", "49 bytes in"]);
}

#[test]
fn records_that_are_left_out_are_said_and_written_to_a_file() {
    let folder = folder();
    let feed = "[[feeds]]\nname = 'n'\nmatch = 's3://a/**'\nmax_rejected = 10\nfields = { id = { path = '@id', required = true } }";
    write(&folder, "feedmill.toml", feed);
    let bad = "<i/>".repeat(7);
    write(&folder, "a.xml", format!("<r><i id='1'/>{bad}</r>"));
    let arguments = ["convert", "a.xml", "--feed", "n", "--rejected", "r.jsonl"];
    let ended = ended(&folder, &arguments).expect_code(DONE);
    assert_eq!(parsed(&ended.stdout), json!([{ "id": "1" }]));
    ended.expect_said(&[
        "rejected: a.xml: missing_field: a required value is missing or empty, record 2, line 1, column 15",
        "rejected: 2 more",
        "1 records, 7 rejected",
    ]);
    let report = fs::read_to_string(folder.path().join("r.jsonl")).expect("the report");
    assert_eq!(report.lines().count(), 7);
}

#[test]
fn a_file_is_converted_without_any_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "a.json", r#"[{"a": 1}, {"a": 2}]"#);
    let ended = ended(&folder, &["convert", "a.json"]).expect_code(DONE);
    assert_eq!(parsed(&ended.stdout), json!([{ "a": 1 }, { "a": 2 }]));
}

#[test]
fn a_feed_of_the_configuration_maps_a_file_into_a_file() {
    let folder = folder();
    write(&folder, "a.xml", product_file().xml());
    let args = ["convert", "a.xml", "--feed", "products", "-o", "out.json"];
    let ended = ended(&folder, &args).expect_code(DONE);
    assert_eq!(ended.stdout, "");
    assert_eq!(parsed(read(&folder, "out.json")), product_file().json());
    let left: BTreeSet<_> = ["a.xml", "feedmill.toml", "out.json"]
        .map(str::to_owned)
        .into();
    assert_eq!(names(folder.path()), left, "nothing else is left behind");
}

#[test]
fn standard_input_is_converted_gzipped_or_not() {
    let folder = folder();
    let plain = product_file().xml();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain).expect("memory");
    for bytes in [plain, gzip.finish().expect("memory")] {
        let mut command = feedmill(folder.path(), &["convert", "-", "--feed", "products"]);
        let ended = run_with_input(&mut command, &bytes).expect_code(DONE);
        assert_eq!(parsed(&ended.stdout), product_file().json());
    }
}

#[test]
fn the_same_file_gives_the_same_bytes_whichever_way_it_comes_and_goes() {
    let folder = folder();
    let bytes = product_file().records(1_000).xml();
    write(&folder, "a.xml", &bytes);
    let args = ["convert", "a.xml", "--feed", "products", "-o", "out.json"];
    ended(&folder, &args).expect_code(DONE);
    let mut command = feedmill(folder.path(), &["convert", "-", "--feed", "products"]);
    let piped = run_with_input(&mut command, &bytes).expect_code(DONE);
    assert_eq!(piped.stdout.as_bytes(), read(&folder, "out.json"));
}

#[test]
fn a_refused_file_is_exit_4_with_the_place_and_nothing_is_written() {
    let folder = folder();
    let bad = "<items>\n<item id=\"1\"><name>A</name></item>\n<item id=\"2\"><name>B</nome>";
    write(&folder, "bad.xml", bad);
    let place = [
        "bad.xml",
        "malformed_xml",
        "record 2",
        "line 3",
        "column",
        "byte",
        "name",
    ];

    let to_stdout = ended(&folder, &["convert", "bad.xml"]).expect_code(FINDINGS);
    assert_eq!(to_stdout.stdout, "", "not even the records before it");
    to_stdout.expect_said(&place);

    let before = names(folder.path());
    let to_file = ended(&folder, &["convert", "bad.xml", "-o", "out.json"]);
    to_file.expect_code(FINDINGS).expect_said(&place);
    assert_eq!(
        names(folder.path()),
        before,
        "no output, and no part of one"
    );

    write(&folder, "out.json", "of yesterday");
    ended(&folder, &["convert", "bad.xml", "-o", "out.json"]).expect_code(FINDINGS);
    assert_eq!(
        read(&folder, "out.json"),
        b"of yesterday",
        "what is there stays"
    );

    let mut piped = feedmill(folder.path(), &["convert", "-"]);
    let piped = run_with_input(&mut piped, bad.as_bytes()).expect_code(FINDINGS);
    assert_eq!(piped.stdout, "");
    piped.expect_said(&place[1..]);
}

#[test]
fn what_cannot_be_opened_or_found_is_named() {
    let folder = folder();
    write(&folder, "a.xml", product_file().xml());
    ended(&folder, &["convert", "nowhere.xml"])
        .expect_code(USAGE)
        .expect_said(&["nowhere.xml", "No such file"]);
    ended(&folder, &["convert", "a.xml", "--feed", "product"])
        .expect_code(USAGE)
        .expect_said(&["\"product\"", "products"]);
    let nowhere = ended(&folder, &["convert", "a.xml", "-o", "nowhere/out.json"]);
    assert_ne!(nowhere.code, Some(DONE));
    nowhere.expect_said(&["nowhere/out.json"]);
}

// config

#[test]
fn a_sound_configuration_is_exit_0() {
    let folder = folder();
    let ended = ended(&folder, &["config", "check"]).expect_code(DONE);
    assert!(ended.stdout.contains("sound"), "{ended:#?}");
}

#[test]
fn every_finding_is_printed_and_an_error_is_exit_2() {
    let folder = folder_with(
        r#"
        [kafka]
        brokers = ["kafka-1"]

        [intake]
        listen = "0.0.0.0:8080"

        [output]
        bucket = "partners"

        [[feeds]]
        name = "all"
        match = "s3://partners/**"

        [[feeds]]
        name = "never"
        match = "s3://partners/late/**"
        "#,
    );
    let ended = ended(&folder, &["config", "check"]).expect_code(USAGE);
    for words in [
        &["error: kafka.brokers", "kafka-1"][..],
        &["error: intake.listen", "intake.token"],
        &["error: feed \"all\"", "its match", "own outputs"],
        &["warning: feed \"never\"", "feed \"all\""],
    ] {
        let line = ended
            .stdout
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "no line has {words:?}: {ended:#?}");
    }
    let run = self::ended(&folder, &["run"]).expect_code(USAGE);
    run.expect_said(&["kafka.brokers", "intake.listen"]);
}

#[test]
fn what_is_shown_is_what_is_in_force_without_the_secrets() {
    let folder = folder();
    let mut command = feedmill(
        folder.path(),
        &["config", "show", "--profile", "production"],
    );
    command.env("FEEDMILL_KAFKA__GROUP", "from-the-environment");
    command.env("FEEDMILL_KAFKA__SECURITY__KEY_PASSWORD", "hush-key");
    let shown = run(&mut command).expect_code(DONE);
    for hidden in [
        "token = \"***\"",
        "password = \"***\"",
        "key_password = \"***\"",
    ] {
        assert!(shown.stdout.contains(hidden), "{hidden}: {shown:#?}");
    }
    assert!(!shown.stdout.contains("hush") && !shown.stderr.contains("hush"));
    let settings: toml::Table = shown.stdout.parse().expect("TOML");
    let kafka = settings["kafka"].as_table().expect("a table");
    assert_eq!(kafka["group"].as_str(), Some("from-the-environment"));
    assert_eq!(kafka["security"]["username"].as_str(), Some("feedmill"));
    assert_eq!(kafka["partitions"].as_integer(), Some(12), "a default");

    write(&folder, "shown.toml", &shown.stdout);
    let again = ended(&folder, &["config", "show", "--config", "shown.toml"]);
    assert_eq!(again.expect_code(DONE).stdout, shown.stdout);
}

/// A folder whose feeds stand in three files.
fn folder_with_partners() -> TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join("feeds.d")).expect("a writable folder");
    let nsx = "[[feeds]]\nname = 'nsx'\nowner = 'partners@shop.example'\nmatch = 's3://partners/nsx/**'\n";
    write(&folder, "feeds.d/nsx.toml", nsx);
    let off = "[[feeds]]\nname = 'off'\nenabled = false\nmatch = 's3://partners/off/**'\n";
    write(&folder, "feeds.d/off.toml", off);
    folder
}

#[test]
fn a_sound_configuration_is_summed_up() {
    let ended = ended(&folder_with_partners(), &["config", "check"]).expect_code(DONE);
    assert_eq!(
        ended.stdout,
        "the configuration is sound: 3 feeds (2 enabled, from 3 files), reading from partners, outputs to s3://json/{key}.json\n"
    );
}

#[test]
fn feeds_are_listed_in_the_order_in_which_they_are_tried() {
    let folder = folder_with_partners();
    let table = ended(&folder, &["config", "feeds"])
        .expect_code(DONE)
        .stdout;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let without_hash = |row: &Vec<&str>| [&row[..6], &row[7..]].concat().join(" ");
    let rows: Vec<String> = rows.iter().map(without_hash).collect();
    assert_eq!(
        rows,
        [
            "NAME MATCH FORMAT OWNER ENABLED AFTER FILE",
            "products s3://partners/products/** auto - yes keep feedmill.toml",
            "nsx s3://partners/nsx/** auto partners@shop.example yes keep feeds.d/nsx.toml",
            "off s3://partners/off/** auto - no keep feeds.d/off.toml",
        ]
    );
    let json = ended(&folder, &["config", "feeds", "--json"])
        .expect_code(DONE)
        .stdout;
    let feeds: Vec<Value> = json.lines().map(parsed).collect();
    assert_eq!((feeds.len(), &feeds[1]["name"]), (3, &json!("nsx")));
    let hash = feeds[1]["mapping_hash"].as_str().expect("a hash");
    assert!(hash.len() == 16 && table.contains(hash), "{table}");
}

#[test]
fn a_key_is_told_its_feed_and_its_output_or_why_it_has_none() {
    let folder = folder_with_partners();
    let ended = |url: &str| ended(&folder, &["config", "match", url]);
    assert_eq!(
        ended("s3://partners/nsx/a.xml").expect_code(DONE).stdout,
        "feed \"nsx\" (feeds.d/nsx.toml) takes s3://partners/nsx/a.xml\noutput: s3://json/nsx/a.xml.json\n"
    );
    for (url, why) in [
        ("s3://partners/nsx/a.tmp", "intake.exclude has \"*.tmp\""),
        (
            "s3://partners/off/a.xml",
            "feed \"off\" (feeds.d/off.toml) would, and is off",
        ),
        (
            "s3://partners/x",
            "no match of a feed of the bucket partners fits the key",
        ),
        ("s3://other/x", "no feed reads the bucket other"),
    ] {
        let none = ended(url).expect_code(FINDINGS).stdout;
        assert!(none.contains(why), "{why:?} is not in {none:?}");
    }
    ended("partners/x")
        .expect_code(USAGE)
        .expect_said(&["s3://bucket/key"]);
}

#[test]
fn partners_files_are_shown_with_the_rest_and_load_again_without_coming_twice() {
    let folder = folder_with_partners();
    let shown = ended(&folder, &["config", "show"]).expect_code(DONE).stdout;
    assert!(
        shown.contains("# feeds.d/nsx.toml\n[[feeds]]\nname = \"nsx\""),
        "{shown}"
    );
    write(&folder, "shown.toml", &shown);
    let again = ended(&folder, &["config", "check", "--config", "shown.toml"]);
    let sound = again.expect_code(DONE).stdout;
    assert!(
        sound.contains("3 feeds (2 enabled, from 1 file)"),
        "{sound}"
    );
}

#[test]
fn a_secret_of_the_wrong_type_or_in_broken_toml_is_not_shown_in_the_complaint() {
    for toml in ["[intake]\ntoken = [\"hush\"]", "[intake]\ntoken = \"hush"] {
        let folder = folder_with(toml);
        let ended = ended(&folder, &["config", "check"]).expect_code(USAGE);
        assert!(
            !ended.stderr.contains("hush") && !ended.stdout.contains("hush"),
            "{ended:#?}"
        );
        ended.expect_said(&["feedmill.toml"]);
    }
}

#[test]
fn an_unknown_key_is_exit_2_and_the_nearest_known_one_is_named() {
    for (toml, words) in [
        (
            "[kafka]\nbroker = [\"a:1\"]",
            ["feedmill.toml", "\"kafka.broker\"", "\"kafka.brokers\""],
        ),
        (
            "[outputs]\nbucket = \"a\"",
            ["feedmill.toml", "\"outputs\"", "\"output\""],
        ),
        (
            "[[feeds]]\nname = \"a\"\nmatch = \"s3://a/**\"\nrecords = \"b\"",
            ["feeds[0] (\"a\")", "\"records\"", "\"record\""],
        ),
        (
            "[profile.test.kafka]\ngroups = \"a\"",
            ["profile.test", "\"kafka.groups\"", "\"kafka.group\""],
        ),
    ] {
        let folder = folder_with(toml);
        let profile = match toml.contains("profile") {
            true => &["--profile", "test"][..],
            false => &[],
        };
        for command in [&["config", "check"][..], &["config", "show"], &["run"]] {
            let args = [command, profile].concat();
            ended(&folder, &args).expect_code(USAGE).expect_said(&words);
        }
    }
    let folder = folder();
    let mut command = feedmill(folder.path(), &["config", "check"]);
    command.env("FEEDMILL_KAFKA__BROKER", "a:1");
    run(&mut command)
        .expect_code(USAGE)
        .expect_said(&["FEEDMILL_KAFKA__BROKER", "FEEDMILL_KAFKA__BROKERS"]);
}

#[test]
fn files_and_profiles_that_are_not_there_are_named_with_those_that_are() {
    let folder = folder();
    ended(&folder, &["config", "check", "--config", "nowhere.toml"])
        .expect_code(USAGE)
        .expect_said(&["nowhere.toml", "No such file"]);
    ended(&folder, &["config", "check", "--profile", "prod"])
        .expect_code(USAGE)
        .expect_said(&["\"prod\"", "production"]);
    let empty = tempfile::tempdir().expect("a folder");
    ended(&empty, &["run"]).expect_code(USAGE).expect_said(&[
        "feedmill.toml",
        "--config",
        "FEEDMILL_CONFIG",
        "kafka.brokers",
    ]);
    for command in [&["topics", "check"][..], &["results"]] {
        ended(&empty, command)
            .expect_code(USAGE)
            .expect_said(&["kafka.brokers", "FEEDMILL_KAFKA__BROKERS"]);
    }
}

// The command line itself

#[test]
fn the_help_of_every_command_has_an_example_that_names_it() {
    let folder = folder();
    let mut commands = vec![vec![]];
    let mut leaves = 0;
    let mut without = Vec::new();
    while let Some(path) = commands.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = ended(&folder, &args).expect_code(DONE).stdout;
        let (_, example) = help.split_once("Example").unwrap_or_default();
        let command = ["feedmill"]
            .into_iter()
            .chain(path.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        if !example.contains(&command) {
            without.push(command);
        }
        let below = subcommands(&help);
        leaves += usize::from(below.is_empty());
        commands.extend(below.into_iter().map(|name| {
            let mut path = path.clone();
            path.push(name);
            path
        }));
    }
    assert!(leaves >= 8, "only {leaves} commands found");
    assert!(without.is_empty(), "no example: {without:?}");
}

/// The names under `Commands:`, but for `help`.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_2_with_what_there_is() {
    let folder = folder();
    for (args, words) in [
        (&["convrt"][..], &["convrt", "convert"][..]),
        (
            &["run", "--stages", "covert"],
            &["covert", "convert", "intake"],
        ),
        (
            &["results", "--outcome", "failed"],
            &["failed", "dead_lettered", "missing"],
        ),
        (
            &["results", "partners/a.xml"],
            &["partners/a.xml", "s3://bucket/key"],
        ),
        (&["topics", "accept-hole", "first"], &["first"]),
    ] {
        ended(&folder, args).expect_code(USAGE).expect_said(words);
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let folder = folder();
    write(&folder, "a.xml", product_file().records(1_000).xml());
    for args in [
        &["convert", "a.xml"][..],
        &["config", "show"],
        &["config", "check"],
        &["config", "--help"],
    ] {
        let ended = run_unread(&mut feedmill(folder.path(), args));
        assert_eq!(ended.code, Some(DONE), "{args:?}: {ended:#?}");
        assert!(!ended.stderr.contains("panicked"), "{args:?}: {ended:#?}");
    }
}

#[test]
fn a_disk_that_is_full_is_a_failure_that_is_said() {
    let folder = folder();
    write(&folder, "a.xml", product_file().records(1_000).xml());
    for args in [&["convert", "a.xml"][..], &["config", "show"]] {
        let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
            return eprintln!("skipped: this system has no /dev/full");
        };
        let mut command = feedmill(folder.path(), args);
        command.stdin(Stdio::null()).stdout(full);
        let output = command.stderr(Stdio::piped()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(SERVICE), "{args:?}: {stderr}");
        assert!(stderr.contains("No space left"), "{args:?}: {stderr}");
    }
}

// topics

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_found_to_fit() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    // Making the world has created them once.
    let world = stack.world("topics").create().await;
    let again = world.run_cli(&["topics", "create"]).await;
    assert_eq!(again.code(), Some(DONE), "{again:#?}");
    assert_eq!(again.stdout.matches("was there").count(), 9, "{again:#?}");
    let check = world.run_cli(&["topics", "check"]).await;
    assert_eq!(check.code(), Some(DONE), "{check:#?}");
    assert!(check.stdout.contains("fit"), "{check:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_do_not_fit_are_exit_4_each_with_what_is_wrong() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("unfit").create().await;
    let check = |name: &str, value: &str| {
        let mut command = feedmill(world.folder(), &["topics", "check"]);
        run(command.env(name, value)).expect_code(FINDINGS).stdout
    };
    let partitions = check("FEEDMILL_KAFKA__PARTITIONS", "7");
    let events = world.topic(Topic::Events);
    assert!(
        partitions.contains(&format!("{events} has 4 partitions, not 7")),
        "{partitions}"
    );
    assert_eq!(partitions.lines().count(), 8, "{partitions}");

    let elsewhere = format!("{}-elsewhere", world.origin.topic_prefix);
    let missing = check("FEEDMILL_KAFKA__TOPIC_PREFIX", &elsewhere);
    assert!(
        missing.contains(&format!("{elsewhere}.events is not there")),
        "{missing}"
    );
    assert_eq!(missing.lines().count(), 9, "{missing}");

    // `create` cannot mend them, and says so.
    let mut create = feedmill(world.folder(), &["topics", "create"]);
    run(create.env("FEEDMILL_KAFKA__PARTITIONS", "7"))
        .expect_code(SERVICE)
        .expect_said(&["has 4 partitions, not 7", "kafka.partitions = 4"]);
}

#[test]
fn kafka_that_cannot_be_reached_is_exit_3_for_every_command_that_needs_it() {
    let folder = folder();
    for args in [
        &["topics", "create"][..],
        &["topics", "check"],
        &["topics", "accept-hole", "0"],
        &["results"],
    ] {
        let mut command = feedmill(folder.path(), args);
        command.env("FEEDMILL_KAFKA__REQUEST_TIMEOUT_SECS", "2");
        run(&mut command)
            .expect_code(SERVICE)
            .expect_said(&["127.0.0.1:1", "kafka.brokers"]);
    }
}

// results

#[tokio::test(flavor = "multi_thread")]
async fn results_are_listed_filtered_and_given_as_json() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("results").create().await;
    let bucket = world.origin.input_bucket.clone();
    let url = |key: &str| format!("s3://{bucket}/{key}");
    let odd = "products/à la carte\n+1%20.xml";
    convert(
        &world,
        &["products/good.xml", odd],
        &["products/bad.xml"],
        &["else.xml"],
    )
    .await;

    let all = results(&world, &[]).await;
    assert_eq!(
        all.lines().count(),
        4,
        "a line each, newlines in keys or not:\n{all}"
    );
    for (words, key) in [
        (["converted", "products/good.xml.json"], "products/good.xml"),
        (["dead_lettered", "malformed_xml"], "products/bad.xml"),
        (["ignored", "else.xml"], "else.xml"),
    ] {
        let line = all.lines().find(|line| line.contains(&url(key)));
        let line = line.unwrap_or_else(|| panic!("nothing about {key}:\n{all}"));
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }

    let one = results(&world, &[&url("products/bad.xml")]).await;
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(one.contains("dead_lettered"), "{one}");
    let filtered = results(&world, &["--outcome", "converted"]).await;
    assert_eq!(filtered.lines().count(), 2, "{filtered}");
    let none = results(
        &world,
        &[&url("products/bad.xml"), "--outcome", "converted"],
    )
    .await;
    assert_eq!(none, "");
    assert_eq!(results(&world, &[&url("products/never.xml")]).await, "");

    let json = results(&world, &["--json", &url(odd)]).await;
    let result: Value = parsed(json.trim_end());
    assert_eq!(json.lines().count(), 1, "{json}");
    assert_eq!(result["key"], odd);
    assert_eq!(result["bucket"], *bucket);
    assert_eq!(result["outcome"], "converted");
    assert_eq!(result["feed"], "products");
    assert_eq!(result["outputs"][0]["key"], format!("{odd}.json"));
    assert_eq!(result["outputs"][0]["records"], 3);
    let dead = results(&world, &["--json", "--outcome", "dead_lettered"]).await;
    let dead: Value = parsed(dead.trim_end());
    assert_eq!(dead["reason"], "malformed_xml");

    let unread = run_unread(&mut feedmill(world.folder(), &["results"]));
    assert_eq!(
        unread.code,
        Some(DONE),
        "as in `results | head -1`: {unread:#?}"
    );
    assert!(!unread.stderr.contains("panicked"), "{unread:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_followed_as_they_are_committed() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("follow").create().await;
    convert(&world, &["products/before.xml"], &[], &[]).await;
    let args = ["results", "--follow", "--json", "--outcome", "converted"];
    let mut command = feedmill(world.folder(), &args);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut following = Running::start(&mut command);
    let lines = following.lines();
    let next = || {
        let line = lines.recv_timeout(TIMEOUT).expect("a line in time");
        parsed(&line)["key"].clone()
    };
    assert_eq!(next(), "products/before.xml");
    convert(&world, &["products/after.xml"], &["products/bad.xml"], &[]).await;
    assert_eq!(next(), "products/after.xml");
    // Not SIGINT: a run in the background may have it ignored, and children inherit that.
    following.signal("TERM");
    following.wait();
    assert_eq!(lines.iter().count(), 0, "the dead letter was filtered out");
}

/// Lets a worker make of these objects what is to be made of them.
async fn convert(world: &World, good: &[&str], bad: &[&str], foreign: &[&str]) {
    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(TIMEOUT).await;
    let mut events = Vec::new();
    for key in [good, bad, foreign].concat() {
        let bytes = match bad.contains(&key) {
            true => product_file().truncated_xml(),
            false => product_file().xml(),
        };
        let etag = world.put(key, bytes).await;
        events.push(world.announce(key, Some(etag.as_str())).await);
    }
    for event in events {
        world.wait_for_result(event, TIMEOUT).await;
    }
    worker.terminate();
    worker.wait(TIMEOUT).await;
}

async fn results(world: &World, args: &[&str]) -> String {
    let args = [&["results"], args].concat();
    let ended = world.run_cli(&args).await;
    assert_eq!(ended.code(), Some(DONE), "{ended:#?}");
    assert_eq!(
        ended.stderr, "",
        "all is well, and nothing is complained of"
    );
    ended.stdout
}
