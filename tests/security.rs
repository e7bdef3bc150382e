//! Kafka by TLS, mutual TLS and SASL, against a real broker with certificates made here.
//!
//! Every accepted way makes topics, takes a notification in, converts a file and reads the result back, so that every
//! client feedmill has goes through it. Every refused one ends with exit code 3 and names the cause. No way shows a
//! secret, however much is logged.

mod support;

#[path = "support/binary.rs"]
mod binary;
#[path = "support/secure_kafka.rs"]
mod secure_kafka;
#[path = "support/tls.rs"]
mod tls;

use std::path::Path;
use std::thread;
use std::time::Duration;

use binary::Ended;
use feedmill::topics::{Outcome, ResultRecord};
use secure_kafka::{PLAIN_PASSWORD, SCRAM_PASSWORD, SecureKafka, USER};
use serde_json::{Value, json};
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World, wait_until};

const SERVICE: i32 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A way to the broker: an address, and what `[kafka.security]` says.
struct Way<'a> {
    brokers: String,
    security: Vec<(&'a str, String)>,
}

impl<'a> Way<'a> {
    fn to(brokers: String) -> Self {
        Self {
            brokers,
            security: Vec::new(),
        }
    }

    fn with(mut self, setting: &'a str, value: impl Into<String>) -> Self {
        self.security.push((setting, value.into()));
        self
    }

    /// As SASL, with this user's password.
    fn user(self, mechanism: &str, name: &str, password: &str) -> Self {
        self.with("sasl_mechanism", mechanism)
            .with("username", name)
            .with("password", password)
    }

    /// Everything is logged, so that a secret in any log line would be seen.
    fn toml(&self) -> String {
        let mut toml = format!(
            "[log]\nlevel = \"trace\"\n[kafka]\nbrokers = [{:?}]\n[kafka.security]\n",
            self.brokers
        );
        for (setting, value) in &self.security {
            toml.push_str(&format!("{setting} = {value:?}\n"));
        }
        toml
    }
}

// What is let in

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_certificate_is_used_by_tls() {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    let way = Way::to(broker.tls()).with("ca_file", broker.file("ca.pem"));
    converts_a_file(broker, "tls", &way).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_for_a_certificate_gets_ours_by_mutual_tls() {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    let way = Way::to(broker.mutual_tls())
        .with("ca_file", broker.file("ca.pem"))
        .with("certificate_file", broker.file("client.pem"))
        .with("key_file", broker.file("client.key"));
    converts_a_file(broker, "mtls", &way).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_accepted_by_sasl_plain_over_tls() {
    password_is_accepted("PLAIN", PLAIN_PASSWORD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_accepted_by_scram_sha_256_over_tls() {
    password_is_accepted("SCRAM-SHA-256", SCRAM_PASSWORD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_accepted_by_scram_sha_512_over_tls() {
    password_is_accepted("SCRAM-SHA-512", SCRAM_PASSWORD).await;
}

async fn password_is_accepted(mechanism: &str, password: &str) {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    let way = Way::to(broker.sasl())
        .with("ca_file", broker.file("ca.pem"))
        .user(mechanism, USER, password);
    converts_a_file(broker, &mechanism.to_lowercase(), &way).await;
}

/// Topics are made and checked, a notification becomes an event, the event a result, and the result is read back.
async fn converts_a_file(broker: &SecureKafka, name: &str, way: &Way<'_>) {
    let Some(servers) = Stack::from_env() else {
        return;
    };
    let stack = Stack {
        brokers: broker.plaintext(),
        ..servers
    };
    // The harness goes in by the door without security; feedmill's own `topics create` goes the way that is tested.
    let world = stack.world(name).partitions(2).settings(&way.toml());
    let world = world.create().await;
    let mut said = vec![command(&world, &["topics", "check"]).await];

    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(TIMEOUT).await;
    let file = ProductFile::new(name, 1);
    world.put("products/a.xml", file.xml()).await;
    let answer = worker.notify(&notification(&world, "products/a.xml")).await;
    assert_eq!(answer.0, 202, "{answer:?}");
    let result = first_result(&world).await;
    assert_eq!(result.outcome, Outcome::Converted, "{result:?}");
    let output = world.get_output("products/a.xml.json").await;
    let output: Value = serde_json::from_slice(&output.expect("an output").bytes).expect("JSON");
    assert_eq!(output, file.json());

    said.push(command(&world, &["results", "--json"]).await);
    assert!(said[1].contains("products/a.xml"), "{}", said[1]);
    said.push(command(&world, &["config", "show"]).await);
    worker.terminate();
    assert_eq!(worker.wait(TIMEOUT).await.code(), Some(0), "an orderly end");
    said.push(worker.log());
    for text in &said {
        assert_no_secret(broker, text);
    }
}

async fn command(world: &World, args: &[&str]) -> String {
    let ended = world.run_cli(args).await;
    assert_eq!(ended.code(), Some(0), "{args:?}: {ended:#?}");
    ended.stdout + &ended.stderr
}

fn notification(world: &World, key: &str) -> Value {
    let bucket = json!({ "name": world.origin.input_bucket });
    json!({ "Records": [{ "s3": { "bucket": bucket, "object": { "key": key } } }] })
}

async fn first_result(world: &World) -> ResultRecord {
    wait_until("a result", TIMEOUT, async || world.results().pop()).await
}

#[track_caller]
fn assert_no_secret(broker: &SecureKafka, text: &str) {
    let key = std::fs::read_to_string(broker.file("client.key")).expect("our own key");
    let key = key.lines().nth(1).expect("PEM has lines");
    let s3 = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap_or_default();
    for secret in [PLAIN_PASSWORD, SCRAM_PASSWORD, WRONG_PASSWORD, key, &s3] {
        if let Some(line) = text
            .lines()
            .find(|line| !secret.is_empty() && line.contains(secret))
        {
            panic!("a secret is shown: {line}");
        }
    }
}

// What is kept out

const WRONG_PASSWORD: &str = "hush-wrong-77aa";

#[test]
fn a_broker_whose_certificate_cannot_be_trusted_is_not_talked_to() {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    let ours = broker.file("ca.pem");
    let elsewhere = broker.tls().replace("127.0.0.1", "localhost");
    assert_refused(
        broker,
        &[
            (
                "an authority that did not sign it",
                Way::to(broker.tls()).with("ca_file", broker.file("other-ca.pem")),
                &["certificate verify failed", "kafka.security"],
            ),
            (
                "the system's authorities",
                Way::to(broker.tls()).with("protocol", "ssl"),
                &["certificate verify failed", "kafka.security"],
            ),
            (
                "a name that is not the certificate's",
                Way::to(elsewhere).with("ca_file", ours),
                &["certificate verify failed", "kafka.security"],
            ),
        ],
    );
}

#[test]
fn a_client_that_the_broker_does_not_know_is_told_why() {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    let sasl = |mechanism, name, password| {
        Way::to(broker.sasl())
            .with("ca_file", broker.file("ca.pem"))
            .user(mechanism, name, password)
    };
    let mutual = Way::to(broker.mutual_tls()).with("ca_file", broker.file("ca.pem"));
    let stranger = Way::to(broker.mutual_tls())
        .with("ca_file", broker.file("ca.pem"))
        .with("certificate_file", broker.file("stranger.pem"))
        .with("key_file", broker.file("stranger.key"));
    let denied = &["uthentication failed", "kafka.security"][..];
    assert_refused(
        broker,
        &[
            (
                "PLAIN, wrong password",
                sasl("PLAIN", USER, WRONG_PASSWORD),
                denied,
            ),
            (
                "SCRAM, wrong password",
                sasl("SCRAM-SHA-256", USER, WRONG_PASSWORD),
                denied,
            ),
            (
                "SCRAM-512, wrong password",
                sasl("SCRAM-SHA-512", USER, WRONG_PASSWORD),
                denied,
            ),
            (
                "SCRAM, unknown user",
                sasl("SCRAM-SHA-512", "nobody", SCRAM_PASSWORD),
                denied,
            ),
            ("no certificate", mutual, &["certificate", "kafka.security"]),
            (
                "another authority's certificate",
                stranger,
                &["certificate", "kafka.security"],
            ),
        ],
    );
}

#[test]
fn the_wrong_protocol_is_told_with_the_settings_to_look_at() {
    let Some(broker) = SecureKafka::shared() else {
        return;
    };
    assert_refused(
        broker,
        &[
            (
                "plain text to a TLS port",
                Way::to(broker.tls()),
                &["kafka.security"],
            ),
            (
                "TLS to a plain-text port",
                Way::to(broker.plaintext()).with("ca_file", broker.file("ca.pem")),
                &["SSL", "kafka.security"],
            ),
        ],
    );
}

/// Tries every way at once, as an operator's command and as a worker.
fn assert_refused(broker: &SecureKafka, ways: &[(&str, Way<'_>, &[&str])]) {
    thread::scope(|scope| {
        let tries: Vec<_> = ways
            .iter()
            .map(|(what, way, words)| (what, words, scope.spawn(|| attempts(way))))
            .collect();
        for (what, words, tried) in tries {
            for ended in tried.join().expect("the binary runs") {
                println!("{what}: {:?}\n  {}", ended.code, last_words(&ended));
                let ended = ended.expect_code(SERVICE);
                assert_no_secret(broker, &ended.stdout);
                assert_no_secret(broker, &ended.stderr);
                let said = last_words(&ended);
                for word in *words {
                    assert!(said.contains(word), "{what}: {word:?} is not said:\n{said}");
                }
            }
        }
    });
}

fn attempts(way: &Way<'_>) -> Vec<Ended> {
    let folder = tempfile::tempdir().expect("a folder");
    let more = r#"
        [output]
        bucket = "nobody-gets-that-far"
        [intake]
        listen = "127.0.0.1:0"
        [admin]
        listen = "127.0.0.1:0"
        [[feeds]]
        name = "all"
        match = "s3://nobody-gets-here/**"
    "#;
    let toml = way.toml() + more;
    std::fs::write(folder.path().join("feedmill.toml"), toml).expect("a writable folder");
    [&["topics", "check"][..], &["run"]]
        .map(|args| attempt(folder.path(), args))
        .into()
}

fn attempt(folder: &Path, args: &[&str]) -> Ended {
    let mut command = binary::feedmill(folder, args);
    command.env("FEEDMILL_KAFKA__REQUEST_TIMEOUT_SECS", "5");
    binary::run(&mut command)
}

fn last_words(ended: &Ended) -> &str {
    let stderr = &ended.stderr;
    stderr
        .find("feedmill: failed to ")
        .map_or(stderr.as_str(), |at| &stderr[at..])
}
