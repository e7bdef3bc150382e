//! librdkafka settings: what the user passes through first, what feedmill depends on last, so that nothing it relies on
//! can be configured away.

use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, KafkaResult},
};

use crate::config::{Kafka, SaslMechanism, SecurityProtocol};

/// Longest time a single call to Kafka may take. Kept under the watchdog's limit.
pub fn call_timeout(kafka: &Kafka) -> Duration {
    Duration::from_secs(kafka.request_timeout_secs.into())
}

/// Makes a client from settings. The library's own error names the value of a property it refuses, and that may be a
/// secret: it is left out.
pub fn create<C, T>(settings: &ClientConfig, context: C) -> KafkaResult<T>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    settings
        .create_with_context(context)
        .map_err(|error| match error {
            KafkaError::ClientConfig(result, why, name, _) => {
                KafkaError::ClientConfig(result, why, name, "(not shown)".into())
            }
            other => other,
        })
}

/// A client: feedmill's tuning, then the user's properties, then what feedmill depends on.
fn client(kafka: &Kafka, tuning: &[(&str, &str)], depended_on: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "feedmill");
    set_all(&mut config, tuning);
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", kafka.brokers.join(","))
        .set("allow.auto.create.topics", "false")
        .set("socket.timeout.ms", millis(kafka.request_timeout_secs))
        .set(
            "socket.connection.setup.timeout.ms",
            millis(kafka.request_timeout_secs),
        )
        .set_log_level(RDKafkaLogLevel::Warning);
    set_all(&mut config, depended_on);
    secure(&mut config, kafka);
    config
}

fn set_all(config: &mut ClientConfig, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        config.set(*name, *value);
    }
}

fn secure(config: &mut ClientConfig, kafka: &Kafka) {
    let security = &kafka.security;
    let protocol = match security.effective_protocol() {
        SecurityProtocol::Plaintext => "plaintext",
        SecurityProtocol::Ssl => "ssl",
        SecurityProtocol::SaslPlaintext => "sasl_plaintext",
        SecurityProtocol::SaslSsl => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    let files = [
        ("ssl.ca.location", &security.ca_file),
        ("ssl.certificate.location", &security.certificate_file),
        ("ssl.key.location", &security.key_file),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            config.set(name, file.to_string_lossy());
        }
    }
    if let Some(mechanism) = security.sasl_mechanism {
        let mechanism = match mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config.set("sasl.mechanism", mechanism);
    }
    if let Some(username) = &security.username {
        config.set("sasl.username", username);
    }
    for (name, secret) in [
        ("sasl.password", &security.password),
        ("ssl.key.password", &security.key_password),
    ] {
        if let Some(secret) = secret {
            config.set(name, secret.expose());
        }
    }
}

/// Kafka's own default is twice as long.
const LONGEST_HEARTBEAT_MS: u32 = 1_500;

/// The consumer of a stage. Dynamic membership, cooperative rebalancing: see `docs/decisions/0002-group-membership.md`.
pub fn group_consumer(kafka: &Kafka, group: &str) -> ClientConfig {
    // A member learns of a rebalance by its next heartbeat: the pause is how long a partition may stand still beside a restart.
    let heartbeat = (kafka.session_timeout_secs * 1000 / 4)
        .clamp(100, LONGEST_HEARTBEAT_MS)
        .to_string();
    // The queue limits hold per partition, because every partition has a queue of its own.
    let tuning = [
        ("queued.min.messages", "1000"),
        ("queued.max.messages.kbytes", "1024"),
        ("fetch.queue.backoff.ms", "20"),
        ("fetch.wait.max.ms", "100"),
        ("check.crcs", "true"),
    ];
    let depended_on = [
        ("group.id", group),
        ("group.protocol", "classic"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", &millis(kafka.session_timeout_secs)),
        ("heartbeat.interval.ms", &heartbeat),
        ("max.poll.interval.ms", "300000"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A hole in the log must stop the partition, never be skipped.
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "false"),
    ];
    client(kafka, &tuning, &depended_on)
}

/// The producer of a stage.
pub fn transactional_producer(kafka: &Kafka, transactional_id: &str) -> ClientConfig {
    let mut config = producer(kafka);
    config.set("transactional.id", transactional_id).set(
        "transaction.timeout.ms",
        millis(kafka.transaction_timeout_secs),
    );
    config
}

/// A producer outside transactions, for what may be written twice: intake.
pub fn idempotent_producer(kafka: &Kafka) -> ClientConfig {
    let mut config = producer(kafka);
    config.set("message.timeout.ms", millis(kafka.request_timeout_secs));
    config
}

fn producer(kafka: &Kafka) -> ClientConfig {
    let tuning = [
        ("compression.type", "lz4"),
        ("linger.ms", "2"),
        ("queue.buffering.max.messages", "100000"),
        ("queue.buffering.max.kbytes", "65536"),
        ("retry.backoff.ms", "50"),
    ];
    let depended_on = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.max.bytes", &MAX_RECORD_BYTES.to_string()),
    ];
    client(kafka, &tuning, &depended_on)
}

/// The broker's own default limit (`message.max.bytes`), less room for headers and batch overhead.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// A consumer that assigns itself: restores, and reads of whole topics.
pub fn reader(kafka: &Kafka, group: &str, isolation: Isolation) -> ClientConfig {
    let tuning = [
        ("queued.max.messages.kbytes", "16384"),
        // By default a reader whose queue was full for a moment is given nothing for a second.
        ("fetch.queue.backoff.ms", "20"),
        ("fetch.wait.max.ms", "100"),
        ("check.crcs", "true"),
    ];
    let depended_on = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("isolation.level", isolation.name()),
    ];
    client(kafka, &tuning, &depended_on)
}

/// Which records and which end of the log a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records only; the end of the log is the last stable offset.
    ReadCommitted,
    /// Everything; the end of the log is its end.
    ReadUncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// For topic administration.
pub fn admin(kafka: &Kafka) -> ClientConfig {
    client(kafka, &[], &[])
}

fn millis(secs: u32) -> String {
    (u64::from(secs) * 1000).to_string()
}
