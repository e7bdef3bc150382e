//! One membership in the consumer group, from `init_transactions` to the end of whatever ends it.
//!
//! The loop of the kafka thread: serve the group, take what finished, start what may start, commit when it is due.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::FutureExt;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Finished, Position, Stage,
    error::{RuntimeError, refusal},
    ffi::{self, GroupMember},
    lane::{Lane, Next, Work},
    progress::CommitPoint,
    rebalance::{self, GroupChange, GroupContext},
    restore::{self, RestoreError, Start, now_ms},
    runtime::Shared,
    settings,
    status::PartitionStatus,
    store::{Change, LogIdentity, StoreError},
    transaction::{Committed, TransactionError, TransactionalProducer},
};
use crate::faults::{self, Fault};

/// Why a session ended.
#[derive(Debug)]
pub enum Stop {
    /// In order: everything finished is committed.
    Drained,
    /// Another producer has our transactional id, or the broker timed our transaction out.
    Fenced(String),
    StartOver(String),
    Fatal(RuntimeError),
}

impl Stop {
    /// What to tell an operator while the next session begins.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Drained => None,
            Self::Fenced(cause) | Self::StartOver(cause) => Some(cause.clone()),
            Self::Fatal(error) => Some(error.to_string()),
        }
    }
}

/// The longest the loop sleeps when nothing happens: how often the main queue is polled.
const TICK: Duration = Duration::from_millis(50);

/// A batch is committed when no other work has finished for so long, even before it is full or old.
const QUIET: Duration = Duration::from_millis(10);

/// Pause after an aborted transaction before its outcomes are committed again.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// Aborts in a row after which a session is given up: a rebalance in progress explains a few.
const MAX_ABORTS: u32 = 100;

/// How often an idle partition's moved position is committed, and Kafka is asked again whether it is back.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Records taken from one partition before the next has its turn.
const TURN: usize = 16;

/// What wakes the kafka thread.
enum Wake<S: Stage> {
    /// A queue that was empty has records, or somebody wants the loop to go round.
    Up,
    Finished(Done<S>),
    Restored {
        partition: i32,
        epoch: u64,
        result: Result<Start, RestoreError>,
    },
    Panicked(String),
    StoreFailed {
        partition: i32,
        error: StoreError,
    },
}

/// Wakes the kafka thread, once until it has gone round.
struct Waker<S: Stage> {
    sender: mpsc::Sender<Wake<S>>,
    pending: Arc<AtomicBool>,
}

impl<S: Stage> Clone for Waker<S> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            pending: Arc::clone(&self.pending),
        }
    }
}

impl<S: Stage> Waker<S> {
    fn up(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.send(Wake::Up);
        }
    }

    /// A send fails only when the session is gone, and then nobody wants to know.
    fn send(&self, wake: Wake<S>) {
        let _ = self.sender.send(wake);
    }
}

/// The outcome of an event, not yet committed.
struct Done<S: Stage> {
    position: Position,
    epoch: u64,
    finished: Finished,
    /// What was worked on, and by which state; none for a record that was answered unread.
    work: Option<Worked<S>>,
    /// It has been cut down to the least already.
    minimal: bool,
}

struct Worked<S: Stage> {
    work: Work<S::Event>,
    state: Option<Arc<S::State>>,
}

/// A partition assigned to us.
struct Owned<S: Stage> {
    /// Numbers assignments: what belongs to an earlier one is dropped.
    epoch: u64,
    cancel: CancellationToken,
    phase: Phase<S>,
}

enum Phase<S: Stage> {
    Restoring,
    Running(Box<Lane<S>>),
    /// Not restored, for a reason that only people can mend.
    Halted,
}

/// Finished outcomes on their way into a transaction.
struct Batch<S: Stage> {
    outcomes: Vec<Done<S>>,
    bytes: usize,
    oldest: Option<Instant>,
    newest: Instant,
    /// Not before this time, after an abort.
    not_before: Option<Instant>,
    /// Outcomes to commit one by one, after a batch was refused because one of its records is too large.
    one_by_one: usize,
    /// Aborted transactions since the last commit.
    aborts: u32,
}

impl<S: Stage> Default for Batch<S> {
    fn default() -> Self {
        Self {
            outcomes: Vec::new(),
            bytes: 0,
            oldest: None,
            newest: Instant::now(),
            not_before: None,
            one_by_one: 0,
            aborts: 0,
        }
    }
}

impl<S: Stage> Batch<S> {
    fn push(&mut self, done: Done<S>) {
        self.newest = Instant::now();
        self.oldest.get_or_insert(self.newest);
        self.bytes += done.finished.size();
        self.outcomes.push(done);
    }

    fn take(&mut self, max_records: usize) -> Vec<Done<S>> {
        let limit = if self.one_by_one > 0 { 1 } else { max_records };
        let rest = self.outcomes.split_off(self.outcomes.len().min(limit));
        let taken = std::mem::replace(&mut self.outcomes, rest);
        self.recount();
        taken
    }

    fn put_back(&mut self, outcomes: Vec<Done<S>>) {
        let later = std::mem::replace(&mut self.outcomes, outcomes);
        self.outcomes.extend(later);
        self.recount();
    }

    fn recount(&mut self) {
        self.bytes = self.outcomes.iter().map(|done| done.finished.size()).sum();
        self.oldest = (!self.outcomes.is_empty()).then(|| self.oldest.unwrap_or_else(Instant::now));
    }
}

pub struct Session<S: Stage> {
    shared: Arc<Shared<S>>,
    input_topic: Arc<str>,
    partition_count: i32,
    log: LogIdentity,
    consumer: Arc<BaseConsumer<GroupContext>>,
    producer: TransactionalProducer,
    restore: Option<(mpsc::Sender<restore::Job>, JoinHandle<()>)>,
    wakes: mpsc::Receiver<Wake<S>>,
    waker: Waker<S>,
    owned: BTreeMap<i32, Owned<S>>,
    epochs: u64,
    batch: Batch<S>,
    turn: i32,
    housekeeping: Instant,
    troubled: bool,
    drain_until: Option<Instant>,
}

impl<S: Stage> Session<S> {
    /// Fences predecessors, learns what log this is, and subscribes.
    pub fn begin(shared: &Arc<Shared<S>>) -> Result<Self, Stop> {
        shared.status.polled();
        shared.status.count(|counters| counters.sessions += 1);
        let timeout = settings::call_timeout(&shared.kafka);
        let changelog: Arc<str> = shared.settings.changelog_topic.as_str().into();
        let producer_settings =
            settings::transactional_producer(&shared.kafka, &shared.transactional_id);
        let producer = TransactionalProducer::init(&producer_settings, changelog, timeout)
            .map_err(|error| kafka_stop("take the transactional id over", &error))?;
        shared.status.polled();
        let consumer: BaseConsumer<GroupContext> =
            settings::group_consumer(&shared.kafka, &shared.group)
                .create_with_context(GroupContext::default())
                .map_err(|error| Stop::Fatal(RuntimeError::Client(error)))?;
        let (partition_count, log) = identify(shared, &consumer, timeout)?;
        shared.status.polled();
        let restore = restore::spawn(Arc::clone(shared), log.clone())
            .map_err(|error| Stop::Fatal(RuntimeError::Thread(error)))?;
        consumer
            .subscribe(&[&shared.settings.input_topic])
            .map_err(|error| kafka_stop("subscribe", &error))?;
        let (sender, wakes) = mpsc::channel();
        Ok(Self {
            input_topic: shared.settings.input_topic.as_str().into(),
            shared: Arc::clone(shared),
            partition_count,
            log,
            consumer: Arc::new(consumer),
            producer,
            restore: Some(restore),
            wakes,
            waker: Waker {
                sender,
                pending: Arc::default(),
            },
            owned: BTreeMap::new(),
            epochs: 0,
            batch: Batch::default(),
            turn: 0,
            housekeeping: Instant::now(),
            troubled: false,
            drain_until: None,
        })
    }

    /// Goes round until something ends it.
    pub fn run(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.round() {
                return stop;
            }
        }
    }

    fn round(&mut self) -> Result<(), Stop> {
        self.shared.status.polled();
        self.serve_group()?;
        self.receive()?;
        self.dispatch()?;
        if self.commit_is_due() {
            self.commit()?;
        }
        self.drain()
    }

    // --- the group ---

    fn serve_group(&mut self) -> Result<(), Stop> {
        match self.consumer.poll(Duration::ZERO) {
            None => {}
            Some(Ok(record)) => {
                use rdkafka::Message;
                // Every partition's queue is split off before it is assigned, so no record can come this way.
                return Err(Stop::StartOver(format!(
                    "a record of partition {} came by the main queue",
                    record.partition()
                )));
            }
            Some(Err(error)) => self.group_error(&error)?,
        }
        for change in self.consumer.context().take_changes() {
            debug!(?change, "group");
            match change {
                GroupChange::Assigned(partitions) => self.assigned(&partitions)?,
                GroupChange::Revoked(partitions) => self.revoked(&partitions)?,
                GroupChange::Lost(partitions) => self.lost(&partitions)?,
                GroupChange::Failed(why) => {
                    return Err(Stop::StartOver(format!("rebalance: {why}")));
                }
            }
        }
        Ok(())
    }

    fn group_error(&mut self, error: &KafkaError) -> Result<(), Stop> {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(Stop::StartOver(format!("consumer: {error}")));
        }
        if let Some(why) = error.rdkafka_error_code().and_then(refusal) {
            return Err(Stop::Fatal(RuntimeError::Refused(why.into())));
        }
        if !self.troubled {
            warn!(%error, "kafka");
        }
        self.troubled = true;
        self.shared.status.trouble(format!("Kafka: {error}"));
        Ok(())
    }

    /// Ours from now on. Nothing is fetched of them before they are restored.
    fn assigned(&mut self, partitions: &[i32]) -> Result<(), Stop> {
        info!(?partitions, "partitions assigned");
        for &partition in partitions {
            self.epochs += 1;
            let (epoch, cancel) = (self.epochs, CancellationToken::new());
            let waker = self.waker.clone();
            let answer = move |result| {
                waker.send(Wake::Restored {
                    partition,
                    epoch,
                    result,
                })
            };
            let job = restore::Job {
                partition,
                cancel: cancel.clone(),
                answer: Box::new(answer),
            };
            self.owned.insert(
                partition,
                Owned {
                    epoch,
                    cancel,
                    phase: Phase::Restoring,
                },
            );
            self.shared
                .status
                .set_partition(partition, Some(PartitionStatus::Restoring));
            if let Some((jobs, _)) = &self.restore {
                jobs.send(job)
                    .map_err(|_| Stop::StartOver("the restore thread has ended".into()))?;
            }
        }
        self.shared.status.joined_group();
        self.shared
            .status
            .count(|counters| counters.rebalances += 1);
        // The group protocol goes on once it has an answer; partitions are assigned one by one, as they are restored.
        self.group_call(
            "answer an assignment",
            self.consumer.incremental_assign(&TopicPartitionList::new()),
        )
    }

    /// To be given back, and nobody's until we answer: what is finished is committed first. Work in flight is left to
    /// the next owner; waiting for it would hold up the whole group.
    fn revoked(&mut self, partitions: &[i32]) -> Result<(), Stop> {
        info!(?partitions, "partitions revoked");
        self.receive_all()?;
        self.batch.not_before = None;
        if !self.batch.outcomes.is_empty() {
            self.commit()?;
        }
        self.give_up(partitions)
    }

    /// Somebody else's already: nothing of them may be committed.
    fn lost(&mut self, partitions: &[i32]) -> Result<(), Stop> {
        warn!(?partitions, "partitions lost");
        self.give_up(partitions)
    }

    fn give_up(&mut self, partitions: &[i32]) -> Result<(), Stop> {
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            if let Some(owned) = self.owned.remove(partition) {
                owned.cancel.cancel();
                if matches!(owned.phase, Phase::Running(_)) {
                    assigned.add_partition(&self.input_topic, *partition);
                }
            }
            self.shared.status.set_partition(*partition, None);
        }
        self.batch
            .outcomes
            .retain(|done| !partitions.contains(&done.position.partition));
        self.batch.recount();
        self.shared
            .status
            .count(|counters| counters.rebalances += 1);
        self.group_call(
            "answer a revocation",
            self.consumer.incremental_unassign(&assigned),
        )
    }

    fn group_call(&self, what: &str, result: KafkaResult<()>) -> Result<(), Stop> {
        result.map_err(|error| Stop::StartOver(format!("{what}: {error}")))
    }

    // --- what happened since the last round ---

    fn receive(&mut self) -> Result<(), Stop> {
        match self.wakes.recv_timeout(self.patience()) {
            Ok(wake) => self.woken(wake)?,
            Err(_) => return Ok(()),
        }
        self.receive_all()
    }

    fn receive_all(&mut self) -> Result<(), Stop> {
        while let Ok(wake) = self.wakes.try_recv() {
            self.woken(wake)?;
        }
        Ok(())
    }

    /// How long to sleep: until the batch is due, a tick at most.
    fn patience(&self) -> Duration {
        let Some(oldest) = self.batch.oldest else {
            return TICK;
        };
        let interval = Duration::from_millis(self.shared.kafka.commit.interval_ms);
        let due = (oldest + interval).min(self.batch.newest + QUIET);
        let due = self
            .batch
            .not_before
            .map_or(due, |not_before| due.max(not_before));
        due.saturating_duration_since(Instant::now()).min(TICK)
    }

    fn woken(&mut self, wake: Wake<S>) -> Result<(), Stop> {
        match wake {
            Wake::Up => self.waker.pending.store(false, Ordering::Release),
            Wake::Finished(done) => self.finished(done),
            Wake::Restored {
                partition,
                epoch,
                result,
            } => self.restored(partition, epoch, result)?,
            Wake::Panicked(what) => return Err(Stop::Fatal(RuntimeError::Panicked(what))),
            Wake::StoreFailed { partition, error } => {
                return Err(self.store_failed(partition, &error));
            }
        }
        Ok(())
    }

    fn finished(&mut self, done: Done<S>) {
        let Some(lane) = self.lane(done.position.partition, done.epoch) else {
            return;
        };
        if let Some(worked) = &done.work {
            lane.work_ended(worked.work.weight);
        }
        self.batch.push(done);
    }

    /// The running lane of an assignment that still stands.
    fn lane(&mut self, partition: i32, epoch: u64) -> Option<&mut Lane<S>> {
        match self.owned.get_mut(&partition) {
            Some(Owned {
                epoch: current,
                phase: Phase::Running(lane),
                ..
            }) if *current == epoch => Some(lane),
            _ => None,
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane<S>> {
        self.owned.values().filter_map(|owned| match &owned.phase {
            Phase::Running(lane) => Some(&**lane),
            _ => None,
        })
    }

    fn restored(
        &mut self,
        partition: i32,
        epoch: u64,
        result: Result<Start, RestoreError>,
    ) -> Result<(), Stop> {
        if self
            .owned
            .get(&partition)
            .is_none_or(|owned| owned.epoch != epoch)
        {
            return Ok(());
        }
        match result {
            Ok(start) => self.start_partition(partition, start),
            Err(RestoreError::Cancelled) => Ok(()),
            Err(error @ (RestoreError::Hole(_) | RestoreError::Unreadable { .. })) => {
                error!(partition, %error, "partition stopped");
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.phase = Phase::Halted;
                }
                self.shared
                    .status
                    .set_partition(partition, Some(PartitionStatus::Halted(error.to_string())));
                Ok(())
            }
            Err(RestoreError::Store(error)) => Err(self.store_failed(partition, &error)),
            Err(error) => Err(Stop::StartOver(format!(
                "restore partition {partition}: {error}"
            ))),
        }
    }

    /// Starts fetching at an explicit position, into a queue of its own: the main queue then carries only group events,
    /// so that a partition without room holds up neither the others nor our membership.
    fn start_partition(&mut self, partition: i32, start: Start) -> Result<(), Stop> {
        let topic = Arc::clone(&self.input_topic);
        // Split before the assignment, or the first records could slip into the main queue.
        let mut queue = self
            .consumer
            .split_partition_queue(&topic, partition)
            .ok_or_else(|| Stop::StartOver(format!("partition {partition} has no queue")))?;
        let waker = self.waker.clone();
        queue.set_nonempty_callback(move || waker.up());
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(start.offset))
            .map_err(|error| Stop::StartOver(format!("start partition {partition}: {error}")))?;
        self.group_call("start a partition", self.consumer.incremental_assign(&list))?;
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.phase = Phase::Running(Box::new(Lane::new(partition, queue, start)));
        }
        self.shared
            .status
            .set_partition(partition, Some(PartitionStatus::Running));
        Ok(())
    }

    /// The local copy is only a copy: forget it and read it again.
    fn store_failed(&self, partition: i32, error: &StoreError) -> Stop {
        match self.shared.store.wipe(partition) {
            Ok(()) => Stop::StartOver(format!("local state of partition {partition}: {error}")),
            Err(worse) => Stop::Fatal(RuntimeError::Store(worse)),
        }
    }

    // --- work ---

    fn dispatch(&mut self) -> Result<(), Stop> {
        if self.drain_until.is_some() {
            return Ok(());
        }
        let partitions: Vec<i32> = self.owned.keys().copied().collect();
        let turn = partitions
            .iter()
            .position(|partition| *partition > self.turn)
            .unwrap_or(0);
        let mut room = self.room();
        loop {
            let mut moved = false;
            for &partition in partitions[turn..].iter().chain(&partitions[..turn]) {
                for _ in 0..TURN {
                    if !room.left() {
                        self.turn = partition;
                        return Ok(());
                    }
                    if !self.step(partition, &mut room)? {
                        break;
                    }
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn room(&self) -> Room {
        let limits = &self.shared.settings;
        let (count, bytes) = self.lanes().fold((0, 0), |(count, bytes), lane| {
            (count + lane.in_flight, bytes + lane.in_flight_bytes)
        });
        self.shared.status.count(|counters| {
            counters.in_flight = count as u64;
            counters.in_flight_bytes = bytes;
        });
        Room {
            count,
            bytes,
            max_count: limits.max_in_flight,
            max_bytes: limits.max_in_flight_bytes,
        }
    }

    /// One event started, or one record taken, of this partition; false when there is none.
    fn step(&mut self, partition: i32, room: &mut Room) -> Result<bool, Stop> {
        let shared = Arc::clone(&self.shared);
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(false);
        };
        let (epoch, cancel) = (owned.epoch, owned.cancel.clone());
        let Phase::Running(lane) = &mut owned.phase else {
            return Ok(false);
        };
        if let Some(work) = lane.next_ready() {
            room.taken(work.weight);
            self.start(work, epoch, cancel);
            return Ok(true);
        }
        let was_stalled = lane.is_stalled();
        match lane.take(&shared.stage, &self.input_topic, self.partition_count) {
            Next::Nothing => return Ok(false),
            Next::Taken if was_stalled => {
                shared
                    .status
                    .set_partition(partition, Some(PartitionStatus::Running));
            }
            Next::Taken => {}
            Next::Answered { offset, finished } => {
                let position = Position { partition, offset };
                self.batch.push(Done {
                    position,
                    epoch,
                    finished,
                    work: None,
                    minimal: true,
                });
            }
            Next::Halt(why) => {
                if !was_stalled {
                    error!(partition, why, "partition stopped");
                }
                if !lane.is_stalled() {
                    lane.halted = Some(why.clone());
                }
                shared
                    .status
                    .set_partition(partition, Some(PartitionStatus::Halted(why)));
                return Ok(false);
            }
            Next::Broken(error) => return Err(kafka_stop("read a partition", &error)),
        }
        Ok(true)
    }

    /// Runs the stage's work for one event on the async runtime.
    fn start(&self, work: Work<S::Event>, epoch: u64, cancel: CancellationToken) {
        let (shared, waker) = (Arc::clone(&self.shared), self.waker.clone());
        let position = work.position;
        let task = async move {
            let state = match state_of(&shared, &work) {
                Ok(state) => state.map(Arc::new),
                Err(error) => {
                    return Wake::StoreFailed {
                        partition: position.partition,
                        error,
                    };
                }
            };
            let finished = Arc::clone(&shared.stage)
                .process(Arc::clone(&work.event), position, state.clone())
                .await;
            Wake::Finished(Done {
                position,
                epoch,
                finished,
                work: Some(Worked { work, state }),
                minimal: false,
            })
        };
        let guarded = AssertUnwindSafe(task).catch_unwind();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                result = guarded => waker.send(result.unwrap_or_else(|panic| Wake::Panicked(panic_text(&*panic)))),
            }
        });
    }

    // --- commits ---

    /// At once when nothing else is about to finish; otherwise when the batch is full or old.
    fn commit_is_due(&self) -> bool {
        let now = Instant::now();
        if self
            .batch
            .not_before
            .is_some_and(|not_before| now < not_before)
        {
            return false;
        }
        let Some(oldest) = self.batch.oldest else {
            return self.housekeeping_is_due(now);
        };
        let limits = &self.shared.kafka.commit;
        let idle = self
            .lanes()
            .all(|lane| lane.in_flight == 0 && !lane.has_ready());
        idle || now >= self.batch.newest + QUIET
            || now >= oldest + Duration::from_millis(limits.interval_ms)
            || self.batch.outcomes.len() >= limits.max_records
            || self.batch.bytes >= limits.max_bytes
    }

    /// Now and then an idle partition's position has passed markers, which nothing else would commit.
    fn housekeeping_is_due(&self, now: Instant) -> bool {
        now >= self.housekeeping + HOUSEKEEPING
    }

    /// Commits finished outcomes and their offsets in one transaction. Without finished outcomes, the positions of idle
    /// partitions that moved; without those either, nothing.
    fn commit(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if self.housekeeping_is_due(now) {
            self.housekeeping = now;
            self.ask_whether_kafka_is_back();
        }
        let outcomes = self.batch.take(self.shared.kafka.commit.max_records);
        let points = self.commit_points(&outcomes);
        if points.is_empty() {
            return Ok(());
        }
        let committed = match self.transact(&outcomes, &points) {
            Ok(committed) => committed,
            Err(error) => return self.not_committed(outcomes, error),
        };
        faults::crash_at(Fault::CrashAfterCommit);
        self.committed(outcomes, &points, &committed)?;
        match committed.was_slow {
            // Its late answer could hit the next transaction: see exactly-once notes on KIP-890.
            true => Err(Stop::StartOver(
                "a transaction took too long to use its producer again".into(),
            )),
            false => Ok(()),
        }
    }

    /// Where each partition stands that the outcomes belong to, or that moved while idle.
    fn commit_points(&mut self, outcomes: &[Done<S>]) -> Vec<(i32, CommitPoint)> {
        let positions = self.positions();
        let mut touched: HashMap<i32, bool> = HashMap::new();
        for done in outcomes {
            touched.insert(done.position.partition, true);
            if let Some(lane) = self.lane(done.position.partition, done.epoch) {
                lane.progress.finish(done.position.offset);
            }
        }
        let mut points = Vec::new();
        for (&partition, owned) in &mut self.owned {
            let Phase::Running(lane) = &mut owned.phase else {
                continue;
            };
            let position = positions.get(&partition).copied().unwrap_or(0);
            let point = lane.progress.commit_point(position);
            let moved_while_idle = outcomes.is_empty() && point.offset > lane.committed;
            if touched.contains_key(&partition) || moved_while_idle {
                points.push((partition, point));
            }
        }
        points
    }

    /// The consumer's positions, which pass transaction markers and aborted records.
    fn positions(&self) -> HashMap<i32, i64> {
        let Ok(positions) = self.consumer.position() else {
            return HashMap::new();
        };
        let known = positions
            .elements()
            .into_iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            });
        known.collect()
    }

    /// One transaction: records, flush, offsets, commit.
    fn transact(
        &self,
        outcomes: &[Done<S>],
        points: &[(i32, CommitPoint)],
    ) -> Result<Committed, TransactionError> {
        if faults::planted(Fault::OffsetsBeforeRecords) {
            self.plant_offsets_before_records(points)?;
        }
        let mut transaction = self.producer.begin()?;
        for (number, done) in outcomes.iter().enumerate() {
            for record in &done.finished.records {
                let partition = record.partition.unwrap_or(done.position.partition);
                transaction = transaction.send(record, partition, number)?;
            }
        }
        faults::crash_at(Fault::CrashAfterSend);
        let flushed = transaction.flush()?;
        faults::crash_at(Fault::CrashAfterFlush);
        // Read afresh for every transaction, on the thread that serves the group: a cached membership is no fence.
        let before = GroupMember::of(&self.consumer);
        let metadata = self.consumer.group_metadata();
        let after = GroupMember::of(&self.consumer);
        let (Some(member), Some(metadata)) = (after, metadata) else {
            return Err(flushed.abort());
        };
        if before.as_ref() != Some(&member)
            || !member.is_fenced_by_the_broker()
            || self.consumer.assignment_lost()
        {
            return Err(flushed.abort());
        }
        let complete = flushed.offsets(&self.offsets(points), &metadata)?;
        faults::crash_at(Fault::CrashAfterOffsets);
        complete.commit()
    }

    fn offsets(&self, points: &[(i32, CommitPoint)]) -> TopicPartitionList {
        let mut offsets = TopicPartitionList::new();
        for (partition, point) in points {
            let mut element = offsets.add_partition(&self.input_topic, *partition);
            element.set_metadata(&point.metadata);
            // An offset that was read can be set.
            let _ = element.set_offset(Offset::Offset(point.offset));
        }
        offsets
    }

    /// A planted fault, for the negative control of the proof: the offsets are committed ahead of what they answer.
    fn plant_offsets_before_records(
        &self,
        points: &[(i32, CommitPoint)],
    ) -> Result<(), TransactionError> {
        let Some(metadata) = self.consumer.group_metadata() else {
            return Ok(());
        };
        let complete = self
            .producer
            .begin()?
            .flush()?
            .offsets(&self.offsets(points), &metadata)?;
        complete.commit().map(drop)?;
        faults::crash_at(Fault::CrashAfterOffsets);
        Ok(())
    }

    /// Only now, after the commit: local state, released keys, counters.
    fn committed(
        &mut self,
        outcomes: Vec<Done<S>>,
        points: &[(i32, CommitPoint)],
        committed: &Committed,
    ) -> Result<(), Stop> {
        self.batch.one_by_one = self.batch.one_by_one.saturating_sub(outcomes.len());
        self.batch.aborts = 0;
        self.batch.not_before = None;
        self.apply(&outcomes, committed)?;
        for (partition, point) in points {
            if let Some(Owned {
                phase: Phase::Running(lane),
                ..
            }) = self.owned.get_mut(partition)
            {
                lane.committed = point.offset;
            }
        }
        for done in &outcomes {
            if let (Some(worked), Some(lane)) =
                (&done.work, self.lane(done.position.partition, done.epoch))
            {
                lane.release(&worked.work.key);
            }
        }
        self.shared.status.count(|counters| {
            counters.commits += 1;
            counters.events_finished += outcomes.len() as u64;
            counters.commit_time += committed.took;
        });
        if self.troubled {
            self.troubled = false;
            self.shared.status.recovered();
        }
        Ok(())
    }

    /// Folds what was committed into the local state, by the code that restores it, with the position it reflects.
    fn apply(&self, outcomes: &[Done<S>], committed: &Committed) -> Result<(), Stop> {
        let shared = &self.shared;
        let mut changes: HashMap<i32, Vec<Change<'_>>> = HashMap::new();
        for done in outcomes {
            let changelog = |topic: &str| topic == shared.settings.changelog_topic;
            for record in done
                .finished
                .records
                .iter()
                .filter(|record| changelog(&record.topic))
            {
                let state = shared
                    .stage
                    .fold(record.value.as_deref())
                    .map_err(|reason| {
                        Stop::Fatal(RuntimeError::Panicked(format!(
                            "a state of our own can't be read: {reason}"
                        )))
                    })?;
                let key = record.key.as_deref().unwrap_or_default();
                changes
                    .entry(done.position.partition)
                    .or_default()
                    .push((key, state));
            }
        }
        for (partition, changes) in changes {
            let Some(next_offset) = committed.changelog_ends.get(&partition) else {
                continue;
            };
            shared
                .store
                .apply(partition, &self.log, changes, *next_offset, now_ms())
                .map_err(|error| self.store_failed(partition, &error))?;
        }
        Ok(())
    }

    /// After an abort the finished work is kept and committed again; anything else ends the session.
    fn not_committed(
        &mut self,
        mut outcomes: Vec<Done<S>>,
        error: TransactionError,
    ) -> Result<(), Stop> {
        self.shared.status.count(|counters| counters.aborts += 1);
        match error {
            TransactionError::Fenced(cause) => return Err(Stop::Fenced(cause.to_string())),
            TransactionError::Unknown(cause) => return Err(kafka_stop("commit", &cause)),
            TransactionError::Aborted(cause) => {
                info!(%cause, outcomes = outcomes.len(), "transaction aborted; committing again");
                self.batch.not_before = Some(Instant::now() + ABORT_PAUSE);
                self.batch.aborts += 1;
                if self.batch.aborts > MAX_ABORTS {
                    return Err(kafka_stop("commit, again and again", &cause));
                }
            }
            TransactionError::TooLarge { refusal, .. } if outcomes.len() > 1 => {
                // Which of the records it was can't be told: the broker refuses whole produce batches.
                info!(
                    refusal,
                    outcomes = outcomes.len(),
                    "a record is too large; committing one by one"
                );
                self.batch.one_by_one = outcomes.len();
            }
            TransactionError::TooLarge { outcome, refusal } => {
                self.cut_down(&mut outcomes[outcome], &refusal)?
            }
        }
        self.batch.put_back(outcomes);
        Ok(())
    }

    fn cut_down(&self, done: &mut Done<S>, refusal: &str) -> Result<(), Stop> {
        let Some(Worked { work, state }) = done.work.as_ref().filter(|_| !done.minimal) else {
            let offset = done.position.offset;
            let what = format!(
                "even the least answer to offset {offset} is refused as too large: {refusal}; raise max.message.bytes of feedmill's topics"
            );
            return Err(Stop::Fatal(RuntimeError::Refused(what)));
        };
        warn!(
            offset = done.position.offset,
            refusal, "an outcome is too large; cutting it down"
        );
        done.finished =
            self.shared
                .stage
                .too_large(&work.event, work.position, state.clone(), refusal);
        done.minimal = true;
        Ok(())
    }

    fn ask_whether_kafka_is_back(&mut self) {
        if !self.troubled {
            return;
        }
        let answer = self
            .consumer
            .fetch_metadata(Some(&self.input_topic), Duration::from_secs(1));
        if answer.is_ok() {
            info!("kafka is back");
            self.troubled = false;
            self.shared.status.recovered();
        }
    }

    // --- the end ---

    /// After a shutdown was asked for: no more dispatch; the end when all work in flight is finished and committed, or
    /// when time is up.
    fn drain(&mut self) -> Result<(), Stop> {
        if !self.shared.shutdown.is_cancelled() {
            return Ok(());
        }
        let deadline = *self.drain_until.get_or_insert_with(|| {
            info!("draining");
            Instant::now() + self.shared.drain
        });
        let in_flight: usize = self.lanes().map(|lane| lane.in_flight).sum();
        let done = in_flight == 0 && self.batch.outcomes.is_empty();
        if Instant::now() < deadline && !done {
            return Ok(());
        }
        self.batch.not_before = None;
        while !self.batch.outcomes.is_empty() {
            let before = self.batch.outcomes.len();
            self.commit()?;
            if self.batch.outcomes.len() >= before {
                break;
            }
        }
        if in_flight > 0 {
            warn!(
                in_flight,
                "time is up; unfinished work is left to the next owner"
            );
        }
        Err(Stop::Drained)
    }
}

impl<S: Stage> Drop for Session<S> {
    /// In this order: work is cancelled; queues go before the consumer they point into, or it would never leave the group;
    /// the restore thread ends; the consumer leaves; the producer goes last.
    fn drop(&mut self) {
        for owned in self.owned.values() {
            owned.cancel.cancel();
        }
        self.owned.clear();
        if let Some((jobs, thread)) = self.restore.take() {
            drop(jobs);
            if thread.join().is_err() {
                error!("the restore thread panicked");
            }
        }
        self.shared.status.polled();
        self.consumer.context().close();
        rebalance::answer_all(&self.consumer);
    }
}

/// What fits into the worker beside what it is working on.
struct Room {
    count: usize,
    bytes: u64,
    max_count: usize,
    max_bytes: u64,
}

impl Room {
    /// One event is always let through, however heavy.
    fn left(&self) -> bool {
        self.count == 0 || (self.count < self.max_count && self.bytes < self.max_bytes)
    }

    fn taken(&mut self, weight: u64) {
        self.count += 1;
        self.bytes += weight;
    }
}

/// Learns the partition count and which log this is.
fn identify<S: Stage>(
    shared: &Shared<S>,
    consumer: &BaseConsumer<GroupContext>,
    timeout: Duration,
) -> Result<(i32, LogIdentity), Stop> {
    let topics = [
        shared.settings.input_topic.as_str(),
        shared.settings.changelog_topic.as_str(),
    ];
    let ids = ffi::topic_ids(consumer.client(), &topics, timeout)
        .map_err(|error| kafka_stop("describe the topics", &error))?;
    let metadata = consumer
        .fetch_metadata(Some(topics[0]), timeout)
        .map_err(|error| kafka_stop("ask for the topics", &error))?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let partitions = i32::try_from(partitions).unwrap_or(0);
    if partitions == 0 {
        return Err(Stop::StartOver(format!("{} has no partitions", topics[0])));
    }
    let cluster_id = consumer
        .client()
        .fetch_cluster_id(timeout)
        .ok_or_else(|| Stop::StartOver("Kafka does not say its cluster id".into()))?;
    Ok((
        partitions,
        LogIdentity {
            cluster_id,
            topic_id: ids[1].clone(),
        },
    ))
}

fn kafka_stop(what: &str, error: &KafkaError) -> Stop {
    if super::error::classify(error) == super::error::Verdict::Fenced {
        return Stop::Fenced(error.to_string());
    }
    match error.rdkafka_error_code().and_then(refusal) {
        Some(why) => Stop::Fatal(RuntimeError::Refused(why.into())),
        None => Stop::StartOver(format!("{what}: {error}")),
    }
}

/// What is settled for the key of an event. It was committed before the event could start, so the store knows it.
fn state_of<S: Stage>(
    shared: &Shared<S>,
    work: &Work<S::Event>,
) -> Result<Option<S::State>, StoreError> {
    let bytes = shared.store.get(work.position.partition, &work.key)?;
    let state = bytes
        .map(|bytes| shared.stage.read_state(&work.event, &bytes))
        .transpose();
    state.map_err(StoreError::Damaged)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
