//! The settings of Kafka: where it is, who we are to it, and when finished work is committed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{MIB, Properties, Secret};

/// The brokers, and how feedmill works with them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port` of one or more brokers to start from; required.
    pub brokers: Vec<String>,
    /// Name shared by all workers of one installation: consumer groups and transactional ids begin with it, a stage's name follows.
    pub group: String,
    /// What the topics' names begin with, before the dot.
    pub topic_prefix: String,
    /// Partitions of a topic when it is made. The bound on workers that share the work; fixed for the life of a prefix.
    pub partitions: i32,
    /// Replicas of each partition when a topic is made; left out: 3, or as many as there are brokers.
    pub replication: Option<i16>,
    pub security: Security,
    /// Seconds after which the broker aborts the transaction of a worker that died within one. Until then readers of
    /// committed records wait; too short, and a slow broker ends healthy transactions.
    pub transaction_timeout_secs: u32,
    /// Seconds without a heartbeat after which a worker's partitions go to others. Shorter: quicker failover, and more
    /// rebalances on a slow network. The broker's bounds (`group.min.session.timeout.ms`) apply.
    pub session_timeout_secs: u32,
    /// Seconds that one request to a broker may take.
    pub request_timeout_secs: u32,
    /// Properties handed to librdkafka as they are; those feedmill depends on are refused.
    pub properties: Properties,
    pub commit: Commit,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            group: "feedmill".to_owned(),
            topic_prefix: "feedmill".to_owned(),
            partitions: 12,
            replication: None,
            security: Security::default(),
            transaction_timeout_secs: 15,
            session_timeout_secs: 20,
            request_timeout_secs: 10,
            properties: Properties::default(),
            commit: Commit::default(),
        }
    }
}

/// TLS and SASL towards the brokers. Paths are relative to the working directory, files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Left out: what the other settings ask for, see [`Security::effective_protocol`].
    pub protocol: Option<SecurityProtocol>,
    /// Authorities that may sign a broker's certificate; left out: the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, for mutual TLS; needs `key_file`.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Only for an encrypted `key_file`.
    pub key_password: Option<Secret>,
    pub sasl_mechanism: Option<SaslMechanism>,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl Security {
    /// The protocol in force. Not named, it follows from the rest, and a password is never sent without TLS unless
    /// `sasl_plaintext` is named.
    pub fn effective_protocol(&self) -> SecurityProtocol {
        match self.protocol {
            Some(protocol) => protocol,
            None if self.asks_for_sasl() => SecurityProtocol::SaslSsl,
            None if self.asks_for_tls() => SecurityProtocol::Ssl,
            None => SecurityProtocol::Plaintext,
        }
    }

    pub(super) fn asks_for_sasl(&self) -> bool {
        self.sasl_mechanism.is_some() || self.username.is_some() || self.password.is_some()
    }

    pub(super) fn asks_for_tls(&self) -> bool {
        self.ca_file.is_some()
            || self.certificate_file.is_some()
            || self.key_file.is_some()
            || self.key_password.is_some()
    }
}

/// Kafka's `security.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    pub fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Kafka's `sasl.mechanism`, spelled as Kafka spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// When finished work is committed while more is coming; an idle worker commits at once. Whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// Milliseconds since the first finished result. Longer: fewer transactions, later results.
    pub interval_ms: u64,
    /// Finished results.
    pub max_records: usize,
    /// Bytes of finished results.
    pub max_bytes: usize,
}

impl Default for Commit {
    fn default() -> Self {
        Self {
            interval_ms: 250,
            max_records: 1_000,
            max_bytes: 8 * MIB,
        }
    }
}
