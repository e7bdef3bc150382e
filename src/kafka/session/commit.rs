//! Finished outcomes to committed ones: when, in which transaction, and what follows only after it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use rdkafka::{Offset, TopicPartitionList, consumer::Consumer};
use tracing::{info, warn};

use super::{Done, Owned, Phase, Session, Stop, Worked, kafka_stop};
use crate::{
    faults::{self, Fault},
    kafka::{
        GivenUp, Position, Stage,
        error::RuntimeError,
        ffi::GroupMember,
        lane::Lane,
        progress::CommitPoint,
        reader::now_ms,
        store::Change,
        transaction::{Committed, TransactionError},
    },
};

/// A batch is committed when no other work has finished for so long, even before it is full or old. Shorter, and a worker
/// that waits for S3 most of the time commits almost every file by itself, for which the brokers pay; longer, and results
/// that come evenly wait for the interval.
pub(super) const QUIET: Duration = Duration::from_millis(25);

/// Pause after an aborted transaction before its outcomes are committed again.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// Aborts in a row after which a session is given up: a rebalance in progress explains a few.
const MAX_ABORTS: u32 = 100;

/// How often an idle partition's moved position is committed, and Kafka is asked again whether it is back.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

impl<S: Stage> Session<S> {
    /// At once when nothing else is about to finish; otherwise when the batch is full or old.
    pub(super) fn commit_is_due(&self) -> bool {
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
        let idle = self.lanes().all(Lane::is_idle);
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
    pub(super) fn commit(&mut self) -> Result<(), Stop> {
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
            // Its late answer could hit the next transaction: see `transaction::Clock`.
            true => Err(Stop::StartOver(
                "a transaction took too long to use its producer again".into(),
            )),
            false => Ok(()),
        }
    }

    /// Where each partition stands that the outcomes belong to, or that moved while idle.
    fn commit_points(&self, outcomes: &[Done<S>]) -> Vec<(i32, CommitPoint)> {
        let positions = self.positions();
        let mut offsets: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for Position { partition, offset } in outcomes.iter().map(|done| done.position) {
            offsets.entry(partition).or_default().insert(offset);
        }
        let mut points = Vec::new();
        for (&partition, owned) in &self.owned {
            let Phase::Running(lane) = &owned.phase else {
                continue;
            };
            let position = positions.get(&partition).copied().unwrap_or(0);
            let outcome_offsets = offsets.remove(&partition).unwrap_or_default();
            let point = lane.progress.commit_point(&outcome_offsets, position);
            let moved_while_idle = outcomes.is_empty() && point.offset > lane.committed;
            if !outcome_offsets.is_empty() || moved_while_idle {
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
        for done in outcomes {
            for record in &done.finished.records {
                let partition = record.partition.unwrap_or(done.position.partition);
                transaction = transaction.send(record, partition)?;
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
            || !member.can_be_fenced()
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

    /// Only now, after the commit: local state, finished offsets, released keys, counters.
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
            let is_of = |done: &&Done<S>| done.position.partition == *partition;
            let finished = outcomes.iter().filter(is_of).count() as u64;
            let status = &self.shared.status;
            status.committed(*partition, point.clone(), finished);
            if let Some(Owned {
                phase: Phase::Running(lane),
                ..
            }) = self.owned.get_mut(partition)
            {
                lane.committed = point.offset;
            }
        }
        for done in &outcomes {
            done.finished.on_commit.call();
            let Some(lane) = self.lane(done.position.partition, done.epoch) else {
                continue;
            };
            lane.progress.finish([done.position.offset]);
            if let Some(worked) = &done.work {
                lane.release(&worked.work.key);
            }
        }
        self.shared.status.count(|counters| {
            counters.commits += 1;
            counters.events_finished += outcomes.len() as u64;
        });
        self.shared.status.commit_took(committed.took);
        if self.troubled {
            self.troubled = false;
            self.shared.status.recovered();
        }
        Ok(())
    }

    /// Folds what was committed into the local state, by the code that restores it, with the position it reflects.
    fn apply(&self, outcomes: &[Done<S>], committed: &Committed) -> Result<(), Stop> {
        let shared = &self.shared;
        let Some(state) = &shared.state else {
            return Ok(());
        };
        let mut changes: HashMap<i32, Vec<Change<'_>>> = HashMap::new();
        for done in outcomes {
            for record in done
                .finished
                .records
                .iter()
                .filter(|record| record.topic == state.changelog_topic)
            {
                let value = shared
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
                    .push((key, value));
            }
        }
        for (partition, changes) in changes {
            let Some(next_offset) = committed.changelog_ends.get(&partition) else {
                if faults::planted(Fault::SkipFlush) {
                    continue;
                }
                // Never after a flush; and state without its position would be stale for ever after.
                let what =
                    format!("nobody knows where the states of partition {partition} were written");
                return Err(Stop::StartOver(what));
            };
            state
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
        self.shared.status.count(|counters| match &error {
            TransactionError::Fenced(_) => counters.fenced += 1,
            TransactionError::Unknown(_) => counters.unknown += 1,
            TransactionError::Aborted(_) | TransactionError::TooLarge(_) => counters.aborts += 1,
        });
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
            TransactionError::TooLarge(refusal) => match &mut outcomes[..] {
                [alone] => self.cut_down(alone, &refusal)?,
                several => {
                    // Which of them it was can't be told: the broker refuses whole produce batches.
                    info!(
                        refusal,
                        outcomes = several.len(),
                        "a record is too large; committing one by one"
                    );
                    self.batch.one_by_one = several.len();
                }
            },
        }
        self.batch.put_back(outcomes);
        Ok(())
    }

    /// An outcome whose records are refused as too large is answered by the least that can be said; when even that is
    /// refused, only an operator can help.
    fn cut_down(&self, done: &mut Done<S>, refusal: &str) -> Result<(), Stop> {
        let offset = done.position.offset;
        let least = match &done.work {
            _ if done.minimal => None,
            Some(Worked { work, state }) => {
                let state = state.clone();
                Some(self.shared.stage.give_up(
                    &work.event,
                    work.position,
                    state,
                    GivenUp::TooLarge(refusal),
                ))
            }
            None => Some(
                self.shared
                    .stage
                    .unreadable(done.position, &[], None, refusal),
            ),
        };
        let Some(least) = least else {
            let what = format!(
                "even the least answer to offset {offset} is refused as too large: {refusal}; raise max.message.bytes of feedmill's topics"
            );
            return Err(Stop::Fatal(RuntimeError::Refused(what)));
        };
        warn!(offset, refusal, "an outcome is too large; cutting it down");
        done.finished = least;
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
}
