//! Reads logs beside a stage, for measures only: what waits in its partitions, and what it wants to know of other topics.
//!
//! A thread with consumers of its own, without a group, follows the partitions that the stage owns: its input from the
//! committed offset on, each record once as it arrives. Nothing hangs on it: whatever fails, it begins anew after a while,
//! and until then what it measures is absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};
use tracing::{debug, warn};

use super::{
    RawRecord, RuntimeError, Stage,
    backlog::Backlog,
    error::is_passing,
    lane::raw,
    progress::{self, CommitPoint},
    rebalance::LogContext,
    settings::{self, Isolation},
    shared::Shared,
    status::Lag,
};

/// Pause between two rounds; longer where there is nothing to read and only ends of logs are asked for.
const ROUND: Duration = Duration::from_secs(1);
const LONG_ROUND: Duration = Duration::from_secs(5);

/// Longest time of reading in one round.
const READING: Duration = Duration::from_millis(500);

/// Nothing for so long: everything that is there has been read, or more of it comes in the next round.
const QUIET: Duration = Duration::from_millis(20);

/// Pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What is read ahead of a topic, in kilobytes.
const QUEUED_KBYTES: &str = "1024";

/// What a stage makes of logs that are read beside its work. Called by one thread, and holds up nobody but it.
pub trait Beside: Send + Sync + 'static {
    /// Bytes that the work for a record of the input will read, if the record says it.
    fn size(&self, record: &RawRecord) -> Option<u64>;

    /// Other topics to read, partitioned like the input; numbered in this order.
    fn topics(&self) -> Vec<(String, ReadFrom)>;

    /// A committed record of one of those.
    fn read(&self, topic: usize, record: &RawRecord);

    /// Everything that was there has been read.
    fn caught_up(&self, topic: usize, partition: i32);

    /// The partition is ours no longer, or will be read again from where its reading begins.
    fn left(&self, partition: i32);
}

/// Where reading a topic begins, and whether it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// All there is, and all that comes.
    Start,
    /// So many of the last offsets, once.
    Last(i64),
}

/// Starts the thread; it ends when the stage has, or is about to.
pub fn spawn<S: Stage>(shared: Arc<Shared<S>>, alive: Weak<()>) -> Result<(), RuntimeError> {
    let follow = move || {
        let goes_on = || alive.strong_count() > 0 && !shared.shutdown.is_cancelled();
        while goes_on() {
            if let Err(error) = follow(&shared, &goes_on) {
                debug!(stage = &*shared.settings.name, %error, "reading beside the stage");
                pause(AFTER_FAILURE, &goes_on);
            }
        }
    };
    thread::Builder::new()
        .name("beside".into())
        .spawn(follow)
        .map_err(RuntimeError::Thread)?;
    Ok(())
}

fn pause(length: Duration, goes_on: &impl Fn() -> bool) {
    let until = Instant::now() + length;
    while Instant::now() < until && goes_on() {
        thread::sleep(Duration::from_millis(100));
    }
}

/// Goes round until the end, or until something fails.
fn follow<S: Stage>(shared: &Shared<S>, goes_on: &impl Fn() -> bool) -> KafkaResult<()> {
    let beside = shared.stage.beside();
    let mut follower = Follower::new(shared, beside.clone())?;
    let length = if beside.is_some() { ROUND } else { LONG_ROUND };
    let mut result = Ok(());
    while goes_on() && result.is_ok() {
        result = follower.round();
        pause(length, goes_on);
    }
    follower.leave();
    result
}

struct Follower<'a, S: Stage> {
    shared: &'a Shared<S>,
    beside: Option<Arc<dyn Beside>>,
    input: Log,
    others: Vec<Log>,
    backlogs: BTreeMap<i32, Backlog>,
}

impl<'a, S: Stage> Follower<'a, S> {
    fn new(shared: &'a Shared<S>, beside: Option<Arc<dyn Beside>>) -> KafkaResult<Self> {
        let topics = beside.iter().flat_map(|beside| beside.topics());
        Ok(Self {
            input: Log::open(shared, &shared.settings.input_topic, ReadFrom::Start)?,
            others: topics
                .map(|(topic, from)| Log::open(shared, &topic, from))
                .collect::<Result<_, _>>()?,
            shared,
            beside,
            backlogs: BTreeMap::new(),
        })
    }

    fn round(&mut self) -> KafkaResult<()> {
        let points = self.shared.status.commit_points();
        match self.beside.clone() {
            None => self.measure_offsets(&points)?,
            Some(beside) => {
                self.turn_to(&points, &*beside)?;
                self.read_input(&*beside)?;
                self.measure(&points)?;
                self.read_others(&points, &*beside);
            }
        }
        self.measure_state();
        Ok(())
    }

    /// Follows the partitions that are ours now.
    fn turn_to(
        &mut self,
        points: &BTreeMap<i32, CommitPoint>,
        beside: &dyn Beside,
    ) -> KafkaResult<()> {
        let gone: Vec<i32> = self.backlogs.keys().copied().collect();
        for partition in gone.into_iter().filter(|p| !points.contains_key(p)) {
            self.backlogs.remove(&partition);
            beside.left(partition);
        }
        for partition in points.keys() {
            self.backlogs.entry(*partition).or_default();
        }
        self.input.turn_to(points, |point| Some(point.offset))
    }

    fn read_input(&mut self, beside: &dyn Beside) -> KafkaResult<()> {
        let backlogs = &mut self.backlogs;
        self.input.read(|news| {
            let News::Record(record) = news else { return };
            if let Some(backlog) = backlogs.get_mut(&record.position.partition) {
                let at = record.timestamp.unwrap_or_default();
                backlog.push(record.position.offset, beside.size(&record), at);
            }
        })
    }

    /// One that can't be read, for want of a permission for one, keeps nothing else from being measured.
    fn read_others(&mut self, points: &BTreeMap<i32, CommitPoint>, beside: &dyn Beside) {
        for (number, log) in self.others.iter_mut().enumerate() {
            let read = log.turn_to(points, |_| None).and_then(|()| {
                log.read(|news| match news {
                    News::Record(record) => beside.read(number, &record),
                    News::CaughtUp(partition) => beside.caught_up(number, partition),
                })
            });
            if let Err(error) = read
                && !std::mem::replace(&mut log.has_failed, true)
            {
                warn!(topic = log.topic, %error, "metrics are made without this topic, as long as it can't be read");
            }
        }
    }

    fn measure(&mut self, points: &BTreeMap<i32, CommitPoint>) -> KafkaResult<()> {
        for (&partition, point) in points {
            let unread = self.input.unread(partition)?;
            let Some(backlog) = self.backlogs.get_mut(&partition) else {
                continue;
            };
            backlog.forget_below(point.offset);
            let (events, waiting) = backlog.left(point.offset, &finished(point));
            let lag = Lag {
                events: events + unread,
                waiting: Some(waiting),
            };
            self.shared.status.set_lag(partition, Some(lag));
        }
        Ok(())
    }

    /// The lag of a stage whose records nobody looks at here.
    fn measure_offsets(&self, points: &BTreeMap<i32, CommitPoint>) -> KafkaResult<()> {
        for (&partition, point) in points {
            let behind = self.input.end(partition)? - point.offset;
            let events = u64::try_from(behind).unwrap_or(0);
            let lag = Lag {
                events: events.saturating_sub(finished(point).len() as u64),
                waiting: None,
            };
            self.shared.status.set_lag(partition, Some(lag));
        }
        Ok(())
    }

    fn measure_state(&self) {
        let size = self
            .shared
            .state
            .as_ref()
            .and_then(|state| state.store.size().ok());
        self.shared.status.count(|counters| counters.state = size);
    }

    /// What is not measured any more is not shown.
    fn leave(&mut self) {
        for &partition in self.shared.status.commit_points().keys() {
            self.shared.status.set_lag(partition, None);
        }
        if let Some(beside) = &self.beside {
            self.backlogs
                .keys()
                .for_each(|partition| beside.left(*partition));
        }
    }
}

/// Finished offsets above the committed one.
fn finished(point: &CommitPoint) -> BTreeSet<i64> {
    progress::decode(point.offset, &point.metadata).unwrap_or_default()
}

enum News {
    Record(RawRecord),
    /// All there was of a partition has been read.
    CaughtUp(i32),
}

/// One topic, with a consumer of its own: what librdkafka says of an end names no topic.
struct Log {
    topic: String,
    from: ReadFrom,
    consumer: BaseConsumer<LogContext>,
    timeout: Duration,
    cursors: BTreeMap<i32, Cursor>,
    /// Whether that was said.
    has_failed: bool,
}

struct Cursor {
    next: i64,
    at_end: bool,
}

impl Log {
    fn open<S: Stage>(shared: &Shared<S>, topic: &str, from: ReadFrom) -> KafkaResult<Self> {
        let mut settings = settings::reader(&shared.kafka, &shared.group, Isolation::ReadCommitted);
        settings.set("queued.max.messages.kbytes", QUEUED_KBYTES);
        // News is answered at once; only how often nothing is asked for depends on it.
        settings.set("fetch.wait.max.ms", "1000");
        Ok(Self {
            topic: topic.to_owned(),
            from,
            consumer: settings::create(&settings, LogContext)?,
            timeout: settings::call_timeout(&shared.kafka),
            cursors: BTreeMap::new(),
            has_failed: false,
        })
    }

    /// Follows these partitions; new ones from the offset that `begin` names, or as the topic is read.
    fn turn_to(
        &mut self,
        points: &BTreeMap<i32, CommitPoint>,
        begin: impl Fn(&CommitPoint) -> Option<i64>,
    ) -> KafkaResult<()> {
        if self.cursors.keys().eq(points.keys()) {
            return Ok(());
        }
        self.cursors
            .retain(|partition, _| points.contains_key(partition));
        for (&partition, point) in points {
            if self.cursors.contains_key(&partition) {
                continue;
            }
            let next = match begin(point) {
                Some(offset) => offset,
                None => self.beginning(partition)?,
            };
            let cursor = Cursor {
                next,
                at_end: false,
            };
            self.cursors.insert(partition, cursor);
        }
        self.assign()
    }

    fn beginning(&self, partition: i32) -> KafkaResult<i64> {
        let (first, end) = self.ends(partition)?;
        Ok(match self.from {
            ReadFrom::Start => first,
            ReadFrom::Last(count) => first.max(end - count),
        })
    }

    fn ends(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        self.consumer
            .fetch_watermarks(&self.topic, partition, self.timeout)
    }

    fn end(&self, partition: i32) -> KafkaResult<i64> {
        self.ends(partition).map(|(_, end)| end)
    }

    /// Offsets that are there and were not read yet.
    fn unread(&self, partition: i32) -> KafkaResult<u64> {
        match self.cursors.get(&partition) {
            Some(cursor) if !cursor.at_end => {
                let unread = self.end(partition)? - cursor.next;
                Ok(u64::try_from(unread).unwrap_or(0))
            }
            _ => Ok(0),
        }
    }

    fn assign(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (&partition, cursor) in &self.cursors {
            if !self.is_done_with(cursor) {
                list.add_partition_offset(&self.topic, partition, Offset::Offset(cursor.next))?;
            }
        }
        self.consumer.assign(&list)
    }

    /// Whether no more is read of a partition.
    fn is_done_with(&self, cursor: &Cursor) -> bool {
        cursor.at_end && self.from != ReadFrom::Start
    }

    /// Reads what is there, for a while at most.
    fn read(&mut self, mut tell: impl FnMut(News)) -> KafkaResult<()> {
        if self
            .cursors
            .values()
            .all(|cursor| self.is_done_with(cursor))
        {
            return Ok(());
        }
        let until = Instant::now() + READING;
        let mut ended = false;
        while Instant::now() < until {
            match self.consumer.poll(QUIET) {
                None => break,
                Some(Ok(message)) => {
                    let record = raw(&message);
                    if let Some(cursor) = self.cursors.get_mut(&record.position.partition) {
                        cursor.next = record.position.offset + 1;
                        cursor.at_end = false;
                        tell(News::Record(record));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(cursor) = self.cursors.get_mut(&partition) {
                        cursor.at_end = true;
                        ended = true;
                        tell(News::CaughtUp(partition));
                    }
                }
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {}
                Some(Err(error)) => return Err(error),
            }
        }
        match ended && self.from != ReadFrom::Start {
            true => self.assign(),
            false => Ok(()),
        }
    }
}
