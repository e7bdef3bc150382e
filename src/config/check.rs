//! What types cannot say: settings that contradict each other, feeds that would read their own outputs, doors left open.
//!
//! In: a [`Config`]. Out: every [`Finding`], each with the setting it is about and what to do.

mod after;
mod feeds;
mod kafka;
mod outputs;
mod prefixes;
mod queues;
mod retry;
mod s3;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::object::ObjectRef;
use crate::topics::layout;

use super::suggest::nearest;
use super::topic_arn::TopicArn;
use super::{Config, Convert, Intake, Log, Output};

/// S3's bounds on a part of a multipart upload, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART_BYTES: std::ops::RangeInclusive<u64> = 5 * 1024 * 1024..=5 * 1024 * 1024 * 1024;

/// One thing that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Begins with the setting or the feed.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing starts with it.
    Error,
    Warning,
}

impl Finding {
    fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
        }
    }

    fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            message: message.into(),
        }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)
    }
}

/// All findings, in the order of the settings.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    kafka::check(&config.kafka, &mut findings);
    s3::check(config, &mut findings);
    check_intake(&config.intake, &mut findings);
    check_topics(config, &mut findings);
    sweep::check(config, &mut findings);
    check_convert(&config.convert, &mut findings);
    check_memory(config, &mut findings);
    retry::check(&config.retry, &mut findings);
    check_output(&config.output, &mut findings);
    check_ports(config.intake.listen, config.admin.listen, &mut findings);
    check_log(&config.log, &mut findings);
    feeds::check(config, &mut findings);
    findings
}

fn at_least_one(setting: &str, value: u64, findings: &mut Vec<Finding>) {
    if value == 0 {
        findings.push(Finding::error(format!("{setting}: must be at least 1")));
    }
}

fn check_intake(intake: &Intake, findings: &mut Vec<Finding>) {
    let open = !intake.listen.ip().is_loopback() && intake.token.is_none();
    if open && !intake.allow_unauthenticated {
        findings.push(Finding::error(format!(
            "intake.listen: {} can be reached from outside and there is no intake.token; set one (FEEDMILL_INTAKE__TOKEN), or intake.allow_unauthenticated = true where something else keeps strangers out",
            intake.listen
        )));
    }
    if intake
        .token
        .as_ref()
        .is_some_and(|token| token.expose().trim().is_empty())
    {
        findings.push(Finding::error("intake.token: is empty"));
    }
    at_least_one(
        "intake.max_body_bytes",
        intake.max_body_bytes as u64,
        findings,
    );
    for topic in &intake.sns_topics {
        if let Err(error) = TopicArn::parse(topic) {
            findings.push(Finding::error(format!("intake.sns_topics: {error}")));
        }
    }
    queues::check(&intake.queues, findings);
}

/// Topics that an S3 server writes to.
fn check_topics(config: &Config, findings: &mut Vec<Finding>) {
    let own: Vec<String> = layout::specs(config)
        .into_iter()
        .map(|topic| topic.name)
        .collect();
    let mut seen = HashSet::new();
    for topic in &config.intake.topics {
        if !kafka::is_topic(topic) {
            findings.push(Finding::error(format!(
                "intake.topics: expected 1 to {} letters, digits, dots, underscores and hyphens, found {topic:?}",
                kafka::TOPIC_BYTES
            )));
        } else if own.contains(topic) {
            findings.push(Finding::error(format!(
                "intake.topics: {topic:?} is one of feedmill's own; name the topic that the S3 server writes its notifications to"
            )));
        } else if !seen.insert(topic) {
            findings.push(Finding::error(format!(
                "intake.topics: {topic:?} is named twice"
            )));
        }
    }
}

fn check_convert(convert: &Convert, findings: &mut Vec<Finding>) {
    at_least_one(
        "convert.max_in_flight",
        convert.max_in_flight as u64,
        findings,
    );
}

/// An idle worker takes 70 MB.
const LEAST_MEMORY: u64 = 128 * 1024 * 1024;

fn check_memory(config: &Config, findings: &mut Vec<Finding>) {
    let memory = &config.memory;
    if memory.limit < LEAST_MEMORY {
        findings.push(Finding::error(format!(
            "memory.limit: must be at least 128 MiB, found {} bytes",
            memory.limit
        )));
        return;
    }
    let parts = config.output.memory_of_a_file();
    if parts > memory.in_flight() {
        findings.push(Finding::error(format!(
            "output.part_bytes: a large file holds three parts of its output, {parts} bytes, and memory.limit leaves {} for files; make the parts smaller or the limit higher",
            memory.in_flight()
        )));
    }
}

fn check_output(output: &Output, findings: &mut Vec<Finding>) {
    match ObjectRef::try_new(output.bucket.as_str(), "any") {
        Ok(_) => {}
        Err(_) if output.bucket.is_empty() => findings.push(Finding::error(
            "output.bucket: is not set; it names the bucket that gets the JSON",
        )),
        Err(error) => findings.push(Finding::error(format!(
            "output.bucket: {error}; expected its bare name"
        ))),
    }
    if !PART_BYTES.contains(&output.part_bytes) {
        findings.push(Finding::error(format!(
            "output.part_bytes: S3 takes parts of {} (5 MiB) to {} (5 GiB) bytes, found {}",
            PART_BYTES.start(),
            PART_BYTES.end(),
            output.part_bytes
        )));
    }
    s3::check_storage(output, findings);
    if !output.conditional_writes {
        findings.push(Finding::warning(
            "output.conditional_writes: is off, so a stalled worker's late write can replace a newer output",
        ));
    }
}

fn check_ports(intake: SocketAddr, admin: SocketAddr, findings: &mut Vec<Finding>) {
    let overlap =
        intake.ip() == admin.ip() || intake.ip().is_unspecified() || admin.ip().is_unspecified();
    if overlap && intake.port() == admin.port() && intake.port() != 0 {
        findings.push(Finding::error(format!(
            "admin.listen: {admin} is taken by intake.listen {intake}"
        )));
    }
}

fn check_log(log: &Log, findings: &mut Vec<Finding>) {
    if let Err(error) = EnvFilter::builder().parse(&log.level) {
        findings.push(Finding::error(format!(
            "log.level: {:?} is no filter: {error}",
            log.level
        )));
        return;
    }
    // A filter takes any single word as a module's name, and `inof` would then silence everything else.
    for word in log.level.split(',').map(str::trim) {
        let is_name = !word.contains(['=', '[', ':']) && !word.starts_with("feedmill");
        if is_name && word.parse::<LevelFilter>().is_err() {
            findings.push(Finding::error(unknown_level(word)));
        }
    }
}

fn unknown_level(word: &str) -> String {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    match nearest(word, LEVELS) {
        Some(level) => format!("log.level: {word:?} is no level, did you mean {level:?}?"),
        None => format!(
            "log.level: {word:?} is no level; there are {}",
            LEVELS.join(", ")
        ),
    }
}
