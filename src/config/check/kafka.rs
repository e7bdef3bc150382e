//! Findings about `[kafka]`.

use std::fs::File;
use std::path::Path;

use crate::config::{Kafka, SaslMechanism, Security};

use super::{Finding, at_least_one};

/// Kafka's limit on a topic name.
/// <https://github.com/apache/kafka/blob/4.1/clients/src/main/java/org/apache/kafka/common/internals/Topic.java>
pub(super) const TOPIC_BYTES: usize = 249;

/// What it leaves for the prefix of our longest name.
const PREFIX_BYTES: usize = TOPIC_BYTES - ".rejected-notifications".len();

/// Properties that exactly-once processing rests on, and those with a setting of their own.
const REFUSED: [(&str, &str); 34] = [
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("group.id", "kafka.group"),
    ("transaction.timeout.ms", "kafka.transaction_timeout_secs"),
    ("session.timeout.ms", "kafka.session_timeout_secs"),
    ("socket.timeout.ms", "kafka.request_timeout_secs"),
    ("security.protocol", "kafka.security.protocol"),
    ("sasl.mechanism", "kafka.security.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.security.sasl_mechanism"),
    ("sasl.username", "kafka.security.username"),
    ("sasl.password", "kafka.security.password"),
    ("ssl.ca.location", "kafka.security.ca_file"),
    (
        "ssl.certificate.location",
        "kafka.security.certificate_file",
    ),
    ("ssl.key.location", "kafka.security.key_file"),
    ("ssl.key.password", "kafka.security.key_password"),
    ("acks", ""),
    ("allow.auto.create.topics", ""),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("enable.idempotence", ""),
    ("enable.partition.eof", ""),
    ("auto.offset.reset", ""),
    ("group.protocol", ""),
    ("heartbeat.interval.ms", ""),
    ("isolation.level", ""),
    ("max.poll.interval.ms", ""),
    ("message.max.bytes", ""),
    ("message.timeout.ms", ""),
    ("partition.assignment.strategy", ""),
    ("delivery.report.only.error", ""),
    ("delivery.timeout.ms", ""),
    ("group.instance.id", ""),
    ("request.required.acks", ""),
    ("transactional.id", ""),
];

pub(super) fn check(kafka: &Kafka, findings: &mut Vec<Finding>) {
    check_brokers(&kafka.brokers, findings);
    check_names(kafka, findings);
    check_numbers(kafka, findings);
    check_properties(kafka, findings);
    check_security(&kafka.security, findings);
}

fn check_brokers(brokers: &[String], findings: &mut Vec<Finding>) {
    if brokers.is_empty() {
        findings.push(Finding::error(
            "kafka.brokers: is not set; for example [\"kafka-1:9092\", \"kafka-2:9092\"], or FEEDMILL_KAFKA__BROKERS=kafka-1:9092",
        ));
    }
    for broker in brokers {
        let port = broker.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            findings.push(Finding::error(format!(
                "kafka.brokers: expected host:port, found {broker:?}"
            )));
        }
    }
}

fn check_names(kafka: &Kafka, findings: &mut Vec<Finding>) {
    if kafka.group.trim().is_empty() {
        findings.push(Finding::error("kafka.group: is empty"));
    }
    let prefix = &kafka.topic_prefix;
    if !is_topic(prefix) || prefix.len() > PREFIX_BYTES {
        findings.push(Finding::error(format!(
            "kafka.topic_prefix: expected 1 to {PREFIX_BYTES} letters, digits, dots, underscores and hyphens, found {prefix:?}"
        )));
    }
}

/// Whether Kafka takes it for a topic's name.
pub(super) fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_a_folder = matches!(name, "." | "..");
    (1..=TOPIC_BYTES).contains(&name.len()) && !is_a_folder && name.chars().all(legal)
}

fn check_numbers(kafka: &Kafka, findings: &mut Vec<Finding>) {
    let partitions = u64::try_from(kafka.partitions).unwrap_or(0);
    at_least_one("kafka.partitions", partitions, findings);
    let replication = u64::try_from(kafka.replication.unwrap_or(1)).unwrap_or(0);
    at_least_one("kafka.replication", replication, findings);
    at_least_one(
        "kafka.transaction_timeout_secs",
        kafka.transaction_timeout_secs.into(),
        findings,
    );
    at_least_one(
        "kafka.session_timeout_secs",
        kafka.session_timeout_secs.into(),
        findings,
    );
    at_least_one(
        "kafka.request_timeout_secs",
        kafka.request_timeout_secs.into(),
        findings,
    );
    at_least_one(
        "kafka.commit.max_records",
        kafka.commit.max_records as u64,
        findings,
    );
    at_least_one(
        "kafka.commit.max_bytes",
        kafka.commit.max_bytes as u64,
        findings,
    );
}

fn check_properties(kafka: &Kafka, findings: &mut Vec<Finding>) {
    for (name, setting) in REFUSED
        .iter()
        .filter(|(name, _)| kafka.properties.contains_key(*name))
    {
        findings.push(Finding::error(match *setting {
            "" => format!(
                "kafka.properties: {name:?} cannot be changed, exactly-once processing rests on it"
            ),
            setting => format!("kafka.properties: {name:?} is set by {setting}"),
        }));
    }
}

fn check_security(security: &Security, findings: &mut Vec<Finding>) {
    let protocol = security.effective_protocol();
    if protocol.uses_sasl() {
        check_sasl(security, findings);
    } else if security.asks_for_sasl() {
        findings.push(Finding::error(
            "kafka.security.protocol: has no SASL, so sasl_mechanism, username and password have no effect; name sasl_ssl",
        ));
    }
    if !protocol.uses_tls() && security.asks_for_tls() {
        findings.push(Finding::error(
            "kafka.security.protocol: has no TLS, so ca_file, certificate_file and key_file have no effect; name ssl or sasl_ssl",
        ));
    }
    if !protocol.uses_tls()
        && protocol.uses_sasl()
        && security.sasl_mechanism == Some(SaslMechanism::Plain)
    {
        findings.push(Finding::warning(
            "kafka.security: PLAIN without TLS sends the password readably over the network",
        ));
    }
    check_key_pair(security, findings);
    check_file("ca_file", security.ca_file.as_deref(), findings);
    check_file(
        "certificate_file",
        security.certificate_file.as_deref(),
        findings,
    );
    check_file("key_file", security.key_file.as_deref(), findings);
}

fn check_sasl(security: &Security, findings: &mut Vec<Finding>) {
    let needed = [
        ("sasl_mechanism", security.sasl_mechanism.is_some()),
        ("username", security.username.is_some()),
        ("password", security.password.is_some()),
    ];
    for (setting, _) in needed.iter().filter(|(_, given)| !given) {
        findings.push(Finding::error(format!(
            "kafka.security.{setting}: is not set, and SASL needs it"
        )));
    }
}

fn check_key_pair(security: &Security, findings: &mut Vec<Finding>) {
    match (&security.certificate_file, &security.key_file) {
        (Some(_), None) => findings.push(Finding::error(
            "kafka.security.key_file: is not set, and certificate_file needs it",
        )),
        (None, Some(_)) => findings.push(Finding::error(
            "kafka.security.certificate_file: is not set, and key_file needs it",
        )),
        (None, None) if security.key_password.is_some() => {
            findings.push(Finding::error(
                "kafka.security.key_file: is not set, and key_password needs it",
            ));
        }
        _ => {}
    }
}

fn check_file(setting: &str, path: Option<&Path>, findings: &mut Vec<Finding>) {
    if let Some(path) = path
        && let Err(error) = File::open(path)
    {
        findings.push(Finding::error(format!(
            "kafka.security.{setting}: {} cannot be read: {error}",
            path.display()
        )));
    }
}
