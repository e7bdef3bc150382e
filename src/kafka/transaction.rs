//! One transaction, step by step: open, flushed, with offsets, committed. Each step consumes the one before, so none can
//! be skipped, and each failure has aborted the transaction, or says that nobody knows.
//!
//! All calls block; only the kafka thread makes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use super::{
    OutRecord,
    error::{Verdict, classify},
    ffi, rebalance,
    served::ServedProducer,
};
use crate::faults::{self, Fault};

/// How a transaction ended that was not committed.
#[derive(Debug)]
pub enum TransactionError {
    /// It was aborted; the finished work can be committed by another transaction.
    Aborted(KafkaError),
    /// It was aborted because a record, or a produce batch, is too large.
    TooLarge(String),
    /// Another producer has our transactional id, or the broker timed us out.
    Fenced(KafkaError),
    /// Nobody knows what became of it.
    Unknown(KafkaError),
}

/// What the broker said of the records of one transaction.
#[derive(Default)]
struct Deliveries {
    acknowledged: usize,
    failure: Option<KafkaError>,
    /// One past the last offset written, by partition of the changelog.
    changelog_ends: HashMap<i32, i64>,
}

/// Collects delivery reports; served by the producer's own thread.
#[derive(Clone)]
struct Reports {
    changelog_topic: Option<Arc<str>>,
    deliveries: Arc<Mutex<Deliveries>>,
}

impl Reports {
    fn take(&self) -> Deliveries {
        std::mem::take(
            &mut self
                .deliveries
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        rebalance::log(level, facility, message);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self
            .deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                deliveries.acknowledged += 1;
                if self.changelog_topic.as_deref() == Some(message.topic()) {
                    let end = deliveries
                        .changelog_ends
                        .entry(message.partition())
                        .or_default();
                    *end = (*end).max(message.offset() + 1);
                }
            }
            Err((error, _)) => match &deliveries.failure {
                // A purge follows from another failure, and may be reported before it.
                Some(known) if !is_purge(known) => {}
                _ => deliveries.failure = Some(error.clone()),
            },
        }
    }
}

fn is_purge(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
    )
}

/// The producer of a stage; fences its predecessors of the same transactional id.
pub struct TransactionalProducer {
    producer: ServedProducer<Reports>,
    reports: Reports,
    call_timeout: Duration,
}

impl TransactionalProducer {
    /// Creates the producer and takes the transactional id over. After this returns, older producers of that id are
    /// fenced, and their open transaction is completed or aborted.
    pub fn init(
        config: &ClientConfig,
        changelog_topic: Option<Arc<str>>,
        call_timeout: Duration,
    ) -> KafkaResult<Self> {
        let reports = Reports {
            changelog_topic,
            deliveries: Arc::default(),
        };
        let producer = ServedProducer::create(config, reports.clone())?;
        let this = Self {
            producer,
            reports,
            call_timeout,
        };
        this.retrying(|| this.producer.init_transactions(this.call_timeout))?;
        Ok(this)
    }

    pub fn begin(&self) -> Result<Open<'_>, TransactionError> {
        drop(self.reports.take());
        self.producer
            .begin_transaction()
            .map_err(TransactionError::Unknown)?;
        Ok(Open {
            producer: self,
            sent: 0,
            clock: Clock::start(self.call_timeout),
        })
    }

    /// Makes a call again while it says that it may be made again; three times its own timeout at most.
    fn retrying(&self, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
        let deadline = Instant::now() + 3 * self.call_timeout;
        loop {
            match call() {
                Err(error) if classify(&error) == Verdict::Retry && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    /// Ends a transaction that failed, and says how that went.
    fn fail(&self, cause: KafkaError, clock: &Clock) -> TransactionError {
        match classify(&cause) {
            Verdict::Fenced => return TransactionError::Fenced(cause),
            Verdict::StartOver if matches!(cause, KafkaError::Transaction(_)) => {
                return TransactionError::Unknown(cause);
            }
            _ => {}
        }
        // Before the abort, or it can be refused while the first produce is still under way (librdkafka #4849).
        ffi::flush(&self.producer, self.call_timeout);
        match self.retrying(|| self.producer.abort_transaction(self.call_timeout)) {
            Ok(()) if clock.was_slow() => TransactionError::Unknown(cause),
            Ok(()) => {
                let reported = self.reports.take().failure.filter(|error| !is_purge(error));
                let cause = if is_too_large(&cause) {
                    cause
                } else {
                    reported.unwrap_or(cause)
                };
                match is_too_large(&cause) {
                    true => TransactionError::TooLarge(cause.to_string()),
                    false => TransactionError::Aborted(cause),
                }
            }
            Err(error) if classify(&error) == Verdict::Fenced => TransactionError::Fenced(error),
            Err(error) => TransactionError::Unknown(error),
        }
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge)
    )
}

/// Notices calls that took so long that their late answer could hit the next transaction: librdkafka has no KIP-890
/// part 2, so after such a call the producer must be replaced even if all went well.
struct Clock {
    started: Instant,
    limit: Duration,
}

impl Clock {
    fn start(call_timeout: Duration) -> Self {
        Self {
            started: Instant::now(),
            limit: call_timeout / 2,
        }
    }

    fn was_slow(&self) -> bool {
        self.started.elapsed() > self.limit
    }
}

/// A transaction that takes records.
pub struct Open<'p> {
    producer: &'p TransactionalProducer,
    sent: usize,
    clock: Clock,
}

impl<'p> Open<'p> {
    /// Hands a record to the producer.
    pub fn send(self, record: &OutRecord, partition: i32) -> Result<Self, TransactionError> {
        let deadline = Instant::now() + self.producer.call_timeout;
        loop {
            let mut message = BaseRecord::to(&record.topic).partition(partition);
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            message.headers = headers(record);
            match self.producer.producer.send::<[u8], [u8]>(message) {
                Ok(()) => {
                    return Ok(Self {
                        sent: self.sent + 1,
                        ..self
                    });
                }
                Err((error, _))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && Instant::now() < deadline =>
                {
                    ffi::flush(&self.producer.producer, self.producer.call_timeout);
                }
                Err((error, _)) => return Err(self.producer.fail(error, &self.clock)),
            }
        }
    }

    /// Waits until the broker has every record. Offsets may only follow after that: a restore takes the log's end for
    /// everything that the committed offsets answer.
    pub fn flush(self) -> Result<Flushed<'p>, TransactionError> {
        if faults::planted(Fault::SkipFlush) {
            return Ok(Flushed {
                producer: self.producer,
                changelog_ends: HashMap::new(),
                clock: self.clock,
            });
        }
        let drained = ffi::flush(&self.producer.producer, self.producer.call_timeout);
        let deliveries = self.producer.reports.take();
        if let Some(error) = deliveries.failure {
            return Err(self.producer.fail(error, &self.clock));
        }
        if !drained || deliveries.acknowledged != self.sent {
            let timeout = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
            return Err(self.producer.fail(timeout, &self.clock));
        }
        Ok(Flushed {
            producer: self.producer,
            changelog_ends: deliveries.changelog_ends,
            clock: self.clock,
        })
    }
}

pub(super) fn headers(record: &OutRecord) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    Some(headers)
}

/// A transaction whose records the broker has.
pub struct Flushed<'p> {
    producer: &'p TransactionalProducer,
    changelog_ends: HashMap<i32, i64>,
    clock: Clock,
}

impl<'p> Flushed<'p> {
    /// Adds the consumed offsets. The group's generation in `member` is what fences the whole transaction.
    pub fn offsets(
        self,
        offsets: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
    ) -> Result<Complete<'p>, TransactionError> {
        let producer = self.producer;
        let sent = producer.retrying(|| {
            producer
                .producer
                .send_offsets_to_transaction(offsets, member, producer.call_timeout)
        });
        match sent {
            Ok(()) => Ok(Complete {
                producer,
                changelog_ends: self.changelog_ends,
                clock: self.clock,
            }),
            Err(error) => Err(producer.fail(error, &self.clock)),
        }
    }

    /// Gives the transaction up: our membership does not allow a commit now.
    pub fn abort(self) -> TransactionError {
        self.producer.fail(KafkaError::Canceled, &self.clock)
    }
}

/// A transaction with records and offsets.
pub struct Complete<'p> {
    producer: &'p TransactionalProducer,
    changelog_ends: HashMap<i32, i64>,
    clock: Clock,
}

/// What a commit left behind.
pub struct Committed {
    /// One past the last offset written, by partition of the changelog.
    pub changelog_ends: HashMap<i32, i64>,
    /// It took so long that this producer must not be used again.
    pub was_slow: bool,
    pub took: Duration,
}

impl Complete<'_> {
    /// Commits. After a time-out only the same call may be made again, never an abort; when that does not help, nobody
    /// knows, and starting over finds out.
    pub fn commit(self) -> Result<Committed, TransactionError> {
        let producer = self.producer;
        match producer.retrying(|| producer.producer.commit_transaction(producer.call_timeout)) {
            Ok(()) => Ok(Committed {
                changelog_ends: self.changelog_ends,
                was_slow: self.clock.was_slow(),
                took: self.clock.started.elapsed(),
            }),
            Err(error) => Err(match classify(&error) {
                Verdict::Abort => producer.fail(error, &self.clock),
                Verdict::Fenced => TransactionError::Fenced(error),
                Verdict::Retry | Verdict::StartOver => TransactionError::Unknown(error),
            }),
        }
    }
}
