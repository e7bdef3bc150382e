//! What a worker takes at most: it stays under `memory.limit`, however many files wait, large or small; and with nothing to
//! do it rests.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::time::Duration;

use convert_world::{assert_converted, start, stop};
use feedmill::topics::ObjectEvent;
use support::{Stack, WorkerOptions, wait_until};

const LIMIT_MIB: u64 = 192;

/// Together far more than the limit.
const FILES: usize = 8;
const FILE_BYTES: usize = 30_000_000;

const PATIENCE: Duration = Duration::from_secs(240);

/// Records of four kilobytes; the JSON is as long as the XML.
fn large_file() -> Vec<u8> {
    let record = format!("<item id=\"1\"><name>{}</name></item>\n", "n".repeat(4_000));
    let mut xml = String::with_capacity(FILE_BYTES + 100);
    xml.push_str("<items>\n");
    while xml.len() < FILE_BYTES {
        xml.push_str(&record);
    }
    xml.push_str("</items>\n");
    xml.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stays_under_its_memory_limit_however_many_large_files_wait() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[memory]\nlimit = \"{LIMIT_MIB} MiB\"");
    let world = stack.world("ceiling").settings(&settings).create().await;
    let file = large_file();
    let mut dropped = Vec::new();
    for number in 0..FILES {
        let key = format!("products/{number}.xml");
        let etag = world.put(&key, file.clone()).await;
        dropped.push((world.announce(&key, Some(etag.as_str())).await, etag));
    }
    let worker = start(&world, WorkerOptions::default()).await;
    for (id, etag) in &dropped {
        assert_converted(&world.wait_for_result(*id, PATIENCE).await, etag);
    }
    let peak = worker.peak_bytes();
    println!("peak {} MB", peak / 1_000_000);
    assert!(peak < LIMIT_MIB << 20, "{} MiB", peak >> 20);
    stop(worker).await;
}

/// Events in as many partitions as a worker may have to itself while the others are away.
const WAITING: usize = 12_000;
const PARTITIONS: i32 = 48;

/// It was 126 MiB. When each waiting event held the state of one that is worked on, it was 232.
const MOST_FOR_WAITING_MIB: u64 = 170;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_waiting_events_take_little_memory() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("waiting").partitions(PARTITIONS);
    let world = world.create().await;
    // Nothing lies there: what counts is that they wait.
    let events: Vec<ObjectEvent> = (0..WAITING)
        .map(|number| world.event(&format!("products/{number}.xml"), None))
        .collect();
    futures::future::join_all(events.iter().map(|event| world.send(event))).await;
    let worker = start(&world, WorkerOptions::default()).await;
    wait_until("every event has its result", PATIENCE, async || {
        (world.results().len() >= WAITING).then_some(())
    })
    .await;
    let peak = worker.peak_bytes();
    println!("peak {} MB", peak / 1_000_000);
    assert!(peak < MOST_FOR_WAITING_MIB << 20, "{} MiB", peak >> 20);
    stop(worker).await;
}

/// It was 1.4 % of a processor in a release build; 6.6 % while the client library's own threads served its producers.
const REST: f64 = 0.04;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_nothing_to_do_rests() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("rest").create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    // A share is of a while, so there is no condition to wait for. The start has things to finish: a later while will do.
    let period = Duration::from_secs(10);
    let mut shares = Vec::new();
    while shares.len() < 3 && shares.iter().all(|share| *share >= REST) {
        let before = worker.processor_time();
        tokio::time::sleep(period).await;
        let taken = worker.processor_time() - before;
        shares.push(taken.as_secs_f64() / period.as_secs_f64());
    }
    println!("shares of a processor: {shares:?}");
    assert!(shares.iter().any(|share| *share < REST), "{shares:?}");
    stop(worker).await;
}
