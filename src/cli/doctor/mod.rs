//! `feedmill doctor`: looks at everything a worker needs, in the order in which it needs it, and says what is missing
//! and which command, policy or setting grants it.
//!
//! In: the configuration and the stages. Out: one line a check, [`report`]. It reads only, but for a scratch key in the
//! output bucket, deleted again, and a scratch transactional id.
//!
//! * [`needs`]: what each stage asks of Kafka, S3 and this machine
//! * [`kafka`], [`acl`]: brokers, transactions, permissions, topics; the commands that grant them
//! * [`s3`], [`policy`]: buckets and clocks; the policies that open them
//! * [`machine`]: the disk of the state folder

mod acl;
mod kafka;
mod machine;
mod needs;
mod policy;
mod report;
mod s3;

use std::collections::BTreeSet;

use anyhow::anyhow;
use clap::Args;
use tokio_util::task::TaskTracker;

use crate::{
    app::Stage,
    config::{Config, Finding, Loaded},
    failure::Failure,
    shutdown,
};
use needs::Needs;
use report::{Report, Verdict};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill doctor                                before the first start, and when something is off
  feedmill doctor --stages intake                what a process with only the webhook needs
  feedmill doctor --json | jq 'select(.status == \"failed\") | .remedies[]'

Exit codes: 0 nothing failed, 2 the configuration can't be loaded, 4 something failed")]
pub struct Arguments {
    /// Stages to check for, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "intake,sweep,convert,retry,cleanup"
    )]
    stages: Vec<Stage>,
    /// One JSON object a check
    #[arg(long)]
    json: bool,
}

pub async fn run(loaded: Loaded, arguments: Arguments) -> Result<(), Failure> {
    let shutdown = shutdown::on_signal().map_err(|error| Failure::bug("handle signals", error))?;
    // What must not be left half done goes on when the checks are interrupted.
    let cleanups = TaskTracker::new();
    let checked = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            Err(Failure::interrupted(anyhow!("finish the checks: interrupted")))
        }
        checked = check(&loaded, arguments, &cleanups) => checked,
    };
    if !cleanups.is_empty() {
        eprintln!("trying   to delete the scratch object; a second signal leaves it");
    }
    cleanups.close();
    cleanups.wait().await;
    checked
}

async fn check(
    loaded: &Loaded,
    arguments: Arguments,
    cleanups: &TaskTracker,
) -> Result<(), Failure> {
    let config = &loaded.config;
    let stages: BTreeSet<Stage> = arguments.stages.into_iter().collect();
    let needs = Needs::of(&stages, config);
    let mut report = Report::new(arguments.json);
    check_configuration(loaded, &mut report)?;
    kafka::check(config, &needs, &mut report).await?;
    s3::check(config, &needs, cleanups, &mut report).await?;
    machine::check(config, &needs, &mut report)?;
    report.end()
}

fn check_configuration(loaded: &Loaded, report: &mut Report) -> Result<(), Failure> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        loaded.findings().into_iter().partition(Finding::is_error);
    for (findings, verdict) in [
        (&errors, Verdict::failed as fn(String) -> Verdict),
        (&warnings, Verdict::warning),
    ] {
        for finding in findings {
            report.add("configuration", "", verdict(finding.message.clone()))?;
        }
    }
    if errors.is_empty() {
        report.add("configuration", "", Verdict::ok(summary(loaded)))?;
    }
    Ok(())
}

fn summary(loaded: &Loaded) -> String {
    let Config { feeds, .. } = &loaded.config;
    let from = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "the environment".to_owned(),
    };
    match feeds.len() {
        1 => format!("{from} is sound, 1 feed"),
        count => format!("{from} is sound, {count} feeds"),
    }
}
