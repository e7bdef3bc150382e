//! `--repair`: an event for each finding that an event mends.
//!
//! An event that is sent again does no harm: a version that is settled is a duplicate, and a request to convert again counts
//! once per id, which names the state that was found wrong.

use anyhow::anyhow;
use futures::{StreamExt, stream};

use super::report::{Report, each};
use crate::{
    audit::{
        catalogue::Table,
        verdict::{Finding, Kind, Repair},
    },
    cli::{confirm::confirm, on_runtime},
    config::Config,
    failure::Failure,
    intake::publish::Publisher,
    object::ObjectRef,
    telemetry::metrics::Metrics,
    topics::{Intent, ObjectEvent, Topics},
};

/// The name of the audit in events.
const SOURCE: &str = "audit";

/// Above so many events, a person is asked first.
const ASK_ABOVE: usize = 100;

/// Events on their way to Kafka at once; the findings held in memory, too.
const CONCURRENT: usize = 100;

pub fn run(
    config: &Config,
    findings: &Table<Finding>,
    report: &Report,
    yes: bool,
) -> Result<(), Failure> {
    let mut count = 0;
    each(findings, |finding| {
        count += usize::from(finding.repair.is_some());
        Ok(())
    })?;
    let question = format!("send {count} events?");
    if count > ASK_ABOVE && !yes && !confirm(&question, "say --yes")? {
        return report.note("nothing was sent");
    }
    on_runtime(send(config, findings, report))
}

async fn send(config: &Config, findings: &Table<Finding>, report: &Report) -> Result<(), Failure> {
    let topics = Topics::with_prefix(&config.kafka.topic_prefix);
    let metrics = Metrics::new().intake;
    let publisher =
        Publisher::connect(&config.kafka, &topics, metrics).map_err(Failure::service)?;
    let mut pending = 0;
    let mut behind: Option<Vec<u8>> = None;
    loop {
        let rows = findings
            .page(behind.as_deref(), CONCURRENT)
            .map_err(Failure::service)?;
        let Some((last, _)) = rows.last() else { break };
        behind = Some(last.clone());
        pending += rows
            .iter()
            .filter(|(_, it)| it.kind == Kind::Pending)
            .count();
        let mended = stream::iter(rows)
            .filter(|(_, finding)| std::future::ready(finding.kind != Kind::Pending))
            .map(|(_, finding)| mend(&publisher, finding))
            .buffered(CONCURRENT)
            .collect::<Vec<_>>();
        for mended in mended.await {
            let (finding, what, event) = mended?;
            report.did(&finding, &what, event.as_deref())?;
        }
    }
    match pending {
        0 => Ok(()),
        _ => report.note(&format!("{pending} pending: nothing to do but wait")),
    }
}

/// Sends the event that mends a finding; what was done, and the event's id.
async fn mend(
    publisher: &Publisher,
    finding: Finding,
) -> Result<(Finding, String, Option<String>), Failure> {
    let Some(repair) = &finding.repair else {
        let why = format!("nothing: {}", finding.advice());
        return Ok((finding, why, None));
    };
    let object = ObjectRef::try_new(finding.bucket.as_str(), finding.key.as_str());
    let object = object.map_err(|error| Failure::bug("name the object of a finding", error))?;
    let (event, what) = match repair {
        Repair::Observe { seen } => (
            ObjectEvent {
                etag: Some(seen.etag.clone()),
                size: seen.size,
                event_time: seen.modified,
                ..ObjectEvent::observed(&object, SOURCE)
            },
            "announced",
        ),
        Repair::Reconvert { etag, id } => (
            ObjectEvent {
                etag: etag.clone(),
                intent: Intent::Reconvert,
                intent_id: Some(id.clone()),
                ..ObjectEvent::observed(&object, SOURCE)
            },
            "asked to be converted again",
        ),
    };
    let sent = publisher.append(&event).await;
    sent.map_err(|error| Failure::service(anyhow!(error).context("send what mends a finding")))?;
    let id = event.id.to_string();
    Ok((finding, what.to_owned(), Some(id)))
}
