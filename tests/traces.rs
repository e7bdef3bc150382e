//! The trace context (https://www.w3.org/TR/trace-context/) of whoever told of a file goes with it wherever it goes.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::BTreeMap;

use convert_world::notifications::aws;
use convert_world::{PATIENCE, Webhook, answer, assert_converted, assert_refused, start, stop};
use feedmill::topics::Id;
use rdkafka::message::Headers;
use rdkafka::{Message, Offset};
use support::checker::Topic;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World, kafka};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ANOTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Tells of an object as the caller of a trace; the event's id.
async fn told(world: &World, webhook: &Webhook, key: &str, trace: &str) -> Id {
    let body = aws(&world.origin.input_bucket, key);
    let request = webhook.notification().header("traceparent", trace);
    let record = answer(request.body(body)).await.only_record();
    serde_json::from_value(record["event_id"].clone()).expect("an id")
}

/// The `traceparent` headers of a topic's records, by message key.
async fn headers(world: &World, topic: Topic) -> BTreeMap<String, String> {
    let (brokers, topic) = (world.origin.brokers.clone(), world.topic(topic));
    let read = tokio::task::spawn_blocking(move || {
        let isolation = kafka::Isolation::ReadCommitted;
        let consumer = kafka::reader(&brokers, &kafka::observer(), isolation)?;
        let starts: Vec<(i32, Offset)> = (0..kafka::partitions(&consumer, &topic)?)
            .map(|partition| (partition, Offset::Beginning))
            .collect();
        let mut found = BTreeMap::new();
        kafka::read_to_end(&consumer, &topic, &starts, |message| {
            let trace = message.headers().and_then(|headers| {
                headers
                    .iter()
                    .find(|header| header.key == "traceparent")?
                    .value
            });
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let key = message.key().map(text).unwrap_or_default();
            found.insert(key, trace.map(text).unwrap_or_default());
        })?;
        anyhow::Ok(found)
    });
    read.await.expect("no panic").expect("the broker answers")
}

/// The log lines that name a file, but for those without its trace; the first must be none and the second not.
fn lines_about(worker: &Worker, key: &str, trace: &str) -> (Vec<String>, Vec<String>) {
    let log = worker.log();
    let about = log.lines().filter(|line| line.contains(key));
    about
        .map(str::to_owned)
        .partition(|line| !line.contains(trace))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_files_trace_is_in_its_records_headers_output_and_log_lines() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("traces").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let (good, bad) = ("products/good.xml", "products/bad.xml");
    let etag = world.put(good, ProductFile::new(good, 1).xml()).await;
    world.put(bad, "<products><product>").await;
    let converted = told(&world, &webhook, good, TRACE).await;
    let refused = told(&world, &webhook, bad, ANOTHER).await;

    let converted = world.wait_for_result(converted, PATIENCE).await;
    assert_converted(&converted, &etag);
    assert_eq!(converted.trace_parent.as_deref(), Some(TRACE));
    let refused = world.wait_for_result(refused, PATIENCE).await;
    assert_refused(&refused, "malformed_xml");
    assert_eq!(refused.trace_parent.as_deref(), Some(ANOTHER));

    let name = |key: &str| format!("{}/{key}", world.origin.input_bucket);
    let both = BTreeMap::from([
        (name(good), TRACE.to_owned()),
        (name(bad), ANOTHER.to_owned()),
    ]);
    for topic in [Topic::Events, Topic::Results, Topic::Objects] {
        assert_eq!(headers(&world, topic).await, both, "{topic:?}");
    }
    let letter = BTreeMap::from([(name(bad), ANOTHER.to_owned())]);
    assert_eq!(headers(&world, Topic::DeadLetters).await, letter);
    let output = world.get_output(&format!("{good}.json")).await;
    let metadata = output.expect("the output").metadata;
    assert_eq!(metadata["feedmill-traceparent"], TRACE);

    for (key, trace) in [(good, TRACE), (bad, ANOTHER)] {
        let (without, with) = lines_about(&worker, key, trace);
        assert!(without.is_empty(), "{without:?}");
        assert!(with.len() >= 2, "accepted, and ended: {with:?}");
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sweep_finds_begins_a_trace_and_a_replay_goes_on_with_its_letters() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack
        .world("replayed")
        .settings("[sweep]\nenabled = true\nmin_age = \"0s\"")
        .create()
        .await;
    let bad = "products/bad.xml";
    world.put(bad, "<products><product>").await;
    let worker = start(&world, WorkerOptions::default()).await;
    let first = support::wait_until("the sweep's result", PATIENCE, async || {
        world.results().into_iter().next()
    })
    .await;
    assert_refused(&first, "malformed_xml");
    let trace = first.trace_parent.expect("a trace");
    let replayed = world
        .run_cli(&["dead-letters", "replay", "--all", "--yes"])
        .await;
    assert!(replayed.status.success(), "{}", replayed.stderr);
    let second = support::wait_until("the replay's result", PATIENCE, async || {
        let mut results = world.results().into_iter();
        results.find(|result| result.event_id != first.event_id)
    })
    .await;
    assert_eq!(second.trace_parent, Some(trace));
    stop(worker).await;
}
