//! The webhook as SNS posts to it: no token, but a signature. The web that SNS itself is on is played by the test.

#[path = "support/convert_world/notifications.rs"]
mod notifications;
#[path = "support/convert_world/rejected.rs"]
mod rejected;
#[path = "support/sns_signer.rs"]
mod sns_signer;
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feedmill::config::{Kafka, Secret, topic_arn::TopicArn};
use feedmill::intake::publish::Publisher;
use feedmill::intake::sns::Sns;
use feedmill::intake::sns::web::{Web, WebError};
use feedmill::intake::webhook::{self, WebhookState};
use feedmill::telemetry::metrics::Metrics;
use feedmill::topics::{ObjectEvent, Topics, decode};
use futures::future::{self, BoxFuture};
use jiff::{SignedDuration, Timestamp};
use rdkafka::{Message, Offset};
use reqwest::Url;
use serde_json::{Value, json};
use sns_signer::{CERTIFICATE_URL, SUBSCRIBE_URL, Signer, TOPIC, confirmation, notification};
use support::checker::Topic;
use support::kafka::{self, Isolation};
use support::{Stack, WorkerOptions, World};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "t0ken";

/// What SNS serves, and what it was asked for.
#[derive(Clone, Default)]
struct Pages {
    bodies: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    fn serve(&self, url: &str, body: &[u8]) {
        let mut bodies = self.bodies.lock().unwrap();
        bodies.insert(url.to_owned(), body.to_vec());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Web for Pages {
    fn get(&self, url: url::Url, _: usize) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        self.asked.lock().unwrap().push(url.to_string());
        let body = self.bodies.lock().unwrap().get(url.as_str()).cloned();
        Box::pin(future::ready(body.ok_or_else(|| WebError::Status {
            host: "sns".to_owned(),
            status: 404,
        })))
    }
}

/// A webhook with a token that listens to [`TOPIC`].
struct Hook {
    world: World,
    pages: Pages,
    signer: Signer,
    url: Url,
    http: reqwest::Client,
    _serving: DropGuard,
}

impl Hook {
    async fn start(stack: &Stack, name: &str) -> Self {
        let world = stack.world(name).create().await;
        let now = Timestamp::now().as_second();
        let signer = Signer::valid(now - 3_600, now + 3_600);
        let pages = Pages::default();
        pages.serve(CERTIFICATE_URL, &signer.certificate);
        pages.serve(SUBSCRIBE_URL, b"<ConfirmSubscriptionResponse/>");
        let kafka = Kafka {
            brokers: vec![stack.brokers.clone()],
            ..Kafka::default()
        };
        let topics = Topics::with_prefix(&world.origin.topic_prefix);
        let connect = move || Publisher::connect(&kafka, &topics, Metrics::new().intake);
        let publisher = tokio::task::spawn_blocking(connect).await.unwrap();
        let state = WebhookState {
            publisher: publisher.unwrap(),
            token: Some(Secret::new(TOKEN)),
            sns: Arc::new(Sns::new([TopicArn::parse(TOPIC).unwrap()], pages.clone())),
            max_body_bytes: 1_000_000,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v1/s3/event", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(webhook::serve(listener, state, shutdown.clone()));
        Self {
            world,
            pages,
            signer,
            url: url.parse().unwrap(),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            _serving: shutdown.drop_guard(),
        }
    }

    fn request(&self, message: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(self.url.clone());
        request
            .header("content-type", "text/plain; charset=UTF-8")
            .body(message.to_string())
    }

    /// Posts a message as SNS does; status and body.
    async fn post(&self, message: &Value) -> (u16, String) {
        let kind = message["Type"].as_str().unwrap_or("Notification");
        answer(self.request(message).header("x-amz-sns-message-type", kind)).await
    }

    async fn keys(&self) -> Vec<String> {
        let (brokers, topic) = (
            self.world.origin.brokers.clone(),
            self.world.topic(Topic::Events),
        );
        let read = move || {
            let reader = kafka::reader(&brokers, &kafka::observer(), Isolation::ReadCommitted)?;
            let starts: Vec<_> = (0..kafka::partitions(&reader, &topic)?)
                .map(|partition| (partition, Offset::Beginning))
                .collect();
            let mut keys = Vec::new();
            kafka::read_to_end(&reader, &topic, &starts, |message| {
                let event: ObjectEvent = decode(message.payload().unwrap()).unwrap();
                keys.push(event.key);
            })?;
            anyhow::Ok(keys)
        };
        tokio::task::spawn_blocking(read).await.unwrap().unwrap()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.expect("the webhook answers");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("the webhook answers"))
}

fn now() -> String {
    Timestamp::now().to_string()
}

fn s3(key: &str) -> Value {
    serde_json::from_slice(&notifications::aws("feeds", key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listed_topic_signed_becomes_events_without_a_token() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let hook = Hook::start(&stack, "sns").await;
    for version in ["1", "2"] {
        let message = notification(&s3(&format!("version {version}.xml")).to_string(), &now());
        let (status, body) = hook.post(&hook.signer.sign(message, version)).await;
        assert_eq!(status, 202, "{body}");
        assert!(body.contains("event_id"), "{body}");
    }
    let test_event = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "feeds"});
    let test_event = notification(&test_event.to_string(), &now());
    assert_eq!(hook.post(&hook.signer.sign(test_event, "1")).await.0, 202);
    let mut keys = hook.keys().await;
    keys.sort();
    assert_eq!(keys, ["version 1.xml", "version 2.xml"]);
    assert_eq!(hook.pages.asked(), [CERTIFICATE_URL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_to_a_listed_topic_is_confirmed_and_its_end_acknowledged() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let hook = Hook::start(&stack, "subscribed").await;
    let message = hook.signer.sign(confirmation(&now()), "1");
    let (status, body) = hook.post(&message).await;
    assert_eq!((status, body.as_str()), (202, r#"{"records":[]}"#));
    assert_eq!(hook.pages.asked(), [CERTIFICATE_URL, SUBSCRIBE_URL]);
    let mut end = confirmation(&now());
    end["Type"] = "UnsubscribeConfirmation".into();
    assert_eq!(hook.post(&hook.signer.sign(end, "2")).await.0, 202);
    assert_eq!(hook.pages.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sns_did_not_sign_leaves_nothing_behind() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let hook = Hook::start(&stack, "unsigned").await;
    let message = notification(&s3("forged.xml").to_string(), &now());
    let good = hook.signer.sign(message.clone(), "2");
    let with = |field: &str, value: &str| {
        let mut changed = good.clone();
        changed[field] = value.into();
        changed
    };
    let hour = SignedDuration::from_hours(2);
    let mut old = message.clone();
    old["Timestamp"] = (Timestamp::now() - hour).to_string().into();
    for (message, reason) in [
        (
            with("Message", &s3("other.xml").to_string()),
            "proves nothing",
        ),
        (
            with("TopicArn", "arn:aws:sns:eu-central-1:999988887777:feeds"),
            "intake.sns_topics",
        ),
        (
            with("SigningCertURL", "https://evil.example/a.pem"),
            "evil.example",
        ),
        (hook.signer.sign(old, "2"), "an hour ago"),
    ] {
        for token in [None, Some(TOKEN)] {
            let request = hook.request(&message);
            let request = request.header("x-amz-sns-message-type", "Notification");
            let (status, body) = match token {
                None => answer(request).await,
                Some(token) => answer(request.bearer_auth(token)).await,
            };
            assert_eq!(status, 403, "{body}");
            assert!(body.contains(reason), "{reason}: {body}");
        }
    }
    // The header alone opens nothing, and neither does a signed message without it: its body is not even read.
    assert_eq!(hook.post(&s3("forged.xml")).await.0, 401);
    assert_eq!(hook.post(&json!("<feed/>")).await.0, 401);
    assert_eq!(answer(hook.request(&good)).await.0, 401);
    assert_eq!(hook.keys().await, [""; 0]);
    assert_eq!(rejected::rejected(&hook.world).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_away_is_waited_for_and_what_nobody_can_read_is_kept() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let hook = Hook::start(&stack, "certificate").await;
    hook.pages.bodies.lock().unwrap().clear();
    let message = notification(&s3("late.xml").to_string(), &now());
    let message = hook.signer.sign(message, "2");
    let (status, body) = hook.post(&message).await;
    assert_eq!(status, 503, "{body}");
    hook.pages.serve(CERTIFICATE_URL, &hook.signer.certificate);
    assert_eq!(hook.post(&message).await.0, 202);
    assert_eq!(hook.keys().await, ["late.xml"]);

    let unreadable = hook.signer.sign(notification("hello", &now()), "2");
    let (status, body) = hook.post(&unreadable).await;
    assert_eq!(status, 400, "{body}");
    let kept = rejected::rejected(&hook.world).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].body, unreadable.to_string().as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_listens_to_the_topics_it_is_told_and_asks_nobody_for_others() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[intake]\ntoken = {TOKEN:?}\nsns_topics = [{TOPIC:?}]");
    let world = stack.world("listed").settings(&settings).create().await;
    let mut worker = world.worker(WorkerOptions::default().args(&["--stages", "intake"]));
    worker.ready(PATIENCE).await;
    let (_, listening) = (worker.get("/healthz").await, worker.log());
    let line = listening
        .lines()
        .find(|line| line.contains("webhook listening"))
        .expect("it says where");
    let line: Value = serde_json::from_str(line).unwrap();
    let address = line["address"].as_str().unwrap().to_owned();
    let post = async |message: &Value| {
        let request = reqwest::Client::new().post(format!("http://{address}/api/v1/s3/event"));
        let request = request.header("x-amz-sns-message-type", "Notification");
        answer(request.body(message.to_string())).await
    };
    let signer = Signer::valid(0, i64::from(i32::MAX));
    let mut other = notification("{}", &now());
    other["TopicArn"] = "arn:aws:sns:eu-central-1:111122223333:others".into();
    let (status, body) = post(&signer.sign(other, "2")).await;
    assert_eq!(status, 403);
    assert!(body.contains("not in intake.sns_topics"), "{body}");
    let mut foreign = signer.sign(notification("{}", &now()), "2");
    foreign["SigningCertURL"] = "https://evil.example/a.pem".into();
    let (status, body) = post(&foreign).await;
    assert_eq!(status, 403);
    assert!(
        body.contains("https://sns.eu-central-1.amazonaws.com has"),
        "{body}"
    );
    assert!(worker.has_logged("notification not accepted"));
}
