//! `feedmill dead-letters try ID`: the file of a letter, converted here; nothing is written.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::PathBuf,
};

use anyhow::{Context, anyhow};
use aws_sdk_s3::Client;
use clap::Args;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{fetch::fetch, show};
use crate::{
    cli::{
        diff::{diff, show as show_difference},
        on_runtime,
        reader::{ReadError, Reader, Step, Window},
        say,
        text::{printable, refusal},
    },
    config::{self, Config},
    convert::{Feed, Feeds},
    failure::Failure,
    feed::{self, ConvertError, Source, Summary},
    kafka::partitioner::partition_of,
    object::ObjectRef,
    s3::{Accounts, S3Error},
    spool,
    topics::{DeadLetter, ObjectState, Output, Topics},
};

/// Larger outputs are not compared, in bytes.
const COMPARED: u64 = 16 << 20;

/// Bytes shown of an output that nothing stands to be compared with.
const SHOWN: u64 = 1 << 10;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Id of the letter, or the beginning of one
    id: String,
    /// File with the feed to try, as it would stand in feeds.d [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    feed: Option<PathBuf>,
}

pub fn run(config: &Config, arguments: Arguments) -> Result<(), Failure> {
    let letter = show::one(config, &arguments.id)?.letter;
    let object = ObjectRef::try_new(letter.bucket.clone(), letter.key.clone())
        .map_err(|error| Failure::bug("name the object of a letter", error))?;
    let feeds = feeds(config, &arguments)?;
    let feed = feeds
        .of(&object)
        .ok_or_else(|| Failure::usage(anyhow!("find a feed: none takes {object}, or it is off")))?;
    let standing = last_output(config, &object).map_err(Failure::service)?;
    on_runtime(attempt(config, &letter, &object, feed, standing))
}

fn feeds(config: &Config, arguments: &Arguments) -> Result<Feeds, Failure> {
    let mut config = config.clone();
    if let Some(path) = &arguments.feed {
        config.feeds = config::read_feed_file(path)
            .map_err(|error| Failure::usage(anyhow!(error).context("read the feed")))?;
    }
    Feeds::compile(&config)
        .map_err(|error| Failure::usage(anyhow!(error).context("compile the feeds")))
}

async fn attempt(
    config: &Config,
    letter: &DeadLetter,
    object: &ObjectRef,
    feed: &Feed,
    standing: Option<Output>,
) -> Result<(), Failure> {
    let accounts = Accounts::new(&config.s3).await;
    let fetched = fetch(accounts.of(object.bucket()), letter)
        .await
        .map_err(|error| Failure::service(error.context("fetch the source")))?;
    say(format_args!(
        "source  {}, {}",
        printable(&object.to_string()),
        fetched.what
    ))?;
    say(format_args!(
        "feed    {}, mapping {} (the letter's is {})",
        feed.name,
        feed.mapping_hash,
        letter.mapping_hash.as_deref().unwrap_or("not known")
    ))?;
    let source = Source {
        feed: feed.name.clone(),
        ..fetched.source
    };
    let plan = feed.plan.clone();
    let converted = spawn_blocking(move || convert(&plan, &source, fetched.file)).await;
    let converted = converted.map_err(|panic| Failure::bug("convert the file", panic))?;
    let (summary, output) = match converted {
        Ok(done) => done,
        Err(ConvertError::Rejected(rejection)) => {
            say("outcome refused")?;
            say(refusal(letter.key.as_ref(), &rejection))?;
            return Err(Failure::Findings);
        }
        Err(error) => return Err(Failure::service(anyhow!(error).context("convert the file"))),
    };
    say(format_args!(
        "outcome converted: {} records, {} left out, {} bytes",
        summary.records, summary.rejected, summary.output_bytes
    ))?;
    for warning in &summary.warnings {
        say(format_args!("warning {warning}"))?;
    }
    match standing {
        Some(standing) => {
            let s3 = accounts.of(&standing.bucket);
            compare(s3, &standing, feed, &summary, output).await
        }
        None => say("output  there is none yet of this object").and_then(|()| begin(output)),
    }
}

fn convert(
    plan: &feed::Plan,
    source: &Source,
    input: File,
) -> Result<(Summary, File), ConvertError> {
    let mut output = spool::unnamed_file().map_err(ConvertError::Write)?;
    let mut writer = BufWriter::new(&mut output);
    let summary = feed::convert(plan, source, BufReader::new(input), &mut writer)?;
    writer.flush().map_err(ConvertError::Write)?;
    drop(writer);
    output.rewind().map_err(ConvertError::Write)?;
    Ok((summary, output))
}

/// The output that the object's state names.
fn last_output(config: &Config, object: &ObjectRef) -> Result<Option<Output>, ReadError> {
    let reader = Reader::connect(&config.kafka)?;
    let topic = Topics::with_prefix(&config.kafka.topic_prefix).objects;
    let key = object.message_key().into_bytes();
    let partition = partition_of(&key, reader.partition_count(&topic)?);
    let mut scan = reader.scan(&topic, [partition], Window::ALL)?;
    let mut state: Option<ObjectState> = None;
    loop {
        match scan.step()? {
            Step::Record(record) if record.key == key => {
                state = record.decode().unwrap_or_else(|damaged| {
                    tracing::warn!("{damaged}");
                    None
                });
            }
            Step::Record(_) | Step::Quiet => {}
            Step::Damaged(damaged) => tracing::warn!("{damaged}"),
            Step::End => break,
        }
    }
    Ok(state.and_then(|state| state.outputs.into_iter().next()))
}

async fn compare(
    s3: &Client,
    standing: &Output,
    feed: &Feed,
    summary: &Summary,
    output: File,
) -> Result<(), Failure> {
    let address = printable(&format!("s3://{}/{}", standing.bucket, standing.key));
    let size = u64::try_from(standing.size).unwrap_or(u64::MAX);
    if size.max(summary.output_bytes) > COMPARED || feed.content_encoding.is_some() {
        say(format_args!(
            "output  {address}: {} records, {} bytes; too large, or compressed, to be compared here",
            standing.records, standing.size
        ))?;
        return Ok(());
    }
    let request = s3.get_object().bucket(&standing.bucket).key(&standing.key);
    let before = match request.send().await {
        Ok(answer) => answer.body.collect().await,
        Err(error) => {
            let error = S3Error::new("GetObject", &error);
            return say(format_args!("output  {address} can't be compared: {error}"));
        }
    };
    let before = before
        .map_err(|error| Failure::service(anyhow!(error).context("read the last output")))?
        .into_bytes();
    let mut after = Vec::new();
    read(output, &mut after, u64::MAX)?;
    if before == after {
        return say(format_args!("output  the same bytes as {address}"));
    }
    match (records(&before), records(&after)) {
        (Some(before), Some(after)) => {
            say(format_args!("output  differs from {address}:"))?;
            show_difference(&diff("record", &before, &after))
        }
        _ => say(format_args!(
            "output  differs from {address}, which is no JSON"
        )),
    }
}

fn records(bytes: &[u8]) -> Option<Vec<Value>> {
    serde_json::from_slice(bytes).ok().or_else(|| {
        let lines = serde_json::Deserializer::from_slice(bytes).into_iter();
        lines.collect::<Result<_, _>>().ok()
    })
}

/// Shows how an output begins.
fn begin(output: File) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    read(output, &mut bytes, SHOWN)?;
    say(printable(&String::from_utf8_lossy(&bytes)))
}

fn read(output: File, bytes: &mut Vec<u8>, most: u64) -> Result<(), Failure> {
    let read: io::Result<usize> = output.take(most).read_to_end(bytes);
    read.map(drop)
        .context("read what was converted")
        .map_err(Failure::service)
}
