//! The desk: what could not be converted is listed, looked into, tried again and closed.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use convert_world::{
    PATIENCE, assert_healthy, assert_output, drop_bytes, open_letter, refuse, start, stop,
};
use feedmill::topics::{DeadLetter, Intent, Millis, Outcome, encode};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use support::checker::{Topic, murmur2};
use support::files::ProductFile;
use support::process::Finished;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const DONE: i32 = 0;
const USAGE: i32 = 2;
const FINDINGS: i32 = 4;

fn file(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

async fn desk(world: &World, args: &[&str]) -> Finished {
    let args: Vec<&str> = ["dead-letters"].iter().chain(args).copied().collect();
    world.run_cli(&args).await
}

/// The standard output of a command that does what it is told.
async fn said(world: &World, args: &[&str]) -> String {
    let done = desk(world, args).await;
    assert_eq!(done.code(), Some(DONE), "{args:?}: {done:#?}");
    done.stdout
}

async fn listed(world: &World, args: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = ["list", "--json"].iter().chain(args).copied().collect();
    let text = said(world, &args).await;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("a letter a line")
}

fn ids(letters: &[Value]) -> Vec<&str> {
    let id = |letter: &Value| letter["id"].as_str().is_some();
    assert!(letters.iter().all(id));
    (letters.iter())
        .map(|letter| letter["id"].as_str().unwrap())
        .collect()
}

async fn outcomes(world: &World, outcome: Outcome, count: usize) {
    wait_until("the outcomes", PATIENCE, async || {
        let results = world.results();
        let such = results.iter().filter(|result| result.outcome == outcome);
        (such.count() >= count).then_some(())
    })
    .await;
}

async fn worker(world: &World) -> Worker {
    start(world, WorkerOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn open_letters_are_listed_filtered_counted_and_shown_with_their_place() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("desk").create().await;
    let _worker = worker(&world).await;
    assert_eq!(said(&world, &["list"]).await, "");
    let xml = refuse(
        &world,
        "products/a.xml",
        file(1).truncated_xml(),
        "malformed_xml",
    )
    .await;
    let empty = refuse(&world, "products/empty.xml", "", "empty_file").await;
    let mended = refuse(
        &world,
        "products/b.xml",
        file(1).truncated_xml(),
        "malformed_xml",
    )
    .await;
    drop_bytes(&world, "products/b.xml", file(2).xml()).await;

    assert_eq!(ids(&listed(&world, &[]).await), [&xml, &empty]);
    assert_eq!(
        ids(&listed(&world, &["--reason", "empty_file"]).await),
        [&empty]
    );
    assert_eq!(
        ids(&listed(&world, &["--key", "products/a.*"]).await),
        [&xml]
    );
    for nothing in [
        ["--feed", "other"],
        ["--bucket", "other"],
        ["--until", "1h"],
    ] {
        assert!(listed(&world, &nothing).await.is_empty(), "{nothing:?}");
    }
    let all = listed(&world, &["--all"]).await;
    assert_eq!(all.len(), 3);
    let closed: Vec<_> = (all.iter())
        .filter(|letter| !letter["closed_at"].is_null())
        .collect();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["id"], mended.as_str());
    // Ids of one minute begin alike.
    for command in [
        &["show", "0"][..],
        &["discard", "0", "--why", "x"],
        &["replay", "0"],
    ] {
        let unclear = desk(&world, command).await;
        assert_eq!(unclear.code(), Some(USAGE), "{unclear:#?}");
    }
    let groups = said(&world, &["list", "--group"]).await;
    assert_eq!(groups.lines().count(), 2, "{groups}");

    let shown = said(&world, &["show", &xml, "--source"]).await;
    for word in [
        "malformed_xml",
        "open",
        "products/a.xml",
        "line",
        "byte",
        "^",
    ] {
        assert!(shown.contains(word), "{word:?}: {shown}");
    }
    let shown = said(&world, &["show", &mended]).await;
    assert!(shown.contains("closed"), "{shown}");
    let none = desk(&world, &["show", "ffffffff"]).await;
    assert_eq!(none.code(), Some(USAGE), "{none:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_converts_what_was_mended_and_counts_what_fails_again_until_it_is_parked() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[dead_letters]\nmax_replays = 2";
    let world = stack.world("replay").settings(settings).create().await;
    let broken = worker(&world).await;
    let key = "products/a.xml";
    // A feed that asks for what the file does not have.
    let path = world.folder().join("feedmill.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    stop(broken).await;
    let demanding = toml.replacen(
        "[feeds.fields]\n",
        "[feeds.fields]\nnever = { path = \"never\", required = true }\n",
        1,
    );
    assert_ne!(demanding, toml, "{toml}");
    std::fs::write(&path, demanding).unwrap();
    let broken = worker(&world).await;
    let letter = refuse(&world, key, file(1).xml(), "missing_field").await;

    let unset = desk(
        &world,
        &["discard", "", "--why", "a variable that is not set"],
    )
    .await;
    assert_eq!(unset.code(), Some(USAGE), "{unset:#?}");
    let dry = said(&world, &["replay", "--all", "--dry-run"]).await;
    assert!(
        dry.contains(&letter) && dry.contains("would replay 1 letter"),
        "{dry}"
    );
    for replays in 1..=2 {
        said(&world, &["replay", "--reason", "missing_field"]).await;
        wait_until("another letter", PATIENCE, async || {
            let letters = listed(&world, &[]).await;
            (letters[0]["replays"] == replays).then_some(())
        })
        .await;
    }
    let parked = said(&world, &["replay", "--all"]).await;
    assert!(
        parked.contains("1 parked") && parked.contains("no open letters"),
        "{parked}"
    );
    assert!(said(&world, &["list"]).await.contains("parked"));

    stop(broken).await;
    std::fs::write(&path, toml).unwrap();
    let _mended = worker(&world).await;
    said(&world, &["replay", "--all", "--parked"]).await;
    outcomes(&world, Outcome::Converted, 1).await;
    assert_output(&world, key, &file(1)).await;
    assert!(listed(&world, &[]).await.is_empty());
    // What is closed is an ordinary event.
    let again = said(&world, &["replay", &letter]).await;
    assert!(again.contains("not open"), "{again}");
    assert_healthy(&world, &[(key, Some(file(1).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_is_shown_in_a_compressed_file_too() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("packed").create().await;
    let _worker = worker(&world).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let text = b"<items>\n <item id='1'/>\n <item id='2'></itm>\n</items>\n";
    std::io::Write::write_all(&mut gzip, text).unwrap();
    let packed = gzip.finish().unwrap();
    let letter = refuse(&world, "products/a.xml.gz", packed, "malformed_xml").await;
    let shown = said(&world, &["show", &letter, "--source"]).await;
    assert!(
        shown.contains("<item id='2'></itm>") && shown.contains('^'),
        "{shown}"
    );
}

/// The files go on failing: a replay that goes on must not take what failed again because of its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_half_way_and_started_again_replays_every_letter_once() {
    const LETTERS: usize = 120;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("halfway").create().await;
    let _worker = worker(&world).await;
    let mut events = Vec::new();
    for number in 0..LETTERS {
        let key = format!("products/{number}.xml");
        world.put(&key, file(1).truncated_xml()).await;
        events.push(world.announce(&key, None).await);
    }
    for event in events {
        let result = world.wait_for_result(event, PATIENCE).await;
        assert_eq!(result.outcome, Outcome::DeadLettered);
    }
    let replay = ["dead-letters", "replay", "--all", "--yes", "--rate", "30"];
    let mut killed = world.spawn_cli(&replay);
    wait_until("some to be replayed", PATIENCE, async || {
        let results = world.results();
        let replayed = results
            .iter()
            .filter(|result| result.intent == Intent::Replay);
        (replayed.count() >= LETTERS / 4).then_some(())
    })
    .await;
    killed.kill();
    assert!(world.settles_within(PATIENCE).await);
    let half: Vec<_> = listed(&world, &[]).await;
    let again = half.iter().filter(|letter| letter["replays"] == 1).count();
    assert!(
        (LETTERS / 4..LETTERS).contains(&again),
        "killed after {again}"
    );

    let on = world.run_cli(&replay).await;
    assert_eq!(on.code(), Some(DONE), "{on:#?}");
    assert!(on.stdout.contains("going on with the replay"), "{on:#?}");
    assert!(world.settles_within(PATIENCE).await);
    let letters = listed(&world, &[]).await;
    assert_eq!(letters.len(), LETTERS);
    let replays: Vec<_> = letters
        .iter()
        .map(|letter| letter["replays"].as_i64())
        .collect();
    assert!(
        replays.iter().all(|replays| *replays == Some(1)),
        "{replays:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_tried_with_a_changed_feed_and_nothing_is_written() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("try").create().await;
    let good = worker(&world).await;
    let (key, fresh) = ("products/a.xml", "products/b.xml");
    convert_world::convert(&world, key, &file(1)).await;
    stop(good).await;
    let path = world.folder().join("feedmill.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    let feeds = &toml[toml.find("[[feeds]]").expect("a feed")..];
    std::fs::write(world.folder().join("mended.toml"), feeds).unwrap();
    let demanding = toml.replacen(
        "[feeds.fields]\n",
        "[feeds.fields]\nnever = { path = \"never\", required = true }\n",
        1,
    );
    std::fs::write(&path, demanding).unwrap();
    let _broken = worker(&world).await;
    let letter = refuse(&world, key, file(2).xml(), "missing_field").await;
    let unseen = refuse(&world, fresh, file(1).xml(), "missing_field").await;

    let again = desk(&world, &["try", &letter]).await;
    assert_eq!(again.code(), Some(FINDINGS), "{again:#?}");
    for word in [
        "the version that failed",
        "refused",
        "missing_field",
        "items/item/never",
    ] {
        assert!(again.stdout.contains(word), "{word:?}: {again:#?}");
    }
    let mended = said(&world, &["try", &letter, "--feed", "mended.toml"]).await;
    for word in [
        "converted: 3 records",
        "differs from",
        "record 1",
        "- ",
        "+ ",
    ] {
        assert!(mended.contains(word), "{word:?}: {mended}");
    }
    let first = said(&world, &["try", &unseen, "--feed", "mended.toml"]).await;
    assert!(first.contains("there is none yet"), "{first}");
    assert_output(&world, key, &file(1)).await;
    assert!(
        world
            .get_output(&convert_world::mirrored(fresh))
            .await
            .is_none()
    );
    assert_eq!(listed(&world, &[]).await.len(), 2);

    // When that version is gone, what is there now is tried.
    world.put(key, file(1).xml()).await;
    let gone = said(&world, &["try", &letter, "--feed", "mended.toml"]).await;
    for word in ["the version that failed is gone", "the same bytes as"] {
        assert!(gone.contains(word), "{word:?}: {gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_letter_is_closed_with_its_reason_and_only_a_newer_version_is_converted() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("discard").create().await;
    let _worker = worker(&world).await;
    let key = "products/a.xml";
    let letter = refuse(&world, key, file(1).truncated_xml(), "malformed_xml").await;
    let unsaid = desk(&world, &["discard", &letter]).await;
    assert_eq!(
        unsaid.code(),
        Some(USAGE),
        "a reason is asked for: {unsaid:#?}"
    );
    let unselected = desk(&world, &["discard", "--why", "tests"]).await;
    assert_eq!(unselected.code(), Some(USAGE), "{unselected:#?}");
    said(
        &world,
        &["discard", &letter[..18], "--why", "sent by mistake"],
    )
    .await;
    outcomes(&world, Outcome::Discarded, 1).await;
    let results = world.results();
    let discarded = results
        .iter()
        .find(|result| result.outcome == Outcome::Discarded);
    assert_eq!(
        discarded.unwrap().message.as_deref(),
        Some("sent by mistake")
    );
    let dump = world.dump().await;
    assert!(open_letter(&world, &dump, key).is_none());
    convert_world::convert(&world, key, &file(2)).await;
    assert_healthy(&world, &[(key, Some(file(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_letters_are_listed_in_seconds_and_a_large_replay_asks_first() {
    const LETTERS: usize = 10_000;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("many").create().await;
    write_letters(&world, LETTERS);
    let began = std::time::Instant::now();
    let groups = said(&world, &["list", "--group", "--json"]).await;
    let took = began.elapsed();
    eprintln!("{LETTERS} letters grouped in {took:?}");
    let group: Value = serde_json::from_str(groups.trim()).expect("one group");
    assert_eq!(group["count"], LETTERS);
    // In a debug build and beside other tests; a release build takes a tenth of it.
    assert!(took.as_secs() < 30, "{took:?}");
    let unasked = desk(&world, &["replay", "--all"]).await;
    assert_eq!(unasked.code(), Some(USAGE), "{unasked:#?}");
    assert!(unasked.stderr.contains("10000 letters"), "{unasked:#?}");
    assert_eq!(world.lag().await, Some(0), "nothing was sent");
}

/// Letters as convert writes them, of objects that nobody has.
fn write_letters(world: &World, count: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.origin.brokers)
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .expect("a producer");
    let topic = world.topic(Topic::DeadLetters);
    for number in 0..count {
        let key = format!("products/{number}.xml");
        let record_key = format!("{}/{key}", world.origin.input_bucket);
        let value = encode(&letter(world, number, key));
        let partition = murmur2::partition_of(&record_key, world.partitions);
        let record = BaseRecord::to(&topic).partition(partition).key(&record_key);
        producer
            .send(record.payload(&value))
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
    producer.flush(PATIENCE).expect("the broker takes them");
}

fn letter(world: &World, number: usize, key: String) -> DeadLetter {
    DeadLetter {
        id: format!("00000000-0000-7000-8000-{number:012}"),
        bucket: world.origin.input_bucket.clone(),
        key,
        etag: None,
        version_id: None,
        size: Some(1),
        stage: "convert".into(),
        reason: "malformed_xml".into(),
        message: "the file ends inside <item>".into(),
        record: Some(1),
        line: Some(2),
        column: Some(3),
        byte_offset: Some(4),
        path: Some("items/item".into()),
        excerpt: None,
        feed: Some("products".into()),
        mapping_hash: None,
        attempts: 1,
        first_failed_at: Millis(1),
        last_failed_at: Millis(1),
        replays: 0,
        event_partition: 0,
        event_offset: 0,
        worker: "w".into(),
        trace_parent: None,
    }
}
