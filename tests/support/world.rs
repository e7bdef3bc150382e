//! What one test has for itself on the servers: topics, group, buckets, and a folder with `feedmill.toml`, from which its
//! workers and commands run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use feedmill::object::{ETag, ObjectRef};
use feedmill::topics::{Id, ObjectEvent, ResultRecord, encode};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tempfile::TempDir;
use toml::{Table, Value, toml};

use super::checker::{self, Commit, Dump, Expectations, Topic, Violation, murmur2};
use super::dump::{self, Origin};
use super::files::PRODUCTS_FEED;
use super::process::{self, Finished, Process};
use super::results::Results;
use super::s3::{Store, Stored};
use super::worker::{Worker, WorkerOptions};
use super::{Stack, kafka, poll_until};

const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The stage whose group commits the events' offsets, as it appears in the group's name.
const CONVERT_STAGE: &str = "convert";

pub struct WorldBuilder {
    stack: Stack,
    name: String,
    partitions: i32,
    settings: String,
    predecessor: Option<Origin>,
}

impl WorldBuilder {
    pub(super) fn new(stack: Stack, name: &str) -> Self {
        Self {
            stack,
            name: name.into(),
            partitions: 4,
            settings: String::new(),
            predecessor: None,
        }
    }

    /// Shares the group and the buckets of another world, which must outlive it; only the topics are its own.
    pub fn in_place_of(self, world: &World) -> Self {
        Self {
            predecessor: Some(world.origin.clone()),
            ..self
        }
    }

    pub fn partitions(self, partitions: i32) -> Self {
        Self { partitions, ..self }
    }

    /// TOML laid over the harness's settings, table by table; feeds replace the one there is. `{input}` and `{output}`
    /// stand for the buckets.
    pub fn settings(self, toml: &str) -> Self {
        Self {
            settings: toml.into(),
            ..self
        }
    }

    /// Makes buckets and topics, and writes `feedmill.toml`.
    pub async fn create(self) -> World {
        self.try_create().await.expect("the servers serve")
    }

    async fn try_create(self) -> Result<World> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let prefix = format!("fm-{}-{}", self.name, &random[..8]);
        let store = Store::connect(&self.stack.s3_endpoint);
        let origin = match &self.predecessor {
            Some(predecessor) => Origin {
                topic_prefix: prefix.clone(),
                ..predecessor.clone()
            },
            None => Origin {
                brokers: self.stack.brokers.clone(),
                topic_prefix: prefix.clone(),
                group: format!("{prefix}.{CONVERT_STAGE}"),
                input_bucket: format!("{prefix}-in"),
                output_bucket: format!("{prefix}-out"),
            },
        };
        if self.predecessor.is_none() {
            store.create_bucket(&origin.input_bucket).await?;
            store.create_bucket(&origin.output_bucket).await?;
        }
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        fs::write(folder.path().join("feedmill.toml"), self.toml(&origin)?)?;
        create_topics(folder.path()).await;
        let producer = kafka::client(&origin.brokers)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "10000")
            .create()?;
        let results = Results::follow(&origin.brokers, &origin.topic(Topic::Results))?;
        let http = reqwest::Client::builder().timeout(HTTP_TIMEOUT).build()?;
        Ok(World {
            partitions: self.partitions,
            owns_buckets: self.predecessor.is_none(),
            stack: self.stack,
            origin,
            store,
            producer,
            http,
            results,
            workers_started: AtomicUsize::new(0),
            folder,
        })
    }

    fn toml(&self, origin: &Origin) -> Result<String> {
        let mut settings = self.defaults(origin);
        for layer in [PRODUCTS_FEED, &self.settings] {
            let layer = layer
                .replace("{input}", &origin.input_bucket)
                .replace("{output}", &origin.output_bucket);
            overlay(&mut settings, layer.parse().context("the test's settings")?);
        }
        Ok(toml::to_string(&settings)?)
    }

    fn defaults(&self, origin: &Origin) -> Table {
        let mut settings = toml! {
            [kafka]
            replication = 1
            session_timeout_secs = 6
            transaction_timeout_secs = 10

            [s3]
            path_style = true
            region = "us-east-1"

            [intake]
            listen = "127.0.0.1:0"

            [sweep]
            enabled = false

            [retry]
            in_place = "2s"
            tiers = ["1s", "2s", "4s"]

            [admin]
            listen = "127.0.0.1:0"

            [state]
            dir = "state"

            [log]
            format = "json"
        };
        let brokers = self.stack.brokers.split(',').map(Value::from).collect();
        let prefix = origin.topic_prefix.as_str();
        for (table, name, value) in [
            ("kafka", "brokers", Value::Array(brokers)),
            ("kafka", "group", installation(origin).into()),
            ("kafka", "topic_prefix", prefix.into()),
            ("kafka", "partitions", i64::from(self.partitions).into()),
            ("s3", "endpoint", self.stack.s3_endpoint.as_str().into()),
            ("output", "bucket", origin.output_bucket.as_str().into()),
        ] {
            let table = settings.entry(table).or_insert(Value::Table(Table::new()));
            let table = table.as_table_mut().expect("a table in the defaults");
            table.insert(name.into(), value);
        }
        settings
    }
}

/// The name that the groups of all stages begin with.
fn installation(origin: &Origin) -> &str {
    let group = origin.group.strip_suffix(CONVERT_STAGE);
    group.map_or(&origin.group, |group| group.trim_end_matches('.'))
}

/// Lays one table over another: tables are merged, anything else is replaced.
fn overlay(base: &mut Table, over: Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

async fn create_topics(folder: &Path) {
    let made = feedmill(folder, &["topics", "create"]).await;
    assert!(made.status.success(), "topics create: {made:#?}");
}

async fn feedmill(folder: &Path, args: &[&str]) -> Finished {
    let mut command = feedmill_command(folder);
    command.args(args).args(["--config", "feedmill.toml"]);
    let finished = process::run(&mut command, folder, COMMAND_TIMEOUT).await;
    finished.expect("the binary runs")
}

/// The binary, in the world's folder, without settings from the environment of the tests.
fn feedmill_command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedmill"));
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FEEDMILL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Made by [`Stack::world`]; its buckets and topics go when it is dropped, its folder stays when the test fails.
pub struct World {
    pub stack: Stack,
    pub origin: Origin,
    pub partitions: i32,
    owns_buckets: bool,
    store: Store,
    producer: FutureProducer,
    http: reqwest::Client,
    results: Results,
    workers_started: AtomicUsize,
    folder: TempDir,
}

impl World {
    /// Where `feedmill.toml`, logs and state folders lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // Objects

    pub async fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) -> ETag {
        let put = self.store.put(&self.origin.input_bucket, key, bytes.into());
        put.await.expect("the S3 server serves")
    }

    pub async fn delete(&self, key: &str) {
        let delete = self.store.delete(&self.origin.input_bucket, key);
        delete.await.expect("the S3 server serves");
    }

    /// An object of the output bucket, by its own key.
    pub async fn get_output(&self, key: &str) -> Option<Stored> {
        let get = self.store.get(&self.origin.output_bucket, key);
        get.await.expect("the S3 server serves")
    }

    /// Writes into the output bucket, as a stranger or a stalled worker would.
    pub async fn put_output(&self, key: &str, bytes: impl Into<Vec<u8>>) -> ETag {
        let put = self
            .store
            .put(&self.origin.output_bucket, key, bytes.into());
        put.await.expect("the S3 server serves")
    }

    pub async fn delete_output(&self, key: &str) {
        let delete = self.store.delete(&self.origin.output_bucket, key);
        delete.await.expect("the S3 server serves");
    }

    // Events

    /// An event about an object of the input bucket, ready to be changed and sent.
    pub fn event(&self, key: &str, etag: Option<&str>) -> ObjectEvent {
        let object = ObjectRef::try_new(&self.origin.input_bucket, key).expect("a valid key");
        ObjectEvent {
            etag: etag.and_then(ETag::parse),
            ..ObjectEvent::observed(&object, "test")
        }
    }

    /// Writes an event straight to its partition, past intake; its id.
    pub async fn announce(&self, key: &str, etag: Option<&str>) -> Id {
        let event = self.event(key, etag);
        self.send(&event).await;
        event.id
    }

    /// Writes an event as it is to the partition of its key.
    pub async fn send(&self, event: &ObjectEvent) {
        let key = format!("{}/{}", event.bucket, event.key);
        let partition = murmur2::partition_of(&key, self.partitions);
        self.announce_raw(partition, &key, &encode(event)).await;
    }

    /// Writes any record to any partition of `events`; its offset.
    pub async fn announce_raw(&self, partition: i32, key: &str, bytes: &[u8]) -> i64 {
        let topic = self.topic(Topic::Events);
        let record = FutureRecord::to(&topic).partition(partition).key(key);
        let sent = self
            .producer
            .send(record.payload(bytes), kafka::TIMEOUT)
            .await;
        sent.map_err(|(error, _)| error)
            .expect("the broker takes it")
            .offset
    }

    /// The partition of an object's records.
    pub fn partition_of(&self, key: &str) -> i32 {
        let key = format!("{}/{key}", self.origin.input_bucket);
        murmur2::partition_of(&key, self.partitions)
    }

    pub fn topic(&self, topic: Topic) -> String {
        self.origin.topic(topic)
    }

    // Results

    /// All so far.
    pub fn results(&self) -> Vec<ResultRecord> {
        self.results.all()
    }

    pub async fn wait_for_result(&self, event_id: Id, timeout: Duration) -> ResultRecord {
        let result = poll_until(timeout, async || self.results.of(event_id)).await;
        result.unwrap_or_else(|| panic!("no result of event {event_id} within {timeout:?}"))
    }

    /// Records of `events` that the convert group has not committed; `None` while the broker does not answer.
    pub async fn lag(&self) -> Option<usize> {
        let (origin, events) = (self.origin.clone(), self.topic(Topic::Events));
        blocking(move || kafka::lag(&origin.brokers, &origin.group, &events))
            .await
            .ok()
    }

    /// Events that wait in retry topics; `None` while the broker does not answer.
    pub async fn waiting(&self) -> Option<usize> {
        let (brokers, prefix) = (self.origin.brokers.clone(), self.retry_prefix());
        let installation = installation(&self.origin).to_owned();
        let waiting = move || -> Result<usize> {
            let mut waiting = 0;
            for topic in kafka::topics(&brokers)? {
                if let Some(tier) = topic.strip_prefix(&prefix) {
                    let group = format!("{installation}.retry.{tier}");
                    waiting += kafka::lag(&brokers, &group, &topic)?;
                }
            }
            Ok(waiting)
        };
        blocking(waiting).await.ok()
    }

    /// What the names of this world's retry topics begin with.
    fn retry_prefix(&self) -> String {
        format!("{}.retries.", self.origin.topic_prefix)
    }

    /// Waits until every event is committed and none waits for another attempt; whether that happened in time.
    pub async fn settles_within(&self, timeout: Duration) -> bool {
        let settled = async || {
            // Twice, around the other: an event that moves from one to the other is seen in one of them.
            let lags = [self.lag().await?, self.waiting().await?, self.lag().await?];
            (lags == [0; 3]).then_some(())
        };
        poll_until(timeout, settled).await.is_some()
    }

    /// What the convert group has committed.
    pub async fn commits(&self) -> Result<Vec<Commit>> {
        let (origin, events) = (self.origin.clone(), self.topic(Topic::Events));
        blocking(move || kafka::commits(&origin.brokers, &origin.group, &events)).await
    }

    // Processes

    /// Starts `feedmill run`.
    pub fn worker(&self, options: WorkerOptions) -> Worker {
        let number = self.workers_started.fetch_add(1, Ordering::Relaxed);
        let mut command = feedmill_command(self.folder());
        command
            .args(["run", "--config", "feedmill.toml"])
            .args(options.args);
        if let Some(state_dir) = options.state_dir {
            command.env("FEEDMILL_STATE__DIR", state_dir);
        }
        command.envs(options.env);
        let log = self.folder().join(format!("worker-{number}.log"));
        let process = Process::start(&mut command, log).expect("the binary runs");
        Worker::new(process, self.http.clone())
    }

    /// Starts a command of the binary, to be killed.
    pub fn spawn_cli(&self, args: &[&str]) -> Process {
        let mut command = feedmill_command(self.folder());
        command.args(args).args(["--config", "feedmill.toml"]);
        let log = self.folder().join("command.log");
        Process::start(&mut command, log).expect("the binary runs")
    }

    /// Runs a command of the binary to its end.
    pub async fn run_cli(&self, args: &[&str]) -> Finished {
        feedmill(self.folder(), args).await
    }

    // The proof

    /// Takes down what the run left, and keeps it in the world's folder.
    pub async fn dump(&self) -> Dump {
        let dump = dump::take(&self.origin, &self.store).await;
        let dump = dump.expect("the servers serve");
        let file = File::create(self.folder().join("dump.jsonl")).expect("a writable folder");
        dump.write(BufWriter::new(file)).expect("a writable folder");
        dump
    }

    /// What is wrong with the run, which must be at rest.
    pub async fn check(&self, expected: &Expectations) -> Vec<Violation> {
        let json = serde_json::to_vec(expected).expect("string keys");
        fs::write(self.folder().join("expected.json"), json).expect("a writable folder");
        checker::check(&self.dump().await, expected)
    }

    /// Fails the test with everything that is wrong.
    pub async fn assert_healthy(&self, expected: &Expectations) {
        let found = self.check(expected).await;
        for violation in &found {
            eprintln!("{}: {violation}", violation.rule());
        }
        assert!(found.is_empty(), "{} violations", found.len());
    }

    async fn remove(stack: &Stack, origin: &Origin, with_buckets: bool) -> Result<()> {
        let store = Store::connect(&stack.s3_endpoint);
        if with_buckets {
            store.remove_bucket(&origin.input_bucket).await?;
            store.remove_bucket(&origin.output_bucket).await?;
        }
        let admin: AdminClient<DefaultClientContext> = kafka::client(&stack.brokers).create()?;
        let rejected = format!("{}.rejected-notifications", origin.topic_prefix);
        let topics = Topic::ALL.map(|topic| origin.topic(topic));
        let mut names: Vec<&str> = topics.iter().map(String::as_str).collect();
        names.push(&rejected);
        let cleanups = format!("{}.cleanups", origin.topic_prefix);
        names.push(&cleanups);
        let there = kafka::topics(&stack.brokers)?;
        let retries = format!("{}.retries.", origin.topic_prefix);
        names.extend(
            there
                .iter()
                .map(String::as_str)
                .filter(|name| name.starts_with(&retries)),
        );
        let options = AdminOptions::new().request_timeout(Some(kafka::TIMEOUT));
        admin.delete_topics(&names, &options).await?;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl Drop for World {
    /// Best effort, on a thread of its own: a test's runtime cannot be entered from here.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("kept: {}", self.folder().display());
        }
        let (stack, origin) = (self.stack.clone(), self.origin.clone());
        let with_buckets = self.owns_buckets;
        let cleanup = std::thread::spawn(move || -> Result<()> {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build()?;
            let removed = Self::remove(&stack, &origin, with_buckets);
            runtime.block_on(async { tokio::time::timeout(CLEANUP_TIMEOUT, removed).await })?
        });
        if let Ok(Err(error)) = cleanup.join() {
            eprintln!("not everything was removed: {error:#}");
        }
    }
}
