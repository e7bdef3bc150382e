//! `feedmill results`: reads the results topic, as committed.

mod filter;
mod summary;

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::anyhow;
use clap::Args;

use super::{
    reader::{Damaged, ReadError, Reader, Record, Scan, Step, Until, Window},
    say,
    text::{elapsed, escaped, printable},
};
use crate::{
    config::Config,
    failure::Failure,
    kafka::{admin::Admin, partitioner::partition_of},
    object::ObjectRef,
    topics::{ResultRecord, Topics},
};
use filter::Filter;
use summary::Summary;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill results                                        all that is kept (30 days)
  feedmill results s3://partner-files/nsx/today.xml       one object's; `feedmill explain` tells more
  feedmill results --since 3h --outcome dead_lettered --outcome missing
  feedmill results --key 'nsx/**/*.xml' --since 2026-01-31T08:00:00Z --until 1d
  feedmill results --since 1d --summary                   how many, by outcome, feed and reason
  feedmill results --outcome dead_lettered --json | jq .reason
  feedmill results --follow                               and what comes next, until Ctrl-C

A filter given several times takes what fits one of its values; different filters must all fit. A time is RFC 3339, or
a span back from now: 90m, 3h, 2d. Times compared are those at which the work was finished.")]
pub struct Arguments {
    /// Only of this object: s3://bucket/key
    object: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Count by outcome, feed and reason, instead of listing
    #[arg(long, conflicts_with = "follow")]
    summary: bool,
    /// Go on with what is still to come
    #[arg(long, conflicts_with = "until")]
    follow: bool,
    /// One JSON object a line; one document with --summary
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let object = arguments
        .object
        .as_deref()
        .map(ObjectRef::from_url)
        .transpose();
    let object = object
        .map_err(|error| Failure::usage(anyhow!(error).context("read the object's address")))?;
    // Says clearly when Kafka can't be reached.
    drop(Admin::connect(&config.kafka).map_err(Failure::service)?);
    let reader = Reader::connect(&config.kafka).map_err(Failure::service)?;
    let topic = Topics::with_prefix(&config.kafka.topic_prefix).results;
    let scan = open(&reader, &topic, arguments, object.as_ref()).map_err(Failure::service)?;
    let selection = Selection {
        object: object.as_ref(),
        filter: &arguments.filter,
    };
    match arguments.summary {
        true => summarise(scan, &selection, arguments.json),
        false => list(scan, &selection, arguments.json),
    }
}

/// Begins to read the partitions, and the stretch of them, that can have what is asked for.
fn open<'a>(
    reader: &'a Reader,
    topic: &'a str,
    arguments: &Arguments,
    object: Option<&ObjectRef>,
) -> Result<Scan<'a>, ReadError> {
    let count = reader.partition_count(topic)?;
    let partitions = match object {
        Some(object) => {
            let partition = partition_of(object.message_key().as_bytes(), count);
            partition..partition + 1
        }
        None => 0..count,
    };
    let until = match (arguments.follow, arguments.filter.until) {
        (true, _) => Until::Never,
        (false, Some(time)) => Until::Time(time),
        (false, None) => Until::Now,
    };
    let since = arguments.filter.since;
    reader.scan(topic, partitions, Window { since, until })
}

/// Which results are asked for.
struct Selection<'a> {
    object: Option<&'a ObjectRef>,
    filter: &'a Filter,
}

impl Selection<'_> {
    /// The result, if it is one of them. One that can't be read is named, and left out.
    fn pick(&self, record: &Record<'_>) -> Option<ResultRecord> {
        // The key tells it without decoding; what is no such key is decided by the value.
        let key = std::str::from_utf8(&record.key).ok();
        let object = key.and_then(|key| key.split_once('/'));
        if object.is_some_and(|(bucket, key)| !self.takes_object(bucket, key)) {
            return None;
        }
        let result: ResultRecord = record.decode().unwrap_or_else(complain)?;
        let taken = self.takes_object(&result.bucket, &result.key) && self.filter.takes(&result);
        taken.then_some(result)
    }

    fn takes_object(&self, bucket: &str, key: &str) -> bool {
        self.filter.takes_object(bucket, key)
            && self
                .object
                .is_none_or(|object| object.bucket() == bucket && object.key() == key)
    }
}

fn complain<T>(damaged: Damaged) -> Option<T> {
    tracing::warn!("{damaged}");
    None
}

fn summarise(mut scan: Scan<'_>, selection: &Selection<'_>, json: bool) -> Result<(), Failure> {
    let mut summary = Summary::default();
    loop {
        match scan.step().map_err(Failure::service)? {
            Step::Record(record) => {
                if let Some(result) = selection.pick(&record) {
                    summary.add(&result);
                }
            }
            Step::Damaged(damaged) => tracing::warn!("{damaged}"),
            Step::Quiet => {}
            Step::End => break,
        }
    }
    match json {
        true => say(serde_json::to_string(&summary)
            .map_err(|error| Failure::bug("write the summary as JSON", error))?),
        false => say(summary.table()),
    }
}

fn list(scan: Scan<'_>, selection: &Selection<'_>, json: bool) -> Result<(), Failure> {
    let format = match (json, io::stdout().is_terminal()) {
        (true, _) => Format::Json,
        (false, true) => Format::Table,
        (false, false) => Format::Plain,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match listed(scan, selection, format, &mut out) {
        Ok(()) | Err(Ended::NobodyReads) => Ok(()),
        Err(Ended::Read(error)) => Err(Failure::service(error)),
        Err(Ended::Output(error)) => Err(Failure::service(
            anyhow!(error).context("write to standard output"),
        )),
    }
}

enum Ended {
    Read(ReadError),
    Output(io::Error),
    /// The reader of our output has gone.
    NobodyReads,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Output(error),
        }
    }
}

fn listed(
    mut scan: Scan<'_>,
    selection: &Selection<'_>,
    format: Format,
    out: &mut impl Write,
) -> Result<(), Ended> {
    if format == Format::Table {
        writeln!(
            out,
            "{}",
            row("FINISHED", "OUTCOME", "FEED", "TOOK", "OBJECT")
        )?;
    }
    loop {
        match scan.step()? {
            Step::Record(record) => {
                if let Some(result) = selection.pick(&record) {
                    writeln!(out, "{}", line(&result, format)?)?;
                }
            }
            Step::Damaged(damaged) => tracing::warn!("{damaged}"),
            Step::Quiet => out.flush()?,
            Step::End => return Ok(out.flush()?),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    /// For programs that read lines: time, outcome, object, and what came of it.
    Plain,
    /// For people.
    Table,
}

fn line(result: &ResultRecord, format: Format) -> io::Result<String> {
    let object = format!("s3://{}/{}", result.bucket, result.key);
    let output = result
        .outputs
        .first()
        .map(|output| format!(" -> s3://{}/{}", output.bucket, output.key));
    let why = match (&result.reason, &result.message) {
        (Some(reason), message) => {
            let message = message.as_deref().unwrap_or_default();
            Some(format!("  {reason}: {message}"))
        }
        // Why a letter was closed.
        (None, Some(message)) => Some(format!("  {message}")),
        (None, None) => None,
    };
    let (output, why) = (output.unwrap_or_default(), why.unwrap_or_default());
    let (finished, outcome) = (result.finished_at.to_string(), result.outcome.name());
    Ok(match format {
        Format::Json => serde_json::to_string(result)?,
        Format::Plain => format!(
            "{finished}  {outcome:13}  {}{}{}",
            printable(&object),
            printable(&output),
            printable(&why)
        ),
        Format::Table => row(
            &finished,
            outcome,
            &escaped(result.feed.as_deref().unwrap_or("-")),
            &elapsed(result.received_at, result.finished_at),
            &escaped(&format!("{object}{output}{why}")),
        ),
    })
}

fn row(finished: &str, outcome: &str, feed: &str, took: &str, object: &str) -> String {
    format!("{finished:24}  {outcome:13}  {feed:16}  {took:>12}  {object}")
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::topics::{Id, Intent, Millis, Outcome};

    /// A result that says little; finished one second after 1970 began.
    pub fn result(bucket: &str, key: &str, outcome: Outcome) -> ResultRecord {
        ResultRecord {
            event_id: Id::mint(),
            outcome,
            reason: None,
            message: None,
            bucket: bucket.into(),
            key: key.into(),
            etag: None,
            settled_etag: None,
            version_id: None,
            feed: None,
            mapping_hash: None,
            outputs: vec![],
            generation: None,
            status: None,
            dead_letter_id: None,
            intent: Intent::Observe,
            intent_id: None,
            attempt: 0,
            event_partition: 0,
            event_offset: 0,
            event_time: None,
            received_at: Millis(0),
            finished_at: Millis(1_000),
            worker: "w".into(),
            trace_parent: None,
            rejected: 0,
            rejections: vec![],
            rejected_output: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::result, *};
    use crate::topics::Outcome;

    #[test]
    fn a_row_of_the_table_is_one_line_that_steers_no_terminal() {
        let result = ResultRecord {
            feed: Some("nsx".into()),
            reason: Some("malformed_xml".into()),
            message: Some("found \u{1b}[2J".into()),
            ..result("a", "in\n.xml", Outcome::DeadLettered)
        };
        assert_eq!(
            line(&result, Format::Table).unwrap(),
            "1970-01-01T00:00:01.000Z  dead_lettered  nsx                         1s  \
             s3://a/in\\n.xml  malformed_xml: found \\u{1b}[2J"
        );
    }
}
