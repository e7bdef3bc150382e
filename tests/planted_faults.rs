//! Negative controls: a proof that never failed proves nothing. Each test breaks one rule of the runtime, by a fault that
//! a debug build can be asked for, and the checker must see what comes of it; the same scenario without the fault must
//! pass.

#[path = "support/runtime_world.rs"]
mod runtime_world;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use feedmill::topics::{Id, Outcome};
use runtime_world::{
    ForeignProducer, Gate, Hold, PATIENCE, Truth, commit_of, outcome, stop, wait_for_page,
};
use support::checker::Topic;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const FAULT: &str = "FEEDMILL_TEST_FAULT";

/// One partition, so that everything waits behind everything that it can.
async fn world(stack: &Stack, name: &str) -> World {
    stack.world(name).partitions(1).create().await
}

async fn start(world: &World, options: WorkerOptions) -> Worker {
    let mut worker = world.worker(options);
    worker.ready(PATIENCE).await;
    worker
}

fn planted(options: WorkerOptions, fault: Option<&str>) -> WorkerOptions {
    match fault {
        Some(fault) => options.env(FAULT, fault),
        None => options,
    }
}

/// The rules that a run at rest has broken.
async fn broken_rules(world: &World, truth: &Truth) -> BTreeSet<&'static str> {
    let at_rest = world.settles_within(PATIENCE).await;
    let found = world.check(&truth.expected).await;
    for violation in &found {
        println!("{}: {violation}", violation.rule());
    }
    assert!(at_rest, "events are left after {PATIENCE:?}");
    found.iter().map(|violation| violation.rule()).collect()
}

fn assert_none(broken: &BTreeSet<&str>) {
    assert!(broken.is_empty(), "broken without a fault: {broken:?}");
}

fn assert_caught(broken: &BTreeSet<&str>, rule: &str) {
    assert!(broken.contains(rule), "{rule} was not caught: {broken:?}");
}

// Offsets before records

/// A worker crashes in its first transaction, when the broker has its offsets; another goes on.
async fn crash_after_offsets(world: &World, fault: &str) -> BTreeSet<&'static str> {
    let mut truth = Truth::default();
    let mut worker = start(world, WorkerOptions::default().env(FAULT, fault)).await;
    let first = truth.drop(world, "products/first.xml", 1).await;
    let status = worker.wait(PATIENCE).await;
    assert!(!status.success(), "it was asked to crash");
    let mut worker = start(world, WorkerOptions::default()).await;
    let second = truth.drop(world, "products/second.xml", 1).await;
    assert_eq!(outcome(world, second).await, Outcome::Converted);
    println!("the first event has {} results", count(world, first));
    let broken = broken_rules(world, &truth).await;
    stop(&mut worker).await;
    broken
}

fn count(world: &World, event: Id) -> usize {
    let results = world.results();
    results.iter().filter(|r| r.event_id == event).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_committed_before_their_records_lose_results_and_are_caught() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let healthy = world(&stack, "crash").await;
    assert_none(&crash_after_offsets(&healthy, "crash-after-offsets").await);
    let faulty = world(&stack, "before").await;
    let fault = "offsets-before-records,crash-after-offsets";
    assert_caught(&crash_after_offsets(&faulty, fault).await, "R1");
}

// No flush before the offsets

/// An object is settled, and told of again.
async fn settle_and_tell_again(world: &World, fault: Option<&str>) -> BTreeSet<&'static str> {
    let mut truth = Truth::default();
    let mut worker = start(world, planted(WorkerOptions::default(), fault)).await;
    let first = truth.drop(world, "products/first.xml", 1).await;
    assert_eq!(outcome(world, first).await, Outcome::Converted);
    let etag = truth.put(world, "products/first.xml", 1).await;
    let again = world
        .announce("products/first.xml", Some(etag.as_str()))
        .await;
    println!("told of again, it was {:?}", outcome(world, again).await);
    let broken = broken_rules(world, &truth).await;
    stop(&mut worker).await;
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_flush_forgets_state_and_is_caught() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let healthy = world(&stack, "flush").await;
    assert_none(&settle_and_tell_again(&healthy, None).await);
    let faulty = world(&stack, "noflush").await;
    assert_caught(
        &settle_and_tell_again(&faulty, Some("skip-flush")).await,
        "R9",
    );
}

// Restore to the last stable offset

/// A foreign transaction stays open on `objects` while an object is settled behind its records: the last stable offset
/// lies before the state, and a worker with an empty state folder is started.
async fn restore_behind_an_open_transaction(
    world: &World,
    fault: Option<&str>,
) -> BTreeSet<&'static str> {
    let mut truth = Truth::default();
    let mut worker = start(world, WorkerOptions::default()).await;
    let foreign = ForeignProducer::new(world);
    foreign.begin();
    foreign.send(
        &world.topic(Topic::Objects),
        0,
        "foreign",
        b"never committed",
    );
    foreign.flush();
    let key = "products/settled.xml";
    let event = truth.drop(world, key, 1).await;
    assert_eq!(outcome(world, event).await, Outcome::Converted);
    stop(&mut worker).await;

    let options = WorkerOptions::default().state_dir("empty");
    let mut worker = world.worker(planted(options, fault));
    if fault.is_none() {
        let waits = |body: &str| body.contains("partition 0 is being restored");
        wait_for_page(&mut worker, "/readyz", 503, waits).await;
    } else {
        worker.ready(PATIENCE).await;
    }
    let again = truth.drop(world, key, 1).await;
    match fault {
        // Long enough for a worker that did not wait: it would convert the object in a fraction of it.
        None => assert!(
            !answers_within(world, again, Duration::from_secs(4)).await,
            "an event was answered before the state was known"
        ),
        Some(_) => assert_eq!(outcome(world, again).await, Outcome::Converted),
    }
    foreign.abort();
    worker.ready(PATIENCE).await;
    if fault.is_none() {
        assert_eq!(outcome(world, again).await, Outcome::Duplicate);
    }
    let broken = broken_rules(world, &truth).await;
    stop(&mut worker).await;
    broken
}

async fn answers_within(world: &World, event: Id, timeout: Duration) -> bool {
    let answered = async || (count(world, event) > 0).then_some(());
    support::poll_until(timeout, answered).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_stops_at_the_last_stable_offset_misses_states_and_is_caught() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let healthy = world(&stack, "waits").await;
    assert_none(&restore_behind_an_open_transaction(&healthy, None).await);
    let faulty = world(&stack, "stable").await;
    let broken =
        restore_behind_an_open_transaction(&faulty, Some("restore-to-stable-offset")).await;
    assert_caught(&broken, "R9");
}

// Outputs without a condition

/// A worker dies with a write on its way; others convert the object and its next version; then the write arrives.
async fn late_write(world: &World, fault: Option<&str>) -> BTreeSet<&'static str> {
    let mut truth = Truth::default();
    let gate = Gate::open(world).await;
    let key = "products/contested.xml";
    gate.hold(Hold::Request, "PUT", key);
    let mut stalled = start(world, planted(gate.options(), fault)).await;
    let first = truth.drop(world, key, 1).await;
    gate.wait_for_held(1).await;
    stalled.kill();

    let mut worker = start(world, WorkerOptions::default()).await;
    assert_eq!(outcome(world, first).await, Outcome::Converted);
    let second = truth.drop(world, key, 2).await;
    assert_eq!(outcome(world, second).await, Outcome::Converted);

    gate.release();
    gate.wait_for_answers(1).await;
    let broken = broken_rules(world, &truth).await;
    stop(&mut worker).await;
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconditional_put_lets_a_stalled_worker_overwrite_a_newer_output_and_is_caught() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let healthy = world(&stack, "fenced").await;
    assert_none(&late_write(&healthy, None).await);
    let faulty = world(&stack, "unfenced").await;
    assert_caught(&late_write(&faulty, Some("unconditional-put")).await, "R3");
}

// The finished set

/// A worker is killed while events are finished behind a slow file; another goes on.
async fn kill_behind_a_slow_file(world: &World, fault: Option<&str>) -> BTreeSet<&'static str> {
    let mut truth = Truth::default();
    let gate = Gate::open(world).await;
    gate.hold(Hold::Request, "GET", "products/slow.xml");
    let mut worker = start(world, gate.options()).await;
    truth.drop(world, "products/slow.xml", 1).await;
    let mut quick = Vec::new();
    for number in 0..5 {
        let key = format!("products/quick-{number}.xml");
        quick.push(truth.drop(world, &key, 1).await);
    }
    for event in quick {
        assert_eq!(outcome(world, event).await, Outcome::Converted);
    }
    wait_until("a commit with finished offsets", PATIENCE, async || {
        let commit = commit_of(world, 0).await?;
        (commit.next_offset == 0 && commit.metadata.len() > "fm1:".len()).then_some(())
    })
    .await;
    worker.kill();
    gate.release();
    let mut worker = start(world, planted(WorkerOptions::default(), fault)).await;
    let broken = broken_rules(world, &truth).await;
    stop(&mut worker).await;
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_finished_set_gives_events_a_second_result_and_is_caught() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let healthy = world(&stack, "keeps").await;
    assert_none(&kill_behind_a_slow_file(&healthy, None).await);
    let faulty = world(&stack, "forgets").await;
    assert_caught(
        &kill_behind_a_slow_file(&faulty, Some("forget-finished")).await,
        "R1",
    );
}
