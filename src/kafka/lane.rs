//! One partition of ours that is restored: its queue, what is done of it, and the order of its keys.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, consumer::base_consumer::PartitionQueue, error::KafkaError, message::BorrowedMessage,
};

use super::{
    Decoded, Finished, OutRecord, Position, RawRecord, Stage,
    error::is_passing,
    partitioner,
    progress::{Delivery, Progress},
    rebalance::GroupContext,
    restore::Start,
    settings::MAX_RECORD_BYTES,
};

/// Delivered events of one partition that are not finished, those waiting for their key among them.
const MAX_OPEN: usize = 1_000;

/// The same of all partitions of a stage: at one to two kilobytes each they are memory outside the budget of what is
/// worked on, and after a long outage every partition has a thousand to offer.
const MAX_OPEN_OF_ALL: usize = 10_000;

/// However many partitions there are, each has room for so many.
const MIN_OPEN: usize = 16;

/// How often a record that can't be read yet is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often a record far behind a slow one is looked at again.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// A record whose time has not come is looked at again after so long at most: clocks are set right, too.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// A record up to this size, in bytes, is certain to fit where it is moved to.
const MAX_FORWARDED_BYTES: usize = MAX_RECORD_BYTES - 10_000;

/// Room for open events in each of so many partitions.
pub fn room(partitions: usize) -> usize {
    (MAX_OPEN_OF_ALL / partitions.max(1)).clamp(MIN_OPEN, MAX_OPEN)
}

/// A record that was delivered and can't be taken before `until`.
struct Held {
    record: RawRecord,
    until: Instant,
}

/// An event to be worked on.
pub struct Work<E> {
    pub position: Position,
    pub key: Arc<[u8]>,
    pub event: Arc<E>,
    pub weight: u64,
}

/// What the next record of a partition asks for.
pub enum Next {
    /// Nothing there now, or no room for more.
    Nothing,
    /// Taken, and to be worked on when its turn comes.
    Taken,
    /// Answered without work.
    Answered { offset: i64, finished: Finished },
    /// A record waits here that can't be read yet, and with it the partition.
    Waiting(String),
    /// This partition must not go on.
    Halt(String),
    /// The session must not go on.
    Broken(KafkaError),
}

/// A topic of our own, in which a record's key decides its partition.
pub struct Home {
    pub topic: Arc<str>,
    pub partitions: i32,
}

impl Home {
    fn of(&self, key: &[u8]) -> i32 {
        partitioner::partition_of(key, self.partitions)
    }

    /// An event in a partition that is not its key's goes home, in the transaction that answers it here; its id stays.
    fn bring(&self, record: RawRecord) -> Finished {
        Finished {
            records: vec![OutRecord {
                topic: Arc::clone(&self.topic),
                partition: Some(self.of(&record.key)),
                key: Some(record.key),
                value: record.value,
                headers: Vec::new(),
            }],
            ..Finished::default()
        }
    }
}

pub struct Lane<S: Stage> {
    partition: i32,
    /// See [`Input::has_holes`](super::Input::has_holes).
    has_holes: bool,
    queue: PartitionQueue<GroupContext>,
    pub progress: Progress,
    /// Keys with an event in work or finished and not yet committed, and the events that wait behind it.
    busy: HashMap<Arc<[u8]>, VecDeque<Work<S::Event>>>,
    /// Events whose turn has come.
    ready: VecDeque<Work<S::Event>>,
    /// A record that was delivered and can't be taken yet: everything behind it waits.
    held: Option<Held>,
    /// It must not go on until the workers are started again.
    pub halted: bool,
    /// It waits for a record to become readable.
    pub waits: bool,
    /// Events that were started and whose work has not ended, those waiting for a slot among them.
    pub started: usize,
    /// The position that was committed last, to see when an idle partition's has moved.
    pub committed: i64,
}

impl<S: Stage> Lane<S> {
    pub fn new(
        partition: i32,
        has_holes: bool,
        queue: PartitionQueue<GroupContext>,
        start: Start,
    ) -> Self {
        Self {
            partition,
            has_holes,
            queue,
            committed: start.offset,
            progress: Progress::resume(start.offset, start.finished),
            busy: HashMap::new(),
            ready: VecDeque::new(),
            held: None,
            halted: false,
            waits: false,
            started: 0,
        }
    }

    /// The next event whose turn has come.
    pub fn next_ready(&mut self) -> Option<Work<S::Event>> {
        let work = self.ready.pop_front()?;
        self.started += 1;
        Some(work)
    }

    /// Whether nothing is under way, and nothing is about to be.
    pub fn is_idle(&self) -> bool {
        self.started == 0 && self.ready.is_empty()
    }

    /// An outcome was committed: the next event of its key may start.
    pub fn release(&mut self, key: &Arc<[u8]>) {
        let Some(waiting) = self.busy.get_mut(key) else {
            return;
        };
        match waiting.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => {
                self.busy.remove(key);
            }
        }
    }

    /// Takes one record from the partition's queue, when fewer than `room` are open.
    pub fn take(&mut self, stage: &S, home: Option<&Home>, room: usize) -> Next {
        if let Some(held) = self.held.take() {
            return self.look_again(stage, home, held);
        }
        if self.halted || !self.progress.has_room() || self.progress.open_count() >= room {
            return Next::Nothing;
        }
        let record = match self.queue.poll(Duration::ZERO) {
            None => return Next::Nothing,
            Some(Ok(message)) => raw(&message),
            Some(Err(error)) => return trouble(error, self.has_holes),
        };
        if self.progress.deliver(record.position.offset) == Delivery::AlreadyFinished {
            return Next::Taken;
        }
        self.accept(stage, home, record)
    }

    fn look_again(&mut self, stage: &S, home: Option<&Home>, held: Held) -> Next {
        if Instant::now() < held.until {
            self.held = Some(held);
            return Next::Nothing;
        }
        self.accept(stage, home, held.record)
    }

    fn accept(&mut self, stage: &S, home: Option<&Home>, record: RawRecord) -> Next {
        let position = record.position;
        if !self.progress.fits(position.offset) {
            self.hold(record, NEXT_LOOK);
            return Next::Nothing;
        }
        let unreadable = |record: &RawRecord, reason: &str| Next::Answered {
            offset: position.offset,
            finished: stage.unreadable(position, &record.key, record.value.as_deref(), reason),
        };
        if let Some(home) = home.filter(|home| home.of(&record.key) != self.partition) {
            return match record.size() <= MAX_FORWARDED_BYTES {
                true => Next::Answered {
                    offset: position.offset,
                    finished: home.bring(record),
                },
                false => unreadable(
                    &record,
                    "it lies in another partition than its key's, and is too large to be moved",
                ),
            };
        }
        match stage.decode(&record) {
            Decoded::Event { event, weight } => {
                self.queue_up(record, event, weight);
                Next::Taken
            }
            Decoded::Answer(finished) => Next::Answered {
                offset: position.offset,
                finished,
            },
            Decoded::Later(wait) => {
                self.hold(record, wait.min(LONGEST_HOLD));
                Next::Nothing
            }
            Decoded::Unreadable(reason) => unreadable(&record, &reason),
            Decoded::Wait(why) => {
                self.hold(record, LOOK_AGAIN);
                Next::Waiting(why)
            }
        }
    }

    fn hold(&mut self, record: RawRecord, pause: Duration) {
        self.held = Some(Held {
            record,
            until: Instant::now() + pause,
        });
    }

    /// Events of one key are worked on one at a time, in the order of their offsets.
    fn queue_up(&mut self, record: RawRecord, event: S::Event, weight: u64) {
        let key: Arc<[u8]> = record.key.into();
        let work = Work {
            position: record.position,
            key: Arc::clone(&key),
            event: Arc::new(event),
            weight,
        };
        match self.busy.get_mut(&key) {
            Some(waiting) => waiting.push_back(work),
            None => {
                self.busy.insert(key, VecDeque::new());
                self.ready.push_back(work);
            }
        }
    }
}

pub fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    RawRecord {
        position: Position {
            partition: message.partition(),
            offset: message.offset(),
        },
        timestamp: message.timestamp().to_millis(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

fn trouble(error: KafkaError, has_holes: bool) -> Next {
    use rdkafka::types::RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        // Such logs are cut by rules of their own; a new session says what was lost, and goes on.
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) if !has_holes => Next::Broken(error),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Next::Halt(format!(
            "the next offset lies outside the log ({error}); stop the workers and run `feedmill topics accept-hole`"
        )),
        // librdkafka goes on behind a batch that it can't read; we do not.
        Some(
            Code::BadMessage
            | Code::BadCompression
            | Code::MessageSizeTooLarge
            | Code::InvalidMessage,
        ) => Next::Halt(format!("a part of the log can't be read ({error})")),
        Some(code) if is_passing(code) => Next::Nothing,
        _ => Next::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_share_the_room_and_each_has_some() {
        assert_eq!([0, 1, 10].map(room), [MAX_OPEN; 3]);
        assert_eq!(room(48) * 48, 9_984);
        assert_eq!(room(120), 83);
        assert_eq!(room(100_000), MIN_OPEN);
    }
}
