//! Findings about `[s3]`, its accounts, and how outputs are stored.

use std::collections::BTreeSet;

use crate::config::suggest::nearest;
use crate::config::{Bucket, Config, Credentials, Encryption, Output, S3};
use crate::object::ObjectRef;

use super::{Finding, at_least_one};

/// For a bucket on AWS where `s3.endpoint` names another server.
const AWS: &str = "aws";

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html#API_PutObject_RequestSyntax>
const STORAGE_CLASSES: [&str; 12] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
    "FSX_OPENZFS",
];

/// Classes whose objects can't be read before somebody restores them.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let s3 = &config.s3;
    check_endpoint("s3.endpoint", s3.endpoint.as_deref(), findings);
    at_least_one("s3.connect_timeout_ms", s3.connect_timeout_ms, findings);
    at_least_one("s3.read_timeout_ms", s3.read_timeout_ms, findings);
    at_least_one("s3.max_attempts", s3.max_attempts.into(), findings);
    check_credentials("s3.credentials", &s3.credentials, findings);
    check_buckets(config, findings);
    check_anonymous_output(s3, &config.output, findings);
}

fn check_endpoint(setting: &str, endpoint: Option<&str>, findings: &mut Vec<Finding>) {
    let Some(endpoint) = endpoint else {
        return;
    };
    let host = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"));
    if host.is_none_or(str::is_empty) {
        findings.push(Finding::error(format!(
            "{setting}: expected http:// or https:// and a host, found {endpoint:?}"
        )));
    } else if endpoint.contains('@') {
        // Not quoted: what stands before the @ may be a password.
        findings.push(Finding::error(format!(
            "{setting}: holds a user name, which S3 does not know; credentials go under credentials"
        )));
    }
}

fn check_buckets(config: &Config, findings: &mut Vec<Finding>) {
    let mut used = config.input_buckets();
    used.insert(config.output.bucket.clone());
    used.extend(list_buckets(config));
    used.extend(config.archive_buckets());
    for (name, bucket) in &config.s3.buckets {
        let setting = format!("s3.buckets.{name}");
        check_bucket(&setting, bucket, findings);
        if let Err(error) = ObjectRef::try_new(name.as_str(), "any") {
            findings.push(Finding::error(format!(
                "{setting}: {error}; expected its bare name"
            )));
        } else if !used.contains(name) {
            let meant = nearest(name, used.iter().map(String::as_str));
            let meant = meant.map(|meant| format!(", did you mean {meant:?}?"));
            findings.push(Finding::warning(format!(
                "{setting}: no feed in use reads this bucket and no output goes there{}",
                meant.unwrap_or_default()
            )));
        }
    }
}

fn list_buckets(config: &Config) -> BTreeSet<String> {
    let lists = config.sweep.lists.iter();
    lists
        .filter_map(|list| ObjectRef::from_url(&list.list).ok())
        .map(|object| object.bucket().to_owned())
        .collect()
}

fn check_bucket(setting: &str, bucket: &Bucket, findings: &mut Vec<Finding>) {
    let elsewhere = bucket.endpoint.as_deref().filter(|name| *name != AWS);
    check_endpoint(&format!("{setting}.endpoint"), elsewhere, findings);
    if let Some(credentials) = &bucket.credentials {
        check_credentials(&format!("{setting}.credentials"), credentials, findings);
    }
    if *bucket == Bucket::default() {
        findings.push(Finding::warning(format!(
            "{setting}: says nothing; the bucket is like all others without it"
        )));
    }
}

pub(super) fn check_credentials(
    setting: &str,
    credentials: &Credentials,
    findings: &mut Vec<Finding>,
) {
    let Credentials {
        access_key_id,
        secret_access_key,
        session_token,
        profile,
        role_arn,
        external_id,
        anonymous,
    } = credentials;
    let mut error = |message: String| findings.push(Finding::error(message));
    let secret = |secret: &Option<crate::config::Secret>| {
        secret.as_ref().map(|secret| secret.expose().to_owned())
    };
    let given = [
        ("access_key_id", access_key_id.clone()),
        ("secret_access_key", secret(secret_access_key)),
        ("session_token", secret(session_token)),
        ("profile", profile.clone()),
        ("role_arn", role_arn.clone()),
        ("external_id", external_id.clone()),
    ];
    let given: Vec<(&str, String)> = given
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
    for (name, _) in given.iter().filter(|(_, value)| value.trim().is_empty()) {
        error(format!("{setting}.{name}: is empty; leave it out"));
    }
    let has = |name: &str| given.iter().any(|(given, _)| *given == name);
    if *anonymous && !given.is_empty() {
        let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        error(format!(
            "{setting}.anonymous: requests are not signed, so {} would have no effect; choose one of them",
            names.join(", ")
        ));
        return;
    }
    for (name, needed) in [
        ("access_key_id", "secret_access_key"),
        ("secret_access_key", "access_key_id"),
        ("session_token", "access_key_id"),
        ("external_id", "role_arn"),
    ] {
        if has(name) && !has(needed) {
            error(format!(
                "{setting}.{needed}: is not set, and {name} needs it"
            ));
        }
    }
    if has("profile") && has("access_key_id") {
        error(format!(
            "{setting}.profile: access_key_id is set too; choose one of them"
        ));
    }
    if role_arn
        .as_ref()
        .is_some_and(|arn| !arn.trim().is_empty() && !arn.starts_with("arn:"))
    {
        error(format!(
            "{setting}.role_arn: expected arn:aws:iam::ACCOUNT:role/NAME, found {:?}",
            role_arn.as_deref().unwrap_or_default()
        ));
    }
}

/// Anybody who may write there without credentials may write anything there.
fn check_anonymous_output(s3: &S3, output: &Output, findings: &mut Vec<Finding>) {
    let own = s3.buckets.get(&output.bucket);
    let credentials = own.and_then(|bucket| bucket.credentials.as_ref());
    if credentials.unwrap_or(&s3.credentials).anonymous {
        findings.push(Finding::warning(format!(
            "output.bucket: {} is written to without credentials, which few buckets allow",
            output.bucket
        )));
    }
}

/// Content type, caching, storage class and encryption of the outputs.
pub(super) fn check_storage(output: &Output, findings: &mut Vec<Finding>) {
    for (setting, value) in [
        ("content_type", &output.content_type),
        ("cache_control", &output.cache_control),
        ("storage_class", &output.storage_class),
        ("kms_key_id", &output.kms_key_id),
    ] {
        let printable = |text: &String| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        match value {
            Some(text) if text.trim().is_empty() => findings.push(Finding::error(format!(
                "output.{setting}: is empty; leave it out"
            ))),
            Some(text) if !printable(text) => findings.push(Finding::error(format!(
                "output.{setting}: expected ASCII on one line, as a header needs it, found {text:?}"
            ))),
            _ => {}
        }
    }
    if let Some(class) = output.storage_class.as_deref() {
        check_storage_class(class, findings);
    }
    if output.kms_key_id.is_some() && output.encryption != Some(Encryption::Kms) {
        findings.push(Finding::error(
            "output.kms_key_id: has no effect without output.encryption = \"aws:kms\"",
        ));
    }
}

/// Other servers have classes of their own.
fn check_storage_class(class: &str, findings: &mut Vec<Finding>) {
    if ARCHIVES.contains(&class) {
        findings.push(Finding::warning(format!(
            "output.storage_class: nobody can read an output in {class} before it is restored"
        )));
    } else if !STORAGE_CLASSES.contains(&class) {
        // In lower case, as it is compared.
        let classes = STORAGE_CLASSES.map(str::to_lowercase);
        let known = nearest(class, classes.iter().map(String::as_str));
        let hint = match known {
            Some(known) => format!("did you mean {:?}?", known.to_uppercase()),
            None => "if the server is not AWS it may know it".to_owned(),
        };
        findings.push(Finding::warning(format!(
            "output.storage_class: AWS has no {class:?}, {hint}"
        )));
    }
}
