//! Topics: making them, checking that they fit, and going on behind a hole in a log.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{BaseProducer, DeliveryResult, Producer, ProducerContext},
};

pub use super::ffi::{DescribedCluster, DescribedTopic, Operation};
use super::{
    ffi,
    progress::{self, CommitPoint},
    rebalance::{self, LogContext},
    settings::{self, Isolation},
};
use crate::config::Kafka;

/// A topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub config: Vec<(&'static str, String)>,
    /// The settings of `config` that are checked at every start; the others are only set when the topic is made.
    pub checked: &'static [&'static str],
}

/// What became of a topic that was to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    Created,
    WasThere,
}

/// Why topics could not be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("create a Kafka client")]
    Client(#[source] KafkaError),
    #[error(
        "reach Kafka at {brokers}: {reason}; check kafka.brokers and kafka.security, and that it is running"
    )]
    Unreachable { brokers: String, reason: String },
    #[error("ask Kafka to {what}")]
    Call { what: String, source: KafkaError },
    #[error("make the topic {topic}: {code}")]
    Refused {
        topic: String,
        code: RDKafkaErrorCode,
    },
    #[error(
        "commit a position for {topic} [{partition}]: its consumer group {group} has members; stop the workers first"
    )]
    GroupInUse {
        topic: String,
        partition: i32,
        group: String,
    },
    #[error("{topic} has no partition {partition}, only 0 to {last}")]
    NoPartition {
        topic: String,
        partition: i32,
        last: i32,
    },
    #[error(
        "offset {offset} lies outside the log of {topic} [{partition}], which has {low} to {high}"
    )]
    OutsideLog {
        topic: String,
        partition: i32,
        offset: i64,
        low: i64,
        high: i64,
    },
}

/// Remembers what librdkafka first complained of: its calls themselves often say no more than "timed out".
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Option<String>>>);

impl Complaints {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        rebalance::log(level, facility, message);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| reason.to_owned());
    }
}

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A connection for administration.
pub struct Admin {
    client: AdminClient<LogContext>,
    /// An admin client serves no error callbacks; a producer, which never sends anything here, does.
    asker: BaseProducer<Complaints>,
    complaints: Complaints,
    brokers: String,
    broker_count: usize,
    timeout: Duration,
}

impl Admin {
    /// Connects; blocks until a broker answered, or the request timeout is over.
    pub fn connect(kafka: &Kafka) -> Result<Self, AdminError> {
        let complaints = Complaints::default();
        let settings = settings::admin(kafka);
        let client = settings::create(&settings, LogContext).map_err(AdminError::Client)?;
        let asker = settings::create(&settings, complaints.clone()).map_err(AdminError::Client)?;
        let mut admin = Self {
            client,
            asker,
            complaints,
            brokers: kafka.brokers.join(","),
            broker_count: 0,
            timeout: settings::call_timeout(kafka),
        };
        admin.broker_count = admin.metadata()?.brokers().len();
        Ok(admin)
    }

    /// What the cluster says of itself; an error that names what librdkafka complained of.
    fn metadata(&self) -> Result<Metadata, AdminError> {
        self.asker
            .client()
            .fetch_metadata(None, self.timeout)
            .map_err(|error| {
                // Why a connection failed is told to whoever polls.
                self.asker.poll(Duration::from_millis(100));
                let reason = self.complaints.take().unwrap_or_else(|| error.to_string());
                AdminError::Unreachable {
                    brokers: self.brokers.clone(),
                    reason,
                }
            })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout))
    }

    /// Makes the topics that are not there yet; `replication` when not given: 3, or the brokers there are.
    pub async fn create(
        &self,
        specs: &[TopicSpec],
        replication: Option<i16>,
    ) -> Result<Vec<(String, Made)>, AdminError> {
        let fallback = i16::try_from(self.broker_count.clamp(1, 3)).unwrap_or(3);
        let replicas = i32::from(replication.unwrap_or(fallback));
        let topics: Vec<NewTopic<'_>> = specs
            .iter()
            .map(|spec| {
                let topic = NewTopic::new(
                    &spec.name,
                    spec.partitions,
                    TopicReplication::Fixed(replicas),
                );
                spec.config
                    .iter()
                    .fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let results = self
            .client
            .create_topics(&topics, &self.options())
            .await
            .map_err(|source| AdminError::Call {
                what: "make the topics".into(),
                source,
            })?;
        results
            .into_iter()
            .map(|result| match result {
                Ok(name) => Ok((name, Made::Created)),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => Ok((name, Made::WasThere)),
                Err((topic, code)) => Err(AdminError::Refused { topic, code }),
            })
            .collect()
    }

    /// What does not fit, a sentence each; empty when all is well.
    pub async fn problems(&self, specs: &[TopicSpec]) -> Result<Vec<String>, AdminError> {
        let metadata = self.metadata()?;
        let partitions: HashMap<&str, i32> = metadata
            .topics()
            .iter()
            .map(|topic| {
                (
                    topic.name(),
                    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                )
            })
            .collect();
        let mut problems = Vec::new();
        let mut there = Vec::new();
        for spec in specs {
            match partitions.get(spec.name.as_str()) {
                None | Some(0) => problems.push(format!("the topic {} is not there; `feedmill topics create` makes it", spec.name)),
                Some(count) if *count != spec.partitions => problems.push(format!(
                    "the topic {} has {count} partitions, not {}: their number is fixed for the life of a prefix; set kafka.partitions = {count}, or grow: a new kafka.topic_prefix and a backfill (docs/growing.md)",
                    spec.name, spec.partitions
                )),
                Some(_) => there.push(spec),
            }
        }
        problems.extend(self.config_problems(&there).await?);
        Ok(problems)
    }

    /// Those of `topics` that are not there.
    pub fn absent<'a>(&self, topics: &'a [String]) -> Result<Vec<&'a str>, AdminError> {
        let metadata = self.metadata()?;
        let is_there = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
        let absent = topics.iter().map(String::as_str);
        Ok(absent.filter(|name| !is_there(name)).collect())
    }

    /// The names of all topics that may be seen. Blocks.
    pub fn topic_names(&self) -> Result<Vec<String>, AdminError> {
        let metadata = self.metadata()?;
        let topics = metadata.topics().iter();
        Ok(topics.map(|topic| topic.name().to_owned()).collect())
    }

    async fn config_problems(&self, specs: &[&TopicSpec]) -> Result<Vec<String>, AdminError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = specs
            .iter()
            .map(|spec| ResourceSpecifier::Topic(&spec.name))
            .collect();
        let described = self
            .client
            .describe_configs(&resources, &self.options())
            .await
            .map_err(|source| AdminError::Call {
                what: "describe the topics' settings".into(),
                source,
            })?;
        let mut problems = Vec::new();
        for (spec, resource) in specs.iter().zip(described) {
            let Ok(resource) = resource else {
                problems.push(format!(
                    "the settings of {} can't be read: grant DescribeConfigs on it",
                    spec.name
                ));
                continue;
            };
            let settings = resource.entry_map();
            for (name, wanted) in spec
                .config
                .iter()
                .filter(|(name, _)| spec.checked.contains(name))
            {
                let is = settings
                    .get(name)
                    .and_then(|entry| entry.value.as_deref())
                    .unwrap_or("unset");
                if is != wanted {
                    problems.push(format!(
                        "the topic {0} has {name}={is}, not {wanted}: kafka-configs.sh --bootstrap-server {1} --alter --topic {0} --add-config {name}={wanted}",
                        spec.name, self.brokers
                    ));
                }
            }
        }
        Ok(problems)
    }
}

/// What the cluster says of itself and of this client's permissions. All of it blocks.
impl Admin {
    pub fn cluster(&self) -> Result<DescribedCluster, AdminError> {
        ffi::describe_cluster(self.client.inner(), self.timeout)
            .map_err(|source| call("describe the cluster", source))
    }

    /// In the order of the names: each topic, or why it is not described.
    pub fn topics(
        &self,
        names: &[&str],
    ) -> Result<Vec<Result<DescribedTopic, RDKafkaErrorCode>>, AdminError> {
        ffi::describe_topics(self.client.inner(), names, self.timeout)
            .map_err(|source| call("describe the topics", source))
    }

    /// What this client may do with a consumer group, or why it is not told.
    pub fn group_operations(
        &self,
        group: &str,
    ) -> Result<Result<BTreeSet<Operation>, RDKafkaErrorCode>, AdminError> {
        ffi::group_operations(self.client.inner(), group, self.timeout)
            .map_err(|source| call("describe the group", source))
    }
}

/// Takes a transactional id over, which shows that the brokers have transactions and let this client use them. No
/// worker may be using the id. Blocks.
pub fn try_transactions(kafka: &Kafka, transactional_id: &str) -> Result<(), KafkaError> {
    let settings = settings::transactional_producer(kafka, transactional_id);
    let producer: BaseProducer<Complaints> = settings::create(&settings, Complaints::default())?;
    producer.init_transactions(settings::call_timeout(kafka))
}

fn call(what: &str, source: KafkaError) -> AdminError {
    AdminError::Call {
        what: what.into(),
        source,
    }
}

/// Where a partition goes on after a hole was accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    pub before: Option<i64>,
    pub offset: i64,
    /// Events of these offsets will never be seen by this group; `None` when nothing is skipped.
    pub log: (i64, i64),
}

/// Commits a valid, tagged position for a partition whose group is stopped: `offset`, or the committed one if the log
/// has it, or the log's nearest end. Blocks.
pub fn accept_hole(
    kafka: &Kafka,
    group: &str,
    topic: &str,
    partition: i32,
    offset: Option<i64>,
) -> Result<Accepted, AdminError> {
    let timeout = settings::call_timeout(kafka);
    let consumer: BaseConsumer<LogContext> = settings::create(
        &settings::reader(kafka, group, Isolation::ReadUncommitted),
        LogContext,
    )
    .map_err(AdminError::Client)?;
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .map_err(|source| call("describe the topic", source))?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if !(0..count).contains(&partition) {
        return Err(AdminError::NoPartition {
            topic: topic.into(),
            partition,
            last: count - 1,
        });
    }
    let (low, high) = consumer
        .fetch_watermarks(topic, partition, timeout)
        .map_err(|source| call("read the log's ends", source))?;
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let committed = consumer
        .committed_offsets(list.clone(), timeout)
        .map_err(|source| call("read the committed offset", source))?;
    let before = match committed.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    if let Some(offset) = offset.filter(|offset| !(low..=high).contains(offset)) {
        return Err(AdminError::OutsideLog {
            topic: topic.into(),
            partition,
            offset,
            low,
            high,
        });
    }
    let accepted = offset.or(before).unwrap_or(low).clamp(low, high);
    let point = CommitPoint::plain(accepted);
    let mut element = list
        .find_partition(topic, partition)
        .expect("it was just added");
    element.set_metadata(&point.metadata);
    element
        .set_offset(Offset::Offset(point.offset))
        .map_err(|source| call("set the offset", source))?;
    // A consumer without a membership may commit only while the group has no members: the broker checks.
    consumer.commit(&list, CommitMode::Sync).map_err(|source| {
        match source.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::NonEmptyGroup,
            ) => AdminError::GroupInUse {
                topic: topic.into(),
                partition,
                group: group.into(),
            },
            _ => call("commit the offset", source),
        }
    })?;
    debug_assert!(progress::decode(point.offset, &point.metadata).is_ok());
    Ok(Accepted {
        before,
        offset: accepted,
        log: (low, high),
    })
}
