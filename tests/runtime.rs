//! The runtime on a real broker: states that are lost or wrong, records nobody expected, workers that come, go, stop and
//! come back.

#[path = "support/runtime_world.rs"]
mod runtime_world;
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use feedmill::topics::{Id, ObjectEvent, Outcome, encode};
use runtime_world::{
    ForeignProducer, Gate, Hold, LogReader, PATIENCE, Truth, commit_of, key_on, limit_results,
    log_ends, metric, outcome, recreate_topics, rejected, results_per_event, send_tombstone, stop,
    wait_for_log_end, wait_for_page,
};
use support::checker::{Content, Topic, Violation, murmur2};
use support::{Signal, Stack, Worker, WorkerOptions, World, wait_until};

async fn start(world: &World) -> Worker {
    start_with(world, WorkerOptions::default()).await
}

async fn start_with(world: &World, options: WorkerOptions) -> Worker {
    let mut worker = world.worker(options);
    worker.ready(PATIENCE).await;
    worker
}

async fn wait_for_log(worker: &Worker, message: &str) {
    wait_until(message, PATIENCE, async || {
        worker.has_logged(message).then_some(())
    })
    .await;
}

// --- local state ---

/// Settles a few objects on every partition.
async fn settle_some(world: &World, truth: &mut Truth) -> Vec<String> {
    let keys: Vec<_> = (0..8).map(|n| format!("products/{n}.xml")).collect();
    let mut events = Vec::new();
    for key in &keys {
        events.push(truth.drop(world, key, 1).await);
    }
    for event in events {
        assert_eq!(outcome(world, event).await, Outcome::Converted);
    }
    keys
}

/// What is settled is known: announced again, it is a duplicate without a look at the bucket.
async fn assert_known(world: &World, truth: &mut Truth, keys: &[String]) {
    for key in keys {
        let event = truth.drop(world, key, 1).await;
        assert_eq!(outcome(world, event).await, Outcome::Duplicate, "{key}");
    }
}

/// Labels of the metrics of one stage.
const CONVERT: &str = r#"stage="convert""#;
const CONVERTING: &str = r#"stage="convert",status="running""#;
const COMMITTED: &str = r#"outcome="committed",stage="convert""#;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_state_folder_is_restored_from_the_topic() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("deleted").create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    let keys = settle_some(&world, &mut truth).await;
    stop(&mut worker).await;
    fs::remove_dir_all(world.folder().join("state")).expect("the worker made it");
    let mut worker = start(&world).await;
    assert_known(&world, &mut truth, &keys).await;
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_state_folder_is_noticed_and_restored() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("corrupt").create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    let keys = settle_some(&world, &mut truth).await;
    stop(&mut worker).await;
    let damages: [(&str, Hit); 4] = [
        ("the middle", |at, size| at.abs_diff(size / 2) < 32),
        ("the start", |at, _| at < 16),
        ("the end", |at, size| at + 16 >= size),
        ("here and there", |at, _| at % 97 == 13),
    ];
    for (place, is_hit) in damages {
        println!("flipping bytes: {place}");
        let flipped = flip_bytes(&world.folder().join("state"), is_hit);
        assert!(flipped > 0, "nothing to damage");
        let mut worker = start(&world).await;
        assert_known(&world, &mut truth, &keys).await;
        stop(&mut worker).await;
    }
    truth.assert_healthy(&world).await;
}

/// Whether to flip the byte at this place of a file of this size.
type Hit = fn(usize, usize) -> bool;

/// Damages every file of a folder; the number of bytes.
fn flip_bytes(folder: &Path, is_hit: Hit) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            flipped += flip_bytes(&path, is_hit);
            continue;
        }
        let mut bytes = fs::read(&path).expect("a file");
        let size = bytes.len();
        for (at, byte) in bytes.iter_mut().enumerate() {
            if is_hit(at, size) {
                *byte = !*byte;
                flipped += 1;
            }
        }
        fs::write(&path, bytes).expect("a file");
    }
    flipped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_kept_beside_recreated_topics_is_wiped() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("again").create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    let keys = settle_some(&world, &mut truth).await;
    stop(&mut worker).await;
    recreate_topics(&world).await;
    // Others fill the new log, so that the old position lies inside it.
    let mut worker = start_with(&world, WorkerOptions::default().state_dir("other")).await;
    let others = (0..4 * keys.len()).map(|n| format!("products/other-{n}.xml"));
    for key in others.clone() {
        truth.drop(&world, &key, 1).await;
    }
    assert!(world.settles_within(PATIENCE).await, "events are left");
    stop(&mut worker).await;
    let mut worker = start(&world).await;
    for key in &keys {
        truth.drop(&world, key, 1).await;
    }
    assert!(world.settles_within(PATIENCE).await, "events are left");
    // The reader of results follows the topic that is gone; the dump reads the new one.
    let dump = world.dump().await;
    let results = dump.records.iter().filter(|r| r.topic == Topic::Results);
    let outcomes: Vec<_> = results
        .map(|result| text(&result.content, "outcome"))
        .collect();
    let expected = vec!["converted"; keys.len() + others.len()];
    assert_eq!(outcomes, expected, "what was settled in another log");
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

fn text(content: &Content, field: &str) -> String {
    match content {
        Content::Value(value) => value[field].as_str().unwrap_or_default().to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_on_one_state_folder_take_a_slot_each() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("slots").create().await;
    let mut truth = Truth::default();
    let mut workers = [start(&world).await, start(&world).await];
    for (slot, worker) in workers.iter().enumerate() {
        assert!(worker.log().contains(&format!("state/slot-{slot}")));
    }
    for n in 0..20 {
        truth.drop(&world, &format!("products/{n}.xml"), 1).await;
    }
    truth.assert_healthy(&world).await;
    for worker in &mut workers {
        stop(worker).await;
    }
    // Both are free again, and the first is taken first: its transactional id and its state are used again.
    let mut worker = start(&world).await;
    assert!(worker.log().contains("state/slot-0"));
    stop(&mut worker).await;
}

// --- records nobody expected ---

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_inside_events_are_passed_and_their_events_never_happen() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("aborted").partitions(1).create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    let foreign = ForeignProducer::new(&world);
    let (mut committed, mut aborted) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for commits in [false, true] {
            let key = format!("products/{round}-{commits}.xml");
            let etag = truth.put(&world, &key, 1).await;
            let event = world.event(&key, Some(etag.as_str()));
            foreign.begin();
            foreign.send_event(&world, &event);
            foreign.flush();
            match commits {
                true => foreign.commit(),
                false => foreign.abort(),
            }
            match commits {
                true => committed.push(event.id),
                false => aborted.push((event.id, key)),
            }
        }
    }
    for event in &committed {
        assert_eq!(outcome(&world, *event).await, Outcome::Converted);
    }
    // The log ends with an aborted transaction, too.
    foreign.begin();
    foreign.send_event(&world, &world.event("products/last.xml", None));
    foreign.abort();
    wait_for_log_end(&world, 0).await;
    stop(&mut worker).await;
    // Nor does another worker find anything in them.
    let mut worker = start(&world).await;
    for (_, key) in &aborted {
        truth.drop(&world, key, 1).await;
    }
    truth.assert_healthy(&world).await;
    let results = results_per_event(&world);
    assert!(
        aborted
            .iter()
            .all(|(event, _)| !results.contains_key(event))
    );
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_events_end_among_the_rejected_notifications_and_the_partition_goes_on() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("unread").partitions(2).create().await;
    let mut truth = Truth::default();
    let key = key_on(&world, 1, "good");
    let record_key = format!("{}/{key}", world.origin.input_bucket);
    let valid = encode(&world.event(&key, None));
    // Cut off, too long, not Avro, empty, about another object than its key says.
    let misaddressed = world.event(&key_on(&world, 1, "other"), None);
    let foreign = encode(&misaddressed);
    let longer = [&valid[..], b"more"].concat();
    let mut offsets = Vec::new();
    for bytes in [&valid[..valid.len() - 3], &longer, b"{}", b"", &foreign] {
        offsets.push(world.announce_raw(1, &record_key, bytes).await);
    }
    let (_, end) = log_ends(&world, Topic::Events, 1);
    send_tombstone(&world, &world.topic(Topic::Events), 1, &record_key);
    offsets.push(end);
    let mut worker = start(&world).await;
    let event = truth.drop(&world, &key, 1).await;
    assert_eq!(outcome(&world, event).await, Outcome::Converted);
    wait_for_log_end(&world, 1).await;
    let rejected = rejected(&world);
    let places: Vec<_> = rejected.iter().map(|r| (r.partition, r.offset)).collect();
    let expected: Vec<_> = offsets.iter().map(|o| (Some(1), Some(*o))).collect();
    assert_eq!(places, expected);
    assert!(
        rejected
            .iter()
            .all(|r| r.source == "events" && !r.reason.is_empty())
    );
    assert_eq!(rejected[0].body, valid[..valid.len() - 3]);
    assert_eq!(world.results().len(), 1, "only the good event has a Result");
    // An outsider that reads only the value takes the last but one for an event like any other.
    let found = world.check(&truth.expected).await;
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    let misaddressed = misaddressed.id.to_string();
    assert!(
        found.len() == 1 && found[0].contains(&misaddressed),
        "{found:?}"
    );
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_an_unknown_schema_stops_its_partition_alone_and_stays() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("newer").partitions(2).create().await;
    let mut truth = Truth::default();
    let (stopped, other) = (key_on(&world, 0, "a"), key_on(&world, 1, "a"));
    let before = truth.drop(&world, &stopped, 1).await;
    let tomorrow = {
        let mut bytes = encode(&world.event(&stopped, None));
        bytes[4] ^= 0x55; // in the writer schema's fingerprint
        bytes
    };
    let record_key = format!("{}/{stopped}", world.origin.input_bucket);
    let offset = world.announce_raw(0, &record_key, &tomorrow).await;
    let behind = world.announce(&stopped, None).await;
    for _ in 0..2 {
        let mut worker = world.worker(WorkerOptions::default());
        let page = wait_for_page(&mut worker, "/readyz", 503, |body| {
            let others = |line: &&str| !line.starts_with("retry.");
            body.lines().filter(others).count() == 1 && body.contains("partition 0 is stopped")
        })
        .await;
        let says_why = page.contains(&format!("offset {offset} ")) && page.contains("upgrade");
        assert!(says_why, "{page}");
        assert_eq!(worker.get("/healthz").await.0, 200);
        // What lies before it is done, and the other partition goes on.
        assert_eq!(outcome(&world, before).await, Outcome::Converted);
        let event = truth.drop(&world, &other, 1).await;
        world.wait_for_result(event, PATIENCE).await;
        stop(&mut worker).await;
    }
    let commit = commit_of(&world, 0).await.expect("something before it");
    assert_eq!(
        (commit.next_offset, commit.metadata.as_str()),
        (offset, "fm1:")
    );
    let answered = results_per_event(&world);
    assert!(!answered.contains_key(&behind), "what lies behind it waits");
    assert!(rejected(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_the_wrong_partition_goes_home_with_its_id() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("moved").create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    for version in 1..=3 {
        let key = format!("products/{version}.xml");
        let etag = truth.put(&world, &key, version).await;
        let event = world.event(&key, Some(etag.as_str()));
        let home = world.partition_of(&key);
        let elsewhere = (home + 1) % world.partitions;
        let record_key = format!("{}/{key}", world.origin.input_bucket);
        world
            .announce_raw(elsewhere, &record_key, &encode(&event))
            .await;
        let result = world.wait_for_result(event.id, PATIENCE).await;
        assert_eq!(result.outcome, Outcome::Converted);
        assert_eq!(result.event_partition, home);
        wait_for_log_end(&world, elsewhere).await;
    }
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

// --- outcomes that are too large ---

/// Longer than a limit that the results of the products feed keep to; no compression makes it shorter.
fn long_name() -> String {
    (0..30)
        .map(|_| uuid::Uuid::new_v4().simple().to_string())
        .collect()
}

/// A world with a feed whose results do not fit into the topic: they carry its name.
async fn world_with_large_results(stack: &Stack, name: &str) -> World {
    let feeds = format!(
        r#"
        [convert]
        max_in_flight = 100

        [[feeds]]
        name = "products"
        match = "s3://{{input}}/products/**"
        record = "items/item"

        [feeds.fields]
        id = "@id"
        name = "name"
        version = "version"

        [[feeds]]
        name = "{}"
        match = "s3://{{input}}/large/**"
        record = "items/item"
        "#,
        long_name()
    );
    let world = stack.world(name).partitions(1).settings(&feeds);
    let world = world.create().await;
    limit_results(&world, 1_200).await;
    world
}

/// Ten events (as many as a worker takes at once when their sizes are not known) of both feeds, whose outputs are written and whose workers learn of it at the same time.
struct Mixed {
    gate: Gate,
    products: Vec<Id>,
    large: Vec<Id>,
}

impl Mixed {
    async fn drop(world: &World, truth: &mut Truth) -> Self {
        let gate = Gate::open(world).await;
        gate.hold(Hold::Answer, "PUT", "/products/");
        gate.hold(Hold::Answer, "PUT", "large/");
        let (mut products, mut large) = (Vec::new(), Vec::new());
        for n in 0..5 {
            let key = format!("products/{n}.xml");
            products.push(truth.drop(world, &key, 1).await);
            let key = format!("large/{n}.xml");
            large.push(truth.drop(world, &key, 1).await);
        }
        for n in 0..5 {
            // It can only be dead-lettered.
            let key = format!("large/{n}.xml");
            truth.expected.sources.insert(key, None);
        }
        Self {
            gate,
            products,
            large,
        }
    }

    fn options(&self) -> WorkerOptions {
        self.gate.options()
    }

    async fn release(&self) {
        self.gate
            .wait_for_held(self.products.len() + self.large.len())
            .await;
        self.gate.release();
    }

    async fn assert_ended_as_they_should(&self, world: &World, truth: &Truth) {
        for event in &self.products {
            assert_eq!(outcome(world, *event).await, Outcome::Converted);
        }
        for event in &self.large {
            let result = world.wait_for_result(*event, PATIENCE).await;
            assert_eq!(result.outcome, Outcome::DeadLettered);
            assert_eq!(result.reason.as_deref(), Some("outcome_too_large"));
        }
        assert_unsettled_at_most(world, truth, "large/").await;
    }
}

/// Nothing is wrong but that these objects are not settled: what became of one whose outcome is too large can't be said,
/// and its letter is open.
async fn assert_unsettled_at_most(world: &World, truth: &Truth, keys: &str) {
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let found = world.check(&truth.expected).await;
    let others = found.iter().filter(|violation| {
        let is_one = matches!(violation, Violation::NotSettled { key, .. } if key.contains(keys));
        !is_one
    });
    let others: Vec<_> = others.map(ToString::to_string).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_too_large_ends_as_a_small_dead_letter_and_its_batch_is_untouched() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = world_with_large_results(&stack, "large").await;
    let mut truth = Truth::default();
    let mixed = Mixed::drop(&world, &mut truth).await;
    let mut worker = world.worker(mixed.options());
    mixed.release().await;
    mixed.assert_ended_as_they_should(&world, &truth).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_outcomes_of_a_refused_batch_loses_none_of_them() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = world_with_large_results(&stack, "refused").await;
    let mut truth = Truth::default();
    let mixed = Mixed::drop(&world, &mut truth).await;
    let crash = |options: WorkerOptions| options.env("FEEDMILL_TEST_FAULT", "crash-after-commit");
    let mut worker = world.worker(crash(mixed.options()));
    mixed.release().await;
    // After its first commit, whatever is in it.
    assert!(!worker.wait(PATIENCE).await.success());
    let one_by_one = "a record is too large; committing one by one";
    println!("the batch was refused: {}", worker.has_logged(one_by_one));
    let mut worker = world.worker(mixed.options());
    mixed.assert_ended_as_they_should(&world, &truth).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_that_is_none_is_left_behind_and_makes_no_answer_too_large() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("trace").partitions(1).create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    let etag = truth.put(&world, "products/odd.xml", 1).await;
    // It fits into `events`, but twice into a Result, as a field and as a header, it would not.
    let odd = ObjectEvent {
        trace_parent: Some("0".repeat(600_000)),
        ..world.event("products/odd.xml", Some(etag.as_str()))
    };
    world.send(&odd).await;
    let result = world.wait_for_result(odd.id, PATIENCE).await;
    assert_eq!(
        (result.outcome, result.trace_parent),
        (Outcome::Converted, None)
    );
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fills_its_topic_can_be_rejected_and_can_go_home() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("filled").partitions(2).create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    // Just under what a producer sends by default; its copy among the rejected says more than it does itself.
    for at_home in [true, false] {
        let key = (0..)
            .map(|n| format!("{n}{}", "k".repeat(999_800)))
            .find(|key| (murmur2::partition_of(key, 2) == 0) == at_home)
            .expect("keys spread over all partitions");
        world.announce_raw(0, &key, &[b'?'; 100]).await;
    }
    let event = truth.drop(&world, &key_on(&world, 0, "behind"), 1).await;
    assert_eq!(outcome(&world, event).await, Outcome::Converted);
    for partition in [0, 1] {
        wait_for_log_end(&world, partition).await;
    }
    assert_eq!(rejected(&world).len(), 2);
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

// --- workers that come and go ---

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("term").create().await;
    let mut truth = Truth::default();
    let gate = Gate::open(&world).await;
    let mut worker = start_with(&world, gate.options()).await;
    gate.hold(Hold::Answer, "PUT", "/products/");
    let mut under_way = Vec::new();
    for n in 0..10 {
        under_way.push(truth.drop(&world, &format!("products/{n}.xml"), 1).await);
    }
    gate.wait_for_held(under_way.len()).await;
    worker.terminate();
    wait_for_log(&worker, "draining").await;
    let mut later = Vec::new();
    for n in 0..10 {
        later.push(
            truth
                .drop(&world, &format!("products/later-{n}.xml"), 1)
                .await,
        );
    }
    let asked = Instant::now();
    gate.release();
    let status = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    // The default limit is 25 s; with nothing left to wait for it must not be used up.
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(15), "it took {took:?} to leave");
    let finished: Vec<_> = under_way
        .iter()
        .map(|event| world.wait_for_result(*event, PATIENCE))
        .collect();
    for result in futures::future::join_all(finished).await {
        assert_eq!(result.outcome, Outcome::Converted);
    }
    let answered = results_per_event(&world);
    assert!(later.iter().all(|event| !answered.contains_key(event)));

    let mut worker = start(&world).await;
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_stop_under_load_loses_no_finished_work() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("load").create().await;
    let mut truth = Truth::default();
    let mut worker = start(&world).await;
    for n in 0..300 {
        truth.drop(&world, &format!("products/{n}.xml"), 1).await;
        if n == 150 {
            worker.terminate();
        }
    }
    assert_eq!(worker.wait(PATIENCE).await.code(), Some(0));
    let finished = ended_events(&worker);
    assert!(!finished.is_empty(), "it had some work to finish");
    wait_until(
        "every finished event has its Result",
        PATIENCE,
        async || {
            let answered = results_per_event(&world);
            let all = finished.iter().all(|event| answered.contains_key(event));
            all.then_some(())
        },
    )
    .await;
    let mut worker = start(&world).await;
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

/// The events that a worker says it has finished.
fn ended_events(worker: &Worker) -> Vec<Id> {
    let log = worker.log();
    let ended = log.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == "event ended")
            .then(|| serde_json::from_value(line["event_id"].clone()).expect("an id"))
    });
    ended.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_finish_in_time_is_left_to_the_next_worker() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[shutdown]\ndrain_timeout_secs = 2";
    let world = stack.world("drain").partitions(1).settings(settings);
    let world = world.create().await;
    let mut truth = Truth::default();
    let gate = Gate::open(&world).await;
    gate.hold(Hold::Request, "GET", "products/slow.xml");
    let mut worker = start_with(&world, gate.options()).await;
    truth.drop(&world, "products/slow.xml", 1).await;
    gate.wait_for_held(1).await;
    let quick = truth.drop(&world, "products/quick.xml", 1).await;
    assert_eq!(outcome(&world, quick).await, Outcome::Converted);
    let asked = Instant::now();
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE).await.code(), Some(0));
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(2), "it did not wait: {took:?}");
    assert!(took < Duration::from_secs(15), "it waited for {took:?}");
    gate.release();
    let mut worker = start(&world).await;
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("twice").partitions(1).create().await;
    let mut truth = Truth::default();
    let gate = Gate::open(&world).await;
    gate.hold(Hold::Request, "GET", "products/slow.xml");
    let mut worker = start_with(&world, gate.options()).await;
    truth.drop(&world, "products/slow.xml", 1).await;
    gate.wait_for_held(1).await;
    worker.terminate();
    wait_for_log(&worker, "draining").await;
    let asked = Instant::now();
    worker.terminate();
    assert_eq!(worker.wait(PATIENCE).await.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5));
    gate.release();
    let mut worker = start(&world).await;
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_becomes_three_and_one_again_under_load() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("scale").create().await;
    let mut workers = vec![start(&world).await];
    let load = async {
        let mut truth = Truth::default();
        for n in 0..240 {
            let key = format!("products/{}.xml", n % 80);
            truth.drop(&world, &key, n / 80 + 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        truth
    };
    let scaling = async {
        for _ in 0..2 {
            workers.push(start(&world).await);
        }
        for worker in &mut workers {
            wait_for_page(worker, "/metrics", 200, |page| {
                metric(page, "feedmill_events_finished_total", CONVERT) > 0.0
            })
            .await;
        }
        for mut worker in workers.drain(1..) {
            stop(&mut worker).await;
        }
    };
    let (truth, ()) = tokio::join!(load, scaling);
    truth.assert_healthy(&world).await;
    wait_for_page(&mut workers[0], "/readyz", 200, |page| {
        page.contains("4 partitions running")
    })
    .await;
    stop(&mut workers[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_file_holds_up_no_other_and_what_finished_behind_it_is_not_done_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("slow").partitions(1).create().await;
    let mut truth = Truth::default();
    let gate = Gate::open(&world).await;
    gate.hold(Hold::Request, "GET", "products/slow.xml");
    let mut worker = start_with(&world, gate.options()).await;
    let slow = truth.drop(&world, "products/slow.xml", 1).await;
    let mut quick = Vec::new();
    for n in 0..30 {
        quick.push(
            truth
                .drop(&world, &format!("products/quick-{n}.xml"), 1)
                .await,
        );
    }
    for event in &quick {
        assert_eq!(outcome(&world, *event).await, Outcome::Converted);
    }
    // The offset waits for the slow file; the finished ones travel beside it.
    wait_until("a commit that knows them all", PATIENCE, async || {
        let commit = commit_of(&world, 0).await?;
        let finished = feedmill_finished(&commit.metadata);
        (commit.next_offset == 0 && finished == quick.len()).then_some(())
    })
    .await;
    worker.kill();
    gate.release();
    let mut worker = start_with(&world, gate.options()).await;
    assert_eq!(outcome(&world, slow).await, Outcome::Converted);
    truth.assert_healthy(&world).await;
    let (_, page) = worker.get("/metrics").await;
    assert_eq!(
        metric(&page, "feedmill_events_finished_total", CONVERT),
        1.0
    );
    assert_eq!(gate.count("GET", "products/quick-"), quick.len());
    stop(&mut worker).await;
}

/// How many offsets the metadata of a commit names: the bits of a set in base64 after the tag.
fn feedmill_finished(metadata: &str) -> usize {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let set = metadata.strip_prefix("fm1:").expect("the tag");
    let digit = |c| ALPHABET.find(c).expect("base64").count_ones() as usize;
    set.chars().map(digit).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_beyond_its_session_commits_nothing_twice() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("zombie").partitions(2).create().await;
    let mut truth = Truth::default();
    let gate = Gate::open(&world).await;
    gate.hold(Hold::Answer, "PUT", "/products/");
    let options = gate.options().state_dir("state-zombie");
    let mut zombie = start_with(&world, options).await;
    let mut events = Vec::new();
    for n in 0..10 {
        events.push(truth.drop(&world, &format!("products/{n}.xml"), 1).await);
    }
    gate.wait_for_held(events.len()).await;
    // It will find all its work finished when it wakes up, and its partitions gone.
    zombie.signal(Signal::Stop);
    gate.release();
    let mut worker = start_with(&world, WorkerOptions::default()).await;
    for event in &events {
        assert_eq!(outcome(&world, *event).await, Outcome::Converted);
    }
    zombie.signal(Signal::Continue);
    wait_until("the paused worker takes part again", PATIENCE, async || {
        let partitions = |page: &str| metric(page, "feedmill_partitions", CONVERTING);
        let (_, mine) = zombie.get("/metrics").await;
        let (_, other) = worker.get("/metrics").await;
        (partitions(&mine) == 1.0 && partitions(&other) == 1.0).then_some(())
    })
    .await;
    for n in 0..10 {
        truth.drop(&world, &format!("products/{n}.xml"), 2).await;
    }
    truth.assert_healthy(&world).await;
    for worker in [&mut zombie, &mut worker] {
        stop(worker).await;
    }
}

/// The same, with the worst moment for the pause: its records are written and not yet committed. Only the group's
/// generation is there to refuse them, because its transaction does not time out.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_inside_a_transaction_commits_nothing_twice() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[convert]\nmax_in_flight = 1000";
    let world = stack.world("inside").partitions(1).settings(settings);
    let world = world.create().await;
    let options = WorkerOptions::default()
        .state_dir("state-zombie")
        .env("FEEDMILL_KAFKA__TRANSACTION_TIMEOUT_SECS", "120");
    let mut zombie = start_with(&world, options).await;
    let events = pause_inside_a_transaction(&world, &zombie).await;
    let mut worker = world.worker(WorkerOptions::default());
    // When its offsets were written already, the others wait for it to go on, and it may commit.
    let redone = support::poll_until(REDONE, async || {
        let commit = commit_of(&world, 0).await?;
        let (_, end) = log_ends(&world, Topic::Events, 0);
        (commit.next_offset == end).then_some(())
    });
    println!("done again meanwhile: {}", redone.await.is_some());
    zombie.signal(Signal::Continue);
    zombie.ready(PATIENCE).await;
    worker.ready(PATIENCE).await;
    for event in &events {
        assert_eq!(outcome(&world, *event).await, Outcome::Ignored);
    }
    Truth::default().assert_healthy(&world).await;
    for worker in [&mut zombie, &mut worker] {
        stop(worker).await;
    }
}

/// The session's time-out, and time enough to answer a few hundred events.
const REDONE: Duration = Duration::from_secs(20);

/// Stops a worker that has written results and not yet committed them; the events of the transaction that is open.
async fn pause_inside_a_transaction(world: &World, worker: &Worker) -> Vec<Id> {
    let foreign = ForeignProducer::new(world);
    let results = world.topic(Topic::Results);
    let uncommitted = LogReader::new(world, "read_uncommitted");
    let committed = LogReader::new(world, "read_committed");
    for attempt in 0..100 {
        let (_, before) = uncommitted.ends(&results, 0);
        foreign.begin();
        let mut events = Vec::new();
        for n in 0..300 {
            let event = world.event(&format!("ignored/{attempt}/{n}"), None);
            foreign.send_event(world, &event);
            events.push(event.id);
        }
        foreign.commit();
        // Asked without a pause: a transaction takes milliseconds.
        let asked = Instant::now();
        while uncommitted.ends(&results, 0).1 == before {
            assert!(asked.elapsed() < PATIENCE, "nothing was written");
        }
        worker.signal(Signal::Stop);
        let (_, stable) = committed.ends(&results, 0);
        let (_, end) = uncommitted.ends(&results, 0);
        if stable < end {
            println!("paused at attempt {attempt}");
            return events;
        }
        worker.signal(Signal::Continue);
        for event in events {
            world.wait_for_result(event, PATIENCE).await;
        }
    }
    panic!("the worker was never paused inside a transaction");
}

// --- the price of a commit ---

/// A hundred results and their offsets in one transaction: half of the 100 ms that a commit takes at least when it waits
/// inside librdkafka's own flush. That wait is there every time or never, so the best of several rounds tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_hundred_results_takes_under_fifty_milliseconds() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[convert]\nmax_in_flight = 1000";
    let world = stack.world("commit").settings(settings).create().await;
    let mut worker = start(&world).await;
    let foreign = ForeignProducer::new(&world);
    let mut rounds = Vec::new();
    for round in 0..12 {
        let before = commits(&mut worker).await;
        // They appear all at once, and need nothing of S3.
        foreign.begin();
        let mut last = None;
        for n in 0..100 {
            let event = world.event(&format!("ignored/{round}/{n}"), None);
            foreign.send_event(&world, &event);
            last = Some(event.id);
        }
        foreign.commit();
        assert_eq!(outcome(&world, last.expect("some")).await, Outcome::Ignored);
        let after = wait_until("a hundred results", PATIENCE, async || {
            let now = commits(&mut worker).await;
            (now.events - before.events == 100.0).then_some(now)
        })
        .await;
        rounds.push((
            after.transactions - before.transactions,
            Duration::from_secs_f64(after.seconds - before.seconds),
        ));
    }
    println!("transactions and time of each round: {rounds:?}");
    let alone = rounds
        .iter()
        .filter(|(transactions, _)| *transactions == 1.0);
    let best = alone.map(|(_, time)| *time).min();
    let best = best.expect("a round with all its results in one transaction");
    assert!(best < Duration::from_millis(50), "{best:?}");
    stop(&mut worker).await;
}

struct Commits {
    events: f64,
    transactions: f64,
    seconds: f64,
}

async fn commits(worker: &mut Worker) -> Commits {
    let (_, page) = worker.get("/metrics").await;
    Commits {
        events: metric(&page, "feedmill_events_finished_total", CONVERT),
        transactions: metric(&page, "feedmill_kafka_transactions_total", COMMITTED),
        seconds: metric(
            &page,
            "feedmill_kafka_transaction_duration_seconds_sum",
            CONVERT,
        ),
    }
}
