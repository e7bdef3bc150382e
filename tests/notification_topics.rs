//! Notifications that S3 servers write to Kafka: every dialect, copied into `events` exactly once, whatever crashes.

#[path = "support/convert_world/notifications.rs"]
mod notifications;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use feedmill::topics::{ObjectEvent, Outcome, RejectedNotification, decode};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::json;
use support::checker::{Expectations, Topic};
use support::files::ProductFile;
use support::kafka::{self, Isolation};
use support::process::Process;
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(10);

/// A world whose workers read a topic of notifications, too.
struct Notified {
    world: World,
    topic: String,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
}

impl Notified {
    async fn create(stack: &Stack, name: &str) -> Self {
        let topic = format!("s3-{name}-{}", uuid::Uuid::new_v4().simple());
        let settings = format!("[intake]\ntopics = [{topic:?}]");
        let world = stack.world(name).settings(&settings).create().await;
        let client = kafka::client(&stack.brokers);
        let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
        let new = NewTopic::new(&topic, 3, TopicReplication::Fixed(1));
        let made = admin.create_topics(&[new], &AdminOptions::new()).await;
        assert!(made.unwrap()[0].is_ok());
        wait_until("the topic to be seen", PATIENCE, async || {
            let (brokers, topic) = (stack.brokers.clone(), topic.clone());
            let topics =
                move || kafka::topics(&brokers).is_ok_and(|topics| topics.contains(&topic));
            tokio::task::spawn_blocking(topics)
                .await
                .unwrap()
                .then_some(())
        })
        .await;
        Self {
            world,
            topic,
            producer: client.clone().set("linger.ms", "5").create().unwrap(),
            admin,
        }
    }

    async fn send(&self, key: Option<&[u8]>, value: &[u8]) {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).payload(value);
        record.key = key;
        let sent = self.producer.send(record, SECOND).await;
        sent.expect("Kafka serves");
    }

    async fn worker(&self, stages: &str) -> Worker {
        let options = WorkerOptions::default().args(&["--stages", stages]);
        let mut worker = self.world.worker(options);
        worker.ready(PATIENCE).await;
        worker
    }

    /// Waits until every message is answered.
    async fn copied(&self) {
        let group = format!("{}.intake.{}", self.world.origin.topic_prefix, self.topic);
        let brokers = self.world.origin.brokers.clone();
        let topic = self.topic.clone();
        wait_until("the notifications to be copied", PATIENCE, async || {
            let (brokers, group, topic) = (brokers.clone(), group.clone(), topic.clone());
            let lag =
                tokio::task::spawn_blocking(move || kafka::lag(&brokers, &group, &topic)).await;
            (lag.unwrap().ok()? == 0).then_some(())
        })
        .await;
    }

    async fn events(&self) -> Vec<ObjectEvent> {
        let topic = self.world.topic(Topic::Events);
        let values = committed(&self.world.origin.brokers, &topic).await;
        values
            .iter()
            .map(|value| decode::<ObjectEvent>(value).unwrap())
            .collect()
    }

    async fn rejected(&self) -> Vec<RejectedNotification> {
        let topic = format!("{}.rejected-notifications", self.world.origin.topic_prefix);
        let values = committed(&self.world.origin.brokers, &topic).await;
        values.iter().map(|value| decode(value).unwrap()).collect()
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let (admin, topic) = (&self.admin, self.topic.as_str());
        tokio::task::block_in_place(|| {
            let delete = async { admin.delete_topics(&[topic], &AdminOptions::new()).await };
            let _ = tokio::runtime::Handle::current().block_on(delete);
        });
    }
}

/// The committed values of a topic.
async fn committed(brokers: &str, topic: &str) -> Vec<Vec<u8>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let read = move || {
        let reader = kafka::reader(&brokers, &kafka::observer(), Isolation::ReadCommitted)?;
        let starts: Vec<_> = (0..kafka::partitions(&reader, &topic)?)
            .map(|partition| (partition, Offset::Beginning))
            .collect();
        let mut values = Vec::new();
        kafka::read_to_end(&reader, &topic, &starts, |message| {
            values.push(message.payload().unwrap_or_default().to_vec());
        })?;
        anyhow::Ok(values)
    };
    tokio::task::spawn_blocking(read).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_announced_on_a_topic_are_converted_in_every_dialect() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let notified = Notified::create(&stack, "topic").await;
    let world = &notified.world;
    let bucket = &world.origin.input_bucket;
    let dialects = [
        (
            "products/aws a+b%20.xml",
            notifications::aws as fn(&str, &str) -> Vec<u8>,
        ),
        ("products/minio a+b%20.xml", notifications::minio),
        ("products/versitygw a+b%20.xml", notifications::versitygw),
        ("products/seaweedfs a+b%20.xml", notifications::seaweedfs),
    ];
    let mut expected = Expectations::default();
    for (key, message) in dialects {
        let file = ProductFile::new(key, 1);
        world.put(key, file.xml()).await;
        expected.sources.insert(key.into(), Some(file.json()));
        notified.send(None, &message(bucket, key)).await;
    }
    let _worker = notified.worker("intake,convert").await;
    wait_until("four results", PATIENCE, async || {
        (world.results().len() == 4).then_some(())
    })
    .await;
    for result in world.results() {
        assert_eq!(result.outcome, Outcome::Converted, "{result:?}");
    }
    for (key, _) in dialects {
        assert!(world.get_output(&format!("{key}.json")).await.is_some());
    }
    world.assert_healthy(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_messages_of_every_server_become_the_events_they_tell_of() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/events");
    let Some(stack) = Stack::from_env() else {
        return;
    };
    if !samples.is_dir() {
        eprintln!("skipped: there are no recorded messages");
        return;
    }
    let notified = Notified::create(&stack, "recorded").await;
    let mut expected = BTreeMap::<(String, String), usize>::new();
    let mut unreadable = 0;
    for file in std::fs::read_dir(&samples).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let messages: Vec<&str> = match path.extension().is_some_and(|end| end == "jsonl") {
            true => text.lines().filter(|line| !line.is_empty()).collect(),
            false => vec![&text],
        };
        for message in messages {
            notified.send(None, message.as_bytes()).await;
            match feedmill::intake::notification::parse(message.as_bytes()) {
                Err(_) => unreadable += 1,
                Ok(read) => {
                    for created in read.created() {
                        let object = &created.object;
                        let name = (object.bucket().to_owned(), object.key().to_owned());
                        *expected.entry(name).or_default() += 1;
                    }
                }
            }
        }
    }
    assert!(expected.len() >= 9 && unreadable > 0, "{expected:?}");
    let _worker = notified.worker("intake").await;
    notified.copied().await;
    let mut events = BTreeMap::new();
    for event in notified.events().await {
        *events.entry((event.bucket, event.key)).or_default() += 1;
    }
    assert_eq!(events, expected);
    assert_eq!(notified.rejected().await.len(), unreadable);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_copiers_lose_no_notification_and_copy_none_twice() {
    const MESSAGES: usize = 3_000;
    const ROUNDS: usize = 4;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let notified = Notified::create(&stack, "copied").await;
    for round in 0..ROUNDS {
        let mut worker = notified.worker("intake").await;
        let before = notified.events().await.len();
        let sending = async {
            for number in round * MESSAGES / ROUNDS..(round + 1) * MESSAGES / ROUNDS {
                let mut record = notifications::aws_record("b", &format!("products/{number}.xml"));
                record["responseElements"] = json!({"x-amz-request-id": number.to_string()});
                notified.send(None, &notifications::message([record])).await;
            }
        };
        // Killed in the middle of its work: when it has copied some.
        let killing = async {
            wait_until("some to be copied", PATIENCE, async || {
                (notified.events().await.len() > before).then_some(())
            })
            .await;
            worker.kill();
        };
        tokio::join!(sending, killing);
    }
    let _worker = notified.worker("intake").await;
    notified.copied().await;
    let mut times = BTreeMap::<usize, usize>::new();
    for event in notified.events().await {
        let number = event.source_id.unwrap().parse().unwrap();
        *times.entry(number).or_default() += 1;
    }
    let wrong: Vec<_> = (0..MESSAGES)
        .map(|number| (number, times.get(&number).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .collect();
    assert!(wrong.is_empty(), "not exactly once: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_kept_with_its_place_and_holds_nothing_up() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let notified = Notified::create(&stack, "unreadable").await;
    let half = json!({"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}}});
    for message in [
        b"no JSON".to_vec(),
        b"/buckets/b/k".to_vec(),
        notifications::message([half, notifications::aws_record("b", "products/a.xml")]),
        br#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#.to_vec(),
        notifications::aws("b", "products/b.xml"),
    ] {
        notified.send(None, &message).await;
    }
    let mut worker = notified.worker("intake").await;
    notified.copied().await;
    let mut keys: Vec<_> = notified
        .events()
        .await
        .into_iter()
        .map(|event| event.key)
        .collect();
    keys.sort();
    assert_eq!(keys, ["products/a.xml", "products/b.xml"]);
    let rejected = notified.rejected().await;
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    for copy in rejected {
        assert_eq!(copy.source, format!("kafka:{}", notified.topic));
        assert!(copy.partition.is_some() && copy.offset.is_some() && !copy.reason.is_empty());
    }
    let (_, metrics) = worker.get("/metrics").await;
    let ignored = r#"feedmill_intake_ignored_total{dialect="aws",reason="test_event"} 1"#;
    assert!(metrics.contains(ignored), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_away_is_said_and_the_rest_is_copied() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let notified = Notified::create(&stack, "retention").await;
    let send = async |number: usize| {
        let message = notifications::aws("b", &format!("products/{number}.xml"));
        notified.send(Some(b"one partition"), &message).await;
    };
    for number in 0..3 {
        send(number).await;
    }
    let mut worker = notified.worker("intake").await;
    notified.copied().await;
    worker.terminate();
    worker.wait(PATIENCE).await;
    for number in 3..6 {
        send(number).await;
    }
    // All but the last are gone before anybody read them.
    let (brokers, topic) = (stack.brokers.clone(), notified.topic.clone());
    let end = tokio::task::spawn_blocking(move || {
        let reader = kafka::reader(&brokers, &kafka::observer(), Isolation::ReadUncommitted)?;
        let ends = (0..3).map(|partition| {
            let (_, end) = rdkafka::consumer::Consumer::fetch_watermarks(
                &reader,
                &topic,
                partition,
                kafka::TIMEOUT,
            )?;
            Ok((partition, end))
        });
        ends.collect::<anyhow::Result<Vec<_>>>()
    });
    let ends = end.await.unwrap().unwrap();
    let (partition, end) = ends.into_iter().max_by_key(|(_, end)| *end).unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset(&notified.topic, partition, Offset::Offset(end - 1))
        .unwrap();
    let deleted = notified
        .admin
        .delete_records(&cut, &AdminOptions::new())
        .await;
    deleted.unwrap();
    let worker = notified.worker("intake").await;
    notified.copied().await;
    let mut keys: Vec<_> = notified
        .events()
        .await
        .into_iter()
        .map(|event| event.key)
        .collect();
    keys.sort();
    let expected = [0, 1, 2, 5].map(|number| format!("products/{number}.xml"));
    assert_eq!(keys, expected);
    assert!(
        worker.has_logged(
            "records were lost before they were read; going on with the first there is"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named_at_the_start() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[intake]\ntopics = [\"s3-nowhere\"]";
    let world = stack.world("absent").settings(settings).create().await;
    let run = world.run_cli(&["run"]).await;
    assert_eq!(run.code(), Some(3));
    let why = "the topic s3-nowhere of intake.topics is not there";
    assert!(run.stderr.contains(why), "{}", run.stderr);
    let doctor = world.run_cli(&["doctor"]).await;
    assert_eq!(doctor.code(), Some(4));
    for said in [
        "not there: s3-nowhere",
        "or correct intake.topics",
        ".intake.s3-nowhere-*",
    ] {
        assert!(doctor.stdout.contains(said), "{}", doctor.stdout);
    }
}

// --- real servers ---

/// A free port of this machine.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// SeaweedFS with its filer's own notifications to Kafka; gone with this value.
async fn seaweedfs(notified: &Notified, weed: &Path) -> (Process, String) {
    let folder = notified.world.folder().join("weed");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let brokers: Vec<_> = notified.world.origin.brokers.split(',').collect();
    let toml = format!(
        "[notification.kafka]\nenabled = true\nhosts = {brokers:?}\ntopic = {:?}\noffsetFile = \"offset\"\noffsetSaveIntervalSeconds = 10\n",
        notified.topic
    );
    std::fs::write(folder.join("notification.toml"), toml).unwrap();
    let port = free_port();
    let mut command = Command::new(weed);
    command
        .current_dir(&folder)
        .args(["server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args(["-s3", "-volume.max=20", "-master.volumeSizeLimitMB=64"])
        .arg(format!("-s3.port={port}"));
    for service in ["master", "volume", "filer", "s3", "volume.public"] {
        match service {
            "s3" => command.arg(format!("-s3.port.grpc={}", free_port())),
            "volume.public" => &mut command,
            _ => command
                .arg(format!("-{service}.port={}", free_port()))
                .arg(format!("-{service}.port.grpc={}", free_port())),
        };
    }
    let process = Process::start(&mut command, folder.join("weed.log")).unwrap();
    (process, format!("http://127.0.0.1:{port}"))
}

async fn announced_by(notified: &Notified, endpoint: &str, bucket: &str) {
    let store = support::s3::Store::connect(endpoint);
    wait_until("the S3 server to take a bucket", PATIENCE, async || {
        store.create_bucket(bucket).await.ok()
    })
    .await;
    let keys = ["products/a.xml", "products/red flower+x%20ü.xml"];
    let mut etags = Vec::new();
    for key in keys {
        let put = store.put(bucket, key, b"<products/>".to_vec()).await;
        etags.push(put.unwrap());
    }
    let _worker = notified.worker("intake").await;
    for (key, etag) in keys.iter().zip(etags) {
        wait_until("an event of the upload", PATIENCE, async || {
            let events = notified.events().await;
            let event = events.into_iter().find(|event| event.key == *key)?;
            assert_eq!(event.bucket, bucket);
            assert_eq!(event.etag.as_ref(), Some(&etag), "{event:?}");
            assert_eq!(event.size, Some(11));
            Some(())
        })
        .await;
    }
    let rejected = notified.rejected().await;
    assert!(rejected.is_empty(), "{rejected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_seaweedfs_writes_to_kafka_by_itself_is_read() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let Some(weed) = std::env::var_os("FEEDMILL_TEST_WEED").map(PathBuf::from) else {
        let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(!required, "needs FEEDMILL_TEST_WEED (tests/run)");
        eprintln!("skipped: needs FEEDMILL_TEST_WEED");
        return;
    };
    let notified = Notified::create(&stack, "weed").await;
    let (mut server, endpoint) = seaweedfs(&notified, &weed).await;
    announced_by(&notified, &endpoint, "feeds").await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_versitygw_writes_to_kafka_by_itself_is_read() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let Some(gateway) = std::env::split_paths(&paths)
        .map(|folder| folder.join("versitygw"))
        .find(|path| path.is_file())
    else {
        eprintln!("skipped: versitygw is not on the PATH");
        return;
    };
    let notified = Notified::create(&stack, "versitygw").await;
    let data = notified.world.folder().join("versitygw");
    std::fs::create_dir_all(&data).unwrap();
    let port = free_port();
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let mut command = Command::new(gateway);
    command
        .env("ROOT_ACCESS_KEY", variable("AWS_ACCESS_KEY_ID", "test"))
        .env("ROOT_SECRET_KEY", variable("AWS_SECRET_ACCESS_KEY", "test"))
        .args(["--port", &format!("127.0.0.1:{port}")])
        .args(["--event-kafka-url", &stack.brokers])
        .args(["--event-kafka-topic", &notified.topic])
        .arg("posix")
        .arg(&data);
    let log = notified.world.folder().join("versitygw.log");
    let mut server = Process::start(&mut command, log).unwrap();
    announced_by(&notified, &format!("http://127.0.0.1:{port}"), "feeds").await;
    server.kill();
}
