//! The whole pipeline against what it can't do without: files a second through feedmill, beside a GET and a conditional
//! PUT of the same bytes alone, with the same SDK, server, concurrency and run.
//!
//! ```text
//! FEEDMILL_TEST_KAFKA=… FEEDMILL_TEST_S3=… AWS_…=… cargo bench --bench pipeline
//! ```
//!
//! (`just bench` starts the servers and sets these.) The two are measured in turn, so that a noisy machine meets both; the
//! figure is the ratio. feedmill's time is from the first to the last `finished_at`, without its start.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_s3::{Client, primitives::ByteStream};
use feedmill::topics::ObjectEvent;
use support::{Stack, WorkerOptions, World, files, wait_until};
use tokio::{sync::Semaphore, task::JoinSet};

/// Files in flight at once, in both.
const CONCURRENCY: usize = 32;

const ROUNDS: usize = 3;

fn files() -> usize {
    let asked = std::env::var("FEEDMILL_BENCH_FILES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(bench());
}

async fn bench() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let input = files::ProductFile::new("bench", 1).records(100);
    let (xml, json) = (input.xml(), input.json().to_string().into_bytes());
    println!(
        "{} files of {} bytes, {CONCURRENCY} at a time, {ROUNDS} rounds",
        files(),
        xml.len()
    );
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let settings = format!("[convert]\nmax_in_flight = {CONCURRENCY}\n");
        let world = stack
            .world("bench")
            .partitions(12)
            .settings(&settings)
            .create()
            .await;
        let keys: Vec<String> = (0..files()).map(|n| format!("products/{n}.xml")).collect();
        upload(&world, &keys, &xml).await;
        // Not counted: the first writes to a new bucket make the server allocate.
        bare_s3(&world, &keys, &json, "warm-up").await;
        let before = bare_s3(&world, &keys, &json, "before").await;
        let pipeline = through_feedmill(&world, &keys, xml.len()).await;
        let after = bare_s3(&world, &keys, &json, "after").await;
        let alone = (before + after) / 2.0;
        println!(
            "round {round}: GET + conditional PUT alone {before:.0} before and {after:.0} files/s after, feedmill {pipeline:.0} files/s, ratio {:.2}",
            pipeline / alone
        );
        ratios.push(pipeline / alone);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median ratio {:.2} (min {:.2}, max {:.2})",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
}

async fn upload(world: &World, keys: &[String], bytes: &[u8]) {
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let uploads = keys.iter().map(|key| async {
        let _place = gate.acquire().await;
        world.put(key, bytes).await;
    });
    futures::future::join_all(uploads).await;
}

/// GET of every source and conditional PUT of an output's bytes, nothing else; files a second.
async fn bare_s3(world: &World, keys: &[String], output: &[u8], prefix: &'static str) -> f64 {
    let settings = feedmill::config::S3 {
        endpoint: std::env::var("FEEDMILL_TEST_S3").ok(),
        path_style: true,
        ..Default::default()
    };
    let accounts = feedmill::s3::Accounts::new(&settings).await;
    let s3 = accounts.of(&world.origin.input_bucket);
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let output = bytes::Bytes::copy_from_slice(output);
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for key in keys {
        let place = Arc::clone(&gate).acquire_owned().await;
        let (s3, key, output) = (s3.clone(), key.clone(), output.clone());
        let (from, to) = (
            world.origin.input_bucket.clone(),
            world.origin.output_bucket.clone(),
        );
        tasks.spawn(async move {
            copy(
                &s3,
                (&from, &key),
                (&to, &format!("{prefix}/{key}")),
                output,
            )
            .await;
            drop(place);
        });
    }
    tasks.join_all().await;
    keys.len() as f64 / started.elapsed().as_secs_f64()
}

async fn copy(s3: &Client, from: (&str, &str), to: (&str, &str), output: bytes::Bytes) {
    let source = s3.get_object().bucket(from.0).key(from.1).send().await;
    let source = source.expect("the source is there");
    source.body.collect().await.expect("the source can be read");
    let put = s3.put_object().bucket(to.0).key(to.1).if_none_match("*");
    let put = put.body(ByteStream::from(output)).send().await;
    put.expect("the output can be written");
}

/// All files announced, then a worker started; files a second between the first and the last result.
async fn through_feedmill(world: &World, keys: &[String], bytes: usize) -> f64 {
    let events = keys.iter().map(|key| async move {
        // As a notification has it: the size decides how many files fit the memory budget at once.
        let size = i64::try_from(bytes).ok();
        let event = world.event(key, None);
        world.send(&ObjectEvent { size, ..event }).await;
    });
    futures::future::join_all(events).await;
    let mut worker = world.worker(WorkerOptions::default());
    wait_until(
        "all files are converted",
        Duration::from_secs(300),
        async || (world.results().len() >= keys.len()).then_some(()),
    )
    .await;
    worker.terminate();
    worker.wait(Duration::from_secs(30)).await;
    let results = world.results();
    assert!(
        results
            .iter()
            .all(|result| result.outcome.name() == "converted")
    );
    let times = results.iter().map(|result| result.finished_at.0);
    let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    keys.len() as f64 / ((last - first).max(1) as f64 / 1000.0)
}
