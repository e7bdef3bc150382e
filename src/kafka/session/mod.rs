//! One membership in the consumer group, from `init_transactions` to the end of whatever ends it.
//!
//! The loop of the kafka thread: serve the [`group`], take what finished, start what may start ([`work`]), [`commit`] when
//! it is due.

mod batch;
mod commit;
mod group;
mod wake;
mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    batch::{Batch, Done, Worked},
    commit::QUIET,
    wake::{Wake, Waker},
};
use super::{
    Stage,
    error::{RuntimeError, refusal},
    ffi,
    lane::{Home, Lane},
    rebalance::{self, GroupContext},
    restore, settings,
    shared::Shared,
    slot::Slots,
    store::LogIdentity,
    transaction::TransactionalProducer,
};

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

pub struct Session<S: Stage> {
    shared: Arc<Shared<S>>,
    input_topic: Arc<str>,
    /// None when records are read where they lie.
    home: Option<Home>,
    log: LogIdentity,
    consumer: Arc<BaseConsumer<GroupContext>>,
    producer: TransactionalProducer,
    restore: Option<(mpsc::Sender<restore::Job>, JoinHandle<()>)>,
    wakes: mpsc::Receiver<Wake<S>>,
    waker: Waker<S>,
    owned: BTreeMap<i32, Owned<S>>,
    epochs: u64,
    batch: Batch<S>,
    slots: Slots,
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
        let changelog = shared
            .state
            .as_ref()
            .map(|state| Arc::clone(&state.changelog_topic));
        let producer_settings =
            settings::transactional_producer(&shared.kafka, &shared.transactional_id);
        let producer = TransactionalProducer::init(&producer_settings, changelog, timeout)
            .map_err(|error| kafka_stop("take the transactional id over", &error))?;
        shared.status.polled();
        let consumer: BaseConsumer<GroupContext> = settings::create(
            &settings::group_consumer(&shared.kafka, &shared.group),
            GroupContext::default(),
        )
        .map_err(|error| Stop::Fatal(RuntimeError::Client(error)))?;
        let (partitions, log) = identify(shared, &consumer, timeout)?;
        if let Some(journal) = &shared.journal {
            journal.is_of(&log);
        }
        shared.status.polled();
        let restore = restore::spawn(Arc::clone(shared), log.clone())
            .map_err(|error| Stop::Fatal(RuntimeError::Thread(error)))?;
        consumer
            .subscribe(&[&shared.settings.input_topic])
            .map_err(|error| kafka_stop("subscribe", &error))?;
        let (sender, wakes) = mpsc::channel();
        let input_topic: Arc<str> = shared.settings.input_topic.as_str().into();
        Ok(Self {
            home: shared.settings.input.has_home().then(|| Home {
                topic: Arc::clone(&input_topic),
                partitions,
            }),
            input_topic,
            shared: Arc::clone(shared),
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
            slots: Slots::new(
                shared.settings.max_in_flight,
                shared.settings.max_in_flight_bytes,
            ),
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
        lane.started -= 1;
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

    /// After a shutdown was asked for: no more dispatch; the end when all work in flight is finished and committed, or
    /// when time is up.
    fn drain(&mut self) -> Result<(), Stop> {
        if !self.shared.shutdown.is_cancelled() {
            return Ok(());
        }
        let deadline = *self.drain_until.get_or_insert_with(|| {
            info!("draining");
            self.slots.close();
            Instant::now() + self.shared.drain
        });
        // In this order: an outcome is in the channel before its slot is free.
        let in_flight = self.slots.in_use();
        self.receive_all()?;
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
        rebalance::leave(&self.consumer);
    }
}

/// Learns the partition count and which log this is.
fn identify<S: Stage>(
    shared: &Shared<S>,
    consumer: &BaseConsumer<GroupContext>,
    timeout: Duration,
) -> Result<(i32, LogIdentity), Stop> {
    let input_topic = shared.settings.input_topic.as_str();
    // State is of the log that it was restored from.
    let state_of = match &shared.state {
        Some(state) => &state.changelog_topic,
        None => input_topic,
    };
    let ids = ffi::topic_ids(consumer.client(), &[state_of], timeout)
        .map_err(|error| kafka_stop("describe the topics", &error))?;
    let metadata = consumer
        .fetch_metadata(Some(input_topic), timeout)
        .map_err(|error| kafka_stop("ask for the topics", &error))?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let partitions = i32::try_from(partitions).unwrap_or(0);
    if partitions == 0 {
        return Err(Stop::StartOver(format!("{input_topic} has no partitions")));
    }
    let cluster_id = consumer
        .client()
        .fetch_cluster_id(timeout)
        .ok_or_else(|| Stop::StartOver("Kafka does not say its cluster id".into()))?;
    Ok((
        partitions,
        LogIdentity {
            cluster_id,
            topic_id: ids.concat(),
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
