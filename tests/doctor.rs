//! `feedmill doctor`: everything that a worker needs is looked at in order, and what is missing is named with what grants
//! it. What a broker with ACLs is asked to grant is granted here, exactly, and a worker runs with no more.
//!
//! With `--nocapture` the tests print every report, for people to judge.

mod support;

#[path = "support/binary.rs"]
mod binary;
#[path = "support/secure_kafka.rs"]
mod secure_kafka;
#[path = "support/tls.rs"]
mod tls;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode};
use binary::{Ended, Running};
use feedmill::topics::{Outcome, encode};
use secure_kafka::{INTAKE_USER, PLAIN_PASSWORD, SWEEP_USER, SecureKafka, USER};
use serde_json::{Value, json};
use support::files::{PRODUCTS_FEED, ProductFile};
use support::{Stack, Store, WorkerOptions, World, poll_until, wait_until};

const DONE: i32 = 0;
const USAGE: i32 = 2;
const FINDINGS: i32 = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Nothing listens on the first port of this machine.
const CLOSED: &str = "127.0.0.1:1";

/// A secret that is found nowhere else, so that a leak can be looked for.
const WRONG_SECRET: &str = "hush-not-the-secret-key";

type Environment<'a> = &'a [(&'a str, &'a str)];

/// What `feedmill doctor --json` said.
struct Diagnosis {
    ended: Ended,
    checks: Vec<Value>,
}

fn doctor(world: &World, environment: Environment<'_>, args: &[&str]) -> Diagnosis {
    let mut command = binary::feedmill(world.folder(), &["doctor", "--json"]);
    command.args(args).envs(environment.iter().copied());
    let ended = binary::run(&mut command);
    println!(
        "{environment:?} {args:?}: exit {:?}\n{}",
        ended.code, ended.stdout
    );
    for secret in [WRONG_SECRET, PLAIN_PASSWORD] {
        assert!(!ended.stdout.contains(secret), "a secret is shown");
        assert!(!ended.stderr.contains(secret), "a secret is shown");
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
    let checks = ended.stdout.lines().map(serde_json::from_str);
    Diagnosis {
        checks: checks.collect::<Result<_, _>>().expect("JSON lines"),
        ended,
    }
}

impl Diagnosis {
    #[track_caller]
    fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.ended.code, Some(code), "{:#?}", self.ended);
        self
    }

    /// `check target`, in order.
    fn with_status(&self, status: &str) -> Vec<String> {
        let with_it = self.checks.iter().filter(|check| check["status"] == status);
        with_it.map(name).collect()
    }

    /// The check whose name begins so.
    #[track_caller]
    fn find(&self, start: &str) -> &Value {
        let found = self
            .checks
            .iter()
            .find(|check| name(check).starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in {:#?}", self.checks))
    }

    /// Fails the test unless this check ended so, and says all of these words in what it saw or in its remedies.
    #[track_caller]
    fn expect(&self, start: &str, status: &str, words: &[&str]) {
        let check = self.find(start);
        assert_eq!(check["status"], status, "{check:#}");
        let said = format!("{} {}", check["seen"], check["remedies"]).replace("\\\"", "\"");
        for word in words {
            assert!(said.contains(word), "{word:?} is not said: {check:#}");
        }
    }

    fn remedies(&self, start: &str) -> Vec<String> {
        let checks = self
            .checks
            .iter()
            .filter(|check| name(check).starts_with(start));
        checks
            .flat_map(|check| check["remedies"].as_array().expect("an array"))
            .map(|remedy| remedy.as_str().expect("a text").to_owned())
            .collect()
    }
}

fn name(check: &Value) -> String {
    let text = |field: &str| check[field].as_str().expect("a text").to_owned();
    format!("{} {}", text("check"), text("target"))
        .trim()
        .to_owned()
}

/// Those of the tests' worlds.
const TIERS: [&str; 3] = ["1s", "2s", "4s"];

// All is well

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_place_is_said_check_by_check_and_nothing_is_left_behind() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor").create().await;
    world
        .put("products/a.xml", ProductFile::new("a", 1).xml())
        .await;
    let seen = doctor(&world, &[], &[]).expect_code(DONE);
    let (prefix, group) = (&world.origin.topic_prefix, &world.origin.group);
    let (input, output) = (&world.origin.input_bucket, &world.origin.output_bucket);
    let mut expected = vec![
        "configuration".to_owned(),
        format!("kafka.broker {}", world.origin.brokers),
        "kafka.cluster".to_owned(),
        "kafka.version".to_owned(),
        format!("kafka.transactions {group}-*"),
    ];
    for tier in TIERS {
        expected.push(format!("kafka.transactions {prefix}.retry.{tier}-*"));
    }
    for topic in [
        "cleanups",
        "dead-letters",
        "events",
        "objects",
        "rejected-notifications",
        "results",
        "retries.1s",
        "retries.2s",
        "retries.4s",
    ] {
        expected.push(format!("kafka.permissions topic {prefix}.{topic}"));
    }
    expected.push(format!("kafka.permissions group {group}"));
    for tier in TIERS {
        expected.push(format!("kafka.permissions group {prefix}.retry.{tier}"));
    }
    expected.push("kafka.topics".to_owned());
    for check in ["s3.list", "s3.get"] {
        expected.push(format!("{check} {input}"));
    }
    for check in ["s3.list", "s3.put", "s3.get", "s3.delete"] {
        expected.push(format!("{check} {output}"));
    }
    expected.extend(["clock", "state state"].map(str::to_owned));
    let all: Vec<String> = seen.checks.iter().map(name).collect();
    assert_eq!(all, expected);
    let fine = seen.with_status("ok").len() + seen.with_status("warning").len();
    assert_eq!(fine, expected.len(), "{:#?}", seen.checks);
    seen.expect(&format!("s3.get {input}"), "ok", &["products/a.xml"]);
    seen.expect("kafka.permissions", "ok", &["no ACLs are enforced"]);
    seen.expect("kafka.version", "ok", &["topics have ids"]);

    assert!(
        world.dump().await.outputs.is_empty(),
        "the scratch object is there"
    );
    assert!(
        !world.folder().join("state").exists(),
        "the state folder was made"
    );

    // For people: the same, with a last line.
    let text = world.run_cli(&["doctor"]).await;
    assert_eq!(text.code(), Some(DONE));
    assert!(
        text.stdout
            .contains("ok       kafka.topics: 9 are there and fit\n"),
        "{text:#?}"
    );
    assert!(
        text.stdout
            .starts_with("ok       configuration: feedmill.toml is sound, 1 feed\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_is_checked_for_what_it_needs_and_no_more() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-stages").create().await;
    let no_s3 = format!("http://{CLOSED}");
    let environment = [("FEEDMILL_S3__ENDPOINT", no_s3.as_str())];
    let seen = doctor(&world, &environment, &["--stages", "intake"]).expect_code(DONE);
    assert_eq!(
        seen.with_status("skipped"),
        ["kafka.transactions", "s3", "state state"]
    );
    doctor(&world, &environment, &["--stages", "convert"]).expect_code(FINDINGS);
}

// Configuration

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_loaded_is_2_and_one_that_makes_no_sense_is_a_finding() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-config").create().await;
    let unknown = [("FEEDMILL_KAFKA__BROKER", "typo")];
    let said = doctor(&world, &unknown, &[]).expect_code(USAGE).ended;
    said.expect_said(&["FEEDMILL_KAFKA__BROKERS"]);
    let open = [("FEEDMILL_INTAKE__LISTEN", "0.0.0.0:0")];
    let seen = doctor(&world, &open, &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), ["configuration"]);
    seen.expect(
        "configuration",
        "failed",
        &["intake.listen", "intake.token"],
    );
}

// Kafka

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_told_by_where_the_way_ends() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-kafka").create().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let silent_address = silent.local_addr().expect("it is bound").to_string();
    let brokers = format!("{CLOSED},nobody.invalid:9092,{silent_address}");
    let environment = [
        ("FEEDMILL_KAFKA__BROKERS", brokers.as_str()),
        ("FEEDMILL_KAFKA__REQUEST_TIMEOUT_SECS", "3"),
    ];
    let seen = doctor(&world, &environment, &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed").len(), 3, "one for each broker");
    seen.expect(
        &format!("kafka.broker {CLOSED}"),
        "failed",
        &["no TCP", "refused", "kafka.brokers"],
    );
    seen.expect(
        "kafka.broker nobody",
        "failed",
        &["its name", "name server"],
    );
    let silent = format!("kafka.broker {silent_address}");
    seen.expect(
        &silent,
        "failed",
        &["does not answer as Kafka", "[kafka.security]"],
    );
    seen.expect("kafka.topics", "skipped", &["no broker"]);
    let trying = format!("trying   {silent}");
    assert!(
        seen.ended.stderr.contains(&trying),
        "silent for seconds: {:?}",
        seen.ended
    );
    // What does not stand on Kafka is looked at all the same.
    seen.expect("s3.delete", "ok", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_missing_or_do_not_fit_are_named_with_what_mends_them() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-topics").partitions(3).create().await;
    let prefix = format!("{}-other", world.origin.topic_prefix);
    let elsewhere = [("FEEDMILL_KAFKA__TOPIC_PREFIX", prefix.as_str())];
    let seen = doctor(&world, &elsewhere, &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), ["kafka.topics"]);
    let names = [
        ".events",
        ".results",
        ".objects",
        ".dead-letters",
        ".cleanups",
        ".rejected-notifications",
        ".retries.1s",
        ".retries.2s",
        ".retries.4s",
    ];
    let names = names.map(|name| format!("{prefix}{name}"));
    seen.expect(
        "kafka.topics",
        "failed",
        &names.each_ref().map(String::as_str),
    );
    assert_eq!(seen.remedies("kafka.topics"), ["feedmill topics create"]);

    let five = [("FEEDMILL_KAFKA__PARTITIONS", "5")];
    let seen = doctor(&world, &five, &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), ["kafka.topics"; 8]);
    seen.expect(
        "kafka.topics",
        "failed",
        &["has 3 partitions, not 5", "kafka.partitions = 3"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_sasl_refusals_are_told_apart() {
    let (Some(stack), Some(broker)) = (Stack::from_env(), SecureKafka::with_acls()) else {
        return;
    };
    let world = stack.world("doctor-tls").create().await;
    let (ca, other_ca) = (broker.file("ca.pem"), broker.file("other-ca.pem"));
    let (tls, sasl) = (broker.tls(), broker.sasl());
    let mut wrong_password = as_user(&sasl, &ca, USER);
    wrong_password.push(("FEEDMILL_KAFKA__SECURITY__PASSWORD", WRONG_SECRET));
    let via_tls = ("FEEDMILL_KAFKA__BROKERS", tls.as_str());
    let ways: [(Environment<'_>, &[&str]); 3] = [
        (
            &[via_tls, ("FEEDMILL_KAFKA__SECURITY__CA_FILE", &other_ca)],
            &["TLS", "not trusted", "kafka.security.ca_file"],
        ),
        (&wrong_password, &["SASL", "kafka.security.sasl_mechanism"]),
        (
            &[via_tls],
            &["does not answer as Kafka", "[kafka.security]"],
        ),
    ];
    for (environment, words) in ways {
        let mut environment = environment.to_vec();
        environment.push(("FEEDMILL_KAFKA__REQUEST_TIMEOUT_SECS", "3"));
        let seen = doctor(&world, &environment, &["--stages", "intake"]).expect_code(FINDINGS);
        seen.expect("kafka.broker", "failed", words);
    }
}

// ACLs

/// As a user of the broker with ACLs.
fn as_user<'a>(address: &'a str, ca: &'a str, user: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("FEEDMILL_KAFKA__BROKERS", address),
        ("FEEDMILL_KAFKA__SECURITY__CA_FILE", ca),
        ("FEEDMILL_KAFKA__SECURITY__SASL_MECHANISM", "PLAIN"),
        ("FEEDMILL_KAFKA__SECURITY__USERNAME", user),
        ("FEEDMILL_KAFKA__SECURITY__PASSWORD", PLAIN_PASSWORD),
    ]
}

/// A world on the broker with ACLs, whose topics an administrator has made.
async fn world_with_acls(name: &str) -> Option<(World, &'static SecureKafka)> {
    let (stack, broker) = (Stack::from_env()?, SecureKafka::with_acls()?);
    let stack = Stack {
        brokers: broker.plaintext(),
        ..stack
    };
    let deleting = PRODUCTS_FEED.replace("record =", "after = 'delete'\nrecord =");
    let world = stack.world(name).partitions(2).settings(&deleting);
    Some((world.create().await, broker))
}

/// Runs the doctor until the broker's authorizer has heard of all grants.
async fn doctor_settles(
    world: &World,
    environment: Environment<'_>,
    args: &[&str],
    failed: &[String],
) -> Diagnosis {
    let settled = poll_until(TIMEOUT, async || {
        let seen = doctor(world, environment, args);
        (seen.with_status("failed") == failed).then_some(seen)
    });
    match settled.await {
        Some(seen) => seen,
        None => panic!("not only {failed:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_acls_are_named_and_a_worker_runs_with_exactly_those_grants() {
    let Some((world, broker)) = world_with_acls("doctor-acls").await else {
        return;
    };
    let (address, ca) = (broker.sasl(), broker.file("ca.pem"));
    let environment = as_user(&address, &ca, USER);
    let stages = ["--stages", "convert,retry,cleanup"];
    let seen = doctor(&world, &environment, &stages).expect_code(FINDINGS);
    let (prefix, group) = (&world.origin.topic_prefix, &world.origin.group);
    let results = format!("kafka.permissions topic {prefix}.results");
    seen.expect(&results, "failed", &[
        "Read, Write, Describe, DescribeConfigs not allowed",
        &format!(
            "kafka-acls.sh --bootstrap-server {address} --command-config admin.properties --add \
             --allow-principal User:{USER} --operation Read --operation Write --operation DescribeConfigs --topic {prefix}.results"
        ),
    ]);
    seen.expect(
        &format!("kafka.permissions group {group}"),
        "failed",
        &["--operation Read --group"],
    );
    seen.expect(
        &format!("kafka.transactions {group}-*"),
        "failed",
        &[&format!(
            "--transactional-id {group}- --resource-pattern-type prefixed"
        )],
    );
    // Whether a topic is there can't be told by whoever may not see it.
    seen.expect("kafka.topics", "skipped", &[]);

    let grants = seen.remedies("kafka.");
    assert_eq!(
        grants.len(),
        19,
        "9 topics, 5 groups, their transactional ids: {grants:#?}"
    );
    let (last, others): (Vec<String>, Vec<String>) = grants
        .into_iter()
        .partition(|grant| grant.ends_with(&format!("{prefix}.results")));
    for grant in &others {
        broker.as_admin(grant);
    }
    let seen = doctor_settles(&world, &environment, &stages, &[results]).await;
    assert_eq!(seen.remedies("kafka."), last, "named exactly");
    broker.as_admin(&last[0]);
    let seen = doctor_settles(&world, &environment, &stages, &[])
        .await
        .expect_code(DONE);
    seen.expect(&format!("kafka.permissions group {group}"), "ok", &["Read"]);
    seen.expect("kafka.topics", "ok", &["9 are there and fit"]);

    let options = environment
        .iter()
        .fold(WorkerOptions::default(), |options, (name, value)| {
            options.env(name, value)
        });
    let mut worker = world.worker(options.args(&stages));
    worker.ready(TIMEOUT).await;
    uses_every_grant(&world).await;
    wait_until("what the metrics read", TIMEOUT, async || {
        let (_, metrics) = worker.get("/metrics").await;
        let open = metrics.contains("reason=\"malformed_xml\"} 1");
        let lag = metrics.contains("feedmill_lag_bytes{partition=\"0\",stage=\"convert\"}");
        (open && lag).then_some(())
    })
    .await;
    assert!(!worker.log().contains("metrics are made without"));
    worker.terminate();
    assert_eq!(worker.wait(TIMEOUT).await.code(), Some(DONE));
}

/// Makes a worker read and write every topic: a conversion of an event in the wrong partition, which is moved home, a
/// dead letter, and an event that can't be read.
async fn uses_every_grant(world: &World) {
    world
        .put("products/a.xml", ProductFile::new("acls", 1).xml())
        .await;
    let event = world.event("products/a.xml", None);
    let key = format!("{}/{}", event.bucket, event.key);
    let home = world.partition_of("products/a.xml");
    let bytes = encode(&event);
    world.announce_raw(1 - home, &key, &bytes).await;
    let result = world.wait_for_result(event.id, TIMEOUT).await;
    assert_eq!(result.outcome, Outcome::Converted, "{result:?}");
    let store = Store::connect(&world.stack.s3_endpoint);
    wait_until("the source is deleted", TIMEOUT, async || {
        let found = store.get(&world.origin.input_bucket, "products/a.xml");
        found
            .await
            .expect("the S3 server serves")
            .is_none()
            .then_some(())
    })
    .await;

    world
        .put("products/broken.xml", "<products><product>")
        .await;
    let broken = world.announce("products/broken.xml", None).await;
    let result = world.wait_for_result(broken, TIMEOUT).await;
    assert_eq!(result.outcome, Outcome::DeadLettered, "{result:?}");

    world
        .announce_raw(home, &key, &bytes[..bytes.len() / 2])
        .await;
    assert!(
        world.settles_within(TIMEOUT).await,
        "not everything is committed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_alone_runs_with_the_grants_of_its_stage() {
    let Some((world, broker)) = world_with_acls("doctor-intake").await else {
        return;
    };
    let (address, ca) = (broker.sasl(), broker.file("ca.pem"));
    let environment = as_user(&address, &ca, INTAKE_USER);
    let stages = ["--stages", "intake"];
    let seen = doctor(&world, &environment, &stages).expect_code(FINDINGS);
    for grant in seen.remedies("kafka.") {
        assert!(!grant.contains("Read"), "it reads nothing: {grant}");
        broker.as_admin(&grant);
    }
    doctor_settles(&world, &environment, &stages, &[])
        .await
        .expect_code(DONE);

    let options = environment
        .iter()
        .fold(WorkerOptions::default(), |options, (name, value)| {
            options.env(name, value)
        });
    let mut worker = world.worker(options.args(&stages));
    let answer = worker.notify(&notification(&world, "products/a.xml")).await;
    assert_eq!(answer.0, 202, "{answer:?}");
    assert_eq!(world.lag().await, Some(1), "the event is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_alone_runs_with_the_grants_of_its_stage() {
    let Some((world, broker)) = world_with_acls("doctor-sweep").await else {
        return;
    };
    let (address, ca) = (broker.sasl(), broker.file("ca.pem"));
    let mut environment = as_user(&address, &ca, SWEEP_USER);
    environment.extend([
        ("FEEDMILL_SWEEP__ENABLED", "true"),
        ("FEEDMILL_SWEEP__MIN_AGE", "0s"),
    ]);
    let stages = ["--stages", "sweep"];
    let seen = doctor(&world, &environment, &stages).expect_code(FINDINGS);
    for grant in seen.remedies("kafka.") {
        broker.as_admin(&grant);
    }
    doctor_settles(&world, &environment, &stages, &[])
        .await
        .expect_code(DONE);

    world
        .put("products/a.xml", ProductFile::new("acls", 1).xml())
        .await;
    let options = environment
        .iter()
        .fold(WorkerOptions::default(), |options, (name, value)| {
            options.env(name, value)
        });
    let mut worker = world.worker(options.args(&stages));
    let announced = poll_until(TIMEOUT, async || {
        (world.lag().await == Some(1)).then_some(())
    });
    assert!(announced.await.is_some(), "{}", worker.log());
    worker.terminate();
    assert_eq!(worker.wait(TIMEOUT).await.code(), Some(DONE));
}

fn notification(world: &World, key: &str) -> Value {
    let bucket = json!({ "name": world.origin.input_bucket });
    json!({ "Records": [{ "s3": { "bucket": bucket, "object": { "key": key } } }] })
}

// S3

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named_and_what_stands_on_it_is_skipped() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-bucket").create().await;
    let missing = format!("{}-missing", world.origin.output_bucket);
    let elsewhere = [("FEEDMILL_OUTPUT__BUCKET", missing.as_str())];
    let seen = doctor(&world, &elsewhere, &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), [format!("s3.list {missing}")]);
    seen.expect(
        &format!("s3.list {missing}"),
        "failed",
        &["NoSuchBucket", "make the bucket"],
    );
    let skipped = ["s3.put", "s3.get", "s3.delete"].map(|check| format!("{check} {missing}"));
    assert_eq!(seen.with_status("skipped"), skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_to_move_sources_to_that_is_not_there_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let feed = "[[feeds]]\nname = \"moved\"\nmatch = \"s3://{input}/moved/**\"\nrecord = \"items/item\"\nafter = { move = \"s3://fm-nowhere-archive/\" }\n";
    let world = stack.world("doctor-archive").settings(feed).create().await;
    let seen = doctor(&world, &[], &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), ["s3.list fm-nowhere-archive"]);
    // Without the stage that moves, nobody needs it.
    doctor(&world, &[], &["--stages", "intake,convert"]).expect_code(DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_from_missing_rights() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-login").create().await;
    let wrong = [("AWS_SECRET_ACCESS_KEY", WRONG_SECRET)];
    let seen = doctor(&world, &wrong, &[]).expect_code(FINDINGS);
    seen.expect(
        "s3.list",
        "failed",
        &["SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID"],
    );
    assert!(
        seen.remedies("s3.")
            .iter()
            .all(|remedy| !remedy.contains("Effect")),
        "{seen:#?}",
        seen = seen.checks
    );
    seen.expect("clock", "ok", &[]);
}

/// A server of S3's protocol that answers as a test wants it.
async fn stand_in(
    answer: impl Fn(&Method, &str) -> Response<String> + Send + Sync + 'static,
) -> String {
    let answer = Arc::new(answer);
    let app = axum::Router::new().fallback(async move |request: Request<axum::body::Body>| {
        answer(request.method(), &request.uri().to_string())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn answer(status: u16, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn refusal(status: u16, code: &str) -> Response<String> {
    answer(
        status,
        &format!("<Error><Code>{code}</Code><Message>no</Message></Error>"),
    )
}

const EMPTY_LISTING: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

fn is_listing(method: &Method, uri: &str) -> bool {
    method == Method::GET && uri.contains("list-type=2")
}

/// Runs the doctor beside a stand-in for S3.
async fn doctor_beside(world: &World, endpoint: &str) -> Diagnosis {
    let environment = [
        ("FEEDMILL_S3__ENDPOINT", endpoint),
        ("FEEDMILL_S3__MAX_ATTEMPTS", "1"),
    ];
    tokio::task::block_in_place(|| doctor(world, &environment, &["--stages", "convert"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_in_s3_is_named_with_the_policy_that_grants_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-rights").create().await;
    let (input, output) = (&world.origin.input_bucket, &world.origin.output_bucket);

    let endpoint = stand_in(|method, uri| match is_listing(method, uri) {
        true => answer(200, EMPTY_LISTING),
        false => refusal(403, "AccessDenied"),
    });
    let seen = doctor_beside(&world, &endpoint.await)
        .await
        .expect_code(FINDINGS);
    let read = format!(
        r#"{{"Effect":"Allow","Action":["s3:GetObject","s3:GetObjectVersion"],"Resource":"arn:aws:s3:::{input}/*"}}"#
    );
    seen.expect(
        &format!("s3.get {input}"),
        "failed",
        &["AccessDenied", &read],
    );
    seen.expect(
        "s3.put",
        "failed",
        &["s3:PutObject", &format!("arn:aws:s3:::{output}/*")],
    );
    seen.expect("s3.delete", "skipped", &["nothing could be written"]);

    let endpoint = stand_in(|_, _| refusal(403, "AccessDenied")).await;
    let seen = doctor_beside(&world, &endpoint).await.expect_code(FINDINGS);
    let list = format!(r#""s3:ListBucket"],"Resource":"arn:aws:s3:::{input}"}}"#);
    seen.expect(&format!("s3.list {input}"), "failed", &[&list]);
    seen.expect(&format!("s3.get {input}"), "skipped", &["can't be listed"]);

    let endpoint = stand_in(|_, _| refusal(400, "AuthorizationHeaderMalformed")).await;
    let seen = doctor_beside(&world, &endpoint).await.expect_code(FINDINGS);
    seen.expect("s3.list", "failed", &["s3.region"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_conditions_or_keeps_the_scratch_object_is_found_out() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-fence").create().await;
    let endpoint = stand_in(|method, uri| match *method {
        _ if is_listing(method, uri) => answer(200, EMPTY_LISTING),
        Method::DELETE => refusal(403, "AccessDenied"),
        Method::GET if !uri.contains(".feedmill-probe") => refusal(404, "NoSuchKey"),
        _ => answer(200, ""),
    });
    let seen = doctor_beside(&world, &endpoint.await)
        .await
        .expect_code(FINDINGS);
    seen.expect(
        "s3.put",
        "failed",
        &["ignores If-None-Match", "output.conditional_writes = false"],
    );
    seen.expect(
        "s3.delete",
        "warning",
        &[".feedmill-probe/", "s3:DeleteObject", "every start"],
    );
    let input = &world.origin.input_bucket;
    seen.expect(
        &format!("s3.get {input}"),
        "ok",
        &["no object that a feed takes"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_far_apart_are_found_in_a_refusal_too() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-clock").create().await;
    let endpoint = stand_in(|_, _| {
        let mut response = refusal(403, "RequestTimeTooSkewed");
        let date = "Fri, 21 Nov 2036 14:00:00 GMT".parse().expect("a header");
        response.headers_mut().insert("date", date);
        response
    });
    let seen = doctor_beside(&world, &endpoint.await)
        .await
        .expect_code(FINDINGS);
    seen.expect("s3.list", "failed", &["clock"]);
    seen.expect("clock", "failed", &["behind", "15 minutes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_doctor_still_deletes_its_scratch_object() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-ctrl-c").create().await;
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, (release, held)) = (Arc::clone(&asked), std::sync::mpsc::channel::<()>());
    let held = std::sync::Mutex::new(held);
    let endpoint = stand_in(move |method, uri| {
        seen.lock()
            .expect("no panic")
            .push(format!("{method} {uri}"));
        match *method {
            _ if is_listing(method, uri) => answer(200, EMPTY_LISTING),
            Method::PUT => {
                // Until the test lets it go, and at once from then on.
                let _ = tokio::task::block_in_place(|| held.lock().expect("no panic").recv());
                refusal(412, "PreconditionFailed")
            }
            Method::GET => refusal(404, "NoSuchKey"),
            _ => answer(204, ""),
        }
    });
    let requests = || -> Vec<String> { asked.lock().expect("no panic").clone() };
    let has = |method: &str| requests().iter().any(|request| request.starts_with(method));
    let mut command = binary::feedmill(world.folder(), &["doctor"]);
    command.env("FEEDMILL_S3__ENDPOINT", endpoint.await);
    let said = world.folder().join("said");
    let file = std::fs::File::create(&said).expect("a writable folder");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let mut running = Running::start(&mut command);
    wait_until("a PUT", TIMEOUT, async || has("PUT").then_some(())).await;
    running.signal("INT");
    let heard = async || {
        std::fs::read_to_string(&said)
            .is_ok_and(|said| said.contains("to delete the scratch object"))
            .then_some(())
    };
    wait_until("the signal is heard", TIMEOUT, heard).await;
    drop(release);
    let code = tokio::task::block_in_place(|| running.wait());
    assert_eq!(code, Some(130), "it was not finished");
    let scratch: BTreeSet<String> = requests()
        .iter()
        .filter(|request| request.contains(".feedmill-probe"))
        .map(|request| request.split(' ').next().expect("a method").to_owned())
        .collect();
    assert!(scratch.contains("DELETE"), "{:#?}", requests());
}

// This machine

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_cannot_be_made_is_named() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("doctor-state").create().await;
    std::fs::write(world.folder().join("a-file"), "in its place").expect("a writable folder");
    let seen =
        doctor(&world, &[("FEEDMILL_STATE__DIR", "a-file/state")], &[]).expect_code(FINDINGS);
    assert_eq!(seen.with_status("failed"), ["state a-file/state"]);
    seen.expect("state", "failed", &["a-file is not a folder", "state.dir"]);
}
