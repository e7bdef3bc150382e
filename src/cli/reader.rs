//! Reads topics for commands.
//!
//! In: partitions of one topic, and a [`Window`] of time. Out: their records, a [`Step`] at a time. Promise: only what is
//! committed; every wait has an end, except for what is still to come when that is asked for; a record that can't be
//! read is named and passed over; nothing is committed, so that reading changes nothing.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    ops::Range,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::{
    config::Kafka,
    kafka::{
        LogContext, is_passing,
        settings::{self, Isolation},
    },
    topics::{Millis, avro::TopicRecord, decode},
};

/// A record's timestamp comes from another clock than the times inside it: windows are this much wider at both ends.
const CLOCK_SLACK_MS: i64 = 5 * 60 * 1000;

/// How long a poll waits for records: the longest that [`Step::Quiet`] lets a caller wait.
const POLL: Duration = Duration::from_millis(200);

/// Nothing is said of a reading that takes less.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the end that the partitions have when reading begins.
    Now,
    /// At this time, or at the present end when that comes first.
    Time(Millis),
    /// Never: wait for what is still to come.
    Never,
}

/// The stretch of a log to read. Records close to its ends may come although they lie outside: whoever needs it exact
/// looks at the times inside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// `None`: from the beginning of the log.
    pub since: Option<Millis>,
    pub until: Until,
}

impl Window {
    /// All there is now.
    pub const ALL: Self = Self {
        since: None,
        until: Until::Now,
    };
}

/// Why a topic could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("create a Kafka client")]
    Client(#[source] KafkaError),
    #[error("find the topic {0}; `feedmill topics create` makes it")]
    NoTopic(String),
    #[error("ask Kafka for {what} of {topic}")]
    Call {
        what: &'static str,
        topic: String,
        source: KafkaError,
    },
    #[error(
        "read {topic}: nothing came of the partitions {partitions} for {seconds} s; see whether their brokers are up"
    )]
    Stalled {
        topic: String,
        partitions: String,
        seconds: u64,
    },
    #[error(
        "read {0}: its oldest records expired while they were being read; run the command again"
    )]
    Expired(String),
    #[error("read {topic}")]
    Read { topic: String, source: KafkaError },
}

/// A part of a topic that can't be read, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} can't be read and is left out: {reason}")]
pub struct Damaged {
    /// Topic, and partition and offset where they are known.
    place: String,
    reason: String,
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub appended_at: Option<Millis>,
    pub key: Vec<u8>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record<'_> {
    /// The value; `None` for a tombstone.
    pub fn decode<T: TopicRecord>(&self) -> Result<Option<T>, Damaged> {
        let value = self.value.as_deref().map(decode).transpose();
        value.map_err(|error| Damaged {
            place: format!(
                "{} [{}] at offset {}",
                self.topic, self.partition, self.offset
            ),
            reason: error.to_string(),
        })
    }
}

/// What a reading comes to next.
#[derive(Debug)]
pub enum Step<'a> {
    Record(Record<'a>),
    Damaged(Damaged),
    /// Nothing for the moment: time to show what there is.
    Quiet,
    /// All of the window was read.
    End,
}

/// A connection for reading topics.
pub struct Reader {
    consumer: BaseConsumer<LogContext>,
    timeout: Duration,
}

impl Reader {
    pub fn connect(kafka: &Kafka) -> Result<Self, ReadError> {
        // The library wants a group's name, although nobody joins one.
        let group = format!("{}.reader", kafka.group);
        let mut settings = settings::reader(kafka, &group, Isolation::ReadCommitted);
        // Held for each partition, and a command may read all of them at once.
        settings.set("queued.max.messages.kbytes", "2048");
        settings.set("fetch.queue.backoff.ms", "20");
        Ok(Self {
            consumer: settings::create(&settings, LogContext).map_err(ReadError::Client)?,
            timeout: settings::call_timeout(kafka),
        })
    }

    /// The names of all topics that may be seen.
    pub fn topic_names(&self) -> Result<Vec<String>, ReadError> {
        let metadata = self.consumer.fetch_metadata(None, self.timeout);
        let metadata = metadata.map_err(call("the names", "all topics"))?;
        let topics = metadata.topics().iter();
        Ok(topics.map(|topic| topic.name().to_owned()).collect())
    }

    /// How many partitions a topic has.
    pub fn partition_count(&self, topic: &str) -> Result<i32, ReadError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout);
        let metadata = metadata.map_err(call("the partitions", topic))?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(ReadError::NoTopic(topic.to_owned())),
        }
    }

    /// The offsets that a partition has now, as far as they are committed.
    pub fn log(&self, topic: &str, partition: i32) -> Result<Range<i64>, ReadError> {
        let ends = self
            .consumer
            .fetch_watermarks(topic, partition, self.timeout);
        let (low, high) = ends.map_err(call("the log's ends", topic))?;
        Ok(low..high)
    }

    /// Begins to read. One reading at a time: a second one ends the first.
    pub fn scan<'a>(
        &'a self,
        topic: &'a str,
        partitions: impl IntoIterator<Item = i32>,
        window: Window,
    ) -> Result<Scan<'a>, ReadError> {
        let logs: BTreeMap<i32, Range<i64>> = partitions
            .into_iter()
            .map(|partition| Ok((partition, self.log(topic, partition)?)))
            .collect::<Result<_, ReadError>>()?;
        let starts = match window.since {
            None => BTreeMap::new(),
            Some(Millis(since)) => {
                self.offsets_at(topic, &logs, since.saturating_sub(CLOCK_SLACK_MS))?
            }
        };
        let ends = match window.until {
            Until::Time(Millis(until)) => {
                self.offsets_at(topic, &logs, until.saturating_add(CLOCK_SLACK_MS))?
            }
            Until::Now | Until::Never => BTreeMap::new(),
        };
        let parts: BTreeMap<i32, Part> = logs
            .into_iter()
            .map(|(partition, log)| {
                let next = starts.get(&partition).map_or(log.start, |start| *start);
                let end = ends.get(&partition).map_or(log.end, |end| *end);
                let part = Part {
                    next,
                    from_beginning: next <= log.start,
                    end: (window.until != Until::Never).then_some(end),
                };
                (partition, part)
            })
            .filter(|(_, part)| part.end.is_none_or(|end| part.next < end))
            .collect();
        self.assign(topic, &parts)
            .map_err(call("the partitions", topic))?;
        Ok(Scan::new(self, topic, parts))
    }

    /// The first offset of each partition with this timestamp or a later one; the end of the log when there is none.
    fn offsets_at(
        &self,
        topic: &str,
        logs: &BTreeMap<i32, Range<i64>>,
        time: i64,
    ) -> Result<BTreeMap<i32, i64>, ReadError> {
        let error = call("the offsets at a time", topic);
        let mut asked = TopicPartitionList::new();
        for partition in logs.keys() {
            asked
                .add_partition_offset(topic, *partition, Offset::Offset(time.max(0)))
                .map_err(&error)?;
        }
        let answered = self
            .consumer
            .offsets_for_times(asked, self.timeout)
            .map_err(&error)?;
        let mut offsets = BTreeMap::new();
        for element in answered.elements() {
            element.error().map_err(&error)?;
            let partition = element.partition();
            let log = &logs[&partition];
            let offset = match element.offset() {
                Offset::Offset(offset) => offset.clamp(log.start, log.end),
                _ => log.end,
            };
            offsets.insert(partition, offset);
        }
        Ok(offsets)
    }

    fn assign(&self, topic: &str, parts: &BTreeMap<i32, Part>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, part) in parts {
            // By its name: the beginning may move on until the first record is fetched.
            let start = match part.from_beginning {
                true => Offset::Beginning,
                false => Offset::Offset(part.next),
            };
            list.add_partition_offset(topic, *partition, start)?;
        }
        self.consumer.assign(&list)
    }
}

fn call(what: &'static str, topic: &str) -> impl Fn(KafkaError) -> ReadError {
    let topic = topic.to_owned();
    move |source| ReadError::Call {
        what,
        topic: topic.clone(),
        source,
    }
}

/// What is left to read of a partition.
struct Part {
    next: i64,
    from_beginning: bool,
    /// `None`: there is no end.
    end: Option<i64>,
}

/// A reading under way.
pub struct Scan<'a> {
    reader: &'a Reader,
    topic: &'a str,
    /// The partitions that have not been read to their end.
    open: BTreeMap<i32, Part>,
    /// The others, paused.
    closed: TopicPartitionList,
    heard_at: Instant,
    progress: Progress,
}

impl<'a> Scan<'a> {
    fn new(reader: &'a Reader, topic: &'a str, open: BTreeMap<i32, Part>) -> Self {
        let offsets = open
            .values()
            .map(|part| part.end.map(|end| end - part.next))
            .sum();
        Self {
            reader,
            topic,
            open,
            closed: TopicPartitionList::new(),
            heard_at: Instant::now(),
            progress: Progress::new(offsets),
        }
    }

    /// Waits for what comes next, for at most a moment.
    pub fn step(&mut self) -> Result<Step<'a>, ReadError> {
        while !self.open.is_empty() {
            let reader = self.reader;
            match reader.consumer.poll(POLL) {
                None => {
                    self.expect_progress()?;
                    return Ok(Step::Quiet);
                }
                Some(Ok(message)) => {
                    if let Some(record) = self.take(&message) {
                        return Ok(Step::Record(record));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.heard_at = Instant::now();
                    let part = self.open.get(&partition);
                    if part.is_some_and(|part| part.end.is_some()) {
                        self.close(partition);
                    }
                    return Ok(Step::Quiet);
                }
                Some(Err(source)) => {
                    if let Some(damaged) = self.judge(source)? {
                        return Ok(Step::Damaged(damaged));
                    }
                }
            }
        }
        Ok(Step::End)
    }

    /// The record, unless it lies behind the end.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Record<'a>> {
        let (partition, offset) = (message.partition(), message.offset());
        let part = self.open.get_mut(&partition)?;
        self.heard_at = Instant::now();
        let end = part.end.unwrap_or(i64::MAX);
        let next = (offset + 1).min(end);
        self.progress.advance(next - part.next);
        part.next = next;
        if next == end {
            self.close(partition);
        }
        (offset < end).then(|| Record {
            topic: self.topic,
            partition,
            offset,
            appended_at: message.timestamp().to_millis().map(Millis),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().map(<[u8]>::to_vec),
        })
    }

    fn close(&mut self, partition: i32) {
        self.open.remove(&partition);
        self.closed.add_partition(self.topic, partition);
        // It saves fetching what is thrown away; without it nothing goes wrong.
        let _ = self.reader.consumer.pause(&self.closed);
    }

    /// What an error of the consumer means: it heals, it costs a part of the log, or it is the end.
    fn judge(&self, source: KafkaError) -> Result<Option<Damaged>, ReadError> {
        use RDKafkaErrorCode as Code;
        let topic = || self.topic.to_owned();
        match source.rdkafka_error_code() {
            Some(code) if is_passing(code) => {
                tracing::warn!(topic = self.topic, error = %source, "reading");
                self.expect_progress()?;
                Ok(None)
            }
            // Nobody joins the group or commits: reading needs no right on it.
            Some(Code::GroupAuthorizationFailed) => Ok(None),
            // librdkafka goes on behind a batch that it can't read.
            Some(Code::BadMessage | Code::BadCompression | Code::InvalidMessage) => {
                Ok(Some(Damaged {
                    place: format!("a part of {}", self.topic),
                    reason: source.to_string(),
                }))
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                Err(ReadError::Expired(topic()))
            }
            _ => Err(ReadError::Read {
                topic: topic(),
                source,
            }),
        }
    }

    /// An end that does not come is an error; what is still to come may take its time.
    fn expect_progress(&self) -> Result<(), ReadError> {
        let patience = 3 * self.reader.timeout;
        let ends = self.open.values().any(|part| part.end.is_some());
        if !ends || self.heard_at.elapsed() < patience {
            return Ok(());
        }
        let partitions: Vec<String> = self.open.keys().map(i32::to_string).collect();
        Err(ReadError::Stalled {
            topic: self.topic.to_owned(),
            partitions: partitions.join(", "),
            seconds: patience.as_secs(),
        })
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        // The next reading assigns anew; a consumer that goes away unassigns itself. A pause might outlive both.
        let _ = self.reader.consumer.resume(&self.closed);
        let _ = self.reader.consumer.unassign();
    }
}

/// Says on a terminal how far a long reading is.
struct Progress {
    /// Offsets to pass; `None` when there is no end.
    total: Option<i64>,
    passed: i64,
    said_at: Instant,
    shown: bool,
}

impl Progress {
    fn new(total: Option<i64>) -> Self {
        Self {
            total,
            passed: 0,
            said_at: Instant::now(),
            shown: io::stderr().is_terminal(),
        }
    }

    fn advance(&mut self, offsets: i64) {
        self.passed += offsets;
        if self.shown
            && self.said_at.elapsed() > PATIENCE
            && let Some(total) = self.total
        {
            self.said_at = Instant::now();
            let percent = self.passed * 100 / total.max(1);
            eprintln!("{percent}% of {total} records read");
        }
    }
}
