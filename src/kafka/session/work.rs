//! Events to work: which may start now, within the worker's budget, and their running on the async runtime.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{Done, Owned, Phase, Session, Stop, Wake, Worked, kafka_stop};
use crate::kafka::{
    GivenUp, Position, Stage,
    error::panic_text,
    journal::MAX_CRASHES,
    lane::{self, Next, Work},
    shared::Shared,
    slot::Slot,
    status::PartitionStatus,
    store::StoreError,
};

/// A suspect waits so long for each crash before it is begun alone again.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

/// Records taken from one partition before the next has its turn.
const TURN: usize = 16;

impl<S: Stage> Session<S> {
    pub(super) fn dispatch(&mut self) -> Result<(), Stop> {
        if self.drain_until.is_some() {
            return Ok(());
        }
        let partitions: Vec<i32> = self.owned.keys().copied().collect();
        let room = lane::room(partitions.len());
        let mut moved = true;
        while moved {
            moved = false;
            for &partition in &partitions {
                for _ in 0..TURN {
                    if !self.step(partition, room)? {
                        break;
                    }
                    moved = true;
                }
            }
        }
        self.shared.status.count(|counters| {
            counters.in_flight = self.slots.in_use() as u64;
            counters.in_flight_limit = self.shared.settings.max_in_flight as u64;
            counters.in_flight_bytes = self.slots.bytes_in_use();
            counters.in_flight_bytes_limit = self.shared.settings.max_in_flight_bytes;
        });
        Ok(())
    }

    /// One event started, or one record taken, of this partition; false when there is none.
    fn step(&mut self, partition: i32, room: usize) -> Result<bool, Stop> {
        let shared = Arc::clone(&self.shared);
        let Some(Owned {
            epoch,
            cancel,
            phase: Phase::Running(lane),
        }) = self.owned.get_mut(&partition)
        else {
            return Ok(false);
        };
        let epoch = *epoch;
        if let Some(work) = lane.next_ready() {
            let cancel = cancel.clone();
            self.start(work, epoch, cancel);
            return Ok(true);
        }
        let next = lane.take(&shared.stage, self.home.as_ref(), room);
        let waited = lane.waits;
        lane.waits = matches!(next, Next::Waiting(_)) || (waited && matches!(next, Next::Nothing));
        if waited && !lane.waits {
            shared
                .status
                .set_partition(partition, Some(PartitionStatus::Running));
        }
        match next {
            Next::Nothing => return Ok(false),
            Next::Taken => {}
            Next::Answered { offset, finished } => {
                let position = Position { partition, offset };
                self.batch.push(Done {
                    position,
                    epoch,
                    finished,
                    work: None,
                    minimal: false,
                });
            }
            Next::Waiting(why) => {
                if !waited {
                    error!(partition, why, "partition waits");
                    shared
                        .status
                        .set_partition(partition, Some(PartitionStatus::Halted(why)));
                }
                return Ok(false);
            }
            Next::Halt(why) => {
                error!(partition, why, "partition stopped");
                lane.halted = true;
                shared
                    .status
                    .set_partition(partition, Some(PartitionStatus::Halted(why)));
                return Ok(false);
            }
            Next::Broken(error) => return Err(kafka_stop("read a partition", &error)),
        }
        Ok(true)
    }

    /// Runs the stage's work for one event on the async runtime, when a slot is free.
    fn start(&self, work: Work<S::Event>, epoch: u64, cancel: CancellationToken) {
        let (shared, waker, slots) = (
            Arc::clone(&self.shared),
            self.waker.clone(),
            self.slots.clone(),
        );
        self.shared.tasks.spawn(async move {
            let task = async {
                let suspicion = shared
                    .journal
                    .as_ref()
                    .and_then(|journal| journal.crashes(work.position));
                let mut slot = match suspicion {
                    None => slots.take(work.weight).await,
                    Some(crashes) => {
                        // Whoever was alone at a crash comes after those who were not yet: a worker that is killed from outside
                        // again and again meets another one each time.
                        tokio::time::sleep(SECOND_THOUGHTS * crashes).await;
                        slots.take_alone(work.weight).await
                    }
                };
                // Boxed, so that its state of many kilobytes is there only from now on, and not while it waited for the slot.
                let worked = Box::pin(process(&shared, work, epoch, suspicion, &mut slot));
                let wake = AssertUnwindSafe(worked).catch_unwind().await;
                waker.send(wake.unwrap_or_else(|panic| Wake::Panicked(panic_text(&*panic))));
                // Given back only now: whoever sees no slot in use finds every outcome in the channel.
                drop(slot);
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }
}

async fn process<S: Stage>(
    shared: &Shared<S>,
    work: Work<S::Event>,
    epoch: u64,
    suspicion: Option<u32>,
    slot: &mut Slot,
) -> Wake<S> {
    let position = work.position;
    let state = match catch_unwind(AssertUnwindSafe(|| state_of(shared, &work))) {
        Ok(Ok(state)) => state.map(Arc::new),
        Ok(Err(error)) => {
            return Wake::StoreFailed {
                partition: position.partition,
                error,
            };
        }
        // The store's library asserts on damaged files; the copy is made anew.
        Err(panic) => {
            let error = StoreError::Damaged(panic_text(&*panic));
            return Wake::StoreFailed {
                partition: position.partition,
                error,
            };
        }
    };
    let finished = match suspicion {
        Some(times) if times >= MAX_CRASHES => {
            let why = GivenUp::Crashed { times };
            shared
                .stage
                .give_up(&work.event, position, state.clone(), why)
        }
        _ => {
            let journal = shared.journal.as_ref();
            let under_way = journal.map(|journal| journal.begin(position, suspicion.is_some()));
            let stage = Arc::clone(&shared.stage);
            let finished = stage
                .process(Arc::clone(&work.event), position, state.clone(), slot)
                .await;
            if let Some(under_way) = under_way {
                under_way.ended();
            }
            finished
        }
    };
    Wake::Finished(Done {
        position,
        epoch,
        finished,
        work: Some(Worked { work, state }),
        minimal: false,
    })
}

/// What is settled for the key of an event. It was committed before the event could start, so the store knows it.
fn state_of<S: Stage>(
    shared: &Shared<S>,
    work: &Work<S::Event>,
) -> Result<Option<S::State>, StoreError> {
    let Some(state) = &shared.state else {
        return Ok(None);
    };
    let bytes = state.store.get(work.position.partition, &work.key)?;
    let state = bytes
        .map(|bytes| shared.stage.read_state(&work.event, &bytes))
        .transpose();
    state.map_err(StoreError::Damaged)
}
