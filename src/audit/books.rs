//! What Kafka knows: which events are not finished, what is settled, which letters are open, what results told of.

use std::{fs, io, path::Path};

use rdkafka::{Message, consumer::Consumer};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    config::Kafka,
    convert::{
        self,
        state::{self, Settled},
    },
    kafka::{
        StateBytes, progress,
        reader::{LogReader, ReadError},
        settings,
        store::StoreError,
        view::View,
    },
    object::{ETag, ObjectRef},
    retry::stage_name,
    topics::{DeadLetter, Millis, ObjectEvent, ObjectState, ResultRecord, Topics, decode},
};

use super::catalogue::CatalogueError;

/// Why Kafka, or what was read of it, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error("read what is known")]
    Read(#[from] ReadError),
    #[error("use the temporary folder")]
    Store(#[from] StoreError),
    #[error("make a folder in the temporary one")]
    Folder(#[from] io::Error),
    #[error("what was read of {0} can't be read back: {1}")]
    Damaged(String, String),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// What is settled for an object, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub settled: Settled,
    pub settled_at: Millis,
}

/// A dead letter, as far as an audit tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub id: String,
    pub etag: Option<ETag>,
    pub reason: String,
    pub failed_at: Millis,
}

/// An event that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When it was received.
    pub since: Option<Millis>,
    pub waiting: Waiting,
}

/// Where it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    ForConvert,
    InRetry {
        tier: String,
        attempts: i32,
        /// Why the last attempt failed; what a circuit breaker sent away did not count as one.
        reason: String,
    },
    /// It was written by a newer version, or is damaged.
    Unreadable,
}

/// Takes an event that is not finished, with its record's key.
pub type TakePending<'a> = &'a mut dyn FnMut(&[u8], Pending) -> Result<(), BooksError>;

/// Takes the bucket and the key of an output.
pub type TakeOutput<'a> = &'a mut dyn FnMut(&str, &str) -> Result<(), BooksError>;

/// Kafka, as far as an audit needs it. Everything blocks.
pub trait Books: Send + Sync {
    /// Tells the events that are not finished, by their records' keys, and **after** that sees what is settled: an event that is
    /// not told of was finished before, and then its state is seen.
    fn look(&self, pending: TakePending<'_>) -> Result<(), BooksError>;

    fn state(&self, object: &ObjectRef) -> Result<Option<State>, BooksError>;

    /// The open letter.
    fn letter(&self, object: &ObjectRef) -> Result<Option<Letter>, BooksError>;

    /// How many states there are whose records' keys are of those.
    fn count_states(&self, of: &dyn Fn(&str) -> bool) -> Result<u64, BooksError>;

    /// Tells the outputs that results name, by bucket and key. Returns since when all results are there; `None` when none
    /// has ever expired.
    fn told_outputs(&self, told: TakeOutput<'_>) -> Result<Since, BooksError>;
}

/// Since when results tell of every output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// What came before was cut away by retention.
    Cut(Millis),
    /// Nothing came before under this topic prefix.
    Beginning(Millis),
}

/// The real Kafka; what is read of it goes to a folder.
pub struct KafkaBooks {
    topics: Topics,
    objects: View,
    letters: View,
    events: LogReader,
    /// The retry topics that there are, each with its tier.
    retries: Vec<(String, String, LogReader)>,
    cancel: CancellationToken,
}

impl KafkaBooks {
    pub fn open(
        kafka: &Kafka,
        folder: &Path,
        cancel: CancellationToken,
    ) -> Result<Self, BooksError> {
        let topics = Topics::with_prefix(&kafka.topic_prefix);
        let group = format!("{}.{}", kafka.group, convert::STAGE);
        let view = |topic: &str, name: &str, fold| {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)?;
            Ok::<_, BooksError>(View::open(kafka, &group, topic, &folder, fold)?)
        };
        let objects = view(&topics.objects, "objects", fold_state)?;
        let letters = view(&topics.dead_letters, "letters", fold_letter)?;
        let events = LogReader::open(kafka, &group).map_err(ReadError::from)?;
        let timeout = settings::call_timeout(kafka);
        let metadata = events.consumer().fetch_metadata(None, timeout);
        let metadata = metadata.map_err(ReadError::from)?;
        let mut retries = Vec::new();
        for topic in metadata.topics() {
            if let Some(tier) = topics.tier_of(topic.name()) {
                let group = format!("{}.{}", kafka.group, stage_name(tier));
                let reader = LogReader::open(kafka, &group).map_err(ReadError::from)?;
                retries.push((topic.name().to_owned(), tier.to_owned(), reader));
            }
        }
        Ok(Self {
            topics,
            objects,
            letters,
            events,
            retries,
            cancel,
        })
    }

    /// Tells what its group has not finished of a topic.
    fn unfinished(
        &self,
        reader: &LogReader,
        topic: &str,
        tier: Option<&str>,
        pending: TakePending<'_>,
    ) -> Result<(), BooksError> {
        let partitions = 0..self.objects.partitions();
        let committed = reader.committed_offsets(topic, partitions.clone(), &self.cancel)?;
        for (partition, committed) in partitions.zip(committed) {
            let (from, finished) = match committed {
                None => (None, Default::default()),
                Some((offset, metadata)) => match progress::decode(offset, &metadata) {
                    Ok(finished) => (Some(offset), finished),
                    Err(error) => {
                        warn!(topic, partition, %error, "it stands still: everything there counts as pending");
                        (None, Default::default())
                    }
                },
            };
            reader.each(topic, partition, from, &self.cancel, |record| {
                if finished.contains(&record.offset()) {
                    return Ok(());
                }
                let key = record.key().unwrap_or_default();
                let event = record.payload().map(decode::<ObjectEvent>);
                let appended_at = record.timestamp().to_millis().map(Millis);
                pending(
                    key,
                    pending_of(event.and_then(Result::ok), appended_at, tier),
                )
            })?;
        }
        Ok(())
    }
}

fn pending_of(
    event: Option<ObjectEvent>,
    appended_at: Option<Millis>,
    tier: Option<&str>,
) -> Pending {
    let Some(event) = event else {
        return Pending {
            since: appended_at,
            waiting: Waiting::Unreadable,
        };
    };
    let waiting = match tier {
        None => Waiting::ForConvert,
        Some(tier) => Waiting::InRetry {
            tier: tier.to_owned(),
            attempts: event.attempt,
            reason: event
                .history
                .last()
                .map_or_else(|| "no reason is told".into(), |last| last.reason.clone()),
        },
    };
    Pending {
        since: Some(event.received_at),
        waiting,
    }
}

impl Books for KafkaBooks {
    /// An event that moves between `events` and a retry topic is in one of them whenever they are looked at, and the events are
    /// looked at before and after the others: whichever way it moves, it is seen.
    fn look(&self, pending: TakePending<'_>) -> Result<(), BooksError> {
        self.unfinished(&self.events, &self.topics.events, None, pending)?;
        for (topic, tier, reader) in &self.retries {
            self.unfinished(reader, topic, Some(tier), pending)?;
        }
        if !self.retries.is_empty() {
            self.unfinished(&self.events, &self.topics.events, None, pending)?;
        }
        self.objects.catch_up(&self.cancel)?;
        self.letters.catch_up(&self.cancel)?;
        Ok(())
    }

    fn state(&self, object: &ObjectRef) -> Result<Option<State>, BooksError> {
        let bytes = self.objects.get(object.message_key().as_bytes())?;
        let state = bytes.map(|bytes| {
            let kept: KeptState = read_back(&bytes, "objects")?;
            let settled = Settled::read(&kept.settled, object.key());
            Ok(State {
                settled: settled.map_err(|why| damaged(&self.topics.objects, why))?,
                settled_at: kept.settled_at,
            })
        });
        state.transpose()
    }

    fn letter(&self, object: &ObjectRef) -> Result<Option<Letter>, BooksError> {
        let bytes = self.letters.get(object.message_key().as_bytes())?;
        bytes
            .map(|bytes| read_back(&bytes, "dead-letters"))
            .transpose()
    }

    fn count_states(&self, of: &dyn Fn(&str) -> bool) -> Result<u64, BooksError> {
        let mut count = 0;
        for value in self.objects.values() {
            let kept: KeptState = read_back(&value?, "objects")?;
            count += u64::from(of(&kept.message_key));
        }
        Ok(count)
    }

    fn told_outputs(&self, told: TakeOutput<'_>) -> Result<Since, BooksError> {
        let topic = &self.topics.results;
        let (mut cut, mut beginning) = (None, Millis::now());
        for partition in 0..self.objects.partitions() {
            let mut first = None;
            let log = self
                .events
                .each(topic, partition, None, &self.cancel, |record| {
                    first = first.or_else(|| record.timestamp().to_millis());
                    let Some(Ok(result)) = record.payload().map(decode::<ResultRecord>) else {
                        warn!(
                            topic,
                            partition,
                            offset = record.offset(),
                            "a result can't be read and is left out"
                        );
                        return Ok(());
                    };
                    result
                        .outputs
                        .iter()
                        .try_for_each(|output| told(&output.bucket, &output.key))
                })?;
            let begins = first.map_or_else(Millis::now, Millis);
            beginning = beginning.min(begins);
            if log.start > 0 {
                cut = cut.max(Some(begins));
            }
        }
        Ok(cut.map_or(Since::Beginning(beginning), Since::Cut))
    }
}

/// What is kept of a state: what decisions need, and what an audit needs beside.
#[derive(Serialize, Deserialize)]
struct KeptState {
    message_key: String,
    settled_at: Millis,
    settled: StateBytes,
}

fn fold_state(value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
    let Some(settled) = state::fold(value)? else {
        return Ok(None);
    };
    let state: ObjectState =
        decode(value.unwrap_or_default()).map_err(|error| error.to_string())?;
    kept(&KeptState {
        message_key: format!("{}/{}", state.bucket, state.key),
        settled_at: state.settled_at,
        settled,
    })
}

fn fold_letter(value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
    let Some(value) = value else { return Ok(None) };
    let letter: DeadLetter = decode(value).map_err(|error| error.to_string())?;
    kept(&Letter {
        id: letter.id,
        etag: letter.etag,
        reason: letter.reason,
        failed_at: letter.last_failed_at,
    })
}

fn kept<T: Serialize>(value: &T) -> Result<Option<StateBytes>, String> {
    let bytes = postcard::to_allocvec(value);
    bytes.map(Some).map_err(|error| error.to_string())
}

fn read_back<'a, T: Deserialize<'a>>(bytes: &'a [u8], topic: &str) -> Result<T, BooksError> {
    postcard::from_bytes(bytes).map_err(|error| damaged(topic, error.to_string()))
}

fn damaged(topic: &str, why: String) -> BooksError {
    BooksError::Damaged(topic.to_owned(), why)
}
