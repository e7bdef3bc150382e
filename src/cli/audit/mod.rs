//! `feedmill audit`: does every object below a prefix have its outcome?
//!
//! [`crate::audit`] looks and concludes; [`report`] tells what was found, [`repair`] sends the events that mend it.

mod interrupt;
mod repair;
mod report;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::anyhow;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{on_runtime, progress::watched};
use crate::{
    audit::{
        Audit, AuditError, Options,
        books::KafkaBooks,
        catalogue::Catalogue,
        scope::Scope,
        summary::{Progress, Summary},
    },
    config::{Config, pause},
    failure::Failure,
    kafka::admin::Admin,
    live::Live,
    s3::Accounts,
    sweep::S3Storage,
};
use interrupt::Interrupt;
use report::Report;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill audit s3://partner-files/                      is everything converted?
  feedmill audit s3://partner-files/nsx/ --deep           compare the bytes of the outputs, too
  feedmill audit s3://partner-files/nsx/ --repair         and mend what is off
  feedmill audit s3://partner-files/ --json | jq 'select(.finding == \"missing\") | .key'

The configuration must be the workers': its feeds say which objects are meant, and output.key where their outputs lie.
Exit code 4 when something is off: missing, stale, output_absent, output_altered, orphaned_output or unreadable. What is
pending is not, and an open dead letter only with --strict. docs/audit.md says what each finding means.")]
pub struct Arguments {
    /// The objects whose keys begin so: s3://bucket/prefix, or s3://bucket/ for all of them
    #[arg(value_name = "s3://BUCKET/PREFIX", value_parser = prefix)]
    prefix: Prefix,
    /// Read every output and compare its SHA-256 with the recorded one
    #[arg(long)]
    deep: bool,
    /// Send the event that mends each finding, and say what was done
    #[arg(long)]
    repair: bool,
    /// Do not ask before a repair, however much there is to mend
    #[arg(long, requires = "repair")]
    yes: bool,
    /// An open dead letter is something that is off, too: exit code 4
    #[arg(long)]
    strict: bool,
    /// Show every finding on a terminal, not the first 50
    #[arg(long)]
    all: bool,
    /// One JSON object a line, the summary last; so it is, too, when standard output is no terminal
    #[arg(long)]
    json: bool,
    /// How long an S3 server may fail before the audit gives up
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = timeout)]
    timeout: Duration,
}

/// A bucket and what keys begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    bucket: String,
    prefix: String,
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let rest = text.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match bucket.is_empty() {
        true => Err("expected s3://bucket/prefix".to_owned()),
        false => Ok(Prefix {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    pause::length(text).ok_or_else(|| "expected a time such as 30s, 2m or 1h".to_owned())
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    // Says clearly when Kafka can't be reached.
    drop(Admin::connect(&config.kafka).map_err(Failure::service)?);
    let Prefix { bucket, prefix } = &arguments.prefix;
    let scope = Scope::new(config, bucket, prefix).map_err(Failure::usage)?;
    let folder = tempfile::Builder::new().prefix("feedmill-audit-").tempdir();
    let folder = folder.map_err(|error| {
        let what = "make a temporary folder; TMPDIR names another place for it";
        Failure::service(anyhow!(error).context(what))
    })?;
    let interrupt = Interrupt::listen(folder.path())?;
    let catalogue = folder.path().join("catalogue");
    let catalogue = Catalogue::create(&catalogue).map_err(Failure::service)?;
    let progress = Progress::default();
    let audit = async {
        let books = folder.path().join("books");
        let cancel = &interrupt.cancel;
        let summary = audit(
            config, arguments, &scope, &catalogue, &books, &progress, cancel,
        )
        .await;
        summary.map_err(|error| match error {
            AuditError::Stopped => Failure::interrupted(error),
            error => Failure::service(error),
        })
    };
    let summary = watched(|_| progress.line(), || on_runtime(audit))?;
    interrupt.leave_at_once();
    let report = Report::new(arguments.json, arguments.all);
    report.tell(&arguments.prefix, &catalogue.findings, &summary)?;
    if arguments.repair {
        repair::run(config, &catalogue.findings, &report, arguments.yes)?;
    }
    report.end(&arguments.prefix, &summary, arguments.strict)?;
    match summary.is_off(arguments.strict) {
        true => Err(Failure::Findings),
        false => Ok(()),
    }
}

async fn audit(
    config: &Config,
    arguments: &Arguments,
    scope: &Scope,
    catalogue: &Catalogue,
    folder: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Summary, AuditError> {
    let open = || KafkaBooks::open(&config.kafka, folder, cancel.clone());
    let books = tokio::task::block_in_place(open)?;
    let shelves = S3Storage {
        accounts: Arc::new(Live::new(Accounts::new(&config.s3).await)),
        stall: Duration::from_millis(config.s3.read_timeout_ms),
    };
    let audit = Audit {
        scope,
        shelves: &shelves,
        books: &books,
        catalogue,
        options: Options {
            deep: arguments.deep,
            min_age: config.sweep.min_age,
            patience: arguments.timeout,
        },
        progress,
        cancel,
    };
    audit.run().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_may_be_empty_and_a_bucket_may_not() {
        let read = |text| prefix(text).map(|it| (it.bucket, it.prefix));
        let of = |bucket: &str, prefix: &str| Ok((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(read("s3://b/p/q"), of("b", "p/q"));
        assert_eq!(read("s3://b/"), of("b", ""));
        assert_eq!(read("s3://b"), of("b", ""));
        for text in ["s3:///p", "b/p", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
