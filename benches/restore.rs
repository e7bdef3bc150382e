//! How long a worker without its state folder takes until it goes on: it reads the states of its partitions out of Kafka.
//!
//! ```text
//! FEEDMILL_TEST_KAFKA=… FEEDMILL_TEST_S3=… AWS_…=… cargo bench --bench restore
//! ```
//!
//! (`just bench-restore` starts the servers and sets these.) 2 million objects, or as many as `FEEDMILL_BENCH_STATES` says, in 12 partitions of one
//! worker. Beside it, in the same run: a consumer that reads the same records and does nothing with them; and the worker with the folder that
//! it has then. Times are from the start of the process until it is ready.

#[path = "../tests/support/states.rs"]
mod states;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use feedmill::topics::encode;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset};
use support::checker::Topic;
use support::dump::Origin;
use support::kafka::{self, Isolation};
use support::{Stack, Worker, WorkerOptions, World, files::ProductFile, wait_until};

const PARTITIONS: i32 = 12;
const PATIENCE: Duration = Duration::from_secs(1_200);

fn main() {
    let asked = std::env::var("FEEDMILL_BENCH_STATES").ok();
    let states = asked.and_then(|text| text.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(async {
        if let Some(stack) = Stack::from_env() {
            bench(&stack, states.unwrap_or(2_000_000)).await;
        }
    });
}

async fn bench(stack: &Stack, states: usize) {
    let world = stack.world("restore").partitions(PARTITIONS);
    let world = world.create().await;
    commit_every_partition(&world).await;
    let bytes = blocking(&world, move |world| fill(world, states)).await;
    println!(
        "{states} states of {} bytes in {PARTITIONS} partitions",
        bytes / states.max(1)
    );
    let read = blocking(&world, read).await;
    println!("  a consumer that reads them:       {}", rate(states, read));
    let (restored, peak) = start(&world, "fresh").await;
    println!(
        "  a worker without its folder:      {}, {:.2} of that; peak memory {} MB",
        rate(states, restored),
        read.as_secs_f64() / restored.as_secs_f64(),
        peak / 1_000_000
    );
    let (found, peak) = start(&world, "fresh").await;
    println!(
        "  the same again, with its folder:  {:.1} s; peak memory {} MB",
        found.as_secs_f64(),
        peak / 1_000_000
    );
}

fn rate(states: usize, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    format!("{seconds:.1} s, {:.0}/s", states as f64 / seconds)
}

/// A partition with state and without a committed offset is a hole: each gets some files to convert first.
async fn commit_every_partition(world: &World) {
    let file = ProductFile::new("bench", 1).xml();
    let keys: Vec<String> = (0..20 * PARTITIONS)
        .map(|n| format!("products/{n}.xml"))
        .collect();
    let worker = world.worker(WorkerOptions::default().state_dir("first"));
    for key in &keys {
        world.put(key, file.clone()).await;
        world.announce(key, None).await;
    }
    wait_until("all files have their result", PATIENCE, async || {
        (world.results().len() >= keys.len()).then_some(())
    })
    .await;
    stop(worker).await;
}

/// Does what blocks, with the world's names.
async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce(&Origin) -> Result<T> + Send + 'static,
) -> T {
    let origin = world.origin.clone();
    let done = tokio::task::spawn_blocking(move || work(&origin)).await;
    done.expect("it does not panic")
        .expect("the broker takes part")
}

/// Writes the states to the changelog; their bytes.
fn fill(origin: &Origin, states: usize) -> Result<usize> {
    let mut client: ClientConfig = kafka::client(&origin.brokers);
    client.set("linger.ms", "50").set("compression.type", "lz4");
    client.set("partitioner", "murmur2_random");
    let producer: BaseProducer = client.create()?;
    let topic = origin.topic(Topic::Objects);
    let mut bytes = 0;
    for n in 0..states {
        let name = format!("partner-{:03}/products-{n:08}.xml", n % 300);
        let key = format!("{}/{name}", origin.input_bucket);
        let value = encode(&states::of(&origin.input_bucket, &name, n));
        bytes += key.len() + value.len();
        let mut record = BaseRecord::to(&topic).key(&key).payload(&value);
        while let Err((error, again)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            anyhow::ensure!(error == full, error);
            producer.poll(Duration::from_millis(10));
            record = again;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).context("flush")?;
    Ok(bytes)
}

/// Reads the changelog from its beginning to its end.
fn read(origin: &Origin) -> Result<Duration> {
    let consumer = kafka::reader(&origin.brokers, "bench-reader", Isolation::ReadCommitted)?;
    let starts: Vec<_> = (0..PARTITIONS)
        .map(|partition| (partition, Offset::Beginning))
        .collect();
    let began = Instant::now();
    kafka::read_to_end(&consumer, &origin.topic(Topic::Objects), &starts, |_| ())?;
    Ok(began.elapsed())
}

/// Starts a worker on a state folder and stops it again; the time until it is ready, and the most memory it had by then, in bytes.
async fn start(world: &World, folder: &str) -> (Duration, u64) {
    let began = Instant::now();
    let mut worker = world.worker(WorkerOptions::default().state_dir(folder));
    worker.ready(PATIENCE).await;
    let (took, peak) = (began.elapsed(), worker.peak_bytes());
    stop(worker).await;
    (took, peak)
}

async fn stop(mut worker: Worker) {
    worker.terminate();
    worker.wait(PATIENCE).await;
}
