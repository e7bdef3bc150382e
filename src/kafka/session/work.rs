//! Events to work: which may start now, within the worker's budget, and their running on the async runtime.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{Done, Phase, Session, Stop, Wake, Worked, kafka_stop};
use crate::kafka::{
    Position, Stage,
    lane::{Next, Work},
    shared::Shared,
    status::PartitionStatus,
    store::StoreError,
};

/// Records taken from one partition before the next has its turn.
const TURN: usize = 16;

impl<S: Stage> Session<S> {
    pub(super) fn dispatch(&mut self) -> Result<(), Stop> {
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
