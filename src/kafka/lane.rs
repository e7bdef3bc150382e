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
    Decoded, Finished, OutRecord, Position, RawRecord, Stage, partitioner,
    progress::{Delivery, Progress},
    rebalance::GroupContext,
    restore::Start,
};

/// Delivered events of one partition that are not finished, those waiting for their key among them.
const MAX_OPEN: usize = 1_000;

/// How often a record that can't be read yet is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

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
    /// This partition must not go on.
    Halt(String),
    /// The session must not go on.
    Broken(KafkaError),
}

pub struct Lane<S: Stage> {
    partition: i32,
    queue: PartitionQueue<GroupContext>,
    pub progress: Progress,
    /// Keys with an event in work or finished and not yet committed, and the events that wait behind it.
    busy: HashMap<Arc<[u8]>, VecDeque<Work<S::Event>>>,
    /// Events whose turn has come.
    ready: VecDeque<Work<S::Event>>,
    /// A record that can't be read yet, and when to look again.
    stalled: Option<(RawRecord, Instant)>,
    pub halted: Option<String>,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    /// The position that was committed last, to see when an idle partition's has moved.
    pub committed: i64,
}

impl<S: Stage> Lane<S> {
    pub fn new(partition: i32, queue: PartitionQueue<GroupContext>, start: Start) -> Self {
        Self {
            partition,
            queue,
            committed: start.offset,
            progress: Progress::resume(start.offset, start.finished),
            busy: HashMap::new(),
            ready: VecDeque::new(),
            stalled: None,
            halted: None,
            in_flight: 0,
            in_flight_bytes: 0,
        }
    }

    /// The next event whose turn has come.
    pub fn next_ready(&mut self) -> Option<Work<S::Event>> {
        let work = self.ready.pop_front()?;
        self.in_flight += 1;
        self.in_flight_bytes += work.weight;
        Some(work)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Work ended; its key stays busy until the outcome is committed.
    pub fn work_ended(&mut self, weight: u64) {
        self.in_flight -= 1;
        self.in_flight_bytes -= weight;
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

    /// Takes one record from the partition's queue.
    pub fn take(&mut self, stage: &S, input_topic: &Arc<str>, partitions: i32) -> Next {
        if self.halted.is_some()
            || !self.progress.has_room()
            || self.progress.open_count() >= MAX_OPEN
        {
            return Next::Nothing;
        }
        if let Some((record, again)) = self.stalled.take() {
            if Instant::now() < again {
                self.stalled = Some((record, again));
                return Next::Nothing;
            }
            return self.accept(stage, record);
        }
        let record = match self.queue.poll(Duration::ZERO) {
            None => return Next::Nothing,
            Some(Ok(message)) => raw(&message),
            Some(Err(error)) => return trouble(error),
        };
        let offset = record.position.offset;
        if self.progress.deliver(offset) == Delivery::AlreadyFinished {
            return Next::Taken;
        }
        let home = partitioner::partition_of(&record.key, partitions);
        if home != self.partition {
            return Next::Answered {
                offset,
                finished: move_home(input_topic, home, record),
            };
        }
        self.accept(stage, record)
    }

    fn accept(&mut self, stage: &S, record: RawRecord) -> Next {
        match stage.decode(&record) {
            Decoded::Event { event, weight } => {
                self.queue_up(record, event, weight);
                Next::Taken
            }
            Decoded::Unreadable(finished) => Next::Answered {
                offset: record.position.offset,
                finished,
            },
            Decoded::Wait(why) => {
                self.stalled = Some((record, Instant::now() + LOOK_AGAIN));
                Next::Halt(why)
            }
        }
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

    /// Whether a record waits here that can't be read yet.
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }
}

fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    RawRecord {
        position: Position {
            partition: message.partition(),
            offset: message.offset(),
        },
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// An event in a partition that is not its key's goes home, in the transaction that answers it here; its id stays.
fn move_home(input_topic: &Arc<str>, home: i32, record: RawRecord) -> Finished {
    Finished {
        records: vec![OutRecord {
            topic: Arc::clone(input_topic),
            partition: Some(home),
            key: Some(record.key),
            value: record.value,
            headers: Vec::new(),
        }],
    }
}

fn trouble(error: KafkaError) -> Next {
    use rdkafka::types::RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Next::Halt(format!(
            "the next offset lies outside the log ({error}); stop the workers and run `feedmill topics accept-hole`"
        )),
        Some(
            Code::PartitionEOF
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut,
        ) => Next::Nothing,
        _ => Next::Broken(error),
    }
}
