//! What the tests of the runtime do behind feedmill's back: hold requests on their way to the S3 server, write to its
//! topics as a foreign producer, and change offsets and logs as an administrator.

#![allow(dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use feedmill::object::ETag;
use feedmill::topics::{Id, ObjectEvent, Outcome, RejectedNotification, decode, encode};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use crate::support::checker::{Commit, Expectations, Topic};
use crate::support::files::ProductFile;
use crate::support::{Worker, WorkerOptions, World, wait_until};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Generous, because the machine is shared: a test that passes waits for much less.
pub const PATIENCE: Duration = Duration::from_secs(60);

// --- between a worker and the S3 server ---

/// What becomes of a request that a rule names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It does not reach the server yet.
    Request,
    /// The server has done it; the answer does not reach the worker yet.
    Answer,
}

struct Rule {
    method: &'static str,
    path: String,
    hold: Hold,
}

struct Shared {
    upstream: String,
    rules: Mutex<Vec<Rule>>,
    /// Counts releases: a held request goes on after the next one.
    released: watch::Sender<u64>,
    held: AtomicUsize,
    /// Requests that were held and then answered by the server.
    answered: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// A proxy before the S3 server that can hold requests. What was held goes on even when its sender is gone: a network
/// forgets nothing.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

impl Gate {
    pub async fn open(world: &World) -> Self {
        let upstream = world.stack.s3_endpoint.strip_prefix("http://");
        let shared = Arc::new(Shared {
            upstream: upstream.expect("a plain server").to_owned(),
            rules: Mutex::default(),
            released: watch::Sender::new(0),
            held: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let mut connections = JoinSet::new();
        let accepted = Arc::clone(&shared);
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                open.spawn(serve(client, Arc::clone(&accepted)));
            }
        });
        Self {
            address,
            shared,
            _connections: connections,
        }
    }

    /// A worker that reaches the S3 server through this gate only.
    pub fn options(&self) -> WorkerOptions {
        let endpoint = format!("http://{}", self.address);
        WorkerOptions::default()
            .env("FEEDMILL_S3__ENDPOINT", &endpoint)
            // A held request stays the same one.
            .env("FEEDMILL_S3__READ_TIMEOUT_MS", "110000")
    }

    /// Holds requests of this method whose path has `path` in it, until the next release.
    pub fn hold(&self, hold: Hold, method: &'static str, path: &str) {
        let path = path.to_owned();
        lock(&self.shared.rules).push(Rule { method, path, hold });
    }

    /// Lets everything that is held go on, and holds nothing from now on.
    pub fn release(&self) {
        lock(&self.shared.rules).clear();
        self.shared.released.send_modify(|count| *count += 1);
    }

    pub async fn wait_for_held(&self, count: usize) {
        let what = format!("{count} requests held");
        let held = &self.shared.held;
        wait_until(&what, PATIENCE, async || {
            (held.load(Ordering::SeqCst) >= count).then_some(())
        })
        .await;
    }

    /// Waits until the server has answered requests that were held on their way to it.
    pub async fn wait_for_answers(&self, count: usize) {
        let what = format!("{count} held requests answered");
        let answered = &self.shared.answered;
        wait_until(&what, PATIENCE, async || {
            (answered.load(Ordering::SeqCst) >= count).then_some(())
        })
        .await;
    }

    /// How many requests of this method came by whose path has `path` in it.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let requests = lock(&self.shared.requests);
        let is_one = |line: &&String| line.starts_with(method) && line.contains(path);
        requests.iter().filter(is_one).count()
    }
}

/// What becomes of the bytes that come back on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Flow,
    /// Flow, and are counted: the request was held.
    Count,
    Stop,
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.upstream).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answers = watch::Sender::new(Answers::Flow);
    let mode = answers.subscribe();
    tokio::join!(
        requests(from_client, to_server, answers, Arc::clone(&shared)),
        pass_answers(from_server, to_client, mode, &shared.answered),
    );
}

/// Passes request after request on, each read to its end first.
async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    answers: watch::Sender<Answers>,
    shared: Arc<Shared>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = next_request(&mut client, &mut buffer).await {
        let head = String::from_utf8_lossy(&request);
        let line = head.lines().next().unwrap_or_default().to_owned();
        lock(&shared.requests).push(line.clone());
        let mut released = shared.released.subscribe();
        released.mark_unchanged();
        let hold = hold_of(&shared, &line);
        if hold == Some(Hold::Request) {
            wait_for_release(&shared, &mut released).await;
        }
        answers.send_replace(match hold {
            None => Answers::Flow,
            Some(Hold::Request) => Answers::Count,
            Some(Hold::Answer) => Answers::Stop,
        });
        if server.write_all(&request).await.is_err() {
            return;
        }
        if hold == Some(Hold::Answer) {
            wait_for_release(&shared, &mut released).await;
            answers.send_replace(Answers::Flow);
        }
    }
    let _ = server.shutdown().await;
}

fn hold_of(shared: &Shared, line: &str) -> Option<Hold> {
    let rules = lock(&shared.rules);
    let applies = |rule: &&Rule| line.starts_with(rule.method) && line.contains(&rule.path);
    rules.iter().find(applies).map(|rule| rule.hold)
}

async fn wait_for_release(shared: &Shared, released: &mut watch::Receiver<u64>) {
    shared.held.fetch_add(1, Ordering::SeqCst);
    let _ = released.changed().await;
    shared.held.fetch_sub(1, Ordering::SeqCst);
}

/// Head and body of the next request; `None` when the client has closed.
async fn next_request(client: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = request_length(buffer)
            && buffer.len() >= length
        {
            let rest = buffer.split_off(length);
            return Some(std::mem::replace(buffer, rest));
        }
        if client.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Bytes of the request that starts here, when its head is complete; the SDK always names a body's length.
fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().expect("a number"));
    Some(head + length)
}

/// Passes bytes back while answers flow; goes on reading when the client is gone.
async fn pass_answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut mode: watch::Receiver<Answers>,
    answered: &AtomicUsize,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = server.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            let _ = client.shutdown().await;
            return;
        }
        if *mode.borrow() == Answers::Count {
            answered.fetch_add(1, Ordering::SeqCst);
        }
        let _ = mode.wait_for(|mode| *mode != Answers::Stop).await;
        let _ = client.write_all(&buffer[..count]).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- a foreign producer ---

fn client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &world.origin.brokers)
        .set("socket.timeout.ms", "20000");
    config
}

fn create<T: FromClientConfig>(config: &ClientConfig) -> T {
    config.create().expect("valid settings")
}

/// A transactional producer of nobody's; its open transaction is aborted by the broker a while after it is gone.
pub struct ForeignProducer {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl ForeignProducer {
    pub fn new(world: &World) -> Self {
        let mut config = client(world);
        config
            .set("transactional.id", uuid::Uuid::new_v4().to_string())
            .set("transaction.timeout.ms", "120000");
        let producer: ThreadedProducer<DefaultProducerContext> = create(&config);
        block_in_place(|| producer.init_transactions(TIMEOUT)).expect("the broker serves");
        Self { producer }
    }

    pub fn begin(&self) {
        let begun = block_in_place(|| self.producer.begin_transaction());
        begun.expect("no transaction is open");
    }

    pub fn send(&self, topic: &str, partition: i32, key: &str, bytes: &[u8]) {
        let record = BaseRecord::to(topic).partition(partition).key(key);
        let sent = self.producer.send(record.payload(bytes));
        sent.map_err(|(error, _)| error).expect("room in the queue");
    }

    /// Writes an event to the partition of its key.
    pub fn send_event(&self, world: &World, event: &ObjectEvent) {
        let key = format!("{}/{}", event.bucket, event.key);
        let partition = world.partition_of(&event.key);
        self.send(&world.topic(Topic::Events), partition, &key, &encode(event));
    }

    /// Waits until the broker has all that was sent; the transaction stays open.
    pub fn flush(&self) {
        block_in_place(|| self.producer.flush(TIMEOUT)).expect("the broker serves");
    }

    pub fn commit(&self) {
        block_in_place(|| self.producer.commit_transaction(TIMEOUT)).expect("the broker serves");
    }

    pub fn abort(&self) {
        self.flush();
        block_in_place(|| self.producer.abort_transaction(TIMEOUT)).expect("the broker serves");
    }
}

/// Writes a record with a key and no value; its offset is the end of the log before it.
pub fn send_tombstone(world: &World, topic: &str, partition: i32, key: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = create(&client(world));
    let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).partition(partition).key(key);
    let sent = producer.send(record);
    sent.map_err(|(error, _)| error).expect("room in the queue");
    block_in_place(|| producer.flush(TIMEOUT)).expect("the broker serves");
}

// --- an administrator ---

fn admin(world: &World) -> (AdminClient<DefaultClientContext>, AdminOptions) {
    let options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT));
    (create(&client(world)), options)
}

/// Removes the records before an offset, as retention does.
pub async fn delete_records(world: &World, topic: Topic, partition: i32, before: i64) {
    let (admin, options) = admin(world);
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(before);
    list.add_partition_offset(&world.topic(topic), partition, offset)
        .expect("an offset that can be set");
    let deleted = admin.delete_records(&list, &options).await;
    for element in deleted.expect("the broker serves").elements() {
        element.error().expect("the records can be deleted");
    }
}

/// Forgets everything that the convert group has committed; it must have no members.
pub async fn delete_group(world: &World) {
    wait_until("the group is gone", PATIENCE, async || {
        let (admin, options) = admin(world);
        let groups = [world.origin.group.as_str()];
        let deleted = admin.delete_groups(&groups, &options).await.ok()?;
        deleted.into_iter().all(|group| group.is_ok()).then_some(())
    })
    .await;
}

/// Commits an offset the way other tools do, which write no metadata; the broker lets them only while the group has no
/// members.
pub async fn reset_offset(world: &World, partition: i32, offset: i64, metadata: &str) {
    let mut config = client(world);
    config
        .set("group.id", &world.origin.group)
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = create(&config);
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&world.topic(Topic::Events), partition);
    element.set_metadata(metadata);
    element
        .set_offset(Offset::Offset(offset))
        .expect("an offset that can be set");
    wait_until(
        "the group lets its offsets be reset",
        PATIENCE,
        async || block_in_place(|| consumer.commit(&list, CommitMode::Sync)).ok(),
    )
    .await;
}

/// Sets the largest batch that the results topic takes, in bytes.
pub async fn limit_results(world: &World, bytes: usize) {
    let (admin, options) = admin(world);
    let (topic, bytes) = (world.topic(Topic::Results), bytes.to_string());
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("cleanup.policy", "delete")
        .set("max.message.bytes", &bytes);
    let altered = admin.alter_configs(&[config], &options).await;
    for result in altered.expect("the broker serves") {
        result.expect("the setting is taken");
    }
}

/// Deletes every topic of the world, and makes them again under the same names.
pub async fn recreate_topics(world: &World) {
    let (admin, options) = admin(world);
    let names = Topic::ALL.map(|topic| world.topic(topic));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let deleted = admin.delete_topics(&names, &options).await;
    for result in deleted.expect("the broker serves") {
        result.expect("the topic can be deleted");
    }
    let mut made = 0;
    wait_until("the topics are there again", PATIENCE, async || {
        let create = world.run_cli(&["topics", "create"]).await;
        made += create.stdout.matches("created ").count();
        (made == names.len() && create.status.success()).then_some(())
    })
    .await;
}

/// Start and end of a log; the end is one past everything in it, the ends of transactions too.
pub fn log_ends(world: &World, topic: Topic, partition: i32) -> (i64, i64) {
    LogReader::new(world, "read_uncommitted").ends(&world.topic(topic), partition)
}

/// Asks for the ends of logs again and again.
pub struct LogReader(BaseConsumer);

impl LogReader {
    pub fn new(world: &World, isolation: &str) -> Self {
        let mut config = client(world);
        config
            .set("group.id", "nobody")
            .set("isolation.level", isolation);
        Self(create(&config))
    }

    pub fn ends(&self, topic: &str, partition: i32) -> (i64, i64) {
        let ends = block_in_place(|| self.0.fetch_watermarks(topic, partition, TIMEOUT));
        ends.expect("the broker serves")
    }
}

/// What the convert group has committed for one partition; none while a transaction with its offsets is open.
pub async fn commit_of(world: &World, partition: i32) -> Option<Commit> {
    let commits = world.commits().await.ok()?;
    commits.into_iter().find(|c| c.partition == partition)
}

/// Waits until the group's offset is at the very end of the log, as operators' tools measure lag.
pub async fn wait_for_log_end(world: &World, partition: i32) {
    let what = format!("partition {partition} is committed to its end");
    wait_until(&what, PATIENCE, async || {
        let (_, end) = log_ends(world, Topic::Events, partition);
        let commit = commit_of(world, partition).await;
        (commit.map_or(0, |commit| commit.next_offset) == end).then_some(())
    })
    .await;
}

/// Everything in `rejected-notifications`.
pub fn rejected(world: &World) -> Vec<RejectedNotification> {
    let topic = format!("{}.rejected-notifications", world.origin.topic_prefix);
    let mut config = client(world);
    config
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = create(&config);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Beginning)
        .expect("an offset that can be set");
    consumer.assign(&list).expect("nothing else is assigned");
    let mut read = Vec::new();
    block_in_place(|| {
        loop {
            match consumer.poll(TIMEOUT).expect("the end comes in time") {
                Ok(record) => {
                    let value = record.payload().unwrap_or_default();
                    read.push(decode(value).expect("written by feedmill"));
                }
                Err(KafkaError::PartitionEOF(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    read
}

// --- keys and workers ---

/// A key of the products feed on this partition.
pub fn key_on(world: &World, partition: i32, name: &str) -> String {
    (0..)
        .map(|number| format!("products/{name}-{number}.xml"))
        .find(|key| world.partition_of(key) == partition)
        .expect("keys spread over all partitions")
}

/// Waits until an admin page answers as wanted; its body.
pub async fn wait_for_page(
    worker: &mut Worker,
    path: &str,
    status: u16,
    wanted: impl Fn(&str) -> bool,
) -> String {
    let mut last = (0, String::new());
    let found = crate::support::poll_until(PATIENCE, async || {
        last = worker.get(path).await;
        (last.0 == status && wanted(&last.1)).then_some(())
    });
    let found = found.await.is_some();
    assert!(found, "{path} still answers {last:?}");
    last.1
}

/// Sum of a metric's samples whose labels contain `label`.
pub fn metric(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (family, labels) = series.split_once('{').unwrap_or((series, ""));
        (family == name && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

/// SIGTERM, and an end in order.
pub async fn stop(worker: &mut Worker) {
    worker.terminate();
    let status = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "an orderly end");
}

/// How many results each event of these has.
pub fn results_per_event(world: &World) -> HashMap<Id, usize> {
    let mut counts = HashMap::new();
    for result in world.results() {
        *counts.entry(result.event_id).or_default() += 1;
    }
    counts
}

/// The objects of a test, and what it knows of them.
#[derive(Default)]
pub struct Truth {
    pub expected: Expectations,
}

impl Truth {
    /// Puts a version of a product file.
    pub async fn put(&mut self, world: &World, key: &str, version: u32) -> ETag {
        let file = ProductFile::new(key, version);
        let sources = &mut self.expected.sources;
        sources.insert(key.into(), Some(file.json()));
        world.put(key, file.xml()).await
    }

    /// Puts a version of a product file and announces it.
    pub async fn drop(&mut self, world: &World, key: &str, version: u32) -> Id {
        let etag = self.put(world, key, version).await;
        world.announce(key, Some(etag.as_str())).await
    }

    /// Everything is committed, and the checker finds nothing.
    pub async fn assert_healthy(&self, world: &World) {
        let at_rest = world.settles_within(PATIENCE).await;
        world.assert_healthy(&self.expected).await;
        assert!(at_rest, "events are left after {PATIENCE:?}");
    }
}

pub async fn outcome(world: &World, event: Id) -> Outcome {
    world.wait_for_result(event, PATIENCE).await.outcome
}
