//! Group events, taken out of librdkafka's callback.
//!
//! The callback runs inside `poll` and may not do much there. It only writes down what happened; the kafka thread answers
//! after the poll, in [`super::session`], with one function per case: assigned, revoked, lost. librdkafka waits for the
//! answer (`incremental_assign` or `incremental_unassign`) before it goes on with the group protocol, so our generation
//! can't move to a later membership in between.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tracing::{debug, error, info, warn};

/// What happened to our share of the partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// These are ours now, beside those that already were.
    Assigned(Vec<i32>),
    /// These are to be given back; nobody has them until we answer.
    Revoked(Vec<i32>),
    /// These are somebody else's already: nothing of them may be committed.
    Lost(Vec<i32>),
    /// The group protocol failed.
    Failed(String),
}

/// The context of the group consumer.
#[derive(Default)]
pub struct GroupContext {
    changes: Mutex<Vec<GroupChange>>,
    closing: AtomicBool,
}

impl GroupContext {
    /// Everything that happened since the last call, oldest first.
    pub fn take_changes(&self) -> Vec<GroupChange> {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on revocations are answered inside the callback: nobody polls for changes while the consumer closes.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    fn push(&self, change: GroupChange) {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(change);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            return give_back(consumer, partitions);
        }
        let numbers = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        self.push(match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => GroupChange::Assigned(numbers),
            // Asked here because answering the revocation resets it.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if consumer.assignment_lost() => {
                GroupChange::Lost(numbers)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => GroupChange::Revoked(numbers),
            other => GroupChange::Failed(format!("{other:?}")),
        });
    }
}

/// Unassigns what is assigned of `partitions`: librdkafka refuses a list that names any other.
fn give_back(consumer: &BaseConsumer<GroupContext>, partitions: &TopicPartitionList) {
    let Ok(assigned) = consumer.assignment() else {
        return;
    };
    let mut ours = TopicPartitionList::new();
    for element in partitions.elements() {
        if assigned
            .find_partition(element.topic(), element.partition())
            .is_some()
        {
            ours.add_partition(element.topic(), element.partition());
        }
    }
    if consumer.incremental_unassign(&ours).is_err() {
        // A closing consumer takes only the whole; a failure here leaves it to the session timeout.
        let _ = consumer.unassign();
    }
}

/// Gives everything back, before the consumer closes: librdkafka does not leave the group while it waits for the answer
/// to an assignment or a revocation, and a list of nothing answers both.
pub fn leave(consumer: &BaseConsumer<GroupContext>) {
    consumer.context().close();
    let left = consumer
        .incremental_assign(&TopicPartitionList::new())
        .and_then(|()| consumer.assignment())
        .and_then(|assigned| consumer.incremental_unassign(&assigned));
    if let Err(error) = left {
        debug!(%error, "leaving the group");
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "kafka client");
    }
}

/// Passes librdkafka's own log lines on.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            info!(target: "librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// The context of every client without callbacks of its own.
#[derive(Clone, Default)]
pub struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for LogContext {}
