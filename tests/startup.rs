//! A start that cannot succeed: `feedmill run` ends within 40 s with exit code 3 (2 when the configuration is at fault)
//! and says what is wrong and what to do about it.
//!
//! Each test breaks one thing of a world that is in order, by the environment, which goes over the file. With
//! `--nocapture` the tests print every message, for people to judge.

mod support;

#[path = "support/binary.rs"]
mod binary;

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use binary::Running;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use support::checker::Topic;
use support::{Stack, WorkerOptions, World};

const USAGE: i32 = 2;
const SERVICE: i32 = 3;

/// The promise: nobody waits longer than this to be told.
const START_LIMIT: Duration = Duration::from_secs(40);

/// A promise of "at once", with room for a busy machine. Well under any of the start's own time limits.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Starts `feedmill run` so that it must fail, and returns its last words.
async fn refused(world: &World, environment: &[(&str, &str)], code: i32) -> String {
    let mut options = WorkerOptions::default();
    for (name, value) in environment {
        options = options.env(name, value);
    }
    let began = Instant::now();
    let mut worker = world.worker(options);
    let status = worker.wait(START_LIMIT).await;
    let log = worker.log();
    assert_eq!(status.code(), Some(code), "{environment:?}:\n{log}");
    let last_words = log.find("feedmill: failed to ").map(|at| &log[at..]);
    let last_words = last_words.unwrap_or_else(|| panic!("no last words in:\n{log}"));
    let seconds = began.elapsed().as_secs_f32();
    println!("{environment:?}: exit {code} after {seconds:.1} s:\n  {last_words}");
    assert!(!log.contains("panicked"), "{log}");
    last_words.to_owned()
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not said:\n{text}");
    }
}

/// A cause that is said again for each error that wraps it buries the advice.
#[track_caller]
fn assert_says_it_once(text: &str) {
    for part in text.split([';', ':', '\n']).map(str::trim) {
        let times = text.matches(part).count();
        let is_sentence = part.split_whitespace().count() > 3;
        assert!(
            !is_sentence || times == 1,
            "{part:?} {times} times:\n{text}"
        );
    }
}

/// librdkafka's name for whatever went wrong with a connection: it names no cause.
const NO_CAUSE: &str = "Broker transport failure";

/// Nothing listens on the first port of this machine.
const CLOSED: &str = "127.0.0.1:1";

/// A server that takes connections and never says a word.
struct Silent {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

impl Silent {
    async fn listen() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        Self { listener, address }
    }

    /// Waits for somebody to connect; the connection stays open while the answer is kept.
    async fn called(&self) -> tokio::net::TcpStream {
        let called = tokio::time::timeout(START_LIMIT, self.listener.accept()).await;
        called.expect("somebody connects").expect("a connection").0
    }
}

// Kafka

#[tokio::test(flavor = "multi_thread")]
async fn kafka_that_is_down_ends_the_start_and_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("kafka-down").create().await;
    let said = refused(&world, &[("FEEDMILL_KAFKA__BROKERS", CLOSED)], SERVICE).await;
    assert_says(&said, &["Kafka", CLOSED, "refused", "kafka.brokers"]);
    assert_says_it_once(&said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_ends_the_start_and_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("kafka-silent").create().await;
    let silent = Silent::listen().await;
    let address = silent.address.to_string();
    let said = refused(&world, &[("FEEDMILL_KAFKA__BROKERS", &address)], SERVICE).await;
    assert_says(&said, &["Kafka", &address, "kafka.brokers"]);
    assert!(!said.contains(NO_CAUSE), "{said}");
}

// Topics

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_there_are_named_with_the_command_that_makes_them() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("no-topics").create().await;
    let prefix = format!("{}-other", world.origin.topic_prefix);
    let said = refused(
        &world,
        &[("FEEDMILL_KAFKA__TOPIC_PREFIX", &prefix)],
        SERVICE,
    )
    .await;
    for topic in [
        "events",
        "results",
        "objects",
        "dead-letters",
        "cleanups",
        "rejected-notifications",
    ] {
        assert_says(&said, &[&format!("{prefix}.{topic} is not there")]);
    }
    assert_says(&said, &["feedmill topics create"]);
    assert!(!said.contains("failed to the"), "no sentence: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_another_partition_count_are_named_with_both_numbers() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("partitions").partitions(3).create().await;
    let said = refused(&world, &[("FEEDMILL_KAFKA__PARTITIONS", "5")], SERVICE).await;
    for topic in [
        Topic::Events,
        Topic::Results,
        Topic::Objects,
        Topic::DeadLetters,
    ] {
        let topic = world.topic(topic);
        assert_says(&said, &[&format!("{topic} has 3 partitions, not 5")]);
    }
    assert_says(&said, &["kafka.partitions = 3", "kafka.topic_prefix"]);
    // It would make nothing: they are all there.
    assert!(
        !said.contains("topics create"),
        "advice that does not help: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_the_wrong_cleanup_policy_is_named_with_the_way_to_mend_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("policy").create().await;
    let objects = world.topic(Topic::Objects);
    // Altering a topic resets what is not named.
    let kept = ("delete.retention.ms", "1209600000");
    alter(&world, &objects, &[("cleanup.policy", "delete"), kept]).await;
    let said = refused(&world, &[], SERVICE).await;
    assert_says(
        &said,
        &[
            &objects,
            "cleanup.policy=delete",
            "compact",
            "kafka-configs",
        ],
    );
    assert!(
        !said.contains("topics create"),
        "advice that does not help: {said}"
    );
}

async fn alter(world: &World, topic: &str, settings: &[(&str, &str)]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.origin.brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let altered = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let altered = settings
        .iter()
        .fold(altered, |altered, (name, value)| altered.set(name, value));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(30)));
    let answers = admin.alter_configs([&altered], &options).await;
    for answer in answers.expect("the broker answers") {
        answer.expect("the broker alters it");
    }
}

// S3

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_that_is_down_ends_the_start_and_its_setting_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("s3-down").create().await;
    let endpoint = format!("http://{CLOSED}");
    let said = refused(&world, &[("FEEDMILL_S3__ENDPOINT", &endpoint)], SERVICE).await;
    let bucket = &world.origin.input_bucket;
    assert_says(&said, &[bucket, "refused", "s3.endpoint"]);
    assert_says_it_once(&said);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_credentials_that_are_wrong_or_not_there_end_the_start_and_are_not_shown() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("s3-login").create().await;
    let bucket = &world.origin.input_bucket;
    let secret = "hush-not-the-secret-key";
    let wrong_secret = [("AWS_SECRET_ACCESS_KEY", secret)];
    let wrong_key = [
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ];
    for environment in [&wrong_secret[..], &wrong_key] {
        let said = refused(&world, environment, SERVICE).await;
        assert_says(&said, &[bucket, "403", "credentials", "AWS_ACCESS_KEY_ID"]);
        assert_says_it_once(&said);
        assert!(!said.contains(secret), "{said}");
    }
    let folder = world.folder().to_string_lossy();
    let none = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("HOME", &*folder),
        // Not to depend on where the tests run.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let said = refused(&world, &none, SERVICE).await;
    assert_says(&said, &[bucket, "credentials", "AWS_ACCESS_KEY_ID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_ends_the_start_and_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("no-bucket").settings(
        r#"
        [output]
        key = "{bucket}/{key}.json"

        [[feeds]]
        name = "there"
        match = "s3://{input}/products/**"

        [[feeds]]
        name = "missing"
        match = "s3://{input}-missing/**"
        "#,
    );
    let world = world.create().await;
    let input = format!("{}-missing", world.origin.input_bucket);
    let said = refused(&world, &[], SERVICE).await;
    assert_says(&said, &[&input, "NoSuchBucket", "make the bucket"]);

    let world = stack.world("no-output").create().await;
    let output = format!("{}-missing", world.origin.output_bucket);
    let said = refused(&world, &[("FEEDMILL_OUTPUT__BUCKET", &output)], SERVICE).await;
    assert_says(&said, &[&output, "NoSuchBucket", "make the bucket"]);
    assert_says_it_once(&said);
}

// This machine

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_the_start_and_its_setting_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("ports").create().await;
    for (variable, setting) in [
        ("FEEDMILL_ADMIN__LISTEN", "admin.listen"),
        ("FEEDMILL_INTAKE__LISTEN", "intake.listen"),
    ] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        let said = refused(&world, &[(variable, &address)], USAGE).await;
        assert_says(&said, &[&address, setting, "in use"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_cannot_be_made_ends_the_start_and_its_setting_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("state").create().await;
    std::fs::write(world.folder().join("a-file"), "in its place").expect("a writable folder");
    let said = refused(&world, &[("FEEDMILL_STATE__DIR", "a-file")], SERVICE).await;
    assert_says(&said, &["a-file", "state.dir", "directory"]);
}

// Ctrl-C

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_during_the_start_ends_it_at_once_whoever_is_being_waited_for() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("ctrl-c").create().await;
    let (kafka, s3) = (Silent::listen().await, Silent::listen().await);
    let waits = [
        (&kafka, "FEEDMILL_KAFKA__BROKERS", kafka.address.to_string()),
        (
            &s3,
            "FEEDMILL_S3__ENDPOINT",
            format!("http://{}", s3.address),
        ),
    ];
    for (server, variable, address) in waits {
        let mut command = binary::feedmill(world.folder(), &["run"]);
        command.env(variable, address);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut starting = Running::start(&mut command);
        let _connection = server.called().await;
        starting.signal("INT");
        let asked = Instant::now();
        let code = starting.wait();
        let took = asked.elapsed();
        println!("{variable}: exit {code:?} {took:?} after Ctrl-C");
        assert_eq!(code, Some(0), "{variable}: asked to stop, it stopped");
        assert!(took < AT_ONCE, "{variable}: {took:?}");
    }
}
