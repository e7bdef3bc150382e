//! What the tests of the convert stage need beside the harness: events told in one line, the tables as they stand, and a
//! gate before the S3 server that sees every request of a worker and can hold a body back half-way.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code, unused_imports)]

mod bucket;
mod gate;
pub mod notifications;
mod rejected;
mod webhook;

use std::time::Duration;

use feedmill::object::ETag;
use feedmill::topics::{Intent, ObjectEvent, Outcome, ResultRecord};
use serde_json::Value;

use crate::support::checker::{Content, Dump, Expectations, Topic};
use crate::support::files::ProductFile;
use crate::support::{Worker, WorkerOptions, World};

pub use bucket::Bucket;
pub use gate::{Fault, Gate, Request};
pub use rejected::rejected;
pub use webhook::{Answer, Webhook, answer};

/// For everything that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a worker and waits until it converts.
pub async fn start(world: &World, options: WorkerOptions) -> Worker {
    let mut worker = world.worker(options);
    worker.ready(PATIENCE).await;
    worker
}

/// A worker that talks to the S3 server through a gate.
pub async fn start_behind(world: &World, gate: &Gate) -> Worker {
    start(world, through(gate, WorkerOptions::default())).await
}

pub fn through(gate: &Gate, options: WorkerOptions) -> WorkerOptions {
    options.env("FEEDMILL_S3__ENDPOINT", &gate.endpoint())
}

/// SIGTERM, and an orderly end.
pub async fn stop(mut worker: Worker) {
    worker.terminate();
    let status = worker.wait(PATIENCE).await;
    assert!(status.success(), "the worker ended with {status}");
}

/// Starts a worker that dies as soon as it has written an output, and waits for its death.
pub async fn crash_after_output(world: &World, options: WorkerOptions) {
    let options = options.env("FEEDMILL_TEST_FAULT", "crash-after-output");
    let mut worker = world.worker(options);
    let status = worker.wait(PATIENCE).await;
    assert!(!status.success(), "the worker ended with {status}");
    assert!(
        worker.log().contains("crashing as asked"),
        "the worker died of something else"
    );
}

/// Announces what is there, or a version of it, and waits for the end of that event.
pub async fn observe(world: &World, key: &str, etag: Option<&ETag>) -> ResultRecord {
    let event = world.event(key, etag.map(ETag::as_str));
    ends(world, event).await
}

/// Asks for something to be done again, or closed, by the id of a request or a dead letter.
pub async fn ask(world: &World, key: &str, intent: Intent, id: &str) -> ResultRecord {
    let event = ObjectEvent {
        intent,
        intent_id: Some(id.to_owned()),
        ..world.event(key, None)
    };
    ends(world, event).await
}

pub async fn ends(world: &World, event: ObjectEvent) -> ResultRecord {
    world.send(&event).await;
    world.wait_for_result(event.id, PATIENCE).await
}

/// Puts bytes, announces them, and waits for the end of that event.
pub async fn drop_bytes(
    world: &World,
    key: &str,
    bytes: impl Into<Vec<u8>>,
) -> (ETag, ResultRecord) {
    let etag = world.put(key, bytes).await;
    let result = observe(world, key, Some(&etag)).await;
    (etag, result)
}

/// Puts a product file and waits until it is converted.
pub async fn convert(world: &World, key: &str, file: &ProductFile) -> (ETag, ResultRecord) {
    let (etag, result) = drop_bytes(world, key, file.xml()).await;
    assert_converted(&result, &etag);
    (etag, result)
}

/// Puts what can only be refused and waits for the dead letter; its id.
pub async fn refuse(world: &World, key: &str, bytes: impl Into<Vec<u8>>, reason: &str) -> String {
    let (_, result) = drop_bytes(world, key, bytes).await;
    assert_refused(&result, reason);
    result.dead_letter_id.expect("a dead letter's id")
}

#[track_caller]
pub fn assert_outcome(result: &ResultRecord, outcome: Outcome) {
    assert_eq!(result.outcome, outcome, "{result:#?}");
}

/// The world must be at rest: no event left, each source settled as expected.
pub async fn assert_healthy(world: &World, sources: &[(&str, Option<Value>)]) {
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let sources = sources.iter().cloned();
    let expected = Expectations {
        sources: sources.map(|(key, json)| (key.to_owned(), json)).collect(),
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
}

/// Converted, and settled with this version.
#[track_caller]
pub fn assert_converted(result: &ResultRecord, etag: &ETag) {
    assert_outcome(result, Outcome::Converted);
    assert_eq!(result.settled_etag.as_ref(), Some(etag), "{result:#?}");
}

#[track_caller]
pub fn assert_refused(result: &ResultRecord, reason: &str) {
    assert_outcome(result, Outcome::DeadLettered);
    assert_eq!(result.reason.as_deref(), Some(reason), "{result:#?}");
    assert!(result.dead_letter_id.is_some(), "{result:#?}");
}

/// The only output of a conversion.
#[track_caller]
pub fn only_output(result: &ResultRecord) -> &feedmill::topics::Output {
    match &result.outputs[..] {
        [output] => output,
        _ => panic!("not one output: {result:#?}"),
    }
}

/// Fails unless the output of `key`, where layout `mirror` puts it, is the conversion of `file`.
pub async fn assert_output(world: &World, key: &str, file: &ProductFile) {
    assert_output_at(world, &mirrored(key), file).await;
}

pub async fn assert_output_at(world: &World, output_key: &str, file: &ProductFile) {
    let json = output_json(world, output_key).await;
    assert!(
        json == file.json(),
        "{output_key} is not the conversion of {} version {}, it begins with {:.300}",
        file.title,
        file.version,
        json.to_string()
    );
}

pub async fn output_json(world: &World, output_key: &str) -> Value {
    let stored = world.get_output(output_key).await;
    let stored = stored.unwrap_or_else(|| panic!("there is no {output_key}"));
    serde_json::from_slice(&stored.bytes).unwrap_or_else(|e| panic!("{output_key}: {e}"))
}

/// Where layout `mirror` puts an output unless told otherwise.
pub fn mirrored(key: &str) -> String {
    format!("{key}.json")
}

/// What `objects` says of an object, folded.
pub fn state<'a>(world: &World, dump: &'a Dump, key: &str) -> Option<&'a Value> {
    last(world, dump, Topic::Objects, key)
}

/// The dead letter that is open for an object.
pub fn open_letter<'a>(world: &World, dump: &'a Dump, key: &str) -> Option<&'a Value> {
    last(world, dump, Topic::DeadLetters, key)
}

fn last<'a>(world: &World, dump: &'a Dump, topic: Topic, key: &str) -> Option<&'a Value> {
    let key = format!("{}/{key}", world.origin.input_bucket);
    let of_key =
        |record: &&crate::support::checker::Record| record.topic == topic && record.key == key;
    match &dump.records.iter().rfind(of_key)?.content {
        Content::Value(value) => Some(value),
        Content::Tombstone => None,
        Content::Unreadable(why) => panic!("{topic:?} of {key}: {why}"),
    }
}

/// A file made larger by comments, which are read and come to nothing.
pub fn padded(file: &ProductFile, bytes: usize) -> Vec<u8> {
    const COMMENT_BYTES: usize = 64 * 1024;
    let comment = format!("<!--{}-->\n", " ".repeat(COMMENT_BYTES));
    let xml = String::from_utf8(file.xml()).expect("product files are UTF-8");
    let padding = comment.repeat(bytes.div_ceil(COMMENT_BYTES));
    let (head, tail) = xml.split_once("<items>\n").expect("a product file");
    format!("{head}<items>\n{padding}{tail}").into_bytes()
}
