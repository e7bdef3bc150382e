//! `feedmill results`: reads the results topic, as committed.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::Args;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::{
    config::Config,
    failure::Failure,
    kafka::{
        LogContext,
        admin::Admin,
        partitioner::partition_of,
        settings::{self, Isolation},
    },
    object::ObjectRef,
    topics::{Outcome, ResultRecord, Topics, decode},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill results                                    all that is kept (30 days)
  feedmill results s3://partner-files/nsx/today.xml   one object's story
  feedmill results --outcome dead_lettered --json | jq .reason
  feedmill results --follow                           and what comes next, until Ctrl-C")]
pub struct Arguments {
    /// Only of this object: s3://bucket/key
    object: Option<String>,
    /// Only this outcome: converted, dead_lettered, duplicate, superseded, missing, ignored or discarded
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Go on with what is still to come
    #[arg(long)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

fn outcome(name: &str) -> Result<Outcome, String> {
    Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.name() == name)
        .ok_or_else(|| format!("there are {}", Outcome::ALL.map(Outcome::name).join(", ")))
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
    let reader = Reader::open(config, object.as_ref()).map_err(service)?;
    let mut output = Lines {
        json: arguments.json,
        out: io::stdout().lock(),
    };
    match reader.read(arguments, object.as_ref(), &mut output) {
        Ok(()) | Err(Ended::NobodyReads) => Ok(()),
        Err(Ended::Kafka(error)) => Err(service(error)),
        Err(Ended::Output(error)) => Err(Failure::service(
            anyhow!(error).context("write to standard output"),
        )),
    }
}

fn service(error: KafkaError) -> Failure {
    Failure::service(anyhow!(error).context("read the results topic"))
}

enum Ended {
    Kafka(KafkaError),
    Output(io::Error),
    /// The reader of our output has gone.
    NobodyReads,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Output(error),
        }
    }
}

struct Reader {
    consumer: BaseConsumer<LogContext>,
    partitions: BTreeSet<i32>,
    timeout: Duration,
}

impl Reader {
    /// Starts at the beginning of the partitions that can have what is asked for.
    fn open(config: &Config, object: Option<&ObjectRef>) -> Result<Self, KafkaError> {
        let topic = Topics::with_prefix(&config.kafka.topic_prefix).results;
        let group = format!("{}.results-reader", config.kafka.group);
        let consumer: BaseConsumer<LogContext> = settings::create(
            &settings::reader(&config.kafka, &group, Isolation::ReadCommitted),
            LogContext,
        )?;
        let timeout = settings::call_timeout(&config.kafka);
        let metadata = consumer.fetch_metadata(Some(&topic), timeout)?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        if count == 0 {
            return Err(KafkaError::MetadataFetch(
                rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition,
            ));
        }
        let partitions: BTreeSet<i32> = match object {
            Some(object) => BTreeSet::from([partition_of(object.message_key().as_bytes(), count)]),
            None => (0..count).collect(),
        };
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        Ok(Self {
            consumer,
            partitions,
            timeout,
        })
    }

    fn read(
        mut self,
        arguments: &Arguments,
        object: Option<&ObjectRef>,
        output: &mut Lines<impl Write>,
    ) -> Result<(), Ended> {
        let mut heard = Instant::now();
        while arguments.follow || !self.partitions.is_empty() {
            match self.consumer.poll(Duration::from_millis(200)) {
                None if arguments.follow || heard.elapsed() < 3 * self.timeout => {}
                None => {
                    return Err(Ended::Kafka(KafkaError::MessageConsumption(
                        rdkafka::types::RDKafkaErrorCode::OperationTimedOut,
                    )));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.partitions.remove(&partition);
                    output.flush()?;
                }
                Some(Err(error)) if heard.elapsed() > self.timeout => {
                    return Err(Ended::Kafka(error));
                }
                Some(Err(error)) => tracing::warn!(%error, "reading results"),
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let Some(value) = message.payload() else {
                        continue;
                    };
                    match decode::<ResultRecord>(value) {
                        Ok(result) if wanted(&result, arguments, object) => {
                            output.write(&result)?
                        }
                        Ok(_) => {}
                        Err(error) => tracing::warn!(
                            partition = message.partition(), offset = message.offset(), %error, "a result can't be read"
                        ),
                    }
                }
            }
        }
        Ok(output.flush()?)
    }
}

fn wanted(result: &ResultRecord, arguments: &Arguments, object: Option<&ObjectRef>) -> bool {
    arguments
        .outcome
        .is_none_or(|outcome| outcome == result.outcome)
        && object
            .is_none_or(|object| result.bucket == object.bucket() && result.key == object.key())
}

struct Lines<W> {
    json: bool,
    out: W,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, result: &ResultRecord) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, result)?;
            return self.out.write_all(b"\n");
        }
        let output = result
            .outputs
            .first()
            .map(|output| format!(" -> s3://{}/{}", output.bucket, output.key));
        let why = result.reason.as_ref().map(|reason| {
            format!(
                "  {reason}: {}",
                result.message.as_deref().unwrap_or_default()
            )
        });
        writeln!(
            self.out,
            "{}  {:13}  {}{}{}",
            result.finished_at,
            result.outcome.name(),
            printable(&format!("s3://{}/{}", result.bucket, result.key)),
            printable(&output.unwrap_or_default()),
            printable(&why.unwrap_or_default()),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Keys may hold anything; a terminal must not be steered by them.
fn printable(text: &str) -> String {
    match io::stdout().is_terminal() || text.contains('\n') {
        true => text
            .chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().collect::<Vec<_>>()
                } else {
                    vec![c]
                }
            })
            .collect(),
        false => text.to_owned(),
    }
}
