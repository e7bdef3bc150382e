//! What a failed Kafka call means. The only place that decides between trying again, aborting, and starting over.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{folder::FolderError, store::StoreError};

/// Why a runtime ended for good.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("create a Kafka client")]
    Client(#[source] KafkaError),
    /// Kafka refuses for a reason that waiting does not mend.
    #[error("use Kafka: {0}")]
    Refused(String),
    #[error(
        "keep the transactional id: another process fenced this one twice within a minute; give each process a state folder of its own"
    )]
    Fenced,
    #[error("use {path}, where it is noted which events are under way")]
    Journal {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// A bug of ours: the work of an event panicked.
    #[error("work on an event: it panicked: {0}")]
    Panicked(String),
}

/// How a failed call of an open transaction is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same call again, with the same arguments, until our own deadline.
    Retry,
    /// Nothing was committed, and the producer can be used again after an abort.
    Abort,
    /// Another process took our transactional id, or the broker timed our transaction out.
    Fenced,
    /// Fatal, or nobody knows what happened: drop everything and start over.
    StartOver,
}

/// Classifies the error of a transactional call.
pub fn classify(error: &KafkaError) -> Verdict {
    match error {
        KafkaError::Transaction(inner) => match inner {
            inner if is_fence(inner.code()) => Verdict::Fenced,
            inner if inner.is_fatal() => Verdict::StartOver,
            inner if inner.txn_requires_abort() => Verdict::Abort,
            inner if inner.is_retriable() => Verdict::Retry,
            // None of the three flags: librdkafka's own advice is to treat it as fatal.
            _ => Verdict::StartOver,
        },
        // From inside commit_transaction: no flags, so nothing is known.
        _ => Verdict::StartOver,
    }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

/// Codes that say: this will not change by waiting, and a person must act.
pub fn refusal(code: RDKafkaErrorCode) -> Option<&'static str> {
    Some(match code {
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            "the transactional id is not authorised: grant this user Write and Describe on its transactional ids"
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => {
            "the consumer group is not authorised: grant this user Read on the group"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "a topic is not authorised: grant this user Read, Write and Describe on feedmill's topics"
        }
        RDKafkaErrorCode::ClusterAuthorizationFailed => "the cluster refuses this user",
        RDKafkaErrorCode::InvalidTransactionTimeout => {
            "kafka.transaction_timeout_secs is above the broker's transaction.max.timeout.ms"
        }
        _ => return None,
    })
}

/// Codes of a consumer that come and go with the brokers.
pub fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::PartitionEOF
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
    )
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
