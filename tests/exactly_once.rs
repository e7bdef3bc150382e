//! The crash run: workers are killed again and again under load, and in the end every promise holds.
//!
//! Three workers convert while files are dropped, replaced, brought back and announced twice, some of them broken, and
//! one large file is always being converted, so that work finishes out of order behind it. A random worker is killed
//! each interval and started again, sometimes with an empty state folder. Then the run must come to rest, and the checker
//! must find nothing.
//!
//! The short form is the default. `FEEDMILL_CRASH_OBJECTS=3000 FEEDMILL_CRASH_KILLS=30 FEEDMILL_CRASH_INTERVAL_MS=10000`
//! is the long one. The seed is printed; `FEEDMILL_CRASH_SEED` plans a run again.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::checker::Expectations;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World};
use tokio::time::{Instant, sleep, sleep_until};

const WORKERS: usize = 3;

/// Several seconds of work for a debug build.
const SLOW_RECORDS: usize = 60_000;
const SLOW_KEY: &str = "products/slow.xml";

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const SLOW_TIMEOUT: Duration = Duration::from_secs(120);
const REST_TIMEOUT: Duration = Duration::from_secs(90);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_convert_every_file_exactly_once() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let plan = Plan::from_env();
    println!("crash run: {plan:?}");
    let world = stack.world("crash").create().await;
    let mut workers = start_workers(&world).await;

    let done = AtomicBool::new(false);
    let load = async {
        let truth = drop_files(&world, &plan).await;
        done.store(true, Ordering::Relaxed);
        truth
    };
    let faults = kill_workers(&world, &plan, &mut workers);
    let (mut truth, slow, (), samples) = tokio::join!(
        load,
        keep_a_slow_file_in_flight(&world, &done),
        faults,
        count_finished_ahead(&world, &done),
    );
    truth.insert(SLOW_KEY.into(), Some(slow.json()));

    let at_rest = world.settles_within(REST_TIMEOUT).await;
    print_outcomes(&world);
    let expected = Expectations {
        sources: truth,
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
    assert!(
        at_rest,
        "the run did not come to rest within {REST_TIMEOUT:?}"
    );
    assert!(
        samples > 0,
        "no commit ever carried offsets finished ahead of the slow file"
    );
}

#[derive(Debug)]
struct Plan {
    seed: u64,
    objects: usize,
    kills: usize,
    interval: Duration,
}

impl Plan {
    fn from_env() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let or = |name: &str, default: u64| number(name).unwrap_or(default);
        Self {
            seed: or("FEEDMILL_CRASH_SEED", u64::from(std::process::id())),
            objects: or("FEEDMILL_CRASH_OBJECTS", 300) as usize,
            kills: or("FEEDMILL_CRASH_KILLS", 4) as usize,
            interval: Duration::from_millis(or("FEEDMILL_CRASH_INTERVAL_MS", 5_000)),
        }
    }

    /// Files keep coming for one interval after the last kill.
    fn duration(&self) -> Duration {
        self.interval * (self.kills as u32 + 1)
    }
}

/// SplitMix64: the same seed plans the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = to.saturating_sub(from).as_millis() as u64;
        from + Duration::from_millis(self.below(span + 1))
    }
}

// Load

#[derive(Clone, Copy)]
enum Bytes {
    Good(u32),
    Broken(u32),
}

#[derive(Clone, Copy)]
enum Action {
    Put(Bytes),
    /// Announces the version that was put last.
    Announce,
    /// Announces it without an ETag.
    AnnounceWhatIsThere,
    /// Announces the version before: a notification that comes late.
    AnnounceEarlier,
}

struct Step {
    at: Duration,
    object: usize,
    action: Action,
}

fn script(plan: &Plan) -> Vec<Step> {
    let mut random = Random(plan.seed);
    let mut steps: Vec<Step> = (0..plan.objects)
        .flat_map(|object| life(&mut random, object, plan.duration()))
        .collect();
    steps.sort_by_key(|step| step.at);
    steps
}

/// What happens to one object: one in ten is announced twice, one in ten changes.
fn life(random: &mut Random, object: usize, end: Duration) -> Vec<Step> {
    use Action::{Announce, AnnounceEarlier, AnnounceWhatIsThere, Put};
    use Bytes::{Broken, Good};
    let first = match random.below(25) {
        0 => Broken(1),
        _ => Good(1),
    };
    let announce = match random.below(10) {
        0 => AnnounceWhatIsThere,
        _ => Announce,
    };
    let moments: &[&[Action]] = match random.below(100) {
        0..5 => &[&[Announce]],
        5..10 => &[&[], &[Announce]],
        10..14 => &[&[], &[Put(Good(2)), Announce]],
        14..17 => &[
            &[],
            &[Put(Good(2)), Announce],
            &[Put(Good(1)), Announce, AnnounceEarlier],
        ],
        17..18 => &[
            &[Put(Good(2)), Announce, Put(Good(1)), Announce],
            &[AnnounceEarlier],
        ],
        18..19 => &[&[], &[Put(Broken(2)), Announce]],
        19..20 => &[&[], &[Put(Broken(2)), Announce], &[Put(Good(3)), Announce]],
        _ => &[],
    };
    let mut at = random.between(Duration::ZERO, end);
    let step = |at, action| Step { at, object, action };
    let mut steps = vec![step(at, Put(first)), step(at, announce)];
    for (index, actions) in moments.iter().enumerate() {
        if index > 0 {
            at = random.between(at, end);
        }
        steps.extend(actions.iter().map(|action| step(at, *action)));
    }
    steps
}

/// Plays the script; what each object converts to in the end.
async fn drop_files(world: &World, plan: &Plan) -> BTreeMap<String, Option<Value>> {
    let mut truth = BTreeMap::new();
    let mut versions: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let start = Instant::now();
    for Step { at, object, action } in script(plan) {
        sleep_until(start + at).await;
        let key = format!("products/{object:05}.xml");
        let etags = versions.entry(object).or_default();
        let etag = match action {
            Action::Put(bytes) => {
                let (bytes, json) = file(object, bytes);
                etags.push(world.put(&key, bytes).await.as_str().to_owned());
                truth.insert(key, json);
                continue;
            }
            Action::AnnounceWhatIsThere => None,
            Action::Announce => etags.last(),
            Action::AnnounceEarlier => etags.iter().rev().nth(1),
        };
        world.announce(&key, etag.map(String::as_str)).await;
    }
    truth
}

fn file(object: usize, bytes: Bytes) -> (Vec<u8>, Option<Value>) {
    let titled = |version| ProductFile::new(format!("object {object}"), version);
    match bytes {
        Bytes::Good(version) => (titled(version).xml(), Some(titled(version).json())),
        Bytes::Broken(version) => (titled(version).truncated_xml(), None),
    }
}

/// Replaces a large file as soon as it is converted; the version that stays.
async fn keep_a_slow_file_in_flight(world: &World, done: &AtomicBool) -> ProductFile {
    let mut version = 1;
    loop {
        let file = ProductFile::new("slow", version).records(SLOW_RECORDS);
        let etag = world.put(SLOW_KEY, file.xml()).await;
        let event = world.announce(SLOW_KEY, Some(etag.as_str())).await;
        if done.load(Ordering::Relaxed) {
            return file;
        }
        world.wait_for_result(event, SLOW_TIMEOUT).await;
        version += 1;
    }
}

// Faults

async fn start_workers(world: &World) -> Vec<Worker> {
    let mut workers: Vec<_> = (0..WORKERS).map(|slot| start_worker(world, slot)).collect();
    for worker in &mut workers {
        worker.ready(READY_TIMEOUT).await;
    }
    workers
}

fn start_worker(world: &World, slot: usize) -> Worker {
    world.worker(WorkerOptions::default().state_dir(state_dir(slot)))
}

fn state_dir(slot: usize) -> String {
    format!("state-{slot}")
}

async fn kill_workers(world: &World, plan: &Plan, workers: &mut [Worker]) {
    let mut random = Random(plan.seed.wrapping_add(1));
    for _ in 0..plan.kills {
        sleep(plan.interval).await;
        let slot = random.below(WORKERS as u64) as usize;
        assert!(workers[slot].is_running(), "worker {slot} ended by itself");
        workers[slot].kill();
        if random.below(4) == 0 {
            empty_state(world, slot);
        }
        workers[slot] = start_worker(world, slot);
    }
}

/// A worker that was killed early may not have made its folder yet.
fn empty_state(world: &World, slot: usize) {
    let folder = world.folder().join(state_dir(slot));
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("the folder of a dead worker can be removed");
    }
}

/// How often commits carried offsets finished ahead of the slow file.
async fn count_finished_ahead(world: &World, done: &AtomicBool) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let commits = world.commits().await.unwrap_or_default();
        count += usize::from(commits.iter().any(|c| c.metadata.len() > "fm1:".len()));
        sleep(SAMPLE_INTERVAL).await;
    }
    count
}

fn print_outcomes(world: &World) {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for result in world.results() {
        *outcomes.entry(result.outcome.name()).or_default() += 1;
    }
    println!("outcomes: {outcomes:?}");
}
