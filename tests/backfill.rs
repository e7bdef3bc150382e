//! `feedmill backfill` on the real servers: what is not settled is announced, a request converts nothing twice, and an
//! interrupted one goes on.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::BTreeMap;
use std::process::Command;

use convert_world::{
    PATIENCE, ask, assert_healthy, assert_output, convert, drop_bytes, open_letter, refuse, start,
    stop,
};
use feedmill::topics::{Intent, Millis, Outcome};
use futures::{StreamExt, stream};
use serde_json::Value;
use support::checker::Topic;
use support::files::ProductFile;
use support::process::{Finished, Process};
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const DONE: i32 = 0;
const USAGE: i32 = 2;

fn file(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

async fn worker(world: &World) -> Worker {
    start(world, WorkerOptions::default()).await
}

fn products(world: &World) -> String {
    format!("s3://{}/products/", world.origin.input_bucket)
}

async fn backfill(world: &World, place: &str, args: &[&str]) -> Finished {
    let args: Vec<&str> = ["backfill", place].iter().chain(args).copied().collect();
    world.run_cli(&args).await
}

/// The numbers of a backfill of the products that does what it is told.
async fn numbers(world: &World, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
    let done = backfill(world, &products(world), &args).await;
    assert_eq!(done.code(), Some(DONE), "{args:?}: {done:#?}");
    serde_json::from_str(&done.stdout).expect("one JSON object")
}

#[track_caller]
fn assert_numbers(numbers: &Value, expected: &[(&str, u64)]) {
    for (name, count) in expected {
        assert_eq!(numbers[name], *count, "{name} of {numbers}");
    }
}

async fn events(world: &World) -> usize {
    let dump = world.dump().await;
    let events = dump.records.iter().filter(|r| r.topic == Topic::Events);
    events.count()
}

/// How many events about each key ended with this outcome, of those with this intent.
fn ended(world: &World, intent: Intent, outcome: Outcome) -> BTreeMap<String, usize> {
    let mut ended = BTreeMap::new();
    let results = world.results();
    for result in results
        .iter()
        .filter(|r| (r.intent, r.outcome) == (intent, outcome))
    {
        *ended.entry(result.key.clone()).or_default() += 1;
    }
    ended
}

fn once<'a>(keys: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    keys.into_iter().map(|key| (key.to_owned(), 1)).collect()
}

async fn at_rest(world: &World) {
    assert!(world.settles_within(PATIENCE).await, "events are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_is_announced_and_nothing_else() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("backfill").create().await;
    let (same, changed, broken) = ("products/a.xml", "products/b.xml", "products/broken.xml");
    let _worker = worker(&world).await;
    convert(&world, same, &file(1)).await;
    convert(&world, changed, &file(1)).await;
    refuse(&world, broken, file(1).truncated_xml(), "malformed_xml").await;
    world.put("products/folder/", "").await;
    world.put("products-of-nobody/a.xml", file(1).xml()).await;
    world.put("products/early é+.xml", file(1).xml()).await;
    // The server's times are in whole seconds.
    let early = Millis::now();
    wait_until("the next second", PATIENCE, async || {
        (Millis::now().0 / 1000 > early.0 / 1000 + 1).then_some(())
    })
    .await;
    let since = Millis((early.0 / 1000 + 1) * 1000).to_string();
    world.put(changed, file(2).xml()).await;
    world.put("products/late.xml", file(1).xml()).await;
    at_rest(&world).await;
    let before = events(&world).await;

    let dry = numbers(&world, &["--dry-run"]).await;
    let expected = [
        ("listed", 6),
        ("announced", 3),
        ("settled", 2),
        ("unmatched", 1),
    ];
    assert_numbers(&dry, &expected);
    let bucket = &world.origin.input_bucket;
    assert_eq!(dry["first"][0], format!("s3://{bucket}/{changed}"));
    let shown = backfill(&world, &products(&world), &["--dry-run"]).await;
    assert!(
        shown.stdout.contains("would announce 3 of 6 objects"),
        "{shown:#?}"
    );
    // A dry run of the whole bucket sees what no feed takes.
    let whole = backfill(&world, &format!("s3://{bucket}"), &["--dry-run"]).await;
    assert!(whole.stdout.contains("2 of no feed"), "{whole:#?}");
    assert_eq!(events(&world).await, before, "dry runs write nothing");

    let young = numbers(&world, &["--since", &since]).await;
    assert_numbers(&young, &[("announced", 2), ("older", 3)]);
    at_rest(&world).await;
    let rest = numbers(&world, &[]).await;
    assert_numbers(&rest, &[("announced", 1), ("settled", 4)]);
    at_rest(&world).await;
    let quiet = numbers(&world, &[]).await;
    assert_numbers(&quiet, &[("announced", 0), ("settled", 5)]);
    assert_eq!(events(&world).await, before + 3);
    let healthy = [
        (same, Some(file(1).json())),
        (changed, Some(file(2).json())),
        (broken, None),
        ("products/early é+.xml", Some(file(1).json())),
        ("products/late.xml", Some(file(1).json())),
    ];
    assert_healthy(&world, &healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_no_feed_reads_and_a_large_number_without_a_person_are_refused() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("backfill-no").create().await;
    let bucket = &world.origin.input_bucket;
    let elsewhere = format!("s3://{bucket}/elsewhere/");
    for (place, why) in [
        ("s3://nobodys-bucket/x", bucket.as_str()),
        (&elsewhere, "/products/**"),
    ] {
        let refused = backfill(&world, place, &[]).await;
        assert_eq!(refused.code(), Some(USAGE), "{refused:#?}");
        assert!(refused.stderr.contains(why), "{refused:#?}");
    }
    let unasked = backfill(&world, &products(&world), &["--request", "r"]).await;
    assert_eq!(
        unasked.code(),
        Some(USAGE),
        "an id of nothing: {unasked:#?}"
    );
    let nothing = backfill(&world, &products(&world), &[]).await;
    assert_eq!(nothing.code(), Some(DONE), "{nothing:#?}");
    assert!(nothing.stdout.contains("nothing there"), "{nothing:#?}");
    put_all(&world, 101).await;
    let many = backfill(&world, &products(&world), &[]).await;
    assert_eq!(many.code(), Some(USAGE), "{many:#?}");
    assert!(many.stderr.contains("--yes"), "{many:#?}");
    assert_eq!(events(&world).await, 0);
    let answered = backfill(&world, &products(&world), &["--yes"]).await;
    assert!(
        answered.stdout.contains("announced 101 of 101"),
        "{answered:#?}"
    );
    assert_eq!(events(&world).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_request_converts_everything_once_and_another_one_once_more() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("backfill-force").create().await;
    let (good, unseen, broken) = ("products/a.xml", "products/b.xml", "products/broken.xml");
    let first = worker(&world).await;
    convert(&world, good, &file(1)).await;
    let letter = refuse(&world, broken, file(1).truncated_xml(), "malformed_xml").await;
    world.put(unseen, file(1).xml()).await;
    stop(first).await;

    // Convert has done nothing of it yet, so that each is asked for twice.
    for _ in 0..2 {
        let forced = numbers(&world, &["--force", "--request", "r1"]).await;
        assert_numbers(&forced, &[("announced", 3), ("done_before", 0)]);
        assert_eq!(forced["request"], "r1");
    }
    let _worker = worker(&world).await;
    at_rest(&world).await;
    let converted = || ended(&world, Intent::Reconvert, Outcome::Converted);
    let refused = || ended(&world, Intent::Reconvert, Outcome::DeadLettered);
    assert_eq!(converted(), once([good, unseen]));
    assert_eq!(refused(), once([broken]));
    let twice = ended(&world, Intent::Reconvert, Outcome::Duplicate);
    assert_eq!(twice, once([good, unseen, broken]));
    let dump = world.dump().await;
    let now_open = open_letter(&world, &dump, broken).expect("a letter");
    assert_ne!(now_open["id"], letter.as_str(), "the old one is closed");

    let again = numbers(&world, &["--force", "--request", "r1"]).await;
    assert_numbers(&again, &[("announced", 0), ("done_before", 3)]);
    // A newer version that was converted meanwhile does not undo the request.
    drop_bytes(&world, good, file(2).xml()).await;
    assert_eq!(
        ask(&world, good, Intent::Reconvert, "r1").await.outcome,
        Outcome::Duplicate
    );
    let other = numbers(&world, &["--force"]).await;
    assert_numbers(&other, &[("announced", 3)]);
    at_rest(&world).await;
    assert_eq!(converted(), [(good.into(), 2), (unseen.into(), 2)].into());
    assert_eq!(refused(), [(broken.to_owned(), 2)].into());
    let healthy = [
        (good, Some(file(2).json())),
        (unseen, Some(file(1).json())),
        (broken, None),
    ];
    assert_healthy(&world, &healthy).await;
}

/// A second feed beside the products'.
const TWO_FEEDS: &str = r#"
[[feeds]]
name = "acme"
match = "s3://{input}/products/acme/**"
record = "items/item"
[feeds.fields]
id = "@id"
name = "name"
version = "version"
never = { path = "never", required = true }

[[feeds]]
name = "products"
match = "s3://{input}/products/**"
record = "items/item"
[feeds.fields]
id = "@id"
name = "name"
version = "version"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_applied_to_what_it_settled_and_the_letters_close() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack
        .world("backfill-mapping")
        .settings(TWO_FEEDS)
        .create()
        .await;
    let (refused, unseen, other) = (
        "products/acme/a.xml",
        "products/acme/unseen.xml",
        "products/b.xml",
    );
    let before = worker(&world).await;
    refuse(&world, refused, file(1).xml(), "missing_field").await;
    convert(&world, other, &file(1)).await;
    world.put(unseen, file(1).xml()).await;
    stop(before).await;
    let none = numbers(&world, &["--mapping-changed"]).await;
    assert_numbers(
        &none,
        &[("announced", 0), ("settled", 2), ("left_alone", 1)],
    );

    let path = world.folder().join("feedmill.toml");
    let mut toml: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let fields = toml["feeds"][0]["fields"].as_table_mut().unwrap();
    assert!(fields.remove("never").is_some());
    std::fs::write(&path, toml::to_string(&toml).unwrap()).unwrap();
    let _worker = worker(&world).await;
    let changed = numbers(&world, &["--mapping-changed"]).await;
    assert_numbers(
        &changed,
        &[("announced", 1), ("settled", 1), ("left_alone", 1)],
    );
    at_rest(&world).await;
    assert_eq!(
        ended(&world, Intent::Reconvert, Outcome::Converted),
        once([refused])
    );
    assert_output(&world, refused, &file(1)).await;
    let dump = world.dump().await;
    assert!(open_letter(&world, &dump, refused).is_none());
    let quiet = numbers(&world, &["--mapping-changed"]).await;
    assert_numbers(&quiet, &[("announced", 0), ("settled", 2)]);
    numbers(&world, &[]).await;
    let json = Some(file(1).json());
    let healthy = [
        (refused, json.clone()),
        (unseen, json.clone()),
        (other, json),
    ];
    assert_healthy(&world, &healthy).await;
}

async fn put_all(world: &World, count: usize) -> Vec<String> {
    stream::iter(0..count)
        .map(|number| async move {
            let key = format!("products/{number:04}.xml");
            world.put(&key, file(1).records(1).xml()).await;
            key
        })
        .buffered(32)
        .collect()
        .await
}

/// A command of the binary with a folder of its own for temporary files.
fn spawn(world: &World, args: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedmill"));
    command.current_dir(world.folder()).args(args);
    command.env("TMPDIR", world.folder().join("tmp"));
    command.args(["--config", "feedmill.toml"]);
    let log = world.folder().join("command.log");
    Process::start(&mut command, log).expect("the binary runs")
}

/// Waits until convert has done so many of a request.
async fn done(world: &World, count: usize) {
    wait_until("some to be converted", PATIENCE, async || {
        let converted = ended(world, Intent::Reconvert, Outcome::Converted);
        (converted.len() >= count).then_some(())
    })
    .await;
}

/// Interrupted by a signal, gone on with as it says, killed, and gone on with again.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_request_goes_on_and_converts_nothing_twice() {
    const OBJECTS: usize = 150;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("backfill-resume").create().await;
    let keys = put_all(&world, OBJECTS).await;
    let tmp = world.folder().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let _worker = worker(&world).await;
    let products = products(&world);
    let args = [
        "backfill", &products, "--force", "--yes", "--rate", "50", "--since", "1h",
    ];
    let mut asked = spawn(&world, &args);
    done(&world, 20).await;
    asked.signal("INT");
    let status = asked.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(130), "{}", asked.log());
    let left = std::fs::read_dir(&tmp).unwrap().count();
    assert_eq!(left, 0, "the copy of what is settled is gone");

    let log = asked.log();
    let printed = log.lines().last().unwrap().trim();
    let printed: Vec<&str> = printed.split(' ').collect();
    let request = log.lines().find_map(|line| line.strip_prefix("request "));
    assert_eq!(printed[0], "feedmill", "{log}");
    assert_eq!(printed.last().copied(), request, "{log}");
    let since = printed.iter().skip_while(|word| **word != "--since").nth(1);
    assert!(since.unwrap().ends_with('Z'), "a moment, not a span: {log}");

    // The tests say --config themselves.
    let config = printed.iter().position(|word| *word == "--config").unwrap();
    let words = [&printed[1..config], &printed[config + 2..]].concat();
    let mut killed = spawn(&world, &words);
    done(&world, 80).await;
    killed.kill();
    at_rest(&world).await;
    let half = ended(&world, Intent::Reconvert, Outcome::Converted).len();
    assert!((80..OBJECTS).contains(&half), "killed after {half}");
    let words: Vec<&str> = words.iter().chain(&["--json"]).copied().collect();
    let on = world.run_cli(&words).await;
    assert_eq!(on.code(), Some(DONE), "{on:#?}");
    let on: Value = serde_json::from_str(&on.stdout).unwrap();
    assert_numbers(
        &on,
        &[
            ("listed", OBJECTS as u64),
            ("done_before", half as u64),
            ("announced", (OBJECTS - half) as u64),
        ],
    );
    at_rest(&world).await;
    let converted = ended(&world, Intent::Reconvert, Outcome::Converted);
    assert_eq!(converted, once(keys.iter().map(String::as_str)));
    let json = Some(file(1).records(1).json());
    let healthy: Vec<_> = keys
        .iter()
        .map(|key| (key.as_str(), json.clone()))
        .collect();
    assert_healthy(&world, &healthy).await;
}
