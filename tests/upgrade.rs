//! What earlier releases left is read by this one: the values on the topics, committed offsets, state folders; and a build
//! says which forms it reads and writes.

mod support;

#[path = "support/binary.rs"]
mod binary;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

#[path = "support/release.rs"]
mod release;

use std::collections::BTreeSet;
use std::path::Path;

use binary::{feedmill, run};
use convert_world::{PATIENCE, assert_healthy, convert, refuse, start, stop};
use feedmill::config;
use feedmill::convert::state::{Settled, fold};
use feedmill::kafka::progress::{self, Progress};
use feedmill::kafka::reader::now_ms;
use feedmill::kafka::store::{self, Store};
use feedmill::kafka::view::View;
use feedmill::kafka::{StateFolder, partitioner::partition_of};
use feedmill::topics::{Millis, ObjectEvent, ObjectState, Outcome, decode, encode};
use release::{Committed, Release, State, read};
use serde_json::Value;
use support::checker::{Content, Topic};
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

/// Where local copies of `objects` lie in a slot.
const COPIES: [&str; 2] = ["convert.store", "sweep.store/objects"];

fn product(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

// What a build says

#[test]
fn a_build_says_what_it_is_and_which_forms_it_reads_and_writes() {
    let folder = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let ended = run(&mut feedmill(folder.path(), args)).expect_code(0);
        ended.stdout
    };
    let line = said(&["--version"]);
    assert_eq!(line, said(&["-V"]));
    let version = concat!("feedmill ", env!("CARGO_PKG_VERSION"), " (");
    assert!(
        line.starts_with(version) && line.lines().count() == 1,
        "{line}"
    );
    let build: Value = serde_json::from_str(&said(&["--version", "--json"])).unwrap();
    assert_eq!(build["offset_metadata_tag"], "fm1:");
    assert_eq!(build["profile"], "debug");
    for field in ["rustc", "target", "librdkafka"] {
        assert!(
            !["", "unknown"].contains(&build[field].as_str().unwrap()),
            "{field}"
        );
    }
    let features = build["features"].as_array().unwrap();
    assert!(features.contains(&"ssl".into()), "{features:?}");
    // A fingerprint is in the header of every value: eight bytes, least significant first.
    let event = encode(&ObjectEvent::observed(
        &feedmill::object::ObjectRef::try_new("b", "k").unwrap(),
        "test",
    ));
    let header: String = event[2..10]
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let schema = &build["schemas"][0];
    assert_eq!(
        (&schema["name"], &schema["fingerprint"]),
        (&"ObjectEvent".into(), &header.into())
    );
    let missing = run(&mut feedmill(folder.path(), &["--profile", "x"])).expect_code(2);
    missing.expect_said(&["a command is missing"]);
    run(&mut feedmill(folder.path(), &["--json"])).expect_code(2);
}

// What earlier releases left

/// Whether all that was there before is there as it was; what a later schema added has its default.
fn holds(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then
            .iter()
            .all(|(name, then)| now.get(name).is_some_and(|now| holds(now, then))),
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| holds(now, then))
        }
        _ => now == then,
    }
}

#[test]
fn values_of_every_topic_and_schema_version_are_read_as_they_were() {
    for release in Release::all() {
        let records = release.records();
        let names: BTreeSet<&str> = records.iter().map(|(name, ..)| name.as_str()).collect();
        assert!(names.len() >= 5, "{names:?}");
        for (name, bytes, then) in &records {
            let now = read(name, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(holds(&now, then), "{name}: {now:#}\nis not\n{then:#}");
        }
    }
}

#[test]
fn committed_offsets_tell_what_is_finished_above_them() {
    for release in Release::all() {
        for committed in release.json::<Vec<Committed>>("offsets.json") {
            let finished = progress::decode(committed.offset, &committed.metadata).unwrap();
            assert_eq!(finished, committed.finished.iter().copied().collect());
        }
    }
}

/// A store of the present format is read on from where it was; one of another format starts over, and is never misread.
#[test]
fn a_state_folder_is_taken_over_or_restored_from_the_topic() {
    for release in Release::all() {
        let folder = tempfile::tempdir().unwrap();
        release.unpack_state(folder.path());
        let kept: State = release.json("state.json");
        let slot = StateFolder::claim(folder.path()).unwrap();
        assert_eq!(
            slot.worker(),
            kept.worker,
            "the transactional id is the same"
        );
        let format = release.json::<Value>("build.json")["state_store_format"].clone();
        let is_read = format == store::FORMAT;
        for (copy, next_offsets) in &kept.next_offsets {
            let store = Store::open(&slot.path().join(copy)).unwrap();
            for (partition, next_offset) in (0..).zip(next_offsets) {
                let now = kept.written_at.0 + 1_000;
                let resumed = store.resume(partition, &kept.log, 0, *next_offset, now);
                let expected = if is_read { *next_offset } else { 0 };
                assert_eq!(resumed.unwrap(), expected, "{copy}");
            }
            for state in &kept.states {
                let read = stored(&store, state, next_offsets.len());
                let expected = is_read.then(|| settled(state));
                assert_eq!(read, expected, "{copy}: {}", state.key);
            }
        }
    }
}

fn stored(store: &Store, state: &ObjectState, partitions: usize) -> Option<Settled> {
    let key = format!("{}/{}", state.bucket, state.key);
    let partition = partition_of(key.as_bytes(), partitions.try_into().unwrap());
    let bytes = store.get(partition, key.as_bytes()).unwrap()?;
    Some(Settled::read(&bytes, &state.key).unwrap())
}

fn settled(state: &ObjectState) -> Settled {
    let packed = fold(Some(&encode(state))).unwrap().unwrap();
    Settled::read(&packed, &state.key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_on_a_folder_that_was_left_and_takes_events_of_every_version() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    for release in Release::all() {
        let world = stack.world("upgraded").create().await;
        release.unpack_state(&world.folder().join("state"));
        let worker = start(&world, WorkerOptions::default()).await;
        let kept: State = release.json("state.json");
        assert!(worker.log().contains(&kept.worker), "{}", worker.log());
        let mut taken = 0;
        for (name, bytes, _) in release.records() {
            if name != "ObjectEvent" {
                continue;
            }
            let event: ObjectEvent = decode(&bytes).unwrap();
            let key = format!("{}/{}", event.bucket, event.key);
            let partition = partition_of(key.as_bytes(), world.partitions);
            world.announce_raw(partition, &key, &bytes).await;
            taken += 1;
            wait_until("all results", PATIENCE, async || {
                let results = world.results();
                let of_it = results.iter().filter(|result| result.event_id == event.id);
                (of_it.filter(|r| r.outcome == Outcome::Ignored).count() == taken).then_some(())
            })
            .await;
        }
        assert!(taken >= 2);
        convert(&world, "products/a.xml", &product(1)).await;
        stop(worker).await;
    }
}

// How the fixtures of a release are made

/// `FEEDMILL_TEST_RELEASE=v2 tests/run --test upgrade -- --ignored`, from the code of the release.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes tests/fixtures/upgrade/$FEEDMILL_TEST_RELEASE; run it once for each release"]
async fn the_fixtures_of_this_release_are_written() {
    let name =
        std::env::var("FEEDMILL_TEST_RELEASE").expect("FEEDMILL_TEST_RELEASE names the folder");
    let stack = Stack::from_env().expect("a state folder is made by a worker");
    let release = Release::named(&name);
    let build = run(&mut feedmill(Path::new("."), &["--version", "--json"])).expect_code(0);
    release.write_json(
        "build.json",
        &serde_json::from_str::<Value>(&build.stdout).unwrap(),
    );
    release.write_records();
    release.write_json("offsets.json", &offsets());

    let settings = "[sweep]\nenabled = true\ninterval = \"500ms\"\nmin_age = \"0s\"\n";
    let world = stack
        .world("release")
        .partitions(2)
        .settings(settings)
        .create()
        .await;
    let worker = start(&world, WorkerOptions::default()).await;
    for key in ["products/a.xml", "products/b.xml", "products/c.xml"] {
        convert(&world, key, &product(1)).await;
    }
    refuse(&world, "products/broken.xml", "<items>", "malformed_xml").await;
    sweep_ends(&worker).await;
    sweep_ends(&worker).await;
    stop(worker).await;
    release.pack_state(&world.folder().join("state"));
    release.write_json("state.json", &state_of(&world).await);
    let json = Some(product(1).json());
    let sources = ["products/a.xml", "products/b.xml", "products/c.xml"];
    let mut sources = sources.map(|key| (key, json.clone())).to_vec();
    sources.push(("products/broken.xml", None));
    assert_healthy(&world, &sources).await;
}

/// Waits for the end of the sweep that is under way.
async fn sweep_ends(worker: &Worker) {
    let ended = || worker.log().matches("\"sweep ended\"").count();
    let before = ended();
    wait_until("a sweep", PATIENCE, async || {
        (ended() > before).then_some(())
    })
    .await;
}

/// Commit points with nothing, little and much finished above them.
fn offsets() -> Vec<Committed> {
    let point = |finished: Vec<i64>| {
        let mut progress = Progress::resume(1_000, BTreeSet::new());
        for offset in 1_000..=*finished.last().unwrap_or(&1_000) {
            progress.deliver(offset);
        }
        let point = progress.commit_point(&finished.iter().copied().collect(), 1_000);
        Committed {
            offset: point.offset,
            metadata: point.metadata,
            finished,
        }
    };
    let many = (1_001..2_000).filter(|offset| offset % 7 == 0).collect();
    vec![point(vec![]), point(vec![1_001, 1_010]), point(many)]
}

async fn state_of(world: &World) -> State {
    let file = world.folder().join("feedmill.toml");
    let kafka = config::load(config::Sources::of_process(Some(file), None));
    let (kafka, topic) = (kafka.unwrap().config.kafka, world.topic(Topic::Objects));
    let scratch = world.folder().join("scratch");
    let look = move || {
        let view = View::open(&kafka, "observer", &topic, &scratch, fold).unwrap();
        view.log_of(&kafka, &topic).unwrap()
    };
    let log = tokio::task::spawn_blocking(look).await.unwrap();
    let dump = world.dump().await;
    let objects = dump
        .records
        .iter()
        .filter(|record| record.topic == Topic::Objects);
    let states = objects.map(|record| match &record.content {
        Content::Value(value) => serde_json::from_value(value.clone()).unwrap(),
        other => panic!("{other:?}"),
    });
    // After the folder was packed.
    let slot = StateFolder::claim(&world.folder().join("state")).unwrap();
    let next_offsets = COPIES.map(|copy| {
        let store = Store::open(&slot.path().join(copy)).unwrap();
        let next = |partition| store.resume(partition, &log, 0, i64::MAX, now_ms());
        let next_offsets = (0..world.partitions).map(|partition| next(partition).unwrap());
        (copy.to_owned(), next_offsets.collect())
    });
    State {
        worker: slot.worker(),
        next_offsets: next_offsets.into(),
        written_at: Millis::now(),
        states: states.collect(),
        log,
    }
}
