//! Tells what an audit found: tables on a terminal, JSON lines for programs.

use std::io::{self, IsTerminal};

use serde::Serialize;
use serde_json::{Value, json};

use super::Prefix;
use crate::{
    audit::{
        catalogue::{CatalogueError, Table},
        summary::Summary,
        verdict::{Finding, Kind},
    },
    cli::{say, text::escaped},
    failure::Failure,
};

/// Findings shown on a terminal, unless all are asked for.
const SHOWN: usize = 50;

/// Findings held in memory at a time.
const PAGE: usize = 500;

pub struct Report {
    json: bool,
    all: bool,
}

impl Report {
    pub fn new(json: bool, all: bool) -> Self {
        Self {
            json: json || !io::stdout().is_terminal(),
            all,
        }
    }

    /// What was found.
    pub fn tell(
        &self,
        prefix: &Prefix,
        findings: &Table<Finding>,
        summary: &Summary,
    ) -> Result<(), Failure> {
        if self.json {
            return each(findings, |finding| line("finding", &Told::of(finding)));
        }
        say(overview(prefix, summary))?;
        if summary.found() > 0 {
            say(format_args!(
                "\n{:15}  {:24}  {}",
                "FINDING", "SINCE", "OBJECT"
            ))?;
        }
        let mut shown = 0;
        each(findings, |finding| {
            shown += 1;
            match self.all || shown <= SHOWN {
                true => say(row(finding)),
                false => Ok(()),
            }
        })?;
        match shown > SHOWN && !self.all {
            true => say(format_args!("and {} more; --all shows them", shown - SHOWN)),
            false => Ok(()),
        }
    }

    /// What was done about a finding.
    pub fn did(&self, finding: &Finding, what: &str, event: Option<&str>) -> Result<(), Failure> {
        if self.json {
            let Finding { bucket, key, .. } = finding;
            let did = json!({
                "finding": finding.kind.name(), "bucket": bucket, "key": key, "did": what, "event_id": event,
            });
            return line("repair", &did);
        }
        let event = event.map_or(String::new(), |id| format!(" (event {id})"));
        say(format_args!(
            "{:15}  {}: {what}{event}",
            finding.kind.name(),
            object(finding)
        ))
    }

    /// What is said of many at once.
    pub fn note(&self, text: &str) -> Result<(), Failure> {
        match self.json {
            true => Ok(()),
            false => say(text),
        }
    }

    /// The last line.
    pub fn end(&self, prefix: &Prefix, summary: &Summary, strict: bool) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let mut all = serde_json::to_value(summary)
            .map_err(|error| Failure::bug("write the summary as JSON", error))?;
        if let Value::Object(fields) = &mut all {
            let prefix = format!("s3://{}/{}", prefix.bucket, prefix.prefix);
            fields.insert("prefix".into(), prefix.into());
            fields.insert("off".into(), summary.is_off(strict).into());
        }
        line("summary", &all)
    }
}

/// Hands over every finding, sorted by kind and object.
pub fn each(
    findings: &Table<Finding>,
    mut take: impl FnMut(&Finding) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let read = |error: CatalogueError| Failure::service(error);
    let mut behind: Option<Vec<u8>> = None;
    loop {
        let rows = findings.page(behind.as_deref(), PAGE).map_err(read)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        behind = Some(last.clone());
        rows.iter().try_for_each(|(_, finding)| take(finding))?;
    }
}

/// A finding as programs read it; times are milliseconds since 1970.
#[derive(Serialize)]
struct Told<'a> {
    finding: &'static str,
    bucket: &'a str,
    key: &'a str,
    etag: Option<&'a str>,
    since: Option<i64>,
    what: &'a str,
    output: Option<&'a str>,
    dead_letter_id: Option<&'a str>,
    todo: String,
}

impl<'a> Told<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            finding: finding.kind.name(),
            bucket: &finding.bucket,
            key: &finding.key,
            etag: finding.etag.as_ref().map(|etag| etag.as_str()),
            since: finding.since.map(|since| since.0),
            what: &finding.what,
            output: finding.output.as_deref(),
            dead_letter_id: finding.letter.as_deref(),
            todo: finding.advice(),
        }
    }
}

fn line(kind: &str, value: &impl Serialize) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        r#type: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    let text = serde_json::to_string(&Line {
        r#type: kind,
        value,
    });
    say(text.map_err(|error| Failure::bug("write a finding as JSON", error))?)
}

fn overview(prefix: &Prefix, summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{} objects below s3://{}/{}",
        summary.listed,
        escaped(&prefix.bucket),
        escaped(&prefix.prefix)
    )];
    let mut row = |count: u64, name: &str, what: &str| {
        if count > 0 {
            lines.push(format!("{count:>10}  {name:15}  {what}"));
        }
    };
    row(
        summary.converted,
        "converted",
        "settled, with their outputs",
    );
    row(summary.discarded, "discarded", "given up by an operator");
    row(summary.gone, "gone", "deleted while the audit ran");
    for kind in Kind::ALL {
        row(summary.of(kind), kind.name(), meaning(kind));
    }
    let beside = [
        (summary.not_taken, "objects that no feed takes"),
        (
            summary.states_without_source,
            "objects that are gone; their outputs are kept",
        ),
        (
            summary.outputs_kept,
            "outputs of earlier versions and of forgotten objects",
        ),
    ];
    let beside = beside.iter().filter(|(count, _)| *count > 0);
    lines.extend(beside.map(|(count, what)| format!("{count:>10}  beside: {what}")));
    if summary.outputs_compared > 0 {
        lines.push(format!(
            "{:>10}  outputs compared byte for byte, {} bytes read",
            summary.outputs_compared, summary.bytes_compared
        ));
    }
    lines.join("\n")
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "OFF: nobody knows of it",
        Kind::Stale => "OFF: another version is settled, and nothing is under way",
        Kind::OutputAbsent => "OFF: the output that was written is not there",
        Kind::OutputAltered => "OFF: the output is not what was written",
        Kind::OrphanedOutput => "OFF: an output that no state names",
        Kind::Unreadable => "OFF: it can't be looked at",
        Kind::DeadLettered => "a dead letter is open",
        Kind::Pending => "under way",
    }
}

fn row(finding: &Finding) -> String {
    let since = finding.since.map_or("-".into(), |since| since.to_string());
    format!(
        "{:15}  {since:24}  {}\n{:43}{}; {}",
        finding.kind.name(),
        object(finding),
        "",
        escaped(&finding.what),
        escaped(&finding.advice()),
    )
}

fn object(finding: &Finding) -> String {
    escaped(&format!("s3://{}/{}", finding.bucket, finding.key))
}
