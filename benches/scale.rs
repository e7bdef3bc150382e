//! What more workers bring, and what a restart and a huge file cost the others.
//!
//! ```text
//! FEEDMILL_TEST_KAFKA=… FEEDMILL_TEST_S3=… AWS_…=… cargo bench --bench scale [-- workers|restart|behind]
//! ```
//!
//! (`just scale` starts the servers and sets these.) Every request to S3 takes 20 ms more than the server needs, as to a server across a
//! network, and a worker has 4 files in flight: so it waits more than it works, and one machine can hold several. All run on the same
//! machine as the servers: the idle share of its processors says whether they, and not feedmill, were the limit.
//!
//! * `workers`: 1, 2 and 4 workers on the same backlog; files a second between the first and the last result
//! * `restart`: three workers under load, each restarted in turn with its state folder; the longest time from an event to its result,
//!   and the files whose output was written more than once
//! * `behind`: small files behind one of 2 GB in the same partition; 99th percentile of their time from event to result, with and without it

#[path = "../tests/support/convert_world/mod.rs"]
mod convert_world;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use convert_world::{Fault, Gate};
use feedmill::topics::{ObjectEvent, ResultRecord};
use futures::{StreamExt, stream};
use support::{Stack, Worker, WorkerOptions, World, files::ProductFile, wait_until};

const ADDED_MILLIS: u64 = 20;
const IN_FLIGHT: usize = 4;
const PARTITIONS: i32 = 12;
const PATIENCE: Duration = Duration::from_secs(600);

/// A number from the environment, for shorter or longer runs.
fn asked(name: &str, default: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(async {
        let Some(stack) = Stack::from_env() else {
            return;
        };
        if wanted("workers") {
            workers(&stack).await;
        }
        if wanted("restart") {
            restart(&stack).await;
        }
        if wanted("behind") {
            behind(&stack).await;
        }
    });
}

/// A world whose workers reach S3 through a gate that adds a delay to each request.
struct Far {
    world: World,
    gate: Gate,
}

impl Far {
    async fn new(stack: &Stack, name: &str, partitions: i32) -> Self {
        // The tests have a shorter session; a heartbeat follows from it.
        let session = feedmill::config::Kafka::default().session_timeout_secs;
        let settings = format!(
            "[kafka]\nsession_timeout_secs = {session}\n[convert]\nmax_in_flight = {IN_FLIGHT}\n"
        );
        let world = stack.world(name).partitions(partitions).settings(&settings);
        let world = world.create().await;
        let gate = Gate::before(&stack.s3_endpoint).await;
        gate.fail("/", Fault::Slow(ADDED_MILLIS));
        Self { world, gate }
    }

    /// A worker with a state folder of its own, which another of the same number finds again.
    fn worker(&self, number: usize) -> Worker {
        let options = WorkerOptions::default().state_dir(format!("state-{number}"));
        self.world
            .worker(convert_world::through(&self.gate, options))
    }

    async fn start(&self, workers: usize) -> Vec<Worker> {
        let mut started: Vec<Worker> = (0..workers).map(|number| self.worker(number)).collect();
        for worker in &mut started {
            worker.ready(PATIENCE).await;
        }
        started
    }

    /// Until the group is at rest: each worker has its share of the partitions, and has restored it.
    async fn spread(&self, workers: &mut [Worker]) {
        let share = PARTITIONS as usize / workers.len();
        for worker in workers {
            wait_until("an equal share of the partitions", PATIENCE, async || {
                let (_, metrics) = worker.get("/metrics").await;
                let running = r#"feedmill_partitions{stage="convert",status="running"} "#;
                let line = metrics.lines().find_map(|line| line.strip_prefix(running));
                line.and_then(|count| count.parse().ok())
                    .filter(|count: &usize| *count == share)
            })
            .await;
        }
    }

    async fn upload(&self, keys: &[String], bytes: &[u8]) {
        let uploads = keys.iter().map(|key| self.world.put(key, bytes));
        stream::iter(uploads)
            .buffer_unordered(32)
            .for_each(async |_| {})
            .await;
    }

    async fn announce(&self, key: &str, bytes: usize) {
        let size = i64::try_from(bytes).ok();
        let event = self.world.event(key, None);
        self.world.send(&ObjectEvent { size, ..event }).await;
    }

    async fn announce_all(&self, keys: &[String], bytes: usize) {
        futures::future::join_all(keys.iter().map(|key| self.announce(key, bytes))).await;
    }

    /// All results, once there are so many.
    async fn results(&self, count: usize) -> Vec<ResultRecord> {
        wait_until("all files have their result", PATIENCE, async || {
            (self.world.results().len() >= count).then_some(())
        })
        .await;
        let results = self.world.results();
        let converted = |result: &ResultRecord| result.outcome.name() == "converted";
        assert!(results.iter().all(converted));
        results
    }
}

fn keys(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("products/{n}.xml")).collect()
}

fn small_file() -> Vec<u8> {
    ProductFile::new("bench", 1).records(100).xml()
}

/// The most memory that each worker had resident so far, in MB.
fn peaks(workers: &[Worker]) -> String {
    let peaks: Vec<String> = workers
        .iter()
        .map(|worker| (worker.peak_bytes() / 1_000_000).to_string())
        .collect();
    peaks.join(", ")
}

/// Idle and all time of the machine's processors so far, in ticks.
fn processors() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (ticks.get(3).copied().unwrap_or(0), ticks.iter().sum())
}

fn idle_share(before: (u64, u64), after: (u64, u64)) -> f64 {
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

fn stop(workers: &[Worker]) {
    for worker in workers {
        worker.terminate();
    }
}

async fn workers(stack: &Stack) {
    let (count, file) = (asked("FEEDMILL_BENCH_FILES", 4_000), small_file());
    println!(
        "workers: {count} files of {} bytes in {PARTITIONS} partitions, {IN_FLIGHT} in flight, {ADDED_MILLIS} ms more for each S3 request",
        file.len()
    );
    // Not counted: servers that have just started are slow, and a slow first worker would flatter the others.
    backlog(stack, 2, &keys(count / 2), &file).await;
    let mut alone = None;
    for number in [1, 2, 4] {
        let (rate, rest) = backlog(stack, number, &keys(count), &file).await;
        let ratio = rate / *alone.get_or_insert(rate);
        println!("  {number} workers: {rate:.0} files/s, {ratio:.2} of one; {rest}");
    }
}

/// Files a second that so many workers convert, and what it took.
async fn backlog(stack: &Stack, workers: usize, keys: &[String], file: &[u8]) -> (f64, String) {
    let far = Far::new(stack, "scale", PARTITIONS).await;
    far.upload(keys, file).await;
    let mut workers = far.start(workers).await;
    far.spread(&mut workers).await;
    let before = processors();
    far.announce_all(keys, file.len()).await;
    let results = far.results(keys.len()).await;
    let idle = 100.0 * idle_share(before, processors());
    let times = results.iter().map(|result| result.finished_at.0);
    let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    let rate = keys.len() as f64 / ((last - first).max(1) as f64 / 1000.0);
    let peaks = peaks(&workers);
    stop(&workers);
    for worker in &mut workers {
        worker.wait(PATIENCE).await;
    }
    (
        rate,
        format!("processors {idle:.0} % idle; peak memory {peaks} MB"),
    )
}

async fn restart(stack: &Stack) {
    let seconds = asked("FEEDMILL_BENCH_SECONDS", 90);
    let (rate, file) = (50, small_file());
    let keys = keys(seconds * rate);
    let far = Far::new(stack, "rolling", PARTITIONS).await;
    far.upload(&keys, &file).await;
    let mut workers = far.start(3).await;
    far.gate.forget();
    let began = Instant::now();
    let load = async {
        for (number, key) in (0u32..).zip(&keys) {
            let at = began + Duration::from_secs(1) / u32::try_from(rate).unwrap_or(1) * number;
            tokio::time::sleep_until(at.into()).await;
            far.announce(key, file.len()).await;
        }
    };
    let rolling = async {
        for (number, worker) in workers.iter_mut().enumerate() {
            tokio::time::sleep(Duration::from_secs(seconds / 5)).await;
            worker.terminate();
            worker.wait(PATIENCE).await;
            *worker = far.worker(number);
            worker.ready(PATIENCE).await;
        }
    };
    tokio::join!(load, rolling);
    let results = far.results(keys.len()).await;
    println!(
        "restart: {} files at {rate}/s for {seconds} s, 3 workers restarted one after another with their state folders",
        keys.len()
    );
    let mut by_partition: HashMap<i32, i64> = HashMap::new();
    for result in &results {
        let waited = result.finished_at.0 - result.received_at.0;
        let longest = by_partition.entry(result.event_partition).or_default();
        *longest = waited.max(*longest);
    }
    let stall = by_partition.values().max().copied().unwrap_or(0);
    let mut written: HashMap<String, usize> = HashMap::new();
    for request in far.gate.requests(&far.world.origin.output_bucket) {
        if request.method == "PUT" {
            *written.entry(request.path).or_default() += 1;
        }
    }
    let twice = written.values().filter(|times| **times > 1).count();
    println!(
        "  longest time from an event to its result {stall} ms; {twice} outputs written more than once (in flight at a restart at most: {}); peak memory {} MB",
        3 * IN_FLIGHT,
        peaks(&workers)
    );
    stop(&workers);
    for worker in &mut workers {
        worker.wait(PATIENCE).await;
    }
}

async fn behind(stack: &Stack) {
    let bytes = usize::try_from(asked("FEEDMILL_BENCH_BYTES", 2_000_000_000)).unwrap_or(usize::MAX);
    let file = small_file();
    println!(
        "behind: small files, 20 a second in one partition, without and with one of {bytes} bytes before them"
    );
    for huge in [0, bytes] {
        let far = Far::new(stack, "behind", 1).await;
        let keys = keys(asked("FEEDMILL_BENCH_SECONDS", 30) * 20);
        far.upload(&keys, &file).await;
        if huge > 0 {
            far.world.put("products/huge.xml", huge_file(huge)).await;
        }
        let mut workers = far.start(1).await;
        if huge > 0 {
            far.announce("products/huge.xml", huge).await;
        }
        for key in &keys {
            far.announce(key, file.len()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let results = far.results(keys.len() + usize::from(huge > 0)).await;
        let took = |result: &ResultRecord| result.finished_at.0 - result.received_at.0;
        let is_huge = |result: &&ResultRecord| result.key == "products/huge.xml";
        let mut small: Vec<i64> = (results.iter().filter(|result| !is_huge(result)))
            .map(took)
            .collect();
        small.sort_unstable();
        let percentile = |share: usize| small[(small.len() - 1) * share / 100];
        let large = results.iter().find(is_huge).map(took);
        println!(
            "  {}: median {} ms, 99 % {} ms; peak memory {} MB",
            large.map_or("without".into(), |ms| format!("with (it took {ms} ms)")),
            percentile(50),
            percentile(99),
            peaks(&workers)
        );
        stop(&workers);
        for worker in &mut workers {
            worker.wait(PATIENCE).await;
        }
    }
}

/// Records of a few hundred bytes.
fn huge_file(bytes: usize) -> Vec<u8> {
    let record = format!(
        "<item id=\"1\"><name>{}</name><version>1</version></item>\n",
        "n".repeat(300)
    );
    let mut xml = Vec::with_capacity(bytes + record.len() + 100);
    xml.extend_from_slice(b"<items>\n");
    while xml.len() < bytes {
        xml.extend_from_slice(record.as_bytes());
    }
    xml.extend_from_slice(b"</items>\n");
    xml
}
