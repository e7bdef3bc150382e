//! The exactly-once runtime that every stage shares. It knows partitions, keys, offsets and records; nothing of files.
//!
//! In: the records of one topic, by consumer group. Out: whatever records a [`Stage`] answers them with, committed in one
//! Kafka transaction with the offsets they answer. Promise: every consumed offset is answered by exactly one committed
//! [`Finished`], whatever crashes, is fenced, or changes hands.
//!
//! Where each decision sits:
//!
//! | decision | place |
//! |---|---|
//! | one thread owns the consumer and the transactional producer | [`runtime`] |
//! | every partition has a queue of its own; the main queue carries only group events | `session::Session::start_partition` |
//! | work happens outside any transaction; the transaction lives for milliseconds | `session::Session::commit` |
//! | flush before offsets, by the library's raw flush | [`transaction`] |
//! | fresh group metadata for every transaction, never (-1, "") | `ffi::GroupMember` |
//! | finished offsets above the prefix travel in the offset's metadata | [`progress`] |
//! | explicit start positions; holes stop the partition | [`restore`] |
//! | restore up to the read-uncommitted end, waiting for the last stable offset | [`reader`] |
//! | local state is written only after the commit, with the position it reflects | [`store`], `session::Session::apply` |
//! | work is bounded by number and bytes, and whoever waits holds nobody up | `slot::Slots` |
//! | an event that kills the process is found, and given up in the end | [`journal`] |
//! | one way back after anything fatal or ambiguous | [`runtime`] |
//! | the transactional id lives in a locked folder | [`folder`] |
//! | a call that hangs ends the process | [`watchdog`] |
//! | what waits is measured by a reader of its own | [`beside`] |
//! | what needs no transaction is appended, and acknowledged | [`appender`] |
//! | delivery reports are served by a thread that sleeps | [`served`] |

pub mod admin;
mod answering;
mod appender;
mod backlog;
mod beside;
mod error;
mod ffi;
pub mod folder;
mod journal;
mod lane;
pub mod leader;
pub mod partitioner;
pub mod progress;
pub mod reader;
mod rebalance;
mod restore;
pub mod runtime;
mod served;
mod session;
pub mod settings;
mod shared;
mod slot;
pub mod status;
pub mod store;
mod transaction;
pub mod view;
mod watchdog;

use std::{fmt, future::Future, sync::Arc, time::Duration};

pub use answering::{Answering, Answers};
pub use appender::Appender;
pub use beside::{Beside, ReadFrom};
pub use error::{RuntimeError, is_passing};
pub use folder::StateFolder;
pub use rebalance::LogContext;
pub use runtime::{Runtime, RuntimeHandle};
pub use slot::Slot;
#[cfg(test)]
pub(crate) use slot::Slots;
pub use status::Status;

/// Where a record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// A record as it was read, before the stage has looked at it.
#[derive(Debug, Clone)]
pub struct RawRecord {
    pub position: Position,
    /// Milliseconds since 1970, by the clock that the topic's `message.timestamp.type` names.
    pub timestamp: Option<i64>,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What a stage makes of a raw record.
pub enum Decoded<E> {
    /// Work to do.
    Event {
        event: E,
        /// Bytes of memory the work is expected to hold, counted against the worker's budget.
        weight: u64,
    },
    /// Answered as it is read, without work: keys and slots are not waited for.
    Answer(Finished),
    /// Its time has not come: the partition waits here for so long, and then looks at it again.
    Later(Duration),
    /// No event, and never will be; for this reason. [`Stage::unreadable`] answers it.
    Unreadable(String),
    /// It can't be read now, but perhaps later (a schema from tomorrow): the partition waits here, and says why.
    Wait(String),
}

/// A record to be written. It goes to the partition number of the event it answers, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    pub topic: Arc<str>,
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
}

impl RawRecord {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl OutRecord {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// The finished outcome of one event: the records that tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    pub records: Vec<OutRecord>,
    pub on_commit: OnCommit,
}

/// What to do once a [`Finished`] is committed: for counting only, on the kafka thread, and not at all when the process dies
/// in between. No part of the outcome: all are equal.
#[derive(Clone, Default)]
pub struct OnCommit(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnCommit {
    pub fn new(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(act)))
    }

    pub(crate) fn call(&self) {
        if let Some(act) = &self.0 {
            act();
        }
    }
}

impl fmt::Debug for OnCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnCommit")
    }
}

impl PartialEq for OnCommit {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for OnCommit {}

impl Finished {
    fn size(&self) -> usize {
        self.records.iter().map(OutRecord::size).sum()
    }
}

/// What is known of the event's key, folded from the stage's changelog topic.
pub type StateBytes = Vec<u8>;

/// A stage: consumes a topic, does asynchronous work per event, answers each event with records.
///
/// Events of one key are handed over one at a time, in the order of their offsets, each after the one before is committed;
/// different keys run concurrently and finish in any order.
pub trait Stage: Send + Sync + 'static {
    type Event: Send + Sync + 'static;
    /// What is settled for a key, as decisions need it.
    type State: Send + Sync + 'static;

    /// Reads a record. Must not block.
    fn decode(&self, record: &RawRecord) -> Decoded<Self::Event>;

    /// Does the work for one event, given what is settled for its key. Dropped when the partition is lost; run again by
    /// whoever gets the partition next, so everything it does outside Kafka happens at least once. It holds a slot of the
    /// worker, and waits for what is away by [`Slot::pause`] only.
    fn process(
        self: Arc<Self>,
        event: Arc<Self::Event>,
        position: Position,
        state: Option<Arc<Self::State>>,
        slot: &mut Slot,
    ) -> impl Future<Output = Finished> + Send;

    /// The answer to a record that is no event: a copy for people, cut to a bound. Called once more, without key and
    /// value, when that copy is refused as too large.
    fn unreadable(
        &self,
        position: Position,
        key: &[u8],
        value: Option<&[u8]>,
        reason: &str,
    ) -> Finished;

    /// Reads what [`Stage::fold`] kept for the event's key. An error means that the local copy is damaged: it is made anew.
    fn read_state(&self, event: &Self::Event, bytes: &[u8]) -> Result<Self::State, String>;

    /// The least answer to an event that can't be answered by its work.
    fn give_up(
        &self,
        event: &Self::Event,
        position: Position,
        state: Option<Arc<Self::State>>,
        why: GivenUp<'_>,
    ) -> Finished;

    /// What is measured of logs beside the work; see [`Beside`].
    fn beside(&self) -> Option<Arc<dyn Beside>> {
        None
    }

    /// Folds a changelog value into what is kept locally of it. `None` forgets the key.
    /// An error stops the partition: a state that can't be read must not be taken for no state.
    fn fold(&self, value: Option<&[u8]>) -> Result<Option<StateBytes>, String>;
}

/// Why an event is not worked on any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp<'a> {
    /// The broker or the client refused a record of its outcome as too large, in these words.
    TooLarge(&'a str),
    /// The process died so often while nothing but this event was under way.
    Crashed { times: u32 },
}

/// Whose log a stage reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// Our own: keys decide partitions, and a hole stops the partition.
    Own {
        /// Compacted topic from which the state is restored; has the same number of partitions as the input topic.
        changelog_topic: String,
    },
    /// Our own, cut by retention while we were away: what is missing is said and passed over, because somebody else brings
    /// back what mattered of it.
    History {
        /// As of [`Input::Own`].
        changelog_topic: String,
    },
    /// Our own, without state: records are answered where they lie, and a hole stops the partition.
    Queue,
    /// Others': records are taken where they lie, from the first there is, and there is no state.
    Foreign,
}

impl Input {
    /// Whether what is missing in the log is a hole, which stops the partition.
    pub fn has_holes(&self) -> bool {
        matches!(self, Self::Own { .. } | Self::Queue)
    }

    /// Whether a record that lies in another partition than its key's is brought home.
    pub(crate) fn has_home(&self) -> bool {
        matches!(self, Self::Own { .. })
    }

    /// What the state is restored from, for a stage that has one.
    pub(crate) fn changelog_topic(&self) -> Option<&str> {
        match self {
            Self::Own { changelog_topic } | Self::History { changelog_topic } => {
                Some(changelog_topic)
            }
            Self::Queue | Self::Foreign => None,
        }
    }
}

/// The topics of a stage, and how much it may hold at once.
#[derive(Debug, Clone)]
pub struct StageSettings {
    /// Name of the stage, part of its group and transactional ids.
    pub name: Arc<str>,
    pub input_topic: String,
    pub input: Input,
    /// Events worked on at once, per worker.
    pub max_in_flight: usize,
    /// Sum of the weights of the events worked on at once; one event is always let through.
    pub max_in_flight_bytes: u64,
}
