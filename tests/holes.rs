//! Holes in the log: a position that is not feedmill's own, or that the log does not have, stops the partition until a
//! person has decided. Nothing is skipped in silence, and the other partitions go on.

#[path = "support/runtime_world.rs"]
mod runtime_world;
mod support;

use feedmill::topics::Outcome;
use runtime_world::{
    PATIENCE, Truth, commit_of, delete_group, delete_records, key_on, log_ends, outcome,
    reset_offset, stop, wait_for_log_end, wait_for_page,
};
use support::checker::Topic;
use support::{Finished, Signal, Stack, Worker, WorkerOptions, World};

/// The partition that gets a hole, and one that never does.
const HOLED: i32 = 0;
const WHOLE: i32 = 1;

/// What a start says of a committed offset that the log does not have.
const OUTSIDE: &str = "[0] lies outside the log";

/// A world whose worker settled one object on each partition and was stopped.
struct Settled {
    world: World,
    truth: Truth,
    holed_key: String,
    whole_key: String,
}

impl Settled {
    async fn create(stack: &Stack, name: &str) -> Self {
        let world = stack.world(name).partitions(2).create().await;
        let (holed_key, whole_key) = (key_on(&world, HOLED, "a"), key_on(&world, WHOLE, "a"));
        let mut truth = Truth::default();
        let mut worker = start(&world).await;
        for key in [&holed_key, &whole_key] {
            let event = truth.drop(&world, key, 1).await;
            assert_eq!(outcome(&world, event).await, Outcome::Converted);
        }
        for partition in [HOLED, WHOLE] {
            wait_for_log_end(&world, partition).await;
        }
        stop(&mut worker).await;
        Self {
            world,
            truth,
            holed_key,
            whole_key,
        }
    }

    /// Starts a worker that must stop the holed partition, for a reason that has `why` in it, and go on with the other.
    async fn start_and_find_hole(&mut self, why: &str) -> Worker {
        let mut worker = self.world.worker(WorkerOptions::default());
        wait_for_hole(&mut worker, why).await;
        self.assert_only_the_holed_partition_stands().await;
        worker
    }

    async fn assert_only_the_holed_partition_stands(&mut self) {
        let Self { world, truth, .. } = self;
        let waits = truth.drop(world, &key_on(world, HOLED, "b"), 1).await;
        let goes_on = truth.drop(world, &self.whole_key, 2).await;
        assert_eq!(outcome(world, goes_on).await, Outcome::Converted);
        let results = world.results();
        assert!(
            results.iter().all(|result| result.event_id != waits),
            "an event behind a hole was answered"
        );
    }

    async fn accept_hole(&self) -> Finished {
        let partition = HOLED.to_string();
        self.world
            .run_cli(&["topics", "accept-hole", &partition])
            .await
    }

    /// A worker runs: refused. It is stopped: accepted, and the next worker leaves nothing to do.
    async fn mend(&mut self, mut worker: Worker) {
        let refused = self.accept_hole().await;
        assert_eq!(refused.code(), Some(3), "{refused:#?}");
        assert!(worker.is_running());
        stop(&mut worker).await;
        let accepted = self.accept_hole().await;
        assert_eq!(accepted.code(), Some(0), "{accepted:#?}");
        assert!(
            accepted.stdout.contains("feedmill backfill s3://"),
            "it says what to announce again: {accepted:#?}"
        );
        let mut worker = start(&self.world).await;
        let event = self.truth.drop(&self.world, &self.holed_key, 3).await;
        assert_eq!(outcome(&self.world, event).await, Outcome::Converted);
        wait_for_log_end(&self.world, HOLED).await;
        stop(&mut worker).await;
    }
}

async fn start(world: &World) -> Worker {
    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(PATIENCE).await;
    worker
}

/// `/readyz` says which partition is stopped, why, and what to do, and complains of nothing else; the process itself is
/// healthy.
async fn wait_for_hole(worker: &mut Worker, why: &str) {
    let stopped = format!("partition {HOLED} is stopped");
    wait_for_page(worker, "/readyz", 503, |body| {
        let others = |line: &&str| !line.starts_with("retry.");
        body.lines().filter(others).count() == 1
            && body.contains(&stopped)
            && body.contains(why)
            && body.contains("feedmill topics accept-hole")
    })
    .await;
    assert_eq!(worker.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_reset_by_another_tool_stops_the_partition_until_it_is_accepted() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let mut settled = Settled::create(&stack, "hole-reset").await;
    reset_offset(&settled.world, HOLED, 0, "").await;
    let worker = settled
        .start_and_find_hole("does not carry feedmill's tag")
        .await;
    // The reset offset stands until a person has decided.
    let commit = commit_of(&settled.world, HOLED).await.unwrap();
    assert_eq!((commit.next_offset, commit.metadata.as_str()), (0, ""));
    settled.mend(worker).await;
    // The old event is read again, and has two Results then, because a person has asked for it: the second says duplicate.
    let results = settled.world.results();
    let first = results
        .iter()
        .filter(|result| (result.event_partition, result.event_offset) == (HOLED, 0));
    let outcomes: Vec<_> = first.map(|result| result.outcome).collect();
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert_eq!(outcomes[0], Outcome::Converted);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_gone_beside_states_stop_the_partition() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settled = Settled::create(&stack, "hole-none").await;
    delete_group(&settled.world).await;
    let mut worker = settled.world.worker(WorkerOptions::default());
    for partition in [HOLED, WHOLE] {
        let stopped = format!("partition {partition} is stopped");
        wait_for_page(&mut worker, "/readyz", 503, |body| {
            let is_it =
                |line: &str| line.contains(&stopped) && line.contains("no committed offset");
            body.lines().any(is_it)
        })
        .await;
    }
    stop(&mut worker).await;
    // At the end of the log nothing is read again.
    for partition in [HOLED, WHOLE] {
        let (_, end) = log_ends(&settled.world, Topic::Events, partition);
        let (partition, end) = (partition.to_string(), end.to_string());
        let accept = ["topics", "accept-hole", &partition, "--offset", &end];
        let accepted = settled.world.run_cli(&accept).await;
        assert_eq!(accepted.code(), Some(0), "{accepted:#?}");
    }
    let mut worker = start(&settled.world).await;
    let event = settled.world.announce(&settled.holed_key, None).await;
    assert_eq!(outcome(&settled.world, event).await, Outcome::Duplicate);
    settled.truth.assert_healthy(&settled.world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_never_committed_does_not_start_behind_the_beginning_of_the_log() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("hole-new").partitions(1).create().await;
    let mut truth = Truth::default();
    truth.drop(&world, "products/lost.xml", 1).await;
    delete_records(&world, Topic::Events, 0, 1).await;
    let mut worker = world.worker(WorkerOptions::default());
    wait_for_hole(&mut worker, "its log starts at 1").await;
    stop(&mut worker).await;
    let accepted = world.run_cli(&["topics", "accept-hole", "0"]).await;
    assert_eq!(accepted.code(), Some(0), "{accepted:#?}");
    let mut worker = start(&world).await;
    // The command that it names brings back what was lost.
    let mut printed = accepted.stdout.lines().map(str::trim);
    let command = printed.find_map(|line| line.strip_prefix("feedmill backfill "));
    let backfill = ["backfill", command.expect("a command")];
    let announced = world.run_cli(&backfill).await;
    assert!(
        announced.stdout.contains("announced 1 of 1"),
        "{announced:#?}"
    );
    assert!(world.settles_within(PATIENCE).await);
    truth.assert_healthy(&world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_starts_behind_the_committed_offset_stops_the_partition() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let mut settled = Settled::create(&stack, "hole-start").await;
    let key = key_on(&settled.world, HOLED, "expired");
    settled.truth.drop(&settled.world, &key, 1).await;
    let (_, end) = log_ends(&settled.world, Topic::Events, HOLED);
    delete_records(&settled.world, Topic::Events, HOLED, end).await;
    let worker = settled.start_and_find_hole(OUTSIDE).await;
    settled.mend(worker).await;
    // The expired object is the one that needs the backfill.
    let mut worker = start(&settled.world).await;
    let event = settled.truth.drop(&settled.world, &key, 1).await;
    assert_eq!(outcome(&settled.world, event).await, Outcome::Converted);
    settled.truth.assert_healthy(&settled.world).await;
    stop(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_offset_beyond_the_end_of_the_log_stops_the_partition() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let mut settled = Settled::create(&stack, "hole-end").await;
    let (_, end) = log_ends(&settled.world, Topic::Events, HOLED);
    // As if feedmill had committed it, and then the log had lost its end.
    reset_offset(&settled.world, HOLED, end + 1_000, "fm1:").await;
    let worker = settled.start_and_find_hole(OUTSIDE).await;
    stop_and_accept_at(&settled, worker, end).await;
    let mut worker = start(&settled.world).await;
    settled.truth.assert_healthy(&settled.world).await;
    stop(&mut worker).await;
}

/// The events that came since are behind `offset`.
async fn stop_and_accept_at(settled: &Settled, mut worker: Worker, offset: i64) {
    stop(&mut worker).await;
    let (partition, offset) = (HOLED.to_string(), offset.to_string());
    let accept = ["topics", "accept-hole", &partition, "--offset", &offset];
    let accepted = settled.world.run_cli(&accept).await;
    assert_eq!(accepted.code(), Some(0), "{accepted:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_under_a_running_worker_stops_the_partition() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let mut settled = Settled::create(&stack, "hole-run").await;
    let mut worker = start(&settled.world).await;
    let key = key_on(&settled.world, HOLED, "expired");
    // It must not see the events before they are gone, and is back before its session is over. The broker may owe it the
    // answer to a fetch: the first event is for that.
    worker.signal(Signal::Stop);
    let first = key_on(&settled.world, HOLED, "first");
    settled.truth.drop(&settled.world, &first, 1).await;
    for version in 1..=5 {
        settled.truth.drop(&settled.world, &key, version).await;
    }
    let (_, end) = log_ends(&settled.world, Topic::Events, HOLED);
    delete_records(&settled.world, Topic::Events, HOLED, end).await;
    worker.signal(Signal::Continue);
    wait_for_hole(&mut worker, "outside the log").await;
    settled.assert_only_the_holed_partition_stands().await;
    settled.mend(worker).await;
    let mut worker = start(&settled.world).await;
    let event = settled.truth.drop(&settled.world, &key, 5).await;
    assert_eq!(outcome(&settled.world, event).await, Outcome::Converted);
    settled.truth.drop(&settled.world, &first, 1).await;
    settled.truth.assert_healthy(&settled.world).await;
    stop(&mut worker).await;
}
