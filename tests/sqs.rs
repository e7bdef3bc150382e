//! Notifications from SQS: nothing is deleted before Kafka has it, whatever fails in between.

#[path = "support/moto.rs"]
mod moto;
#[path = "support/convert_world/notifications.rs"]
mod notifications;
#[path = "support/convert_world/rejected.rs"]
mod rejected;
#[path = "support/secure_kafka.rs"]
mod secure_kafka;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use feedmill::topics::{ObjectEvent, Outcome, decode};
use moto::{Moto, Queue};
use rdkafka::{Message, Offset};
use secure_kafka::SecureKafka;
use serde_json::json;
use support::checker::{Expectations, Topic};
use support::files::ProductFile;
use support::kafka::{self, Isolation};
use support::{Stack, Worker, WorkerOptions, World, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than any test waits: what is not deleted does not come again.
const LONG: Duration = Duration::from_secs(600);

/// A world whose workers receive from a queue.
struct Queued {
    world: World,
    queue: Queue,
}

impl Queued {
    async fn create(stack: &Stack, moto: &'static Moto, name: &str, visibility: Duration) -> Self {
        let queue = moto.queue(visibility).await;
        let settings = settings(&queue.url);
        let world = stack.world(name).settings(&settings).create().await;
        Self { world, queue }
    }

    async fn worker(&self, options: WorkerOptions) -> Worker {
        let mut worker = self.world.worker(options);
        worker.ready(PATIENCE).await;
        worker
    }

    async fn intake(&self) -> Worker {
        self.worker(intake()).await
    }

    async fn emptied(&self) {
        wait_until("the queue to be empty", PATIENCE, async || {
            self.queue.is_empty().await.then_some(())
        })
        .await;
    }

    /// How many events there are of each key.
    async fn events(&self) -> BTreeMap<String, usize> {
        let mut events = BTreeMap::new();
        for event in events_of(&self.world).await {
            *events.entry(event.key).or_default() += 1;
        }
        events
    }

    async fn metric(&self, worker: &mut Worker, name: &str) -> usize {
        let (_, text) = worker.get("/metrics").await;
        let of_queue = format!("queue=\"{}\"", self.queue.name);
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(&of_queue));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0, |value| value.parse().expect("a number"))
    }
}

fn settings(url: &str) -> String {
    format!(
        "kafka.request_timeout_secs = 3
        [[intake.queues]]
        url = {url:?}
        region = \"us-east-1\"
        credentials = {{ access_key_id = \"test\", secret_access_key = \"test\" }}"
    )
}

fn intake() -> WorkerOptions {
    WorkerOptions::default().args(&["--stages", "intake"])
}

async fn events_of(world: &World) -> Vec<ObjectEvent> {
    let (brokers, topic) = (world.origin.brokers.clone(), world.topic(Topic::Events));
    let read = move || {
        let reader = kafka::reader(&brokers, &kafka::observer(), Isolation::ReadCommitted)?;
        let starts: Vec<_> = (0..kafka::partitions(&reader, &topic)?)
            .map(|partition| (partition, Offset::Beginning))
            .collect();
        let mut events = Vec::new();
        kafka::read_to_end(&reader, &topic, &starts, |message| {
            events.push(decode(message.payload().unwrap_or_default()).expect("an event"));
        })?;
        anyhow::Ok(events)
    };
    tokio::task::spawn_blocking(read).await.unwrap().unwrap()
}

fn aws(bucket: &str, key: &str) -> String {
    String::from_utf8(notifications::aws(bucket, key)).expect("JSON")
}

async fn servers() -> Option<(Stack, &'static Moto)> {
    Some((Stack::from_env()?, Moto::shared().await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_announced_in_a_queue_by_s3_eventbridge_and_sns_are_converted_and_the_messages_gone()
{
    let Some((stack, moto)) = servers().await else {
        return;
    };
    let queued = Queued::create(&stack, moto, "queue", LONG).await;
    let (world, queue) = (&queued.world, &queued.queue);
    let bucket = &world.origin.input_bucket;
    let keys = ["s3", "eventbridge", "sns"].map(|by| format!("products/{by} a+b%20.xml"));
    let mut expected = Expectations::default();
    for key in &keys {
        let file = ProductFile::new(key, 1);
        world.put(key, file.xml()).await;
        expected.sources.insert(key.clone(), Some(file.json()));
    }
    queue.send(aws(bucket, &keys[0])).await;
    let event = json!({"detail-type": "Object Created", "source": "aws.s3",
        "detail": {"bucket": {"name": bucket}, "object": {"key": keys[1]}}});
    queue.send(event.to_string()).await;
    let arn = format!("arn:aws:sqs:us-east-1:123456789012:{}", queue.name);
    let name = [("Name", queue.name.as_str())];
    let topic = moto.sns("CreateTopic", &name, "TopicArn").await;
    let subscription = [
        ("TopicArn", topic.as_str()),
        ("Protocol", "sqs"),
        ("Endpoint", &arn),
    ];
    moto.sns("Subscribe", &subscription, "SubscriptionArn")
        .await;
    let message = aws(bucket, &keys[2]);
    let publication = [("TopicArn", topic.as_str()), ("Message", &message)];
    moto.sns("Publish", &publication, "MessageId").await;

    let options = WorkerOptions::default().args(&["--stages", "intake,convert"]);
    let mut worker = queued.worker(options).await;
    queued.emptied().await;
    wait_until("three results", PATIENCE, async || {
        (world.results().len() == 3).then_some(())
    })
    .await;
    for result in world.results() {
        assert_eq!(result.outcome, Outcome::Converted, "{result:?}");
    }
    world.assert_healthy(&expected).await;
    assert_eq!(rejected::rejected(world).await, []);
    for name in ["feedmill_sqs_received_total", "feedmill_sqs_deleted_total"] {
        assert_eq!(queued.metric(&mut worker, name).await, 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_kafka_before_a_worker_was_killed_comes_again_and_nothing_is_lost() {
    let Some((stack, moto)) = servers().await else {
        return;
    };
    const MESSAGES: usize = 25;
    let visibility = Duration::from_secs(2);
    let queued = Queued::create(&stack, moto, "killed", visibility).await;
    for number in 0..MESSAGES {
        queued.queue.send(aws("feeds", &format!("{number}"))).await;
    }
    let mut killed = queued
        .world
        .worker(intake().env("FEEDMILL_TEST_FAULT", "crash-before-delete"));
    killed.wait(PATIENCE).await;
    let before: usize = queued.events().await.values().sum();
    assert!(before > 0, "it was killed before Kafka had anything");
    let _worker = queued.intake().await;
    queued.emptied().await;
    let events = queued.events().await;
    assert_eq!(events.len(), MESSAGES, "{events:?}");
    let times: usize = events.values().sum();
    assert!(times >= MESSAGES + before, "{times} after {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_nothing_is_deleted_and_no_more_received() {
    let (Some((_, moto)), Some(broker)) = (servers().await, SecureKafka::shared()) else {
        return;
    };
    const MESSAGES: usize = 100;
    const RECEIVERS: usize = 4;
    const MOST_HELD: usize = RECEIVERS * 10;
    let stack = Stack {
        brokers: broker.plaintext(),
        ..Stack::from_env().expect("it was there")
    };
    let queued = Queued::create(&stack, moto, "away", LONG).await;
    let mut worker = queued.intake().await;
    broker.as_admin("kill -STOP $(cat pid)");
    for number in 0..MESSAGES {
        queued.queue.send(aws("feeds", &format!("{number}"))).await;
    }
    // Each message held was tried again, at least once.
    let received = wait_until("every receiver to try again", PATIENCE, async || {
        let received = queued.metric(&mut worker, "feedmill_sqs_received_total");
        let received = received.await;
        let failures = queued.metric(&mut worker, "feedmill_sqs_failures_total");
        let failures = failures.await;
        (received >= RECEIVERS && failures >= 2 * received).then_some(received)
    })
    .await;
    let (visible, held) = queued.queue.messages().await;
    broker.as_admin("kill -CONT $(cat pid)");
    assert!(received <= MOST_HELD, "{received} were received");
    assert_eq!((visible + held, held), (MESSAGES, received));
    queued.emptied().await;
    assert_eq!(queued.events().await.len(), MESSAGES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_read_is_kept_with_the_queues_name_and_deleted() {
    let Some((stack, moto)) = servers().await else {
        return;
    };
    let queued = Queued::create(&stack, moto, "unreadable", LONG).await;
    let confirmation = json!({"Type": "SubscriptionConfirmation", "MessageId": "m", "Token": "t", "Timestamp": "2026-01-01T00:00:00Z",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:feeds", "Message": "You have chosen"});
    let bodies = [
        ("<feed/>".to_owned(), "not JSON"),
        (r#"{"Records":[]}"#.to_owned(), "no records"),
        (confirmation.to_string(), "SubscribeURL"),
    ];
    for (body, _) in &bodies {
        queued.queue.send(body).await;
    }
    queued.queue.send(aws("feeds", "readable")).await;
    let _worker = queued.intake().await;
    queued.emptied().await;
    let kept = rejected::rejected(&queued.world).await;
    assert_eq!(kept.len(), bodies.len(), "{kept:?}");
    for (body, reason) in bodies {
        let copy = kept.iter().find(|copy| copy.body == body.as_bytes());
        let copy = copy.unwrap_or_else(|| panic!("{body} is not in {kept:?}"));
        assert!(copy.reason.contains(reason), "{copy:?}");
        assert_eq!(copy.source, format!("sqs:{}", queued.queue.name));
    }
    assert_eq!(
        queued.events().await.keys().collect::<Vec<_>>(),
        ["readable"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_read_is_named_at_the_start() {
    let Some((stack, moto)) = servers().await else {
        return;
    };
    let absent = format!("{}/123456789012/fm-nowhere", moto.endpoint);
    for (url, name, advice) in [
        (absent.as_str(), "fm-nowhere", "make the queue"),
        (
            "http://127.0.0.1:1/123456789012/fm-unserved",
            "fm-unserved",
            "that the server is running",
        ),
    ] {
        let world = stack.world("absent").settings(&settings(url));
        let run = world.create().await.run_cli(&["run"]).await;
        assert_eq!(run.code(), Some(3), "{}", run.stderr);
        for part in [name, "GetQueueAttributes", advice] {
            assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_away_is_told_of_and_waited_for_while_the_webhook_goes_on() {
    let Some((stack, moto)) = servers().await else {
        return;
    };
    let queued = Queued::create(&stack, moto, "gone", LONG).await;
    let mut worker = queued.intake().await;
    queued.queue.remove().await;
    wait_until("the queue to be missed", PATIENCE, async || {
        worker
            .has_logged("the queue can't be emptied")
            .then_some(())
    })
    .await;
    assert!(worker.log().contains("make the queue, or correct its url"));
    let (_, metrics) = worker.get("/metrics").await;
    let label = format!("failure=\"no_such_queue\",queue=\"{}\"", queued.queue.name);
    assert!(metrics.contains(&label), "{metrics}");
    let body = serde_json::from_str(&aws("feeds", "by-webhook")).unwrap();
    assert_eq!(worker.notify(&body).await.0, 202);
    queued.queue.make().await;
    queued.queue.send(aws("feeds", "by-queue")).await;
    queued.emptied().await;
    let keys = queued.events().await;
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["by-queue", "by-webhook"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_at_once_although_its_polls_are_long_and_loses_nothing() {
    let Some((stack, moto)) = servers().await else {
        return;
    };
    let queued = Queued::create(&stack, moto, "ended", Duration::from_secs(2)).await;
    let mut worker = queued.intake().await;
    queued.queue.send(aws("feeds", "before")).await;
    queued.emptied().await;
    let asked = Instant::now();
    worker.terminate();
    let status = worker.wait(PATIENCE).await;
    assert!(status.success(), "{status}");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    queued.queue.send(aws("feeds", "after")).await;
    let _worker = queued.intake().await;
    queued.emptied().await;
    let keys = queued.events().await;
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["after", "before"]);
}
