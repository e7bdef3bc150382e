//! A real Prometheus scrapes two workers under load, with faults: every query of every panel returns data, and every alert can
//! be evaluated.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

#[path = "support/dashboards.rs"]
mod dashboards;

#[path = "support/moto.rs"]
#[allow(
    dead_code,
    reason = "a queue is made and removed here, and nothing is sent"
)]
mod moto;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use convert_world::notifications::{aws_record, message};
use convert_world::{Fault, Gate, PATIENCE, through};
use dashboards::dashboards;
use moto::Moto;
use serde_json::Value;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const SETTINGS: &str = r#"
    [s3]
    max_attempts = 1
    read_timeout_ms = 1_500

    [retry]
    in_place = "300ms"
    tiers = ["1s", "2s"]
    breaker = { failures = 2, pause = "1s" }

    [sweep]
    enabled = true
    interval = "1s"
    min_age = "0s"

    [[feeds]]
    name = "products"
    match = "s3://{input}/products/**"
    expect_every = "1d"
    record = "items/item"
    max_rejected = 2
    after = "tag"

    [feeds.fields]
    id = { path = "@id", required = true }

    [[feeds]]
    name = "silent"
    match = "s3://{input}/silent/**"
    # The shortest there is: it is silent after a minute and a half.
    expect_every = "1m"
    record = "items/item"

    [[intake.queues]]
    url = "{queue}"
    region = "us-east-1"
    credentials = { access_key_id = "test", secret_access_key = "test" }
"#;

/// Rounds in which files meet a bucket that is away.
const AWAY: u32 = 5;

struct Prometheus {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server stands beside promtool; `None`, and a printed note, where there is none.
fn binary() -> Option<PathBuf> {
    let promtool = std::env::var_os("FEEDMILL_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let binary = Path::new(&promtool).with_file_name("prometheus");
    if Command::new(&binary).arg("--version").output().is_ok() {
        return Some(binary);
    }
    let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
    let note = "needs prometheus: tests/run, or apt-get install prometheus";
    assert!(!required, "{note}");
    eprintln!("skipped: {note}");
    None
}

impl Prometheus {
    fn start(binary: &Path, targets: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yml");
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        // JSON is YAML.
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "feedmill",
                "static_configs": [{ "targets": targets }],
            }],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        Self {
            child,
            address,
            http: reqwest::Client::new(),
            _folder: folder,
        }
    }

    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Option<Value> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let url = format!("http://{}/api/v1/{path}?{}", self.address, form.finish());
        let answer = self.http.get(url).send().await.ok()?;
        let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        assert_eq!(answer["status"], "success", "{fields:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// Whether a query has an answer now.
    async fn has(&self, query: &str) -> bool {
        let data = self.ask("query", &[("query", query)]).await;
        let result = data.and_then(|data| data["result"].as_array().cloned());
        result.is_some_and(|result| !result.is_empty())
    }
}

async fn two_workers(world: &World, gate: &Gate) -> [Worker; 2] {
    let start = async |number: usize| {
        let options = WorkerOptions::default().state_dir(format!("state-{number}"));
        let mut worker = world.worker(through(gate, options));
        worker.ready(PATIENCE).await;
        worker
    };
    [start(0).await, start(1).await]
}

/// Files that are converted, refused, or wait; records left out; notifications of all kinds; a configuration that fails.
async fn load(world: &World, gate: &Gate, worker: &mut Worker, round: u32) {
    for n in 0..5 {
        let key = format!("products/{n}.xml");
        let etag = world.put(&key, ProductFile::new(&key, round).xml()).await;
        world.announce(&key, Some(etag.as_str())).await;
    }
    let rejected = format!("<items><item id='{round}'/><item/></items>");
    for (key, bytes) in [
        ("products/rejected.xml", rejected.as_str()),
        ("products/bad.xml", "<items>"),
        ("elsewhere/a.xml", "<a/>"),
    ] {
        let key = format!("{key}-{round}");
        world.put(&key, bytes).await;
        world.announce(&key, None).await;
    }
    match round {
        0 => gate.fail("products/away", Fault::Status(503, "SlowDown")),
        // Then the bucket is back, but can't be listed.
        AWAY => {
            gate.open();
            gate.fail("list-type=2", Fault::Status(403, "AccessDenied"));
        }
        _ => {}
    }
    for n in 0..if round < AWAY { 3 } else { 0 } {
        let key = format!("products/away-{round}-{n}.xml");
        world.put(&key, ProductFile::new(&key, 1).xml()).await;
        world.announce(&key, None).await;
    }
    let bucket = &world.origin.input_bucket;
    let created = aws_record(bucket, "products/0.xml");
    let folder = aws_record(bucket, "products/");
    let notification = serde_json::from_slice(&message([created, folder])).unwrap();
    worker.notify(&notification).await;
    worker.notify(&"no".into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_panel_returns_data_and_every_alert_is_evaluated() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let Some(binary) = binary() else { return };
    let Some(moto) = Moto::shared().await else {
        return;
    };
    let queue = moto.queue(PATIENCE).await;
    let settings = SETTINGS.replace("{queue}", &queue.url);
    let world = stack.world("scraped").partitions(4);
    let world = world.settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut workers = two_workers(&world, &gate).await;
    let mut targets = Vec::new();
    for worker in &mut workers {
        targets.push(worker.admin_address().await);
    }
    // From now on it can't be emptied.
    queue.remove().await;
    let prometheus = Prometheus::start(&binary, &targets);
    let broken = world.folder().join("feeds.d");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("broken.toml"), "[[feeds]]\nnme = 1\n").unwrap();

    let mut open: Vec<(String, String)> = Vec::new();
    for dashboard in dashboards() {
        for query in dashboard.queries() {
            let query = query
                .replace("$job", "feedmill")
                .replace("$feed", "products")
                .replace("$stage", ".*");
            open.push((dashboard.file.clone(), query));
        }
    }
    assert!(open.len() > 70);
    for round in 0.. {
        load(&world, &gate, &mut workers[0], round).await;
        let mut left = Vec::new();
        for (file, query) in open {
            if !prometheus.has(&query).await {
                left.push((file, query));
            }
        }
        open = left;
        if open.is_empty() {
            break;
        }
        assert!(round < 150, "no data for {open:#?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    wait_until("each alert to be evaluated", PATIENCE, async || {
        let data = prometheus.ask("rules", &[("type", "alert")]).await?;
        let groups = data["groups"].as_array()?;
        let rules: Vec<&Value> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
            .collect();
        assert!(rules.len() >= 12, "{data}");
        rules
            .iter()
            .all(|rule| rule["health"] == "ok")
            .then_some(())
    })
    .await;
    let firing = r#"ALERTS{alertname="FeedmillReloadFailed"}"#;
    assert!(
        prometheus.has(firing).await,
        "the broken file makes no alert"
    );
}
