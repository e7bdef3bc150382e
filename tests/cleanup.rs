//! Clean-up of sources on the real servers: what is deleted, moved and tagged, and what never is.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::time::Duration;

use convert_world::{
    Fault, Gate, PATIENCE, assert_outcome, assert_output, convert, drop_bytes, mirrored, observe,
    refuse, start, stop, through,
};
use feedmill::topics::{self, Cleanup, CleanupAction, CleanupOutcome, Outcome, ResultRecord};
use rdkafka::{Message, Offset};
use support::checker::Topic;
use support::files::{PRODUCTS_FEED, ProductFile};
use support::{Stack, Store, Stored, Worker, WorkerOptions, World, kafka, wait_until};

const KEY: &str = "products/a.xml";

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// A world whose feed does this with its sources; `more` stands before the feed.
async fn world(stack: &Stack, name: &str, after: &str, more: &str) -> World {
    stack
        .world(name)
        .settings(&settings(after, more))
        .create()
        .await
}

fn settings(after: &str, more: &str) -> String {
    let feed = PRODUCTS_FEED.replace("record =", &format!("after = {after}\nrecord ="));
    format!("{more}\n{feed}")
}

/// All records of `cleanups`, in order.
async fn cleanups(world: &World) -> Vec<Cleanup> {
    let brokers = world.origin.brokers.clone();
    let topic = format!("{}.cleanups", world.origin.topic_prefix);
    let starts: Vec<_> = (0..world.partitions)
        .map(|p| (p, Offset::Beginning))
        .collect();
    let read = tokio::task::spawn_blocking(move || {
        let consumer = kafka::reader(&brokers, "cleanup-test", kafka::Isolation::ReadCommitted)?;
        let mut records = Vec::new();
        kafka::read_to_end(&consumer, &topic, &starts, |message| {
            let value = message.payload().expect("no tombstone");
            records.push(topics::decode(value).expect("a cleanup"));
        })?;
        anyhow::Ok(records)
    });
    read.await.expect("no panic").expect("the broker serves")
}

/// Waits until so many clean-ups of an object are told; the last of them.
async fn cleaned(world: &World, key: &str, count: usize) -> Cleanup {
    wait_until(
        &format!("{count} clean-ups of {key}"),
        PATIENCE,
        async || {
            let mut records = cleanups(world).await;
            records.retain(|record| record.key == key);
            (records.len() >= count).then(|| records.pop()).flatten()
        },
    )
    .await
}

/// Waits until the clean-up stage has come to the end of `results`.
async fn at_rest(world: &World) {
    let group = format!("{}.cleanup", world.origin.topic_prefix);
    let results = world.topic(Topic::Results);
    wait_until("the clean-up is at rest", PATIENCE, async || {
        let (brokers, group, results) =
            (world.origin.brokers.clone(), group.clone(), results.clone());
        let lag = tokio::task::spawn_blocking(move || kafka::lag(&brokers, &group, &results));
        let lag = lag.await.expect("no panic").ok()?;
        (lag == 0 && world.lag().await? == 0).then_some(())
    })
    .await
}

async fn source(world: &World, key: &str) -> Option<Stored> {
    object(world, &world.origin.input_bucket, key).await
}

async fn object(world: &World, bucket: &str, key: &str) -> Option<Stored> {
    let store = Store::connect(&world.stack.s3_endpoint);
    store.get(bucket, key).await.expect("the S3 server serves")
}

#[track_caller]
fn assert_cleaned(record: &Cleanup, action: CleanupAction, outcome: CleanupOutcome) {
    assert_eq!(
        (record.action, record.outcome),
        (action, outcome),
        "{record:#?}"
    );
}

fn without_cleanup() -> WorkerOptions {
    WorkerOptions::default().args(&["--stages", "intake,sweep,convert,retry"])
}

async fn crash(world: &World, fault: &str) {
    let mut worker = world.worker(WorkerOptions::default().env("FEEDMILL_TEST_FAULT", fault));
    let status = worker.wait(PATIENCE).await;
    assert!(!status.success(), "the worker ended with {status}");
    assert!(
        worker.log().contains("crashing as asked"),
        "it died of something else"
    );
}

// Delete

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_deleted_when_its_json_stands_and_again_when_it_comes_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = world(&stack, "clean-delete", "'delete'", "").await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let (etag, result) = convert(&world, KEY, &version(1)).await;
    let record = cleaned(&world, KEY, 1).await;
    assert_cleaned(&record, CleanupAction::Delete, CleanupOutcome::Done);
    assert_eq!((record.event_id, &record.etag), (result.event_id, &etag));
    assert_eq!(Some(record.generation), result.generation);
    assert!(source(&world, KEY).await.is_none());
    assert_output(&world, KEY, &version(1)).await;

    // The same bytes again: no conversion, and no source either. A notification that comes twice is no news.
    let (_, again) = drop_bytes(&world, KEY, version(1).xml()).await;
    assert_outcome(&again, Outcome::Duplicate);
    let record = cleaned(&world, KEY, 2).await;
    assert_cleaned(&record, CleanupAction::Delete, CleanupOutcome::Done);
    assert!(source(&world, KEY).await.is_none());
    observe(&world, KEY, Some(&etag)).await;
    at_rest(&world).await;
    assert_eq!(cleanups(&world).await.len(), 2);

    // What could not be converted stays.
    let broken = "products/broken.xml";
    refuse(&world, broken, version(2).truncated_xml(), "malformed_xml").await;
    at_rest(&world).await;
    assert!(source(&world, broken).await.is_some());

    let url = format!("s3://{}/{KEY}", world.origin.input_bucket);
    let told = world.run_cli(&["explain", &url]).await;
    assert!(
        told.stdout.contains("the source was deleted"),
        "{}",
        told.stdout
    );
    let (_, metrics) = worker.get("/metrics").await;
    let counted = "feedmill_cleanups_total{action=\"delete\",outcome=\"done\"} 2";
    assert!(metrics.contains(counted), "{metrics}");

    let (_, _) = convert(&world, KEY, &version(3)).await;
    cleaned(&world, KEY, 3).await;
    assert!(source(&world, KEY).await.is_none());
    assert_output(&world, KEY, &version(3)).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_stays_while_its_output_does_not_stand_and_no_sweep_asks_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let sweep = "sweep = { enabled = true, interval = '1s', min_age = '0s' }";
    let world = world(&stack, "clean-absent", "'delete'", sweep).await;
    let first = start(&world, without_cleanup()).await;
    convert(&world, KEY, &version(1)).await;
    stop(first).await;
    world.delete_output(&mirrored(KEY)).await;
    let worker = start(&world, WorkerOptions::default()).await;
    let record = cleaned(&world, KEY, 1).await;
    assert_cleaned(&record, CleanupAction::Delete, CleanupOutcome::Skipped);
    assert_eq!(record.reason.as_deref(), Some("output_absent"));
    quiet(&world, &worker).await;
    assert!(source(&world, KEY).await.is_some());
    stop(worker).await;
}

/// Three sweeps end, and announce nothing.
async fn quiet(world: &World, worker: &Worker) {
    at_rest(world).await;
    let ended = |worker: &Worker| worker.log().matches("\"sweep ended\"").count();
    let before = ended(worker);
    wait_until("a sweep", PATIENCE, async || {
        (ended(worker) > before + 1).then_some(())
    })
    .await;
    at_rest(world).await;
    let (results, before) = (world.results().len(), ended(worker));
    wait_until("sweeps", PATIENCE, async || {
        (ended(worker) > before + 2).then_some(())
    })
    .await;
    assert_eq!(
        world.results().len(),
        results,
        "a sweep announced something"
    );
}

// Move and tag

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_moved_whatever_moment_the_worker_dies_in() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = world(&stack, "clean-move", "{ move = 's3://{input}/done/' }", "").await;
    let worker = start(&world, without_cleanup()).await;
    convert(&world, KEY, &version(1)).await;
    stop(worker).await;
    let target = format!("done/{KEY}");

    crash(&world, "crash-after-copy").await;
    assert!(
        source(&world, KEY).await.is_some(),
        "it went before the copy was known to stand"
    );
    assert!(source(&world, &target).await.is_some());
    crash(&world, "crash-after-clean").await;
    assert!(source(&world, KEY).await.is_none());
    assert_eq!(cleanups(&world).await, []);

    let worker = start(&world, WorkerOptions::default()).await;
    let record = cleaned(&world, KEY, 1).await;
    assert_cleaned(&record, CleanupAction::Move, CleanupOutcome::Done);
    let url = format!("s3://{}/{target}", world.origin.input_bucket);
    assert_eq!(record.target, Some(url));
    let moved = source(&world, &target).await.expect("the moved source");
    assert_eq!(moved.bytes, version(1).xml());
    assert_output(&world, KEY, &version(1)).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_tagged_once_and_one_whose_server_refuses_is_handed_over_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let gate = Gate::before(&stack.s3_endpoint).await;
    gate.fail("tagging", Fault::Status(501, "NotImplemented"));
    let sweep = "sweep = { enabled = true, interval = '1s', min_age = '0s' }";
    let world = world(&stack, "clean-tag", "{ tag = 'state=json made' }", sweep).await;
    let worker = start(&world, through(&gate, WorkerOptions::default())).await;
    convert(&world, KEY, &version(1)).await;
    let record = cleaned(&world, KEY, 1).await;
    assert_cleaned(&record, CleanupAction::Tag, CleanupOutcome::Failed);
    let message = record.message.expect("a message");
    assert!(message.contains("NotImplemented"), "{message}");

    gate.open();
    let record = cleaned(&world, KEY, 2).await;
    assert_cleaned(&record, CleanupAction::Tag, CleanupOutcome::Done);
    assert_eq!(record.target.as_deref(), Some("state=json made"));
    assert!(source(&world, KEY).await.is_some());
    quiet(&world, &worker).await;
    stop(worker).await;
}

// What results no longer hold

#[tokio::test(flavor = "multi_thread")]
async fn what_results_lost_is_handed_over_by_the_sweep_and_a_cut_log_stops_nobody() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let sweep = "sweep = { enabled = true, interval = '1s', min_age = '0s' }";
    // One partition, so that what was committed lies before what is left of the log.
    let world = stack.world("clean-lost").partitions(1);
    let world = world.settings(&settings("'delete'", sweep)).create().await;
    let keys = ["products/a.xml", "products/b.xml", "products/c.xml"];
    let first = start(&world, WorkerOptions::default()).await;
    convert(&world, keys[0], &version(1)).await;
    cleaned(&world, keys[0], 1).await;
    stop(first).await;

    // The clean-up is away; what it had committed lies before the log's beginning then.
    let second = start(&world, without_cleanup()).await;
    for key in &keys[1..] {
        convert(&world, key, &version(1)).await;
    }
    stop(second).await;
    cut(&world, Topic::Results).await;

    let mut worker = start(&world, WorkerOptions::default()).await;
    for key in &keys[1..] {
        let record = cleaned(&world, key, 1).await;
        assert_cleaned(&record, CleanupAction::Delete, CleanupOutcome::Done);
        assert!(source(&world, key).await.is_none());
        let handed_over = |result: &ResultRecord| result.event_id == record.event_id;
        let result = world
            .results()
            .into_iter()
            .find(handed_over)
            .expect("its result");
        assert_outcome(&result, Outcome::Duplicate);
    }
    quiet(&world, &worker).await;
    let passed_over = "records were lost before they were read; going on with the first there is";
    assert!(worker.has_logged(passed_over), "the log was not cut");
    let (status, page) = worker.get("/readyz").await;
    assert_eq!(status, 200, "{page}");
    stop(worker).await;
}

/// Removes all records of a topic, as its retention does.
async fn cut(world: &World, topic: Topic) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> = kafka::client(&world.origin.brokers)
        .create()
        .expect("a client");
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_range(&world.topic(topic), 0, world.partitions - 1);
    all.set_all_offsets(Offset::End).expect("an offset");
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    admin
        .delete_records(&all, &options)
        .await
        .expect("the broker cuts its log");
}

// Races

/// Each version is announced as soon as it is there, and the clean-up deletes as fast as it can.
#[tokio::test(flavor = "multi_thread")]
async fn no_upload_is_lost_while_the_clean_up_deletes_what_came_before() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = world(&stack, "clean-race", "'delete'", "").await;
    let worker = start(&world, WorkerOptions::default()).await;
    const ROUNDS: u32 = 15;
    let keys: Vec<String> = (0..4).map(|n| format!("products/{n}.xml")).collect();
    let upload = async |key: &String| {
        for round in 1..=ROUNDS {
            let etag = world.put(key, version(round).xml()).await;
            let id = world.announce(key, Some(etag.as_str())).await;
            // Sometimes the next version comes before this one is converted, sometimes while it is cleaned up.
            if round % 3 != 0 {
                world.wait_for_result(id, PATIENCE).await;
            }
        }
    };
    futures::future::join_all(keys.iter().map(upload)).await;
    at_rest(&world).await;
    for key in &keys {
        assert_output(&world, key, &version(ROUNDS)).await;
        wait_until("the last version is deleted", PATIENCE, async || {
            source(&world, key).await.is_none().then_some(())
        })
        .await;
    }
    let done = cleanups(&world).await;
    println!("{} clean-ups", done.len());
    assert!(
        done.iter()
            .all(|record| record.outcome != CleanupOutcome::Failed),
        "{done:#?}"
    );
    stop(worker).await;
}
