//! The few calls of librdkafka that rust-rdkafka does not wrap. All unsafe code of feedmill is in this file.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_void},
    marker::PhantomData,
    ptr,
    thread::{self, Thread},
    time::Duration,
};

use rdkafka::{
    ClientContext, bindings as rd,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{IsError, KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer as _, ProducerContext},
    types::{RDKafka, RDKafkaRespErr},
};

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Waits until every record handed to the producer was acknowledged or failed, and its delivery report was served.
///
/// Not rust-rdkafka's own `flush`: with 0.39 that one polls in steps of 100 ms, which puts a floor of 100 ms under every
/// commit. `false` when time ran out first.
pub fn flush<C: ProducerContext>(producer: &BaseProducer<C>, timeout: Duration) -> bool {
    // SAFETY: the handle is valid while `producer` is borrowed; rd_kafka_flush is thread-safe.
    let code = unsafe { rd::rd_kafka_flush(producer.client().native_ptr(), millis(timeout)) };
    !code.is_error()
}

/// Gives a client the error after which it refuses everything.
#[cfg(test)]
pub fn break_for_good<C: ClientContext>(client: &Client<C>) {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the handle is valid while `client` is borrowed; the text is copied.
    unsafe { rd::rd_kafka_test_fatal_error(client.native_ptr(), code, c"planted".as_ptr()) };
}

/// Wakes the thread that made it when a producer's main queue (delivery reports, errors, log lines) is no more empty. A
/// queue has one callback: of each producer there is one bell.
pub struct Bell<'producer> {
    queue: *mut rd::rd_kafka_queue_t,
    /// Whom the callback wakes. A box, by its pointer, because the callback has it too.
    woken: *mut Thread,
    /// The queue lives no longer than its producer.
    _producer: PhantomData<&'producer ()>,
}

impl<'producer> Bell<'producer> {
    pub fn of<C: ProducerContext>(producer: &'producer BaseProducer<C>) -> Self {
        let woken = Box::into_raw(Box::new(thread::current()));
        // SAFETY: the handle is valid while `producer` is borrowed, and `woken` until `drop` frees it.
        let queue = unsafe {
            let queue = rd::rd_kafka_queue_get_main(producer.client().native_ptr());
            rd::rd_kafka_queue_cb_event_enable(queue, Some(unpark), woken.cast());
            queue
        };
        Self {
            queue,
            woken,
            _producer: PhantomData,
        }
    }

    /// Entries in the queue.
    pub fn waiting(&self) -> usize {
        // SAFETY: the queue is ours until dropped.
        unsafe { rd::rd_kafka_queue_length(self.queue) }
    }
}

/// # Safety
/// `thread` points to a live `Thread`.
unsafe extern "C" fn unpark(_: *mut RDKafka, thread: *mut c_void) {
    // SAFETY: by the caller's promise.
    unsafe { &*thread.cast::<Thread>() }.unpark();
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        // SAFETY: the queue is ours. The callback is called and taken away under the queue's lock, so after the first call
        // nobody has the box's pointer any more.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue);
            drop(Box::from_raw(self.woken));
        }
    }
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
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<String>, KafkaError> {
    describe_topics(client, names, timeout)?
        .into_iter()
        .map(|topic| topic.map(|topic| topic.id).map_err(KafkaError::AdminOp))
        .collect()
}

/// What ACLs are about; only those that feedmill asks for, or would not be given by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Read,
    Write,
    Describe,
    DescribeConfigs,
    Alter,
    Delete,
}

impl Operation {
    fn of(operation: rd::rd_kafka_AclOperation_t) -> Option<Self> {
        use rd::rd_kafka_AclOperation_t as Acl;
        match operation {
            Acl::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            Acl::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::Describe),
            Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            Acl::RD_KAFKA_ACL_OPERATION_ALTER => Some(Self::Alter),
            Acl::RD_KAFKA_ACL_OPERATION_DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

/// A topic as the brokers describe it to this client.
#[derive(Debug)]
pub struct DescribedTopic {
    pub id: String,
    /// What this client may do with it.
    pub operations: BTreeSet<Operation>,
}

/// Topics in the order of the names, each described or refused.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<Result<DescribedTopic, RDKafkaErrorCode>>, KafkaError> {
    let names: Vec<CString> = names
        .iter()
        .map(|name| CString::new(*name).map_err(KafkaError::Nul))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the collection is destroyed here, after the answer; the descriptions belong to the event and are copied.
    unsafe {
        let topics =
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let described = request(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            |kafka, options, queue| rd::rd_kafka_DescribeTopics(kafka, topics, options, queue),
            |event| {
                let result = rd::rd_kafka_event_DescribeTopics_result(event);
                let mut count = 0;
                let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                (0..count)
                    .map(|index| read_topic(*topics.add(index)))
                    .collect()
            },
        );
        rd::rd_kafka_TopicCollection_destroy(topics);
        described
    }
}

/// # Safety
/// `topic` belongs to a live DescribeTopics result.
unsafe fn read_topic(
    topic: *const rd::rd_kafka_TopicDescription_t,
) -> Result<DescribedTopic, RDKafkaErrorCode> {
    // SAFETY: by the caller's promise; what is read is copied.
    unsafe {
        refused(rd::rd_kafka_TopicDescription_error(topic))?;
        let mut count = 0;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        Ok(DescribedTopic {
            id: text(rd::rd_kafka_Uuid_base64str(
                rd::rd_kafka_TopicDescription_topic_id(topic),
            )),
            operations: read_operations(operations, count),
        })
    }
}

/// What this client may do with a consumer group, whether anybody is in it or not; or why it is not told.
pub fn group_operations<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Result<BTreeSet<Operation>, RDKafkaErrorCode>, KafkaError> {
    let group = CString::new(group).map_err(KafkaError::Nul)?;
    let mut groups = [group.as_ptr()];
    // SAFETY: the names live for the call; the descriptions belong to the event and are copied.
    unsafe {
        request(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
            timeout,
            |kafka, options, queue| {
                rd::rd_kafka_DescribeConsumerGroups(
                    kafka,
                    groups.as_mut_ptr(),
                    groups.len(),
                    options,
                    queue,
                );
            },
            |event| {
                let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event);
                let mut count = 0;
                let groups = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
                if count == 0 {
                    return Err(RDKafkaErrorCode::GroupIdNotFound);
                }
                let group = *groups;
                refused(rd::rd_kafka_ConsumerGroupDescription_error(group))?;
                let operations =
                    rd::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
                Ok(read_operations(operations, count))
            },
        )
    }
}

/// A cluster as its brokers describe it.
#[derive(Debug)]
pub struct DescribedCluster {
    pub id: String,
    /// Number of the broker that speaks for the controller.
    pub controller: Option<i32>,
    /// Number and advertised `host:port` of each broker.
    pub brokers: Vec<(i32, String)>,
}

/// Asks for the cluster.
pub fn describe_cluster<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<DescribedCluster, KafkaError> {
    // SAFETY: the nodes belong to the event and are copied.
    unsafe {
        request(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER,
            timeout,
            |kafka, options, queue| rd::rd_kafka_DescribeCluster(kafka, options, queue),
            |event| {
                let result = rd::rd_kafka_event_DescribeCluster_result(event);
                let controller = rd::rd_kafka_DescribeCluster_result_controller(result);
                let mut count = 0;
                let nodes = rd::rd_kafka_DescribeCluster_result_nodes(result, &mut count);
                DescribedCluster {
                    id: text(rd::rd_kafka_DescribeCluster_result_cluster_id(result)),
                    controller: (!controller.is_null())
                        .then(|| rd::rd_kafka_Node_id(controller))
                        .filter(|id| *id >= 0),
                    brokers: (0..count)
                        .map(|index| read_node(*nodes.add(index)))
                        .collect(),
                }
            },
        )
    }
}

/// # Safety
/// `node` is alive.
unsafe fn read_node(node: *const rd::rd_kafka_Node_t) -> (i32, String) {
    // SAFETY: by the caller's promise.
    unsafe {
        let host = text(rd::rd_kafka_Node_host(node));
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        let address = format!("{host}:{}", rd::rd_kafka_Node_port(node));
        (rd::rd_kafka_Node_id(node), address)
    }
}

/// # Safety
/// `operations` has `count` elements.
unsafe fn read_operations(
    operations: *const rd::rd_kafka_AclOperation_t,
    count: usize,
) -> BTreeSet<Operation> {
    // SAFETY: by the caller's promise.
    (0..count)
        .filter_map(|index| Operation::of(unsafe { *operations.add(index) }))
        .collect()
}

/// # Safety
/// `error` is null or alive.
unsafe fn refused(error: *const rd::rd_kafka_error_t) -> Result<(), RDKafkaErrorCode> {
    // SAFETY: by the caller's promise; the code of null is that of success.
    let code = unsafe { rd::rd_kafka_error_code(error) };
    match code.is_error() {
        true => Err(code.into()),
        false => Ok(()),
    }
}

/// Makes one request of the admin API, asking for the operations that are allowed, and waits for the answer.
///
/// # Safety
/// `send` makes one request of this kind with the options and the queue; `read` gets the event that answers it, which
/// is destroyed afterwards.
unsafe fn request<C: ClientContext, T>(
    client: &Client<C>,
    kind: rd::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut RDKafka, *const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> T,
) -> Result<T, KafkaError> {
    let kafka: *mut RDKafka = client.native_ptr();
    let failed = |code: RDKafkaRespErr| KafkaError::AdminOp(RDKafkaErrorCode::from(code));
    // SAFETY: every object made here is destroyed here, and `kafka` is valid while `client` is borrowed.
    unsafe {
        let queue = rd::rd_kafka_queue_new(kafka);
        let options = rd::rd_kafka_AdminOptions_new(kafka, kind);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        let error = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
        send(kafka, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, millis(timeout + Duration::from_secs(1)));
        let answer = match event.is_null() {
            true => Err(failed(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT)),
            false => match rd::rd_kafka_event_error(event) {
                code if code.is_error() => Err(failed(code)),
                _ => Ok(read(event)),
            },
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_queue_destroy(queue);
        answer
    }
}
