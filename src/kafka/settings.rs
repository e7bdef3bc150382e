//! librdkafka settings: what the user passes through first, what feedmill depends on last, so that nothing it relies on
//! can be configured away.

use std::time::Duration;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::config::{Kafka, SaslMechanism, SecurityProtocol};

/// Longest time a single call to Kafka may take. Kept under the watchdog's limit.
pub fn call_timeout(kafka: &Kafka) -> Duration {
    Duration::from_secs(kafka.request_timeout_secs.into())
}

/// Brokers, security and the user's own properties: the base of every client.
fn base(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", kafka.brokers.join(","))
        .set("client.id", "feedmill")
        .set("allow.auto.create.topics", "false")
        .set("socket.timeout.ms", millis(kafka.request_timeout_secs))
        .set(
            "socket.connection.setup.timeout.ms",
            millis(kafka.request_timeout_secs),
        )
        .set_log_level(RDKafkaLogLevel::Warning);
    secure(&mut config, kafka);
    config
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

/// The consumer of a stage. Dynamic membership, cooperative rebalancing: see `docs/decisions/0002-group-membership.md`.
pub fn group_consumer(kafka: &Kafka, group: &str) -> ClientConfig {
    let mut config = base(kafka);
    config
        .set("group.id", group)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", millis(kafka.session_timeout_secs))
        .set(
            "heartbeat.interval.ms",
            (kafka.session_timeout_secs * 1000 / 4).max(100).to_string(),
        )
        .set("max.poll.interval.ms", "300000")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A hole in the log must stop the partition, never be skipped.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "false")
        .set("check.crcs", "true")
        // Per partition, because every partition has a queue of its own.
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "1024")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "100");
    config
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
    let mut config = base(kafka);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("retry.backoff.ms", "50");
    config
}

/// The broker's own default limit (`message.max.bytes`), less room for headers and batch overhead.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// A consumer that assigns itself: restores, and reads of whole topics.
pub fn reader(kafka: &Kafka, group: &str, isolation: Isolation) -> ClientConfig {
    let mut config = base(kafka);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("isolation.level", isolation.name())
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "100");
    config
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
    base(kafka)
}

fn millis(secs: u32) -> String {
    (u64::from(secs) * 1000).to_string()
}
