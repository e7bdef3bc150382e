//! What a real worker's `/metrics` says: what waits, what is open, what was done; and that it is all in the list.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

#[path = "support/promtool.rs"]
mod promtool;

use std::collections::BTreeMap;

use convert_world::notifications::{aws_record, message};
use convert_world::{
    Gate, PATIENCE, convert, drop_bytes, padded, refuse, start, start_behind, stop,
};
use feedmill::telemetry::metrics::list::{CHAPTERS, Kind};
use promtool::promtool;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, wait_until};

/// One file at a time, so that all others wait.
const ALONE: &str = "convert.max_in_flight = 1\ns3.max_attempts = 1\n";

/// A scrape: each series with its value.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(worker: &mut Worker) -> Self {
        let (_, page) = worker.get("/metrics").await;
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(series.collect())
    }

    /// The sum of the series of a name that have all of these words; nothing when there are none.
    fn sum(&self, name: &str, words: &[&str]) -> Option<f64> {
        let is_asked_for = |series: &str| {
            series.split('{').next() == Some(name) && words.iter().all(|word| series.contains(word))
        };
        let mut found = self.0.iter().filter(|(series, _)| is_asked_for(series));
        let first = *found.next()?.1;
        Some(found.fold(first, |sum, (_, value)| sum + value))
    }
}

const CONVERT: &[&str] = &[r#"stage="convert""#];

/// Waits until these families of the convert stage have these sums.
async fn wait_for(worker: &mut Worker, wanted: &[(&str, f64)]) {
    let what = format!("{wanted:?}");
    wait_until(&what, PATIENCE, async || {
        let scrape = Scrape::of(worker).await;
        let is_so = |(name, value): &(&str, f64)| scrape.sum(name, CONVERT) == Some(*value);
        wanted.iter().all(is_so).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_known_by_number_bytes_and_age_until_it_is_done() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack
        .world("lag")
        .partitions(2)
        .settings(ALONE)
        .create()
        .await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut worker = start_behind(&world, &gate).await;
    wait_for(&mut worker, &[("feedmill_lag_events", 0.0)]).await;
    let slow = padded(&ProductFile::new("slow", 1), 1 << 20);
    gate.hold_bodies("products/slow.xml", 100_000);
    world.put("products/slow.xml", slow).await;
    let mut last = world.announce("products/slow.xml", None).await;
    gate.held().await;
    for number in 0..10 {
        let key = format!("products/{number}.xml");
        world.put(&key, ProductFile::new(&key, 1).xml()).await;
        let mut event = world.event(&key, None);
        event.size = (number < 7).then_some(1_000);
        world.send(&event).await;
        last = event.id;
    }
    let waiting = [
        ("feedmill_lag_events", 11.0),
        ("feedmill_lag_bytes", 7_000.0),
        ("feedmill_lag_unknown_size_events", 4.0),
        ("feedmill_in_flight_files", 1.0),
        ("feedmill_in_flight_files_limit", 1.0),
    ];
    wait_for(&mut worker, &waiting).await;
    let age = Scrape::of(&mut worker)
        .await
        .sum("feedmill_lag_oldest_age_seconds", CONVERT);
    assert!((0.5..60.0).contains(&age.unwrap()), "{age:?}");

    gate.release();
    world.wait_for_result(last, PATIENCE).await;
    let nothing = [
        ("feedmill_lag_events", 0.0),
        ("feedmill_lag_bytes", 0.0),
        ("feedmill_lag_unknown_size_events", 0.0),
        ("feedmill_lag_oldest_age_seconds", 0.0),
    ];
    wait_for(&mut worker, &nothing).await;
    stop(worker).await;
}

async fn open_letters(worker: &mut Worker, wanted: &[(&str, f64)]) {
    let what = format!("open letters {wanted:?}");
    wait_until(&what, PATIENCE, async || {
        let scrape = Scrape::of(worker).await;
        let all = scrape.sum("feedmill_dead_letters_open", &[]).unwrap_or(0.0);
        let is_so = |(reason, count): &(&str, f64)| {
            let reason = format!("reason=\"{reason}\"");
            let labels = [r#"feed="products""#, &reason];
            scrape.sum("feedmill_dead_letters_open", &labels) == Some(*count)
        };
        let sum: f64 = wanted.iter().map(|(_, count)| count).sum();
        (all == sum && wanted.iter().all(is_so)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_letters_requests_and_memory_are_counted_and_every_name_is_in_the_list() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("metrics").partitions(2).create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    for n in 0..3 {
        convert(
            &world,
            &format!("products/{n}.xml"),
            &ProductFile::new("a", 1),
        )
        .await;
    }
    refuse(&world, "products/bad.xml", "<items>", "malformed_xml").await;
    refuse(&world, "products/worse.xml", "<items>", "malformed_xml").await;
    refuse(&world, "products/empty.xml", "", "empty_file").await;
    drop_bytes(&world, "elsewhere/a.xml", "<a/>").await;
    let record = aws_record(&world.origin.input_bucket, "products/0.xml");
    let notification = serde_json::from_slice(&message([record])).unwrap();
    assert_eq!(worker.notify(&notification).await.0, 202);
    assert_eq!(worker.notify(&"no".into()).await.0, 400);
    open_letters(&mut worker, &[("malformed_xml", 2.0), ("empty_file", 1.0)]).await;
    // A better file closes the letter of the bad one.
    convert(&world, "products/bad.xml", &ProductFile::new("a", 2)).await;
    open_letters(&mut worker, &[("malformed_xml", 1.0), ("empty_file", 1.0)]).await;

    let scrape = Scrape::of(&mut worker).await;
    let files = |feed: &str, outcome: &str| {
        let (feed, outcome) = (format!("feed=\"{feed}\""), format!("outcome=\"{outcome}\""));
        scrape.sum("feedmill_convert_files_total", &[&feed, &outcome])
    };
    assert_eq!(files("products", "converted"), Some(4.0));
    assert_eq!(files("products", "dead_lettered"), Some(3.0));
    assert_eq!(files("none", "ignored"), Some(1.0));
    for (name, words, least) in [
        ("feedmill_convert_latency_seconds_count", &[][..], 7.0),
        ("feedmill_convert_file_bytes_count", &[], 7.0),
        (
            "feedmill_dead_letters_total",
            &[r#"reason="malformed_xml""#],
            2.0,
        ),
        (
            "feedmill_feed_last_file_timestamp_seconds",
            &[r#"feed="products""#],
            1.7e9,
        ),
        (
            "feedmill_intake_requests_total",
            &[r#"dialect="aws",status="202""#],
            1.0,
        ),
        (
            "feedmill_intake_requests_total",
            &[r#"dialect="unknown",status="400""#],
            1.0,
        ),
        (
            "feedmill_s3_requests_total",
            &[r#"operation="GetObject",status="200""#],
            7.0,
        ),
        (
            "feedmill_s3_requests_total",
            &[r#"operation="PutObject",status="200""#],
            4.0,
        ),
        ("feedmill_state_bytes", CONVERT, 1.0),
        ("feedmill_state_entries", CONVERT, 6.0),
        (
            "feedmill_kafka_transactions_total",
            &[r#"outcome="committed",stage="convert""#],
            1.0,
        ),
        (
            "feedmill_kafka_transaction_duration_seconds_count",
            CONVERT,
            1.0,
        ),
        (
            "feedmill_kafka_restore_duration_seconds_count",
            CONVERT,
            2.0,
        ),
        ("process_resident_memory_bytes", &[], 1e6),
        ("process_cpu_seconds_total", &[], 0.01),
    ] {
        let sum = scrape.sum(name, words);
        assert!(
            sum.is_some_and(|sum| sum >= least),
            "{name} {words:?}: {sum:?}"
        );
    }
    let (_, page) = worker.get("/metrics").await;
    assert_is_listed(&page);
    promtool(&["check", "metrics"], &page);

    // Who comes next learns from the topics what is open, and when the feed delivered last.
    let last = scrape.sum("feedmill_feed_last_file_timestamp_seconds", &[]);
    stop(worker).await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    open_letters(&mut worker, &[("malformed_xml", 1.0), ("empty_file", 1.0)]).await;
    wait_until("the feed's last file", PATIENCE, async || {
        let scrape = Scrape::of(&mut worker).await;
        let known = scrape.sum("feedmill_feed_last_file_timestamp_seconds", &[])?;
        // Counted a moment after the time that the result has.
        ((known - last?).abs() <= 2.0).then_some(())
    })
    .await;
    stop(worker).await;
}

/// Every family of a scrape has a definition of its type.
fn assert_is_listed(page: &str) {
    let metrics = CHAPTERS.iter().flat_map(|chapter| chapter.metrics);
    let types: BTreeMap<_, _> = metrics
        .map(|metric| match metric.kind {
            Kind::Counter => (metric.name, "counter"),
            Kind::Gauge => (metric.name, "gauge"),
            Kind::Histogram(_) => (metric.name, "histogram"),
        })
        .collect();
    let mut seen = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(types.get(name), Some(&kind), "{name}");
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}
