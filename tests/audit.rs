//! The audit on the real servers: it finds each planted fault and nothing else, also under live traffic, and its repairs
//! mend what they say they do.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use convert_world::{
    Fault, Gate, PATIENCE, ask, assert_output, convert, crash_after_output, mirrored, observe,
    only_output, refuse, start, start_behind, stop,
};
use feedmill::object::ObjectRef;
use feedmill::topics::{Intent, Millis, ObjectState, Outcome, Output, Status, encode};
use futures::{StreamExt, stream};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use support::checker::{Topic, murmur2};
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World, wait_until};

const CLEAN: i32 = 0;
const OFF: i32 = 4;

/// Nothing is too young to be missing.
const AT_ONCE: &str = "[sweep]\nenabled = false\nmin_age = \"0s\"\n";

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// What an audit said.
struct Audited {
    code: Option<i32>,
    lines: Vec<Value>,
}

impl Audited {
    /// The findings, as `kind key`, in their order.
    fn found(&self) -> Vec<String> {
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let found = self.lines.iter().filter(|line| line["type"] == "finding");
        found
            .map(|line| format!("{} {}", text(line, "finding"), text(line, "key")))
            .collect()
    }

    fn finding(&self, key: &str) -> &Value {
        let is_it = |line: &&Value| line["type"] == "finding" && line["key"] == key;
        let found = self.lines.iter().find(is_it);
        found.unwrap_or_else(|| panic!("{key}: {:#?}", self.lines))
    }

    /// What was done, by key.
    fn repairs(&self) -> BTreeMap<String, String> {
        let repairs = self.lines.iter().filter(|line| line["type"] == "repair");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        repairs
            .map(|line| (text(&line["key"]), text(&line["did"])))
            .collect()
    }

    fn summary(&self) -> &Value {
        let last = self.lines.last().expect("a summary");
        assert_eq!(last["type"], "summary");
        last
    }

    #[track_caller]
    fn expect(self, code: i32, found: &[&str]) -> Self {
        assert_eq!(self.found(), found, "{:#?}", self.lines);
        assert_eq!(self.code, Some(code));
        self
    }
}

async fn audit(world: &World, more: &[&str]) -> Audited {
    let prefix = format!("s3://{}/products/", world.origin.input_bucket);
    let args = [&["audit", prefix.as_str()], more].concat();
    let ended = world.run_cli(&args).await;
    let read = |line: &str| serde_json::from_str(line).expect("JSON");
    assert!(!ended.stdout.is_empty(), "{ended:#?}");
    Audited {
        code: ended.code(),
        lines: ended.stdout.lines().map(read).collect(),
    }
}

async fn convert_all(world: &World, keys: &[&str]) {
    stream::iter(keys)
        .for_each_concurrent(8, |key| async {
            convert(world, key, &version(1)).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_is_found_and_mended_and_nothing_else() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("audit").settings(AT_ONCE).create().await;
    let key = |name: &str| format!("products/{name}.xml");
    let [fine, stale, absent, altered, gone, forgotten] =
        ["fine", "stale", "absent", "altered", "gone", "forgotten"].map(key);
    let worker = start(&world, WorkerOptions::default()).await;
    convert_all(
        &world,
        &[&fine, &stale, &absent, &altered, &gone, &forgotten],
    )
    .await;
    let letter = refuse(
        &world,
        &key("refused"),
        version(1).truncated_xml(),
        "malformed_xml",
    )
    .await;
    let given_up = refuse(
        &world,
        &key("discarded"),
        version(1).truncated_xml(),
        "malformed_xml",
    )
    .await;
    ask(&world, &key("discarded"), Intent::Discard, &given_up).await;
    world.delete(&forgotten).await;
    let missing = observe(&world, &forgotten, None).await;
    assert_eq!(missing.outcome, Outcome::Missing);
    stop(worker).await;

    // An output of an event that came to nothing: its worker died, and its source is gone.
    let orphan = key("orphan");
    world.put(&orphan, version(1).xml()).await;
    world.announce(&orphan, None).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    world.delete(&orphan).await;
    let worker = start(&world, WorkerOptions::default()).await;
    assert!(world.settles_within(PATIENCE).await);
    stop(worker).await;

    world.put(&key("missing"), version(1).xml()).await;
    world.put(&stale, version(2).xml()).await;
    world.delete_output(&mirrored(&absent)).await;
    world.put_output(&mirrored(&altered), "altered").await;
    world.delete(&gone).await;
    let pending = world.put(&key("pending"), version(1).xml()).await;
    let pending = world
        .announce(&key("pending"), Some(pending.as_str()))
        .await;
    // What is no matter of the audit.
    world
        .put_output(&mirrored(&key("stranger")), "not ours")
        .await;
    world.put("products/upload.tmp", "no feed takes it").await;
    world.put("elsewhere/a.xml", "nor this").await;

    let first = audit(&world, &[]).await.expect(
        OFF,
        &[
            "missing products/missing.xml",
            "stale products/stale.xml",
            "output_absent products/absent.xml",
            "output_altered products/altered.xml",
            "orphaned_output products/orphan.xml.json",
            "dead_lettered products/refused.xml",
            "pending products/pending.xml",
        ],
    );
    assert_eq!(
        first.finding(&key("refused"))["dead_letter_id"],
        letter.as_str()
    );
    let summary = first.summary();
    for (name, count) in [
        ("listed", 8),
        ("converted", 1),
        ("discarded", 1),
        ("not_taken", 1),
        ("states_without_source", 1),
        ("outputs_kept", 1),
    ] {
        assert_eq!(summary[name], count, "{name}: {summary:#}");
    }

    // A repair that is run again, before anything is converted, finds its own events under way.
    let repaired = audit(&world, &["--repair"]).await;
    assert_eq!(repaired.code, Some(OFF));
    let did = repaired.repairs();
    assert_eq!(did[&key("missing")], "announced");
    assert_eq!(did[&key("absent")], "asked to be converted again");
    assert!(did[&key("refused")].contains(&format!("dead-letters replay {letter}")));
    assert!(!did.contains_key(&key("pending")));
    let again = audit(&world, &["--repair"]).await;
    assert_eq!(again.repairs().len(), 2, "{:#?}", again.lines);
    let found = again.found();
    let found = found.iter().filter(|found| found.starts_with("pending"));
    assert_eq!(found.count(), 5);

    let worker = start(&world, WorkerOptions::default()).await;
    world.wait_for_result(pending, PATIENCE).await;
    assert!(world.settles_within(PATIENCE).await);
    stop(worker).await;
    assert_output(&world, &stale, &version(2)).await;
    assert_output(&world, &absent, &version(1)).await;
    assert_output(&world, &altered, &version(1)).await;
    world.delete_output(&mirrored(&orphan)).await;
    let left = ["dead_lettered products/refused.xml"];
    audit(&world, &["--deep"]).await.expect(CLEAN, &left);
    audit(&world, &["--strict"]).await.expect(OFF, &left);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_retry_topic_is_pending_with_its_attempts() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!(
        "{AT_ONCE}[s3]\nmax_attempts = 1\n[retry]\nin_place = \"300ms\"\ntiers = [\"1h\"]\n"
    );
    let world = stack.world("audit-wait").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    gate.fail("products/", Fault::Status(503, "SlowDown"));
    let worker = start_behind(&world, &gate).await;
    let etag = world.put("products/a.xml", version(1).xml()).await;
    world.announce("products/a.xml", Some(etag.as_str())).await;
    wait_until("the event to wait", PATIENCE, async || {
        (world.lag().await? == 0 && world.waiting().await? > 0).then_some(())
    })
    .await;
    stop(worker).await;
    let audited = audit(&world, &[]).await;
    let audited = audited.expect(CLEAN, &["pending products/a.xml"]);
    let what = audited.finding("products/a.xml")["what"].to_string();
    for told in ["1h", "s3_unavailable", "attempts that failed: 1"] {
        assert!(what.contains(told), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_earlier_versions_are_kept_and_those_of_lost_attempts_are_orphans() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("{AT_ONCE}[output]\nlayout = \"versioned\"\n");
    let world = stack.world("audit-vers").settings(&settings).create().await;
    let (fine, absent, lost) = ("products/a.xml", "products/b.xml", "products/c.xml");
    let worker = start(&world, WorkerOptions::default()).await;
    convert(&world, fine, &version(1)).await;
    convert(&world, fine, &version(2)).await;
    let (_, of_absent) = convert(&world, absent, &version(1)).await;
    stop(worker).await;
    // Written from a version that was replaced before its worker came back.
    world.put(lost, version(1).xml()).await;
    world.announce(lost, None).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    world.put(lost, version(2).xml()).await;
    let worker = start(&world, WorkerOptions::default()).await;
    assert!(world.settles_within(PATIENCE).await);
    world.delete_output(&only_output(&of_absent).key).await;

    let audited = audit(&world, &["--repair"]).await;
    let found = audited.found();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], format!("output_absent {absent}"));
    assert!(
        found[1].starts_with(&format!("orphaned_output {lost}.json/")),
        "{found:?}"
    );
    assert_eq!(audited.summary()["outputs_kept"], 1);
    assert!(world.settles_within(PATIENCE).await);
    let orphan = found[1].split_once(' ').expect("a key").1;
    world.delete_output(orphan).await;
    audit(&world, &["--deep"]).await.expect(CLEAN, &[]);
    stop(worker).await;
}

/// Writes a state as if it had been settled with these bytes.
async fn write_state(world: &World, key: &str, etag: &str, output: Output) {
    let object = ObjectRef::try_new(&world.origin.input_bucket, key).expect("a key");
    let state = ObjectState {
        bucket: object.bucket().into(),
        key: key.into(),
        etag: feedmill::object::ETag::parse(etag),
        version_id: None,
        status: Some(Status::Converted),
        outputs: vec![output],
        feed: None,
        mapping_hash: None,
        dead_letter_id: None,
        last_request_id: None,
        generation: 7,
        settled_at: Millis::now(),
    };
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &world.origin.brokers);
    let producer: FutureProducer = settings.create().expect("a producer");
    let (topic, key, bytes) = (
        world.topic(Topic::Objects),
        object.message_key(),
        encode(&state),
    );
    let record = FutureRecord::to(&topic)
        .partition(murmur2::partition_of(&key, world.partitions))
        .key(&key)
        .payload(&bytes);
    let sent = producer.send(record, PATIENCE).await;
    sent.map_err(|(error, _)| error).expect("it is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_under_the_same_etag_are_found_by_a_deep_audit_and_made_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("audit-deep").settings(AT_ONCE).create().await;
    let key = "products/a.xml";
    let worker = start(&world, WorkerOptions::default()).await;
    let (etag, result) = convert(&world, key, &version(1)).await;
    stop(worker).await;
    let recorded = Output {
        sha256: "0".repeat(64),
        ..only_output(&result).clone()
    };
    write_state(&world, key, etag.as_str(), recorded.clone()).await;
    audit(&world, &[]).await.expect(CLEAN, &[]);
    let deep = audit(&world, &["--deep", "--repair"]).await;
    let deep = deep.expect(OFF, &[&format!("output_altered {key}")]);
    let what = deep.finding(key)["what"].to_string();
    for sha256 in [&recorded.sha256, &only_output(&result).sha256] {
        assert!(what.contains(sha256.as_str()), "{what}");
    }
    let worker = start(&world, WorkerOptions::default()).await;
    assert!(world.settles_within(PATIENCE).await);
    stop(worker).await;
    audit(&world, &["--deep"]).await.expect(CLEAN, &[]);
}

/// Objects that are written at the same time, and how many there are of each.
const LANES: u32 = 8;
const OBJECTS: u32 = 10;

/// Overwrites objects, and uploads and deletes others, for as long as it lives. Each write is announced at once, and each next
/// one of a lane waits for its result: an object is settled most of the time, and changes every second or two.
async fn traffic(world: &World) {
    let lane = |lane| async move {
        for round in 0u32.. {
            let key = format!("products/live-{lane}-{}.xml", round % OBJECTS);
            overwrite(world, &key, round).await;
            if round % 4 == 0 {
                let once = format!("products/once-{lane}-{round}.xml");
                overwrite(world, &once, round).await;
                world.delete(&once).await;
                world.announce(&once, None).await;
            }
        }
    };
    stream::iter(0..LANES).for_each_concurrent(None, lane).await;
}

async fn overwrite(world: &World, key: &str, round: u32) {
    let etag = world.put(key, version(round).xml()).await;
    let event = world.announce(key, Some(etag.as_str())).await;
    world.wait_for_result(event, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_traffic_makes_no_finding_beside_the_planted_ones() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    // A write and its announcement are not further apart.
    let settings = AT_ONCE.replace("0s", "1s");
    let world = stack.world("audit-live").settings(&settings).create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let absent = "products/absent.xml";
    convert_all(&world, &["products/fine.xml", absent]).await;
    world.delete_output(&mirrored(absent)).await;
    world.put("products/missing.xml", version(1).xml()).await;
    let began = Instant::now();
    let audits = async {
        let mut pending = 0;
        for round in 0.. {
            let audited = audit(&world, &[]).await;
            let found = audited.found();
            let mut off: Vec<&str> = found.iter().map(String::as_str).collect();
            off.retain(|found| !found.starts_with("pending"));
            pending += found.len() - off.len();
            // At first it is young.
            if off != [format!("output_absent {absent}")] {
                let planted = [
                    "missing products/missing.xml",
                    "output_absent products/absent.xml",
                ];
                assert_eq!(off, planted, "{:#?}", audited.lines);
                if round >= 3 && began.elapsed() > Duration::from_secs(8) {
                    break;
                }
            }
        }
        pending
    };
    let pending = tokio::select! {
        pending = audits => pending,
        () = traffic(&world) => unreachable!("it has no end"),
    };
    println!(
        "{pending} pending on the way, {} results",
        world.results().len()
    );
    assert!(world.settles_within(PATIENCE).await);
}

/// Puts and announces so many objects, and waits until they are converted.
async fn fill(world: &World, count: usize, patience: Duration) {
    stream::iter(0..count)
        .for_each_concurrent(32, |number| async move {
            let key = format!("products/{:03}/{number:06}.xml", number % 100);
            let file = ProductFile::new(format!("p{number}"), 1).records(1);
            let etag = world.put(&key, file.xml()).await;
            world.announce(&key, Some(etag.as_str())).await;
        })
        .await;
    assert!(world.settles_within(patience).await, "not converted");
}

async fn many(name: &str, count: usize, patience: Duration) {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world(name).settings(AT_ONCE).create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    fill(&world, count, patience).await;
    stop(worker).await;
    let (gone, missing) = ("products/007/000007.xml", "products/008/zzz.xml");
    world.delete_output(&mirrored(gone)).await;
    world.put(missing, version(1).xml()).await;
    let began = Instant::now();
    let audited = audit(&world, &[]).await.expect(
        OFF,
        &[
            &format!("missing {missing}"),
            &format!("output_absent {gone}"),
        ],
    );
    println!("{count} objects audited in {:?}", began.elapsed());
    assert_eq!(audited.summary()["converted"], count - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_objects_over_many_pages_are_all_accounted_for() {
    many("audit-2k", 2_000, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "filling the buckets takes minutes; run by hand, its figures are in docs/audit.md"]
async fn fifty_thousand_objects_are_all_accounted_for() {
    many("audit-50k", 50_000, Duration::from_secs(1_800)).await;
}
