//! What is gone is forgotten, on the real servers: by the sweep after `state.retention`, and never by a worker whose folder has
//! missed a tombstone.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

#[path = "support/sweeper.rs"]
mod sweeper;

use std::fs;
use std::path::Path;
use std::time::Duration;

use convert_world::{
    Gate, PATIENCE, assert_converted, assert_healthy, assert_outcome, assert_output, convert,
    observe, open_letter, refuse, start, start_behind, state, stop,
};
use feedmill::config::Config;
use feedmill::convert;
use feedmill::convert::state::{Settled, fold};
use feedmill::kafka::reader::now_ms;
use feedmill::kafka::store::{LogIdentity, Store};
use feedmill::kafka::view::View;
use feedmill::topics::{Outcome, ResultRecord};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use support::checker::Topic;
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World, wait_until};
use sweeper::{config_of, sweeper};

const KEY: &str = "products/a.xml";

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// The world's settings with a sweep that takes every object at once and forgets what was settled this long ago.
fn forgetting(world: &World, retention: Duration) -> Config {
    let mut config = config_of(world);
    config.sweep.min_age = Duration::ZERO;
    config.state.retention = Some(retention);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_of_what_is_gone_is_forgotten_and_what_comes_back_is_converted_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("forget").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (broken, kept) = ("products/broken.xml", "products/kept.xml");
    let (etag, before) = convert(&world, KEY, &version(1)).await;
    convert(&world, kept, &version(1)).await;
    refuse(&world, broken, version(1).truncated_xml(), "malformed_xml").await;
    world.delete(KEY).await;
    world.delete(broken).await;
    let sweeper = sweeper(&world, "sweeper").await;
    let later = forgetting(&world, Duration::from_secs(3600));
    let now = forgetting(&world, Duration::from_millis(1));

    assert!(sweeper.sweep(&later).await.unwrap());
    assert_eq!(world.lag().await, Some(0), "all states are young");
    for _ in 0..2 {
        assert!(sweeper.sweep(&now).await.unwrap());
    }
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let forgotten = sweeper.metrics.announced.with_label_values(&["gone"]);
    assert_eq!(forgotten.get(), 2, "each was announced once");
    let missing = results(&world, Outcome::Missing);
    assert_eq!(missing.len(), 2);
    for result in missing {
        let waited = result.finished_at.0 - result.received_at.0;
        assert!(waited >= 5_000, "missing after {waited} ms");
    }
    let dump = world.dump().await;
    for key in [KEY, broken] {
        assert_eq!(state(&world, &dump, key), None, "{key} is forgotten");
        assert_eq!(open_letter(&world, &dump, key), None, "{key} has no letter");
    }
    assert!(state(&world, &dump, kept).is_some());
    assert_output(&world, KEY, &version(1)).await;

    assert_eq!(world.put(KEY, version(1).xml()).await, etag);
    assert!(sweeper.sweep(&now).await.unwrap());
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let again = results(&world, Outcome::Converted);
    let again = again
        .iter()
        .find(|r| r.key == KEY && r.generation > before.generation);
    assert_converted(again.expect("what is forgotten is new"), &etag);
    let json = Some(version(1).json());
    assert_healthy(&world, &[(KEY, json.clone()), (kept, json)]).await;
}

fn results(world: &World, outcome: Outcome) -> Vec<ResultRecord> {
    let mut results = world.results();
    results.retain(|result| result.outcome == outcome);
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_while_convert_looks_for_it_is_not_forgotten() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("back").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let (same, other) = (KEY, "products/b.xml");
    let (etag, settled) = convert(&world, same, &version(1)).await;
    convert(&world, other, &version(1)).await;
    let comes_back = async |key: &'static str, bytes: ProductFile| {
        world.delete(key).await;
        let looks = gate.requests(key).len();
        let announced = world.announce(key, None).await;
        wait_until("a look for what is gone", PATIENCE, async || {
            (gate.requests(key).len() >= looks + 2).then_some(())
        })
        .await;
        let etag = world.put(key, bytes.xml()).await;
        let told = observe(&world, key, Some(&etag)).await;
        (world.wait_for_result(announced, PATIENCE).await, told, etag)
    };
    let (first, second) = tokio::join!(comes_back(same, version(1)), comes_back(other, version(2)));
    let (looked, told, _) = first;
    assert_outcome(&looked, Outcome::Duplicate);
    assert_outcome(&told, Outcome::Duplicate);
    assert_eq!(looked.generation, settled.generation, "{looked:#?}");
    assert_eq!(looked.settled_etag, Some(etag));
    let (looked, told, replaced) = second;
    assert_converted(&looked, &replaced);
    assert_outcome(&told, Outcome::Duplicate);
    assert_healthy(
        &world,
        &[
            (same, Some(version(1).json())),
            (other, Some(version(2).json())),
        ],
    )
    .await;
}

// Folders and tombstones

/// `objects` keeps tombstones for two weeks and a folder is trusted for one. Here the tombstones go at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_too_old_to_have_seen_every_tombstone_is_restored_from_the_topic() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("tombstone").partitions(1).create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let (etag, _) = convert(&world, KEY, &version(1)).await;
    stop(worker).await;
    for folder in ["young", "trusted", "old"] {
        copy_folder(&world.folder().join("state"), &world.folder().join(folder));
    }
    let worker = start(&world, WorkerOptions::default().state_dir("another")).await;
    world.delete(KEY).await;
    assert_outcome(&observe(&world, KEY, None).await, Outcome::Missing);
    stop(worker).await;

    // As long as the tombstone is there, a folder that is behind reads it.
    let log = log_of_objects(&world).await;
    assert!(settled(&world, "young").is_some());
    let worker = start(&world, WorkerOptions::default().state_dir("young")).await;
    stop(worker).await;
    assert_eq!(settled(&world, "young"), None, "it has read the tombstone");

    alter(&world, "delete.retention.ms", "1").await;
    compact_away(&world).await;
    alter(&world, "delete.retention.ms", "1209600000").await;
    age(&world.folder().join("trusted"), &log, 6);
    age(&world.folder().join("old"), &log, 8);
    assert_eq!(world.put(KEY, version(1).xml()).await, etag);

    // This is what the limit is for: six days old and without the tombstone, a folder would be wrong.
    let comes_back = async |folder: &str| {
        let worker = start(&world, WorkerOptions::default().state_dir(folder)).await;
        let result = observe(&world, KEY, Some(&etag)).await;
        stop(worker).await;
        result
    };
    assert_outcome(&comes_back("trusted").await, Outcome::Duplicate);
    assert_converted(&comes_back("old").await, &etag);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn store(folder: &Path) -> Store {
    let store = format!("slot-0/{}.store", convert::STAGE);
    Store::open(&folder.join(store)).unwrap()
}

/// What a folder that no worker uses knows of the object.
fn settled(world: &World, folder: &str) -> Option<Settled> {
    let key = format!("{}/{KEY}", world.origin.input_bucket);
    let store = store(&world.folder().join(folder));
    let bytes = store.get(0, key.as_bytes()).unwrap()?;
    Some(Settled::read(&bytes, KEY).unwrap())
}

/// Makes a folder look as if it was last written so many days ago.
fn age(folder: &Path, log: &LogIdentity, days: i64) {
    let store = store(folder);
    let next_offset = store.resume(0, log, 0, i64::MAX, now_ms()).unwrap();
    assert!(next_offset > 0, "the folder has a copy of this log");
    let written = now_ms() - days * 24 * 3600 * 1000;
    store.apply(0, log, [], next_offset, written).unwrap();
}

async fn log_of_objects(world: &World) -> LogIdentity {
    let (kafka, topic) = (config_of(world).kafka, world.topic(Topic::Objects));
    let folder = world.folder().join("view");
    let look = move || {
        let view = View::open(&kafka, "observer", &topic, &folder, fold).unwrap();
        view.log_of(&kafka, &topic).unwrap()
    };
    tokio::task::spawn_blocking(look).await.unwrap()
}

/// Sets one setting of `objects`, and the haste with which it is compacted.
async fn alter(world: &World, name: &str, value: &str) {
    let admin: AdminClient<DefaultClientContext> = client(world).create().unwrap();
    let topic = world.topic(Topic::Objects);
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("cleanup.policy", "compact")
        .set("segment.ms", "100")
        .set("min.cleanable.dirty.ratio", "0.01")
        .set(name, value);
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answers = admin.alter_configs([&altered], &options).await;
    for answer in answers.expect("the broker answers") {
        answer.expect("the broker alters it");
    }
}

fn client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.origin.brokers);
    config
}

/// Fills segments with tombstones of nothing until nothing is left of the object, not even its own.
async fn compact_away(world: &World) {
    let producer: BaseProducer = client(world).create().unwrap();
    let topic = world.topic(Topic::Objects);
    let key = format!("{}/{KEY}", world.origin.input_bucket);
    wait_until("a compaction", 2 * PATIENCE, async || {
        let record = BaseRecord::<str, [u8]>::to(&topic).partition(0);
        producer.send(record.key("nothing")).ok()?;
        producer.flush(PATIENCE).unwrap();
        let dump = world.dump().await;
        let mut objects = dump.records.iter().filter(|r| r.topic == Topic::Objects);
        (!objects.any(|record| record.key == key)).then_some(())
    })
    .await;
}
