//! What the group gives and takes: partitions assigned, revoked, lost; restored and started.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Owned, Phase, Session, Stop, Wake};
use crate::kafka::{
    Stage,
    error::{RuntimeError, refusal},
    lane::Lane,
    reader::ReadError,
    rebalance::GroupChange,
    restore::{self, RestoreError, Start},
    status::PartitionStatus,
    store::StoreError,
};

impl<S: Stage> Session<S> {
    pub(super) fn serve_group(&mut self) -> Result<(), Stop> {
        match self.consumer.poll(Duration::ZERO) {
            None => {}
            Some(Ok(record)) => {
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
            self.request_restore(partition)?;
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

    fn request_restore(&self, partition: i32) -> Result<(), Stop> {
        let (Some(owned), Some((jobs, _))) = (self.owned.get(&partition), &self.restore) else {
            return Ok(());
        };
        let (waker, epoch) = (self.waker.clone(), owned.epoch);
        let answer = move |result| {
            waker.send(Wake::Restored {
                partition,
                epoch,
                result,
            });
        };
        let job = restore::Job {
            partition,
            cancel: owned.cancel.clone(),
            answer: Box::new(answer),
        };
        jobs.send(job)
            .map_err(|_| Stop::StartOver("the restore thread has ended".into()))
    }

    /// To be given back, and nobody's until we answer: what is finished is committed first. Work in flight is left to
    /// the next owner; waiting for it would hold up the whole group.
    fn revoked(&mut self, partitions: &[i32]) -> Result<(), Stop> {
        info!(?partitions, "partitions revoked");
        self.receive_all()?;
        self.batch.not_before = None;
        let committed = match self.batch.outcomes.is_empty() {
            true => Ok(()),
            false => self.commit(),
        };
        // Answered whatever became of the commit: librdkafka waits for it, even to leave the group.
        self.give_up(partitions)?;
        committed
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

    pub(super) fn restored(
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
            Err(RestoreError::Read(ReadError::Cancelled)) => Ok(()),
            Err(
                error @ (RestoreError::Hole(_)
                | RestoreError::Read(
                    ReadError::Unreadable { .. } | ReadError::Damaged { .. },
                )),
            ) => {
                error!(partition, %error, "partition stopped");
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.phase = Phase::Halted;
                }
                self.shared
                    .status
                    .set_partition(partition, Some(PartitionStatus::Halted(error.to_string())));
                Ok(())
            }
            // Somebody's transaction hangs; the other partitions have their turn before this one is looked at again.
            Err(error @ RestoreError::Read(ReadError::Hanging { .. })) => {
                error!(partition, %error, "partition waits");
                let status = PartitionStatus::Halted(error.to_string());
                self.shared.status.set_partition(partition, Some(status));
                self.request_restore(partition)
            }
            Err(RestoreError::Read(ReadError::Store(error))) => {
                Err(self.store_failed(partition, &error))
            }
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
        let begin = start.offset;
        let lane = Lane::new(
            partition,
            self.shared.settings.input.has_holes(),
            queue,
            start,
        );
        let point = lane.progress.commit_point(&BTreeSet::new(), begin);
        self.shared.status.committed(partition, point, 0);
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.phase = Phase::Running(Box::new(lane));
        }
        self.shared
            .status
            .set_partition(partition, Some(PartitionStatus::Running));
        Ok(())
    }

    /// The local copy is only a copy: forget it and read it again.
    pub(super) fn store_failed(&self, partition: i32, error: &StoreError) -> Stop {
        let wiped = match &self.shared.state {
            Some(state) => state.store.wipe(partition),
            None => Ok(()),
        };
        match wiped {
            Ok(()) => Stop::StartOver(format!("local state of partition {partition}: {error}")),
            Err(worse) => Stop::Fatal(RuntimeError::Store(worse)),
        }
    }
}
