//! The few calls of librdkafka that rust-rdkafka does not wrap. All unsafe code of feedmill is in this file.

use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    time::Duration,
};

use rdkafka::{
    bindings as rd,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{IsError, KafkaError, RDKafkaErrorCode},
    producer::{Producer, ProducerContext, ThreadedProducer},
    types::{RDKafka, RDKafkaRespErr},
};

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Waits until every record handed to the producer was acknowledged or failed, and its delivery report was served.
///
/// Not rust-rdkafka's own `flush`: with 0.39 that one polls in steps of 100 ms, which puts a floor of 100 ms under every
/// commit. `false` when time ran out first.
pub fn flush<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    timeout: Duration,
) -> bool {
    // SAFETY: the handle is valid while `producer` is borrowed; rd_kafka_flush is thread-safe.
    let code = unsafe { rd::rd_kafka_flush(producer.client().native_ptr(), millis(timeout)) };
    !code.is_error()
}

/// Who we are in the consumer group, read afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    pub generation: i32,
    pub member_id: String,
}

impl GroupMember {
    /// Reads the consumer's present membership.
    pub fn of<C: ConsumerContext + 'static>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the metadata object is ours until destroyed below; the member id is copied before that.
        unsafe {
            let metadata = rd::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
            if metadata.is_null() {
                return None;
            }
            let member = Self {
                generation: rd::rd_kafka_consumer_group_metadata_generation_id(metadata),
                member_id: text(rd::rd_kafka_consumer_group_metadata_member_id(metadata)),
            };
            rd::rd_kafka_consumer_group_metadata_destroy(metadata);
            Some(member)
        }
    }

    /// The broker accepts a transactional offset commit with generation -1 and member id "" **without fencing** (Kafka:
    /// `ClassicGroup.validateOffsetCommit`). Such a membership must never commit.
    pub fn can_be_fenced(&self) -> bool {
        self.generation >= 0 && !self.member_id.is_empty()
    }
}

/// A C string, copied; empty for null.
///
/// # Safety
/// `text` is null or points to a terminated string that lives for the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Ids of topics, in the order of the names: a topic deleted and made again under its name has another id.
pub fn topic_ids<C: rdkafka::ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<String>, KafkaError> {
    let names: Vec<CString> = names
        .iter()
        .map(|name| CString::new(*name).map_err(KafkaError::Nul))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let failed = |code: RDKafkaRespErr| KafkaError::AdminOp(RDKafkaErrorCode::from(code));
    let kafka: *mut RDKafka = client.native_ptr();
    // SAFETY: every object made here is destroyed here, results are copied out before their event is destroyed, and
    // `kafka` is valid while `client` is borrowed.
    unsafe {
        let topics =
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = rd::rd_kafka_queue_new(kafka);
        let options = rd::rd_kafka_AdminOptions_new(
            kafka,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        rd::rd_kafka_DescribeTopics(kafka, topics, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, millis(timeout + Duration::from_secs(1)));
        let ids = read_topic_ids(event).map_err(failed);
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_TopicCollection_destroy(topics);
        ids
    }
}

/// # Safety
/// `event` is null or a live DescribeTopics result.
unsafe fn read_topic_ids(event: *mut rd::rd_kafka_event_t) -> Result<Vec<String>, RDKafkaRespErr> {
    if event.is_null() {
        return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT);
    }
    // SAFETY: by the caller's promise; the descriptions belong to the event and are only read.
    unsafe {
        let code = rd::rd_kafka_event_error(event);
        if code.is_error() {
            return Err(code);
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        (0..count)
            .map(|index| {
                let topic = *topics.add(index);
                let code = rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(topic));
                if code.is_error() {
                    return Err(code);
                }
                Ok(text(rd::rd_kafka_Uuid_base64str(
                    rd::rd_kafka_TopicDescription_topic_id(topic),
                )))
            })
            .collect()
    }
}
