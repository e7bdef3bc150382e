//! The sweep on the real servers: what was never announced is converted, a stray write is mended, and a quiet bucket stays
//! quiet.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

#[path = "support/second_s3.rs"]
mod second_s3;

#[path = "support/sweeper.rs"]
mod sweeper;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use convert_world::{
    Gate, PATIENCE, assert_output, convert, mirrored, observe, refuse, start, through,
};
use feedmill::object::ETag;
use feedmill::topics::{Intent, Outcome, ResultRecord};
use futures::{StreamExt, stream};
use second_s3::{PUBLIC_BUCKET, SecondS3};
use serde_json::Value;
use support::checker::{Expectations, Topic};
use support::files::{PRODUCTS_FEED, ProductFile};
use support::{Stack, Worker, WorkerOptions, World, poll_until, wait_until};
use sweeper::{config_of, sweeper};

const KEY: &str = "products/a.xml";

/// Objects that are put at a time.
const PUTS: usize = 32;

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// Settings with a sweep of this interval that takes every object at once.
fn sweeping(interval: &str) -> String {
    format!("[sweep]\nenabled = true\ninterval = \"{interval}\"\nmin_age = \"0s\"\n")
}

async fn sweeping_world(stack: &Stack, name: &str, interval: &str) -> World {
    stack
        .world(name)
        .settings(&sweeping(interval))
        .create()
        .await
}

/// The fields of the worker's log lines with this message.
fn logged(worker: &Worker, message: &str) -> Vec<Value> {
    let log = worker.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .map(|mut line| match line.get_mut("fields") {
            Some(fields) => fields.take(),
            None => line,
        })
        .filter(|fields| fields["message"] == message)
        .collect()
}

/// Waits until so many sweeps that began after this call have ended.
async fn sweeps(worker: &Worker, count: usize) {
    let began = logged(worker, "sweep began").len();
    wait_until("sweeps", PATIENCE, async || {
        let ended = logged(worker, "sweep ended").len();
        (ended >= began + count).then_some(())
    })
    .await;
}

/// Waits until this version of an object is settled as converted.
async fn converted(world: &World, key: &str, etag: &ETag) -> ResultRecord {
    wait_until(&format!("{key} is converted"), PATIENCE, async || {
        let results = world.results();
        results.into_iter().find(|result| {
            result.key == key
                && result.outcome == Outcome::Converted
                && result.settled_etag.as_ref() == Some(etag)
        })
    })
    .await
}

/// Puts product files; what is expected of each.
async fn put_all(
    world: &World,
    files: impl IntoIterator<Item = (String, ProductFile)>,
) -> Vec<(String, Option<Value>)> {
    stream::iter(files)
        .map(|(key, file)| async move {
            world.put(&key, file.xml()).await;
            (key, Some(file.json()))
        })
        .buffer_unordered(PUTS)
        .collect()
        .await
}

fn numbered(count: usize) -> impl Iterator<Item = (String, ProductFile)> {
    (0..count).map(|n| {
        (
            format!("products/{n:05}.xml"),
            ProductFile::new(format!("p{n}"), 1).records(1),
        )
    })
}

/// Waits until so many objects are converted.
async fn all_converted(world: &World, count: usize, patience: Duration) {
    let done = poll_until(patience, async || {
        let results = world.results();
        let converted = results.iter().filter(|r| r.outcome == Outcome::Converted);
        let keys: std::collections::BTreeSet<_> = converted.map(|r| r.key.as_str()).collect();
        (keys.len() >= count).then_some(())
    });
    assert!(done.await.is_some(), "{:?}", outcomes(world));
}

fn outcomes(world: &World) -> BTreeMap<&'static str, usize> {
    let mut outcomes = BTreeMap::new();
    for result in world.results() {
        *outcomes.entry(result.outcome.name()).or_default() += 1;
    }
    outcomes
}

async fn events(world: &World) -> usize {
    let dump = world.dump().await;
    let events = dump.records.iter().filter(|r| r.topic == Topic::Events);
    events.count()
}

/// The world must be at rest: no event left, each source settled as expected.
async fn assert_healthy(world: &World, sources: impl IntoIterator<Item = (String, Option<Value>)>) {
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let expected = Expectations {
        sources: sources.into_iter().collect(),
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
}

fn only(key: &str, file: &ProductFile) -> [(String, Option<Value>); 1] {
    [(key.to_owned(), Some(file.json()))]
}

// What heals by itself

#[tokio::test(flavor = "multi_thread")]
async fn what_came_during_a_downtime_and_what_nobody_told_of_is_converted() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "downtime", "1s").await;
    let mut expected = put_all(&world, numbered(30)).await;
    let worker = start(&world, WorkerOptions::default()).await;
    all_converted(&world, 30, PATIENCE).await;

    let etag = world.put(KEY, version(1).xml()).await;
    let result = converted(&world, KEY, &etag).await;
    assert_eq!(result.intent, Intent::Observe);
    expected.extend(only(KEY, &version(1)));

    sweeps(&worker, 2).await;
    assert!(world.settles_within(PATIENCE).await);
    assert_eq!(events(&world).await, 31, "each was announced once");
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_to_earlier_bytes_whose_notification_was_lost_is_converted() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "sweep-aba", "1s").await;
    let worker = start(&world, WorkerOptions::default()).await;
    let (a, _) = convert(&world, KEY, &version(1)).await;
    let (_, of_b) = convert(&world, KEY, &version(2)).await;
    let again = world.put(KEY, version(1).xml()).await;
    assert_eq!(again, a);
    wait_until("A is settled again", PATIENCE, async || {
        let results = world.results();
        results.into_iter().find(|result| {
            result.settled_etag.as_ref() == Some(&a)
                && result.outcome == Outcome::Converted
                && result.generation > of_b.generation
        })
    })
    .await;
    assert_output(&world, KEY, &version(1)).await;
    sweeps(&worker, 2).await;
    assert_healthy(&world, only(KEY, &version(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_output_is_written_again_and_an_absent_one_is_left_alone() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "altered", "1s").await;
    let worker = start(&world, WorkerOptions::default()).await;
    let taken = "products/taken.xml";
    convert(&world, KEY, &version(1)).await;
    convert(&world, taken, &version(1)).await;
    world.put_output("products/stranger.txt", "not ours").await;
    world.delete_output(&mirrored(taken)).await;
    let quiet = events(&world).await;

    let stray = world.put_output(&mirrored(KEY), "[]").await;
    let mended = wait_until("the output is mended", PATIENCE, async || {
        let results = world.results();
        results
            .into_iter()
            .find(|result| result.intent == Intent::Reconvert)
    })
    .await;
    assert_eq!(mended.outcome, Outcome::Converted, "{mended:#?}");
    assert_output(&world, KEY, &version(1)).await;
    let dump = world.dump().await;
    let request = convert_world::state(&world, &dump, KEY).unwrap();
    let request = request["last_request_id"].to_string();
    assert!(
        request.contains("altered-output:") && request.contains(stray.as_str()),
        "{request}"
    );

    sweeps(&worker, 3).await;
    assert_eq!(events(&world).await, quiet + 1, "once, and nothing else");
    assert!(world.get_output(&mirrored(taken)).await.is_none());
    // The checker misses the output that was taken, so its source goes too.
    world.delete(taken).await;
    assert_eq!(observe(&world, taken, None).await.outcome, Outcome::Missing);
    world.delete_output("products/stranger.txt").await;
    assert_healthy(&world, only(KEY, &version(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_bucket_announces_nothing_sweep_after_sweep() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "quiet", "200ms").await;
    let broken = "products/broken.xml";
    world.put("elsewhere/b.xml", version(1).xml()).await;
    world.put("products/folder/", "").await;
    world.put("products/upload.tmp", version(1).xml()).await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    convert(&world, KEY, &version(1)).await;
    refuse(&world, broken, version(1).truncated_xml(), "malformed_xml").await;
    assert!(world.settles_within(PATIENCE).await);
    sweeps(&worker, 1).await;
    let before = events(&world).await;
    sweeps(&worker, 5).await;
    assert_eq!(events(&world).await, before);
    let last = logged(&worker, "sweep ended").pop().unwrap();
    assert_eq!(
        [&last["unsettled"], &last["sources"], &last["unmatched"]],
        [0, 4, 2]
    );
    let (_, metrics) = worker.get("/metrics").await;
    for family in [
        "last_success_timestamp_seconds",
        "running",
        "objects_listed_total",
        "duration_seconds",
    ] {
        assert!(
            metrics.contains(&format!("feedmill_sweep_{family}")),
            "{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_added_while_it_runs_is_swept_for() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "sweep-reload", "1s").await;
    let feeds = world.folder().join("feeds.d");
    std::fs::create_dir(&feeds).unwrap();
    let key = "partner/a.xml";
    let etag = world.put(key, version(1).xml()).await;
    let worker = start(&world, WorkerOptions::default()).await;
    sweeps(&worker, 1).await;
    assert_eq!(events(&world).await, 0);
    let feed = PRODUCTS_FEED
        .replace("\"products\"", "\"partner\"")
        .replace("products/**", "partner/**")
        .replace("{input}", &world.origin.input_bucket);
    std::fs::write(feeds.join("partner.toml"), feed).unwrap();
    converted(&world, key, &etag).await;
    assert_healthy(&world, only(key, &version(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_waits_until_it_has_the_least_age() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = sweeping("500ms").replace("0s", "6s");
    let world = stack.world("young").settings(&settings).create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let put = Instant::now();
    let etag = world.put(KEY, version(1).xml()).await;
    converted(&world, KEY, &etag).await;
    // The server's times are in whole seconds.
    assert!(
        put.elapsed() >= Duration::from_secs(4),
        "after {:?}",
        put.elapsed()
    );
    let waited = logged(&worker, "sweep ended");
    assert!(
        waited.iter().any(|sweep| sweep["waiting"] == 1),
        "{waited:?}"
    );
    assert_healthy(&world, only(KEY, &version(1))).await;
}

// What holds of announcements

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_announced_twice_while_convert_has_still_to_come_to_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "covered", "200ms").await;
    let expected = put_all(&world, numbered(20)).await;
    let only_sweep = || WorkerOptions::default().args(&["--stages", "sweep"]);
    let worker = world.worker(only_sweep());
    sweeps(&worker, 3).await;
    assert_eq!(events(&world).await, 20);
    worker.terminate();
    drop(worker);
    // What was announced is known after a restart too.
    let sweeper = world.worker(only_sweep());
    sweeps(&sweeper, 3).await;
    assert_eq!(events(&world).await, 20);

    let options = WorkerOptions::default().args(&["--stages", "convert"]);
    let _converter = start(&world, options).await;
    all_converted(&world, 20, PATIENCE).await;
    sweeps(&sweeper, 2).await;
    assert_eq!(events(&world).await, 20);
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_sweeps_at_a_time_and_another_takes_over_when_it_is_gone() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "takeover", "500ms").await;
    let mut first = start(&world, WorkerOptions::default()).await;
    sweeps(&first, 1).await;
    let second = start(&world, WorkerOptions::default()).await;
    let mut expected = put_all(&world, numbered(10)).await;
    all_converted(&world, 10, PATIENCE).await;
    assert_eq!(logged(&second, "sweep began").len(), 0);
    first.kill();
    sweeps(&second, 1).await;
    let etag = world.put(KEY, version(1).xml()).await;
    converted(&world, KEY, &etag).await;
    expected.extend(only(KEY, &version(1)));
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sweepers_at_once_do_no_harm() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("two").create().await;
    let mut config = config_of(&world);
    config.sweep.min_age = Duration::ZERO;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (one, other) = (sweeper(&world, "one").await, sweeper(&world, "other").await);
    let mut expected = put_all(&world, numbered(300)).await;
    for round in 0..3 {
        let (first, second) = tokio::join!(one.sweep(&config), other.sweep(&config));
        assert!(first.unwrap() && second.unwrap());
        let key = format!("products/{round}.xml");
        expected.extend(put_all(&world, [(key, version(round))]).await);
    }
    assert!(one.sweep(&config).await.unwrap());
    assert!(world.settles_within(PATIENCE).await);
    println!("{:?}", outcomes(&world));
    assert_healthy(&world, expected).await;
    assert!(one.sweep(&config).await.unwrap());
    assert!(other.sweep(&config).await.unwrap());
    assert_eq!(world.lag().await, Some(0), "and then it is quiet");
}

// Listings

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_taken_whatever_it_holds_and_wherever_a_page_ends() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "keys", "1s").await;
    let odd = [
        "a\nb",
        "a\tb",
        "a\rb",
        "a\u{1}b",
        "a b+c%20&<ü",
        "y\u{fffe}z",
        "emoji😀",
        "sp  ace ",
        "q?x=1&y",
        "\"'>",
        "dot./x",
        "a%2Fb",
        "plus+",
        "\u{fffd}",
    ];
    // SeaweedFS lists the object before the folder of the same name; with 999 objects before it, a page ends between.
    let mut keys: Vec<String> = (0..999).map(|n| format!("products/a/{n:05}.xml")).collect();
    keys.extend(["b", "b/1", "b/2/3", "b-1", "b.txt"].map(|key| format!("products/{key}")));
    keys.extend(odd.map(|key| format!("products/odd/{key}")));
    // And a second page that ends with a character that XML cannot hold.
    keys.extend((0..976).map(|n| format!("products/c/{n:05}.xml")));
    let count = keys.len();
    // SeaweedFS loses an object that is written while its folder is made: the object comes first.
    let (first, others): (Vec<_>, Vec<_>) = keys
        .into_iter()
        .map(|key| (key, version(1).records(1)))
        .partition(|(key, _)| key == "products/b");
    let mut expected = put_all(&world, first).await;
    expected.extend(put_all(&world, others).await);
    let worker = start(&world, WorkerOptions::default()).await;
    all_converted(&world, count, 3 * PATIENCE).await;
    sweeps(&worker, 1).await;
    assert!(world.settles_within(PATIENCE).await);
    let last = logged(&worker, "sweep ended").pop().unwrap();
    assert_eq!(last["sources"], count, "{last}");
    assert_eq!(
        (&last["unreadable"], &last["outputs"]),
        (&0.into(), &count.into())
    );
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_from_its_page_when_the_server_comes_back() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "away", "1h").await;
    let expected = put_all(&world, numbered(2_100)).await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    gate.close("continuation-token");
    let options = through(&gate, WorkerOptions::default()).args(&["--stages", "sweep"]);
    let mut worker = world.worker(options);
    wait_until("an outage that is noticed", PATIENCE, async || {
        (logged(&worker, "the sweep comes back to it").len() >= 3).then_some(())
    })
    .await;
    let (_, metrics) = worker.get("/metrics").await;
    let failed = "feedmill_sweep_failures_total{reason=\"s3_unavailable\"}";
    assert!(
        metrics.contains(failed) && metrics.contains("feedmill_sweep_running 1"),
        "{metrics}"
    );
    gate.open();
    wait_until("the end", PATIENCE, async || {
        (!logged(&worker, "sweep ended").is_empty()).then_some(())
    })
    .await;
    let ended = logged(&worker, "sweep ended").pop().unwrap();
    assert_eq!(
        (&ended["sources"], &ended["announced"]),
        (&2_100.into(), &2_100.into())
    );
    let starts = gate.requests(&world.origin.input_bucket);
    let starts = starts
        .iter()
        .filter(|r| r.path.contains("list-type") && !r.path.contains("continuation-token"));
    assert_eq!(starts.count(), 1, "the listing began once");
    drop(worker);

    let _converter = start(
        &world,
        WorkerOptions::default().args(&["--stages", "convert"]),
    )
    .await;
    all_converted(&world, 2_100, 2 * PATIENCE).await;
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_its_own_trouble_does_not_stop_the_others() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let feed = "[[feeds]]\nname = \"gone\"\nmatch = \"s3://{input}-gone/**\"\n\
                [[feeds]]\nname = \"products\"\nmatch = \"s3://{input}/products/**\"\nrecord = \"items/item\"\n\
                [output]\nkey = \"{bucket}/{key}.json\"\n";
    let settings = sweeping("1s") + feed;
    let world = stack.world("gone").settings(&settings).create().await;
    world.put(KEY, version(1).xml()).await;
    let mut worker = world.worker(WorkerOptions::default().args(&["--stages", "sweep"]));
    wait_until("a sweep", PATIENCE, async || {
        (logged(&worker, "sweep ended incomplete").len() >= 2).then_some(())
    })
    .await;
    assert_eq!(events(&world).await, 1);
    let (_, metrics) = worker.get("/metrics").await;
    assert!(
        metrics.contains("feedmill_sweep_failures_total{reason=\"s3_no_such_bucket\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("feedmill_sweep_last_success_timestamp_seconds 0"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_changes_while_it_is_read_ends_in_what_is_there() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = sweeping_world(&stack, "moving", "1s").await;
    put_all(&world, numbered(1_200)).await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    gate.hold_bodies("continuation-token", 0);
    let worker = start(&world, through(&gate, WorkerOptions::default())).await;
    gate.held().await;
    // Before and behind the place where the listing stands: replaced, new, and gone.
    let key = |n: usize| format!("products/{n:05}.xml");
    for n in [5, 1_150] {
        world.put(&key(n), version(2).xml()).await;
    }
    world.put("products/00005-new.xml", version(3).xml()).await;
    world.put("products/01150-new.xml", version(3).xml()).await;
    for n in [7, 1_160] {
        world.delete(&key(n)).await;
    }
    gate.release();
    sweeps(&worker, 2).await;
    all_converted(&world, 1_200, 2 * PATIENCE).await;
    assert!(world.settles_within(PATIENCE).await);
    let mut expected: BTreeMap<String, Option<Value>> = numbered(1_200)
        .map(|(key, file)| (key, Some(file.json())))
        .collect();
    for n in [7, 1_160] {
        expected.remove(&key(n));
        observe(&world, &key(n), None).await;
        world.delete_output(&mirrored(&key(n))).await;
    }
    for n in [5, 1_150] {
        expected.insert(key(n), Some(version(2).json()));
    }
    for n in ["products/00005-new.xml", "products/01150-new.xml"] {
        expected.insert(n.to_owned(), Some(version(3).json()));
    }
    assert_healthy(&world, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_file_names_the_objects_to_take() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let list = "[[sweep.lists]]\nlist = \"s3://{input}/files_list.data\"\nprefix = \"products/\"\n";
    let settings = sweeping("1s") + list;
    let world = stack.world("listfile").settings(&settings).create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    wait_until("a list that is missed", PATIENCE, async || {
        (!logged(&worker, "sweep ended incomplete").is_empty()).then_some(())
    })
    .await;
    let (_, metrics) = worker.get("/metrics").await;
    assert!(
        metrics.contains("feedmill_sweep_failures_total{reason=\"list_missing\"}"),
        "{metrics}"
    );

    let files =
        ["a b+ü.xml", "b.xml", "unnamed.xml"].map(|name| (format!("products/{name}"), version(1)));
    put_all(&world, files).await;
    let url = format!("s3://{}/products/b.xml", world.origin.input_bucket);
    let names = format!("a b+ü.xml\r\n\r\n{url}\nnot-there.xml\n../other.txt");
    world.put("files_list.data", names).await;
    all_converted(&world, 2, PATIENCE).await;
    sweeps(&worker, 2).await;
    let last = logged(&worker, "sweep ended").pop().unwrap();
    assert_eq!(
        (&last["sources"], &last["absent"]),
        (&2.into(), &2.into()),
        "{last}"
    );
    assert_eq!(events(&world).await, 2, "what is not named is not taken");

    world
        .put("files_list.data", format!("{url}\ns3://another/key\n"))
        .await;
    wait_until("a line that can't be taken", PATIENCE, async || {
        let entries = logged(&worker, "an entry can't be taken for what it is");
        entries
            .iter()
            .any(|e| e["reason"].to_string().contains("line 2"))
            .then_some(())
    })
    .await;
    world.delete("products/unnamed.xml").await;
    world.delete("files_list.data").await;
    let left = ["products/a b+ü.xml", "products/b.xml"]
        .map(|key| (key.to_owned(), Some(version(1).json())));
    assert_healthy(&world, left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_file_of_a_public_bucket_is_read_without_credentials() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let gate = Gate::before(&second.endpoint).await;
    let folder = format!("sweep-{}", uuid::Uuid::new_v4());
    let settings = format!(
        "{}[[sweep.lists]]\nlist = \"s3://{PUBLIC_BUCKET}/{folder}/files_list.data\"\nprefix = \"{folder}/\"\n\
         [s3.buckets.{PUBLIC_BUCKET}]\nendpoint = {:?}\ncredentials = {{ anonymous = true }}\n\
         [[feeds]]\nname = \"public\"\nmatch = \"s3://{PUBLIC_BUCKET}/**\"\nrecord = \"items/item\"\n\
         [feeds.fields]\nid = \"@id\"\nname = \"name\"\nversion = \"version\"\n\
         [output]\nkey = \"{{bucket}}/{{key}}.json\"\n",
        sweeping("1s"),
        gate.endpoint(),
    );
    let world = stack.world("publiclist").settings(&settings).create().await;
    let put = async |name: &str, bytes: Vec<u8>| {
        let key = format!("{folder}/{name}");
        let put = second.store().put(PUBLIC_BUCKET, &key, bytes).await;
        (key, put.expect("the second server serves"))
    };
    put("files_list.data", b"a.xml\n".to_vec()).await;
    put("unnamed.xml", version(1).xml()).await;
    let (key, etag) = put("a.xml", version(1).xml()).await;
    let worker = start(&world, WorkerOptions::default()).await;
    converted(&world, &key, &etag).await;
    sweeps(&worker, 2).await;
    assert!(world.settles_within(PATIENCE).await);
    assert_eq!(events(&world).await, 1, "what is not named is not taken");
    let requests = gate.requests(&folder);
    let mut headers = requests.iter().flat_map(|request| &request.headers);
    assert!(!headers.any(|header| header.starts_with("authorization")));
    assert!(
        requests
            .iter()
            .all(|request| !request.path.contains("list-type"))
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "puts 50,000 objects, which takes minutes; run it when the sweep's listing changes"]
async fn fifty_thousand_real_objects_are_swept_and_announced_once() {
    const COUNT: usize = 50_000;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = &sweeping_world(&stack, "many", "1s").await;
    let put = Instant::now();
    put_all(world, numbered(COUNT)).await;
    println!("put in {:?}", put.elapsed());
    let mut worker = world.worker(WorkerOptions::default().args(&["--stages", "sweep"]));
    wait_until("two sweeps", 10 * PATIENCE, async || {
        (logged(&worker, "sweep ended").len() >= 2).then_some(())
    })
    .await;
    for sweep in logged(&worker, "sweep ended") {
        println!("{sweep}");
    }
    assert!(worker.is_running());
    assert_eq!(world.lag().await, Some(COUNT), "each was announced once");
    // More than the world has time to remove.
    stream::iter(numbered(COUNT))
        .for_each_concurrent(PUTS, |(key, _)| async move { world.delete(&key).await })
        .await;
}
