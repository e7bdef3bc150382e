//! `feedmill explain`: the story of one object, as somebody meets it who asks what happened to a file.

mod support;

#[path = "support/binary.rs"]
mod binary;

use std::time::Duration;

use binary::{Ended, feedmill, run};
use feedmill::topics::{Attempt, Id, Intent, Millis, ObjectEvent};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use support::checker::Topic;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World};

const DONE: i32 = 0;
const USAGE: i32 = 2;
const SERVICE: i32 = 3;
const FINDINGS: i32 = 4;

const TIMEOUT: Duration = Duration::from_secs(60);

fn file() -> ProductFile {
    ProductFile::new("Öl", 1)
}

fn url(world: &World, key: &str) -> String {
    format!("s3://{}/{key}", world.origin.input_bucket)
}

async fn worker(world: &World) -> Worker {
    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(TIMEOUT).await;
    worker
}

async fn stop(mut worker: Worker) {
    worker.terminate();
    worker.wait(TIMEOUT).await;
}

/// Uploads and announces an object, and waits for what becomes of it.
async fn settle(world: &World, key: &str, bytes: Vec<u8>) -> Id {
    let etag = world.put(key, bytes).await;
    let event = world.announce(key, Some(etag.as_str())).await;
    world.wait_for_result(event, TIMEOUT).await;
    event
}

fn explain(world: &World, args: &[&str], code: i32) -> Ended {
    let args = [&["explain"], args].concat();
    run(&mut feedmill(world.folder(), &args)).expect_code(code)
}

fn text(world: &World, target: &str, code: i32) -> String {
    let ended = explain(world, &[target], code);
    assert_eq!(ended.stderr, "", "nothing is complained of");
    ended.stdout
}

fn json(world: &World, target: &str, code: i32) -> Value {
    let ended = explain(world, &[target, "--json"], code);
    serde_json::from_str(&ended.stdout).expect("one document")
}

#[track_caller]
fn expect(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// The kinds of what happened, in order.
fn kinds(report: &Value) -> Vec<&str> {
    let timeline = report["timeline"].as_array().expect("a timeline");
    let kind = |happening: &'_ Value| match happening["kind"].as_str() {
        Some("outcome") => "outcome",
        Some("event") => "event",
        Some("attempt") => "attempt",
        other => panic!("{other:?}"),
    };
    timeline.iter().map(kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_s_story_is_told_from_its_events_to_what_is_settled() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    // One partition, so that the neighbour's records lie between its own.
    let world = stack.world("story").partitions(1).create().await;
    let key = "products/à la carte\n\u{1b}[2J.xml";
    let worker = worker(&world).await;
    settle(&world, "products/neighbour.xml", file().xml()).await;
    let bad = settle(&world, key, file().truncated_xml()).await;

    let told = text(&world, &url(&world, key), FINDINGS);
    expect(
        &told,
        &[
            "dead_lettered",
            "malformed_xml",
            "at record",
            "line",
            &bad.to_string(),
            &format!("open: {bad}"),
            "feed products",
            "\\n\\u{1b}[2J.xml",
        ],
    );
    assert!(!told.contains('\u{1b}'), "a terminal is not steered");
    assert!(!told.contains("neighbour"), "only its own records: {told}");

    let good = settle(&world, key, file().xml()).await;
    stop(worker).await;
    let told = text(&world, &url(&world, key), DONE);
    let order = ["dead_lettered", "converted", "settled", "none is open"];
    let places = order.map(|word| told.find(word).unwrap_or_else(|| panic!("{word}: {told}")));
    assert!(places.is_sorted(), "{told}");
    expect(
        &told,
        &["3 records", "after it was received", "closes dead letter"],
    );

    // By the id of an event it is the same story, with that event marked.
    let report = json(&world, &bad.to_string(), DONE);
    assert_eq!(report["object"]["key"], key);
    assert_eq!(report["asked_event"], bad.to_string());
    assert_eq!(kinds(&report), ["event", "outcome", "event", "outcome"]);
    let asked: Vec<bool> = report["timeline"]
        .as_array()
        .expect("a timeline")
        .iter()
        .map(|happening| happening["asked"] == true)
        .collect();
    assert_eq!(asked, [true, true, false, false]);
    assert_eq!(report["timeline"][1]["letter"]["reason"], "malformed_xml");
    assert_eq!(
        report["timeline"][3]["result"]["event_id"],
        good.to_string()
    );
    assert_eq!(report["state"]["status"], "converted");
    assert_eq!(report["state"]["outputs"][0]["records"], 3);
    assert_eq!(report["open_letter"], Value::Null);
    assert_eq!(report["feed_now"], "products");
    assert_eq!(report["pending"], serde_json::json!([]));
    let marked = text(&world, &bad.to_string(), DONE);
    assert_eq!(
        marked
            .lines()
            .filter(|line| line.starts_with("> 2"))
            .count(),
        2,
        "{marked}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_outcome_yet_is_pending_with_what_is_before_it_and_why_it_waits() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("pending").partitions(1).create().await;
    for number in 0..3 {
        world
            .announce(&format!("products/{number}.xml"), None)
            .await;
    }
    let event = world.announce("products/late.xml", Some("abc")).await;

    let told = text(&world, &url(&world, "products/late.xml"), DONE);
    expect(
        &told,
        &[
            &event.to_string(),
            "up to 3 before it",
            "committed up to nothing",
            "no worker",
            "feedmill run",
            "nothing", // is settled
        ],
    );
    let report = json(&world, &event.to_string(), DONE);
    assert_eq!(report["pending"][0]["event_id"], event.to_string());
    assert_eq!(report["pending"][0]["ahead"], 3);
    assert_eq!(report["queue"]["workers"], 0);

    let worker = worker(&world).await;
    world.wait_for_result(event, TIMEOUT).await;
    stop(worker).await;
    let report = json(&world, &event.to_string(), DONE);
    assert_eq!(report["pending"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["timeline"][1]["result"]["outcome"], "missing");
    assert_eq!(report["state"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_told_with_the_attempts_before_them() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("retried").create().await;
    let first = ObjectEvent {
        received_at: Millis(Millis::now().0 - 60_000),
        ..world.event("else/a.xml", None)
    };
    world.send(&first).await;
    let again = ObjectEvent {
        attempt: 1,
        first_attempt_offset: Some(0),
        not_before: Some(Millis::now()),
        intent: Intent::Reconvert,
        intent_id: Some("by-hand".into()),
        history: vec![Attempt {
            at: Millis(Millis::now().0 - 30_000),
            reason: "s3_unavailable".into(),
            message: "503".into(),
        }],
        ..first.clone()
    };
    world.send(&again).await;
    let report = json(&world, &url(&world, "else/a.xml"), DONE);
    assert_eq!(kinds(&report), ["event", "attempt", "event"]);
    assert_eq!(report["pending"][0]["attempt"], 1, "it is one event");
    assert_eq!(report["pending"].as_array().map(Vec::len), Some(1));
    let told = text(&world, &url(&world, "else/a.xml"), DONE);
    expect(
        &told,
        &[
            "attempt 1: s3_unavailable: 503",
            "reconvert by-hand",
            "attempt 2 of it",
            "not before",
            "first tried at offset 0",
            "no feed of this configuration matches",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_its_topic_keeps_is_said_and_the_rest_is_told() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("expired").partitions(1).create().await;
    let worker = worker(&world).await;
    let event = settle(&world, "products/a.xml", file().xml()).await;
    stop(worker).await;
    let target = url(&world, "products/a.xml");

    forget(&world, Topic::Events).await;
    let told = text(&world, &target, DONE);
    expect(
        &told,
        &["converted", "1 outcomes are told without their events"],
    );
    let by_id = json(&world, &event.to_string(), DONE);
    assert_eq!(by_id["object"]["key"], "products/a.xml", "by its result");

    forget(&world, Topic::Results).await;
    let told = text(&world, &target, DONE);
    expect(
        &told,
        &["converted, etag", "results that old are no longer kept"],
    );
    let unknown = explain(&world, &[&event.to_string()], FINDINGS);
    expect(&unknown.stdout, &[&event.to_string(), "unknown"]);
}

/// Deletes all that a topic of one partition holds.
async fn forget(world: &World, topic: Topic) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &world.origin.brokers);
    let admin: AdminClient<DefaultClientContext> = settings.create().expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic(topic), 0, Offset::End)
        .expect("an offset");
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let deleted = admin.delete_records(&list, &options).await;
    deleted.expect("the broker deletes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_where_its_id_says_or_from_the_beginning() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("find").create().await;
    let minted_elsewhere = ObjectEvent {
        // A version that has no time in it, as a foreign producer may write it.
        id: Id(uuid::Uuid::new_v4()),
        ..world.event("products/a.xml", None)
    };
    world.send(&minted_elsewhere).await;
    // Its time lies in the future of everything there is.
    let misdated = ObjectEvent {
        id: "fffffff0-7d1e-7000-8000-3f1b2c4d5e6f"
            .parse()
            .map(Id)
            .expect("an id"),
        ..world.event("products/b.xml", None)
    };
    world.send(&misdated).await;
    let ordinary = world.announce("products/c.xml", None).await;

    let silent = explain(&world, &[&minted_elsewhere.id.to_string()], DONE);
    expect(&silent.stdout, &["products/a.xml"]);
    let said = explain(&world, &[&misdated.id.to_string()], DONE);
    expect(&said.stdout, &["products/b.xml"]);
    said.expect_said(&["from their beginning"]);
    let found = text(&world, &ordinary.to_string(), DONE);
    expect(&found, &["products/c.xml", "> the event asked for"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nothing_is_known_of_is_exit_4_with_what_to_check() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("unknown").create().await;
    let worker = {
        let mut worker = worker(&world).await;
        let notification = serde_json::json!({"Records": [{"s3": "products/lost.xml"}]});
        let (status, body) = worker.notify(&notification).await;
        assert_eq!(status, 400, "{body}");
        worker
    };
    let told = text(&world, &url(&world, "products/lost.xml"), FINDINGS);
    expect(
        &told,
        &[
            "nothing is known",
            "feed products matches",
            "--key '**/lost.xml'",
            "webhook",
            "rejected as unreadable: 1, of which 1 name \"lost.xml\"",
        ],
    );
    let told = text(&world, &url(&world, "foreign.xml"), FINDINGS);
    expect(
        &told,
        &["no feed of this configuration matches", "of which 0"],
    );
    let report = json(&world, &url(&world, "foreign.xml"), FINDINGS);
    assert_eq!(report["known"], false);
    assert!(report["notes"].as_array().is_some_and(|n| n.len() >= 4));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_is_named_and_the_others_are_told() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("damaged").partitions(1).create().await;
    let key = format!("{}/products/a.xml", world.origin.input_bucket);
    world.announce_raw(0, &key, b"no event").await;
    let event = world.announce("products/a.xml", None).await;
    let told = text(&world, &url(&world, "products/a.xml"), DONE);
    let place = format!(
        "{} [0] at offset 0 can't be read",
        world.topic(Topic::Events)
    );
    expect(&told, &[&place, &event.to_string()]);
}

#[test]
fn what_is_neither_an_object_nor_an_event_is_exit_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for (target, words) in [
        ("partners/a.xml", ["s3://bucket/key", "UUID"]),
        ("s3://partners", ["s3://partners", "s3://bucket/key"]),
    ] {
        let mut command = feedmill(folder.path(), &["explain", target]);
        run(&mut command).expect_code(USAGE).expect_said(&words);
    }
}

#[test]
fn kafka_that_cannot_be_reached_is_exit_3() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = feedmill(folder.path(), &["explain", "s3://a/b"]);
    command.env("FEEDMILL_KAFKA__BROKERS", "127.0.0.1:1");
    command.env("FEEDMILL_KAFKA__REQUEST_TIMEOUT_SECS", "2");
    run(&mut command)
        .expect_code(SERVICE)
        .expect_said(&["127.0.0.1:1", "kafka.brokers"]);
}
