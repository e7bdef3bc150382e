//! A new configuration without a restart, on the real servers: partners that come and go, files that can't be used, and a
//! change of mapping while files arrive.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use convert_world::{PATIENCE, assert_outcome, drop_bytes, mirrored, output_json, start};
use feedmill::topics::Outcome;
use serde_json::{Value, json};
use support::checker::Expectations;
use support::files::ProductFile;
use support::{Signal, Stack, Worker, WorkerOptions, World, wait_until};

const APPLIED: &str = "feedmill_config_reloads_total{result=\"applied\"}";
const FAILED: &str = "feedmill_config_reloads_total{result=\"failed\"}";
const SUCCESSFUL: &str = "feedmill_config_last_reload_successful";
const FEEDS: &str = "feedmill_config_feeds";

/// A partner's file; `{input}` is the world's bucket.
fn partner(name: &str, fields: &str) -> String {
    format!(
        "[[feeds]]\nname = '{name}'\nmatch = 's3://{{input}}/{name}/**'\nrecord = 'items/item'\nfields = {{ {fields} }}\n"
    )
}

/// Writes a partner's file as careful people do: it appears whole.
fn write(world: &World, file: &str, text: &str) {
    let folder = world.folder().join("feeds.d");
    fs::create_dir_all(&folder).expect("a writable folder");
    let text = text.replace("{input}", &world.origin.input_bucket);
    let new = folder.join(format!(".{file}.new"));
    fs::write(&new, text).expect("a writable folder");
    fs::rename(new, folder.join(file)).expect("a writable folder");
}

/// Changes the main file, and not as careful people do.
fn edit_main(world: &World, change: impl FnOnce(&mut toml::Table)) {
    let path = world.folder().join("feedmill.toml");
    let text = fs::read_to_string(&path).expect("the world wrote it");
    let mut settings = text.parse().expect("TOML");
    change(&mut settings);
    fs::write(path, settings.to_string()).expect("a writable folder");
}

async fn metric(worker: &mut Worker, name: &str) -> f64 {
    let (_, text) = worker.get("/metrics").await;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no metric {name} in {text}"))
}

/// Whether the metrics speak of a feed.
async fn has_series(worker: &mut Worker, feed: &str) -> bool {
    let (_, text) = worker.get("/metrics").await;
    text.contains(&format!("feed=\"{feed}\""))
}

async fn wait_for_metric(worker: &mut Worker, name: &str, value: f64) {
    let what = format!("{name} {value}");
    wait_until(&what, PATIENCE, async || {
        (metric(worker, name).await == value).then_some(())
    })
    .await;
}

async fn readyz(worker: &mut Worker) -> String {
    let (status, body) = worker.get("/readyz").await;
    assert_eq!(status, 200, "{body}");
    body
}

/// The log's lines that have all of these words.
fn logged(worker: &Worker, words: &[&str]) -> usize {
    let log = worker.log();
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(has_all).count()
}

async fn outcome(world: &World, key: &str, file: &ProductFile) -> Outcome {
    drop_bytes(world, key, file.xml()).await.1.outcome
}

fn file(version: u32) -> ProductFile {
    ProductFile::new("a", version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_comes_and_goes_without_a_restart() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("reload-partner").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    assert_eq!(
        outcome(&world, "nsx/1.xml", &file(1)).await,
        Outcome::Ignored
    );
    assert_eq!(metric(&mut worker, FEEDS).await, 1.0);

    write(&world, "nsx.toml", &partner("nsx", "sku = '@id'"));
    wait_for_metric(&mut worker, APPLIED, 1.0).await;
    assert_eq!(metric(&mut worker, FEEDS).await, 2.0);
    assert_eq!(
        outcome(&world, "nsx/2.xml", &file(1)).await,
        Outcome::Converted
    );
    let expected = json!([{ "sku": "1" }, { "sku": "2" }, { "sku": "3" }]);
    assert_eq!(output_json(&world, &mirrored("nsx/2.xml")).await, expected);
    assert_eq!(
        logged(&worker, &["configuration reloaded", "\"added\":\"nsx\""]),
        1
    );

    assert!(has_series(&mut worker, "nsx").await);
    fs::remove_file(world.folder().join("feeds.d/nsx.toml")).expect("it is there");
    wait_for_metric(&mut worker, APPLIED, 2.0).await;
    assert_eq!(
        outcome(&world, "nsx/3.xml", &file(1)).await,
        Outcome::Ignored
    );
    assert!(
        !has_series(&mut worker, "nsx").await,
        "the feed is gone, its series are not"
    );
    assert_eq!(
        outcome(&world, "products/a.xml", &file(1)).await,
        Outcome::Converted
    );
    assert_eq!(
        logged(&worker, &["configuration reloaded", "\"removed\":\"nsx\""]),
        1
    );
    assert_eq!(metric(&mut worker, FAILED).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_changes_nothing_and_is_named_until_it_is_mended() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("reload-bad").create().await;
    write(&world, "nsx.toml", &partner("nsx", "sku = '@id'"));
    let mut worker = start(&world, WorkerOptions::default()).await;

    let (good, bad) = (
        partner("late", "sku = '@id'"),
        partner("late", "sku = '@id'"),
    );
    let bad = bad.replace("record", "recrod");
    write(&world, "late.toml", &bad);
    wait_for_metric(&mut worker, FAILED, 1.0).await;
    assert_eq!(metric(&mut worker, SUCCESSFUL).await, 0.0);
    let words = ["feeds.d/late.toml: feeds[0]", "recrod", "did you mean"];
    let body = readyz(&mut worker).await;
    let line = body
        .lines()
        .find(|line| line.starts_with("configuration: reload failed at "));
    let line = line.unwrap_or_else(|| panic!("no line about the configuration: {body}"));
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    let words_in_json = ["ERROR", "feeds.d/late.toml: feeds[0]", "recrod"];
    assert_eq!(logged(&worker, &words_in_json), 1);
    for feed in ["products", "nsx"] {
        let key = format!("{feed}/1.xml");
        assert_eq!(
            outcome(&world, &key, &file(1)).await,
            Outcome::Converted,
            "{feed}"
        );
    }

    // A mapping that does not compile is another failure, with the message of `config check`.
    write(&world, "late.toml", &partner("late", "sku = '/'"));
    wait_for_metric(&mut worker, FAILED, 2.0).await;
    let body = readyz(&mut worker).await;
    let message = body
        .split("error: ")
        .nth(1)
        .unwrap_or_else(|| panic!("{body}"));
    let checked = world.run_cli(&["config", "check"]).await;
    assert_eq!(checked.code(), Some(2));
    assert!(
        checked.stdout.contains(message.trim()),
        "{message} is not in {checked:#?}"
    );

    write(&world, "late.toml", &good);
    wait_for_metric(&mut worker, APPLIED, 1.0).await;
    assert_eq!(metric(&mut worker, SUCCESSFUL).await, 1.0);
    assert!(!readyz(&mut worker).await.contains("configuration"));
    assert_eq!(
        outcome(&world, "late/1.xml", &file(1)).await,
        Outcome::Converted
    );
    assert_eq!(
        metric(&mut worker, FAILED).await,
        2.0,
        "what is said once is not said again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_restart_takes_over_is_named_and_the_environment_stays_over_the_file() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("reload-env").create().await;
    let options = WorkerOptions::default()
        .env("FEEDMILL_INTAKE__EXCLUDE", "*.skip")
        .env("FEEDMILL_LOG__LEVEL", "info");
    let mut worker = start(&world, options).await;
    worker.signal(Signal::Hangup);
    wait_until("a word on the signal", PATIENCE, async || {
        worker
            .has_logged("the configuration has not changed")
            .then_some(())
    })
    .await;
    assert_eq!(
        metric(&mut worker, APPLIED).await,
        0.0,
        "the same is no event"
    );

    edit_main(&world, |settings| {
        settings.insert(
            "log".into(),
            "level = 'debug'\nformat = 'json'"
                .parse::<toml::Table>()
                .unwrap()
                .into(),
        );
        settings.insert(
            "convert".into(),
            "max_in_flight = 3".parse::<toml::Table>().unwrap().into(),
        );
        let intake = settings["intake"].as_table_mut().expect("a table");
        intake.insert("exclude".into(), toml::Value::Array(vec![]));
    });
    write(&world, "nsx.toml", &partner("nsx", "sku = '@id'"));
    worker.signal(Signal::Hangup);
    wait_for_metric(&mut worker, APPLIED, 1.0).await;
    assert_eq!(
        logged(
            &worker,
            &[
                "WARN",
                "only a restart",
                "\"settings\":\"convert.max_in_flight\""
            ]
        ),
        1,
        "{}",
        worker.log()
    );
    assert_eq!(
        outcome(&world, "nsx/a.xml", &file(1)).await,
        Outcome::Converted
    );
    assert_eq!(
        outcome(&world, "nsx/a.xml.skip", &file(1)).await,
        Outcome::Ignored
    );
    assert_eq!(
        outcome(&world, "nsx/a.xml.tmp", &file(1)).await,
        Outcome::Converted
    );

    // Sound in the file, where outputs get another key, and not beside the key that runs.
    edit_main(&world, |settings| {
        let output = settings["output"].as_table_mut().expect("a table");
        output.insert("key".into(), "{bucket}/{key}.json".into());
    });
    let elsewhere = partner("nsx", "sku = '@id'").replace("{input}", "some-other-bucket");
    let elsewhere = elsewhere.replace("'nsx'", "'other'");
    write(&world, "other.toml", &elsewhere);
    wait_for_metric(&mut worker, FAILED, 1.0).await;
    let body = readyz(&mut worker).await;
    assert!(
        body.contains("output.key") && body.contains("restart"),
        "{body}"
    );
}

const MAPPINGS: [&str; 2] = [
    "id = '@id', version = 'version'",
    "sku = '@id', title = 'name'",
];

/// What a file becomes by each of them.
fn mapped(file: &ProductFile, mapping: usize) -> Value {
    let record = |number: usize| match mapping {
        0 => json!({ "id": number.to_string(), "version": file.version.to_string() }),
        _ => json!({ "sku": number.to_string(), "title": format!("{} & {number}", file.title) }),
    };
    (1..=file.records).map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changes_under_load_gives_each_file_one_or_the_other() {
    const FILES: usize = 150;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack
        .world("reload-load")
        .settings("feeds = []")
        .create()
        .await;
    let mapping = |number: usize| partner("products", MAPPINGS[number % 2]);
    write(&world, "products.toml", &mapping(0));
    let mut workers = [
        start(&world, WorkerOptions::default()).await,
        start(&world, WorkerOptions::default()).await,
    ];
    let key = |number: usize| format!("products/{number}.xml");
    let load = async {
        for number in 0..FILES {
            let etag = world.put(&key(number), file(number as u32).xml()).await;
            world.announce(&key(number), Some(etag.as_str())).await;
        }
    };
    let reloads = async {
        let mut reloads = 0;
        while world.results().len() < FILES {
            reloads += 1;
            write(&world, "products.toml", &mapping(reloads));
            for worker in &mut workers {
                worker.signal(Signal::Hangup);
                wait_for_metric(worker, APPLIED, reloads as f64).await;
            }
        }
        reloads
    };
    let all = async { tokio::join!(load, reloads).1 };
    let reloads = tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all results");
    assert!(
        reloads >= 4,
        "only {reloads} reloads while {FILES} files came"
    );
    assert!(world.settles_within(PATIENCE).await, "events are left");

    // The hash in a file's result says by which mapping it was converted.
    let results = world.results();
    let hashes: BTreeSet<_> = results
        .iter()
        .filter_map(|r| r.mapping_hash.clone())
        .collect();
    assert_eq!(hashes.len(), 2, "{hashes:?}");
    let mut sources = Vec::new();
    let mut hash_of = [None, None];
    for number in 0..FILES {
        let result = results.iter().find(|result| result.key == key(number));
        let result = result.expect("one for each file");
        assert_outcome(result, Outcome::Converted);
        let json = output_json(&world, &mirrored(&key(number))).await;
        let is_by = |mapping: &usize| json == mapped(&file(number as u32), *mapping);
        let by = (0..2)
            .find(is_by)
            .unwrap_or_else(|| panic!("{number} is by neither: {json}"));
        let known = hash_of[by].get_or_insert(result.mapping_hash.clone());
        assert_eq!(
            *known, result.mapping_hash,
            "the hash tells another mapping"
        );
        sources.push((key(number), Some(json)));
    }
    let expected = Expectations {
        sources: sources.into_iter().collect(),
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
    for worker in &workers {
        assert!(logged(worker, &["mapping_changed\":\"products"]) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_feeds_bucket_that_is_not_there_is_a_warning() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "output.key = '{bucket}/{key}.json'";
    let world = stack
        .world("reload-bucket")
        .settings(settings)
        .create()
        .await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let absent = partner("nsx", "sku = '@id'").replace("{input}", "feedmill-no-such-bucket");
    write(&world, "nsx.toml", &absent);
    wait_for_metric(&mut worker, APPLIED, 1.0).await;
    wait_until("a warning", Duration::from_secs(30), async || {
        (logged(
            &worker,
            &["WARN", "feedmill-no-such-bucket", "make the bucket"],
        ) == 1)
            .then_some(())
    })
    .await;
    assert!(worker.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_waits_for_a_wrong_account_is_converted_once_it_is_corrected() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("reload-account").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let bucket = world.origin.input_bucket.clone();
    let buckets = |credentials: &str| {
        let text = format!("{bucket:?} = {{ {credentials} }}");
        text.parse::<toml::Table>().expect("TOML")
    };
    let account = |world: &World, credentials: &str| {
        let buckets = buckets(credentials);
        edit_main(world, |settings| {
            let s3 = settings["s3"].as_table_mut().expect("the world has one");
            s3.insert("buckets".into(), buckets.into());
        });
    };
    account(
        &world,
        "credentials = { access_key_id = 'nobody', secret_access_key = 'hush-4711' }",
    );
    wait_for_metric(&mut worker, APPLIED, 1.0).await;
    let etag = world.put("products/a.xml", file(1).xml()).await;
    let event = world.announce("products/a.xml", Some(etag.as_str())).await;
    wait_until("an attempt with the wrong account", PATIENCE, async || {
        (logged(&worker, &["attempt failed", "HTTP 403"]) > 0).then_some(())
    })
    .await;
    account(&world, "");
    wait_for_metric(&mut worker, APPLIED, 2.0).await;
    let result = world.wait_for_result(event, PATIENCE).await;
    assert_eq!(result.outcome, Outcome::Converted);
    assert!(!worker.log().contains("hush-4711"));
    assert_eq!(logged(&worker, &["only a restart takes over"]), 0);
}
