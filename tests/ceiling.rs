//! A worker stays under `memory.limit`, however many large files wait.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::time::Duration;

use convert_world::{assert_converted, start, stop};
use support::{Stack, WorkerOptions};

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
