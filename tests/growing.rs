//! More partitions: the road of `docs/growing.md`, walked with the real commands while files are dropped.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convert_world::{Gate, PATIENCE, convert, mirrored, refuse, start, stop, through};
use feedmill::topics::Outcome;
use serde_json::{Value, json};
use support::checker::{Content, Expectations, Topic};
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

/// Keys that files are dropped at, again and again.
const KEYS: u32 = 40;

const STILL: &str = "products/still.xml";
const TAKEN: &str = "products/taken.xml";
const STRAY: &str = "products/stray.xml";
const BROKEN: &str = "products/broken.xml";

fn file(version: u32) -> ProductFile {
    ProductFile::new("a", version)
}

fn stages(names: &str) -> WorkerOptions {
    WorkerOptions::default().args(&["--stages", names])
}

/// Partners who drop files, and an S3 server that tells of each once, wherever the notifications go at that moment. Nobody
/// repeats one that gets lost.
struct Traffic {
    shared: Arc<Shared>,
    dropping: tokio::task::JoinHandle<BTreeMap<String, u32>>,
}

struct Shared {
    webhook: Mutex<String>,
    dropped: AtomicUsize,
    is_over: AtomicBool,
}

impl Traffic {
    fn begin(world: Arc<World>, webhook: String) -> Self {
        let shared = Arc::new(Shared {
            webhook: Mutex::new(webhook),
            dropped: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let dropping = tokio::spawn(drop_files(world, Arc::clone(&shared)));
        Self { shared, dropping }
    }

    /// What a load balancer does.
    fn goes_to(&self, webhook: String) {
        *self.shared.webhook.lock().unwrap() = webhook;
    }

    /// Waits until so many more files were dropped.
    async fn flows(&self, count: usize) {
        let dropped = || self.shared.dropped.load(Ordering::SeqCst);
        let goal = dropped() + count;
        wait_until("files", PATIENCE, async || {
            (dropped() >= goal).then_some(())
        })
        .await;
    }

    /// The last version of each key.
    async fn end(self) -> BTreeMap<String, u32> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.dropping.await.expect("dropping goes on")
    }
}

async fn drop_files(world: Arc<World>, shared: Arc<Shared>) -> BTreeMap<String, u32> {
    let http = reqwest::Client::new();
    let mut versions = BTreeMap::new();
    let mut number = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        number += 1;
        let key = format!("products/{:02}.xml", number % KEYS);
        world.put(&key, file(number).xml()).await;
        let object = json!({"bucket": {"name": world.origin.input_bucket}, "object": {"key": key}});
        let notification = json!({"Records": [{"s3": object}]});
        let url = shared.webhook.lock().unwrap().clone();
        // Nobody listens for a moment: it is lost.
        let _ = http.post(url).body(notification.to_string()).send().await;
        versions.insert(key, number);
        shared.dropped.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    versions
}

/// The standard output of a command that does what it is told.
async fn said(world: &World, args: &[&str]) -> String {
    let done = world.run_cli(args).await;
    assert_eq!(done.code(), Some(0), "{args:?}: {done:#?}");
    done.stdout
}

async fn converted(world: &World, key: &str) {
    wait_until(&format!("{key} is converted"), PATIENCE, async || {
        let results = world.results();
        let mut of_key = results.iter().filter(|result| result.key == key);
        of_key
            .any(|result| result.outcome == Outcome::Converted)
            .then_some(())
    })
    .await;
}

/// The keys that have a state.
fn settled_keys(dump: &support::checker::Dump) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for record in dump.records.iter().filter(|r| r.topic == Topic::Objects) {
        match record.content {
            Content::Tombstone => keys.remove(&record.key),
            _ => keys.insert(record.key.clone()),
        };
    }
    keys
}

async fn intake(world: &World) -> (Worker, String) {
    let mut worker = start(world, stages("intake")).await;
    let url = worker.webhook_url().await;
    (worker, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_prefix_with_more_partitions_takes_over_under_live_traffic_and_nothing_is_lost() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let old = Arc::new(stack.world("small").partitions(2).create().await);
    let (old_intake, webhook) = intake(&old).await;
    let old_rest = start(&old, stages("convert,retry")).await;
    for key in [STILL, TAKEN, STRAY] {
        convert(&old, key, &file(1)).await;
    }
    refuse(&old, BROKEN, file(1).truncated_xml(), "malformed_xml").await;
    let traffic = Traffic::begin(Arc::clone(&old), webhook);
    traffic.flows(60).await;
    // A consumer took this one; a stranger wrote over the other, and no sweep of the old prefix mends it.
    old.delete_output(&mirrored(TAKEN)).await;
    old.put_output(&mirrored(STRAY), "[]").await;

    // 1. The new topics. The state folder stays where it is.
    let state = format!("[state]\ndir = {:?}", old.folder().join("state"));
    let new = stack.world("grown").partitions(6).settings(&state);
    let new = new.in_place_of(&old).create().await;
    // 2. Intake first: from here on, what is dropped is announced in the new prefix.
    let (new_intake, webhook) = intake(&new).await;
    traffic.goes_to(webhook);
    stop(old_intake).await;
    traffic.flows(20).await;
    // 3. What was announced in the old prefix is worked off; then its workers stop.
    assert!(
        old.settles_within(PATIENCE).await,
        "the old prefix is drained"
    );
    stop(old_rest).await;
    // 4. The new ones start, in the same state folder.
    let gate = Gate::before(&stack.s3_endpoint).await;
    let rest = through(&gate, stages("convert,retry"));
    let new_rest = start(&new, rest).await;
    traffic.flows(20).await;
    // 5. And everything that lies there is announced.
    let place = format!("s3://{}/products/", new.origin.input_bucket);
    let announced = said(&new, &["backfill", &place, "--yes", "--json"]).await;
    let announced: Value = serde_json::from_str(&announced).unwrap();
    assert_eq!(announced["listed"], KEYS + 4, "{announced}");
    traffic.flows(60).await;
    let versions = traffic.end().await;
    assert!(new.settles_within(PATIENCE).await, "events are left");

    // What stood there already was read and converted again, and not written again: one PUT is refused, a HEAD tells why.
    converted(&new, STILL).await;
    assert_eq!(gate.methods(&mirrored(STILL)), ["PUT", "HEAD"]);
    // What was taken away is there again; what a stranger wrote is left alone, and says so.
    assert!(new.get_output(&mirrored(TAKEN)).await.is_some());
    let letters = said(&new, &["dead-letters", "list", "--json"]).await;
    let letters: Vec<Value> = letters
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let reasons: BTreeMap<_, _> = letters
        .iter()
        .map(|letter| {
            (
                letter["key"].as_str().unwrap(),
                letter["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [(STRAY, "output_collision"), (BROKEN, "malformed_xml")];
    assert_eq!(reasons, expected.into());
    new.delete_output(&mirrored(STRAY)).await;
    said(
        &new,
        &["dead-letters", "replay", "--reason", "output_collision"],
    )
    .await;
    converted(&new, STRAY).await;
    assert!(new.settles_within(PATIENCE).await, "events are left");

    // Each object has the output of its last version, and one state in the new prefix.
    let mut sources: BTreeMap<String, Option<Value>> = versions
        .into_iter()
        .map(|(key, version)| (key, Some(file(version).json())))
        .collect();
    sources.extend([STILL, TAKEN, STRAY].map(|key| (key.to_owned(), Some(file(1).json()))));
    sources.insert(BROKEN.to_owned(), None);
    let bucket = &new.origin.input_bucket;
    let keys = sources
        .keys()
        .map(|key| format!("{bucket}/{key}"))
        .collect();
    assert_eq!(settled_keys(&new.dump().await), keys);
    let expected = Expectations {
        sources,
        ..Expectations::default()
    };
    new.assert_healthy(&expected).await;

    // The old prefix can still be read.
    let results = said(&old, &["results", "--json"]).await;
    assert!(results.lines().count() > 60, "{results}");
    let letters = said(&old, &["dead-letters", "list"]).await;
    assert!(letters.contains("malformed_xml"), "{letters}");

    // And the road back: the old workers go on where they were, and a backfill tells them of what they missed.
    stop(new_intake).await;
    stop(new_rest).await;
    let _all = start(&old, WorkerOptions::default()).await;
    said(&old, &["backfill", &place, "--yes"]).await;
    assert!(old.settles_within(PATIENCE).await, "events are left");
    old.assert_healthy(&expected).await;
}
