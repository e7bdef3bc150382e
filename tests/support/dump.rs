//! Takes down what a run left on the servers, for the checker. It must be at rest: nothing is read in one instant.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::avro::Schemas;
use super::checker::{Content, Dump, Log, Record, Source, StoredOutput, Topic};
use super::kafka::{self, Isolation, TIMEOUT};
use super::s3::{Store, Stored};

/// Outputs read at a time.
const CONCURRENT_READS: usize = 16;

/// Where a run took place.
#[derive(Clone, Debug)]
pub struct Origin {
    pub brokers: String,
    pub topic_prefix: String,
    /// The group that consumes `events`.
    pub group: String,
    pub input_bucket: String,
    pub output_bucket: String,
}

impl Origin {
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}.{}", self.topic_prefix, topic.name())
    }
}

pub async fn take(origin: &Origin, store: &Store) -> Result<Dump> {
    let of_kafka = {
        let origin = origin.clone();
        tokio::task::spawn_blocking(move || topics(&origin)).await??
    };
    Ok(Dump {
        input_bucket: origin.input_bucket.clone(),
        sources: sources(store, &origin.input_bucket).await?,
        outputs: outputs(store, &origin.output_bucket).await?,
        ..of_kafka
    })
}

fn topics(origin: &Origin) -> Result<Dump> {
    let committed = kafka::reader(
        &origin.brokers,
        &kafka::observer(),
        Isolation::ReadCommitted,
    )?;
    let uncommitted = kafka::reader(
        &origin.brokers,
        &kafka::observer(),
        Isolation::ReadUncommitted,
    )?;
    let mut dump = Dump {
        commits: kafka::commits(&origin.brokers, &origin.group, &origin.topic(Topic::Events))?,
        ..Dump::default()
    };
    for topic in Topic::ALL {
        let name = origin.topic(topic);
        let partitions = kafka::partitions(&committed, &name)?;
        for partition in 0..partitions {
            dump.logs
                .push(log(&committed, &uncommitted, topic, &name, partition)?);
        }
        dump.records
            .extend(records(&committed, topic, &name, partitions)?);
    }
    let retries = format!("{}.retries.", origin.topic_prefix);
    for name in kafka::topics(&origin.brokers)? {
        if name.starts_with(&retries) {
            let partitions = kafka::partitions(&committed, &name)?;
            let waits = records(&committed, Topic::Retries, &name, partitions)?;
            dump.records.extend(waits);
        }
    }
    Ok(dump)
}

/// The committed end is asked for first: a transaction that ends in between is then taken for an open one, never missed.
fn log(
    committed: &BaseConsumer,
    uncommitted: &BaseConsumer,
    topic: Topic,
    name: &str,
    partition: i32,
) -> Result<Log> {
    let (start, committed_end) = committed.fetch_watermarks(name, partition, TIMEOUT)?;
    let (_, uncommitted_end) = uncommitted.fetch_watermarks(name, partition, TIMEOUT)?;
    Ok(Log {
        topic,
        partition,
        start,
        committed_end,
        uncommitted_end,
    })
}

fn records(
    consumer: &BaseConsumer,
    topic: Topic,
    name: &str,
    partitions: i32,
) -> Result<Vec<Record>> {
    let schemas = Schemas::of(topic)?;
    let starts: Vec<_> = (0..partitions).map(|p| (p, Offset::Beginning)).collect();
    let mut records = Vec::new();
    kafka::read_to_end(consumer, name, &starts, |message| {
        records.push(Record {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            content: content(&schemas, message.payload()),
        });
    })?;
    Ok(records)
}

fn content(schemas: &Schemas, payload: Option<&[u8]>) -> Content {
    match payload.map(|bytes| schemas.decode(bytes)) {
        None => Content::Tombstone,
        Some(Ok(value)) => Content::Value(value),
        Some(Err(error)) => Content::Unreadable(format!("{error:#}")),
    }
}

async fn sources(store: &Store, bucket: &str) -> Result<Vec<Source>> {
    let listed = store.list(bucket).await?;
    let source = |object: super::s3::Listed| Source {
        key: object.key,
        etag: object.etag.as_str().to_owned(),
    };
    Ok(listed.into_iter().map(source).collect())
}

async fn outputs(store: &Store, bucket: &str) -> Result<Vec<StoredOutput>> {
    let listed = store.list(bucket).await?;
    stream::iter(listed)
        .map(|object| async move {
            let stored = store.get(bucket, &object.key).await?;
            let stored = stored.with_context(|| format!("{} went away", object.key))?;
            Ok(output(object.key, &stored))
        })
        .buffered(CONCURRENT_READS)
        .try_collect()
        .await
}

fn output(key: String, stored: &Stored) -> StoredOutput {
    let metadata: BTreeMap<_, _> = stored.metadata.clone().into_iter().collect();
    StoredOutput {
        key,
        etag: stored.etag.as_str().to_owned(),
        sha256: hex(&Sha256::digest(&stored.bytes)),
        json: json(&stored.bytes),
        metadata,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}

/// One JSON value, or JSON lines as an array.
fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().or_else(|| {
        let lines = serde_json::Deserializer::from_slice(bytes).into_iter();
        lines
            .collect::<Result<Vec<Value>, _>>()
            .ok()
            .map(Value::Array)
    })
}
