//! `feedmill results` over a results topic whose records, times and damage the test has written itself.

mod support;

#[path = "support/binary.rs"]
mod binary;

use std::process::Stdio;
use std::time::Duration;

use binary::{Ended, Running, feedmill, run};
use feedmill::object::ObjectRef;
use feedmill::topics::{Id, Intent, Millis, Outcome, ResultRecord, encode};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use support::checker::{Topic, murmur2};
use support::{Stack, World};

const DONE: i32 = 0;
const USAGE: i32 = 2;

const TIMEOUT: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The results topic of a world, to be written.
struct Writer<'a> {
    world: &'a World,
    producer: FutureProducer,
}

impl<'a> Writer<'a> {
    fn new(world: &'a World) -> Self {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &world.origin.brokers);
        let producer = settings.create().expect("a producer");
        Self { world, producer }
    }

    /// A result that was finished this long ago.
    async fn write(&self, key: &str, age: i64, change: impl FnOnce(&mut ResultRecord)) {
        let mut result = result(&self.world.origin.input_bucket, key, age);
        change(&mut result);
        self.append(key, age, &encode(&result)).await;
    }

    async fn append(&self, key: &str, age: i64, value: &[u8]) {
        let topic = self.world.topic(Topic::Results);
        let object = ObjectRef::try_new(&self.world.origin.input_bucket, key).expect("a key");
        let key = object.message_key();
        let record = FutureRecord::to(&topic)
            .partition(murmur2::partition_of(&key, self.world.partitions))
            .timestamp(Millis::now().0 - age)
            .key(&key)
            .payload(value);
        let sent = self.producer.send(record, TIMEOUT).await;
        sent.map_err(|(error, _)| error)
            .expect("the broker takes it");
    }
}

fn result(bucket: &str, key: &str, age: i64) -> ResultRecord {
    let finished_at = Millis(Millis::now().0 - age);
    ResultRecord {
        event_id: Id::mint(),
        outcome: Outcome::Converted,
        reason: None,
        message: None,
        bucket: bucket.into(),
        key: key.into(),
        etag: None,
        settled_etag: None,
        version_id: None,
        feed: Some("products".into()),
        mapping_hash: None,
        outputs: vec![],
        generation: None,
        status: None,
        dead_letter_id: None,
        intent: Intent::Observe,
        intent_id: None,
        attempt: 0,
        event_partition: 0,
        event_offset: 0,
        event_time: None,
        received_at: Millis(finished_at.0 - 1),
        finished_at,
        worker: "w".into(),
        trace_parent: None,
        rejected: 0,
        rejections: vec![],
        rejected_output: None,
    }
}

fn results(world: &World, args: &[&str]) -> Ended {
    let args = [&["results"], args].concat();
    run(&mut feedmill(world.folder(), &args)).expect_code(DONE)
}

/// The keys of the results that are listed, sorted.
fn keys(world: &World, args: &[&str]) -> Vec<String> {
    let ended = results(world, &[args, &["--json"]].concat());
    assert_eq!(ended.stderr, "", "nothing is complained of");
    let key = |line: &str| {
        let result: Value = serde_json::from_str(line).expect("JSON");
        result["key"].as_str().expect("a key").to_owned()
    };
    let mut keys: Vec<String> = ended.stdout.lines().map(key).collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_time_reads_what_lies_in_it_and_nothing_else() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    // One partition, so that the damage lies between them.
    let world = stack.world("window").partitions(1).create().await;
    let writer = Writer::new(&world);
    writer.write("old", 5 * DAY, |_| {}).await;
    writer.append("damaged", 4 * DAY, b"no result").await;
    writer.write("middle", 2 * DAY, |_| {}).await;
    writer.write("new", HOUR, |_| {}).await;

    assert_eq!(keys(&world, &["--since", "3d"]), ["middle", "new"]);
    assert_eq!(keys(&world, &["--since", "3h"]), ["new"]);
    assert_eq!(keys(&world, &["--since", "3m"]), [""; 0]);
    assert_eq!(keys(&world, &["--until", "108h"]), ["old"]);
    assert_eq!(
        keys(&world, &["--since", "3d", "--until", "1d"]),
        ["middle"]
    );
    let hour_ago = Millis(Millis::now().0 - 2 * HOUR).to_string();
    assert_eq!(keys(&world, &["--since", &hour_ago]), ["new"]);

    let all = results(&world, &[]);
    assert_eq!(all.stdout.lines().count(), 3, "{all:#?}");
    let place = format!(
        "{} [0] at offset 1 can't be read",
        world.topic(Topic::Results)
    );
    all.expect_said(&[&place]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_over_all_partitions_and_a_summary_counts_what_they_select() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("filters").create().await;
    let writer = Writer::new(&world);
    for number in 0..8 {
        let key = format!("in/{number}.xml");
        writer.write(&key, 0, |_| {}).await;
    }
    let refused = |reason: &'static str| {
        move |result: &mut ResultRecord| {
            result.outcome = Outcome::DeadLettered;
            result.feed = Some("google".into());
            result.reason = Some(reason.into());
        }
    };
    writer.write("in/deep/8.xml", 0, refused("too_large")).await;
    writer.write("9.csv", 0, refused("malformed_xml")).await;

    assert_eq!(keys(&world, &["--key", "in/*.xml"]).len(), 8);
    assert_eq!(keys(&world, &["--key", "in/**"]).len(), 9);
    assert_eq!(
        keys(&world, &["--feed", "google"]),
        ["9.csv", "in/deep/8.xml"]
    );
    assert_eq!(
        keys(&world, &["--reason", "too_large", "--feed", "google"]),
        ["in/deep/8.xml"]
    );
    let bucket = world.origin.input_bucket.as_str();
    assert_eq!(keys(&world, &["--bucket", bucket]).len(), 10);
    assert_eq!(keys(&world, &["--bucket", "elsewhere"]).len(), 0);

    let json = results(&world, &["--summary", "--json"]).stdout;
    let summary: Value = serde_json::from_str(&json).expect("one document");
    let expected = serde_json::json!({
        "results": 10,
        "outcomes": {"converted": 8, "dead_lettered": 2},
        "feeds": {"products": 8, "google": 2},
        "reasons": {"too_large": 1, "malformed_xml": 1},
    });
    assert_eq!(summary, expected);
    let table = results(&world, &["--summary", "--key", "in/**"]).stdout;
    let counts = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = table.lines().map(counts).collect();
    assert_eq!(rows[0], ["results", "9"]);
    assert!(
        rows.contains(&vec!["converted".into(), "8".into()]),
        "{table}"
    );

    let refused = feedmill(world.folder(), &["results", "--summary", "--follow"]);
    run(&mut { refused })
        .expect_code(USAGE)
        .expect_said(&["--summary", "--follow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn following_since_a_time_begins_there_and_goes_on() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("follow-since").create().await;
    let writer = Writer::new(&world);
    writer.write("old", 2 * DAY, |_| {}).await;
    writer.write("recent", HOUR, |_| {}).await;
    let args = ["results", "--follow", "--since", "1d", "--json"];
    let mut command = feedmill(world.folder(), &args);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut following = Running::start(&mut command);
    let lines = following.lines();
    let next = || {
        let line = lines.recv_timeout(TIMEOUT).expect("a line in time");
        serde_json::from_str::<Value>(&line).expect("JSON")["key"].clone()
    };
    assert_eq!(next(), "recent");
    // Also on partitions that had nothing yet.
    for key in ["a", "b", "c", "d", "e", "f"] {
        writer.write(key, 0, |_| {}).await;
        assert_eq!(next(), key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named_with_what_makes_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("no-topic").create().await;
    let mut command = feedmill(world.folder(), &["results"]);
    command.env("FEEDMILL_KAFKA__TOPIC_PREFIX", "nowhere");
    run(&mut command)
        .expect_code(3)
        .expect_said(&["nowhere.results", "feedmill topics create"]);
}
