//! A file that kills the process is found, run alone, and given up; its neighbours, and a worker that is killed from outside,
//! have nothing to fear.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use convert_world::{PATIENCE, assert_converted, assert_refused, open_letter, start, stop};
use feedmill::object::ETag;
use feedmill::topics::{Id, Outcome};
use support::checker::Expectations;
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World};

const NEIGHBOURS: usize = 12;

/// Short, so that a member that died is soon forgotten by its group.
const SETTINGS: &str = "[kafka]\nsession_timeout_secs = 6";

async fn drop_neighbours(world: &World) -> Vec<(Id, ETag, String)> {
    let mut dropped = Vec::new();
    for number in 0..NEIGHBOURS {
        let key = format!("products/{number}.xml");
        let etag = world.put(&key, ProductFile::new(&key, 1).xml()).await;
        let id = world.announce(&key, Some(etag.as_str())).await;
        dropped.push((id, etag, key));
    }
    dropped
}

async fn assert_all_converted(world: &World, dropped: &[(Id, ETag, String)]) -> Expectations {
    let mut expected = Expectations::default();
    for (id, etag, key) in dropped {
        let result = world.wait_for_result(*id, PATIENCE).await;
        assert_converted(&result, etag);
        let json = ProductFile::new(key, 1).json();
        expected.sources.insert(key.clone(), Some(json));
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_kills_its_worker_three_times_while_alone_is_a_dead_letter_and_its_neighbours_are_converted()
 {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("poison").settings(SETTINGS).create().await;
    let poison = "products/poison.xml";
    let etag = world.put(poison, ProductFile::new("p", 1).xml()).await;
    let killer = world.announce(poison, Some(etag.as_str())).await;
    let dropped = drop_neighbours(&world).await;
    let options = WorkerOptions::default().env("FEEDMILL_TEST_FAULT", "crash-on-poison");
    // Once among others, three times alone.
    for crash in 0..4 {
        let mut worker = world.worker(options.clone());
        let status = worker.wait(PATIENCE).await;
        assert!(!status.success(), "crash {crash}: it ended with {status}");
        assert!(worker.log().contains("crashing as asked"), "crash {crash}");
    }
    let worker = start(&world, options).await;
    let result = world.wait_for_result(killer, PATIENCE).await;
    assert_refused(&result, "worker_crashed");
    assert_eq!(
        result.settled_etag,
        Some(etag),
        "it is not begun again by every sweep"
    );
    let mut expected = assert_all_converted(&world, &dropped).await;
    let dump = world.dump().await;
    let letter = open_letter(&world, &dump, poison).expect("an open letter");
    assert!(
        letter["message"]
            .as_str()
            .is_some_and(|text| text.contains("3 times")),
        "{letter}"
    );
    assert!(world.settles_within(PATIENCE).await);
    stop(worker).await;
    expected.sources.insert(poison.to_owned(), None);
    world.assert_healthy(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_from_outside_blames_no_file() {
    const KILLS: usize = 5;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("killed").settings(SETTINGS).create().await;
    let gate = convert_world::Gate::before(&stack.s3_endpoint).await;
    // No file ends before the kill: each life meets others, and none of them is alone at three.
    gate.fail("products/", convert_world::Fault::Slow(30_000));
    let dropped = drop_neighbours(&world).await;
    let options = convert_world::through(&gate, WorkerOptions::default());
    for _ in 0..KILLS {
        gate.forget();
        let mut worker = world.worker(options.clone());
        support::wait_until("work under way", PATIENCE, async || {
            (!gate.requests("products/").is_empty()).then_some(())
        })
        .await;
        worker.kill();
    }
    gate.open();
    let worker = start(&world, options).await;
    let expected = assert_all_converted(&world, &dropped).await;
    let blamed = world.results();
    assert!(
        blamed
            .iter()
            .all(|result| result.outcome != Outcome::DeadLettered)
    );
    assert!(world.settles_within(PATIENCE).await);
    stop(worker).await;
    world.assert_healthy(&expected).await;
}
