//! Reads an object's story.
//!
//! The order matters: events, then what is committed of them, then results. An event that is done when its offset is
//! looked at has its result in what is read afterwards, and one without is pending.

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::story::{Newest, Queue, Rejected, Story, Told};
use crate::{
    cli::reader::{ReadError, Reader, Record, Step, Window},
    config::{Config, Kafka, matcher::Router},
    convert,
    kafka::{
        LogContext,
        partitioner::partition_of,
        progress,
        settings::{self, Isolation},
    },
    object::ObjectRef,
    topics::{
        Id, ObjectEvent, ObjectState, RejectedNotification, ResultRecord, Topics, avro::TopicRecord,
    },
};

/// Complaints kept about records that can't be read.
const DAMAGED_KEPT: usize = 20;

pub fn story(
    config: &Config,
    reader: &Reader,
    topics: &Topics,
    object: ObjectRef,
    asked: Option<Id>,
) -> Result<Story, ReadError> {
    let key = object.message_key();
    let partition = partition_of(key.as_bytes(), reader.partition_count(&topics.events)?);
    let mut of = Records {
        reader,
        key: key.as_bytes(),
        partition,
        damaged: Vec::new(),
    };
    let is_asked = |id: &Id| asked.as_ref() == Some(id);
    let events = of.newest(&topics.events, |event: &ObjectEvent| is_asked(&event.id))?;
    let queue = queue(&config.kafka, reader, &topics.events, partition)?;
    let results = of.newest(&topics.results, |result: &ResultRecord| {
        is_asked(&result.event_id)
    })?;
    let state = of.last(&topics.objects)?;
    let letters = of.newest(&topics.dead_letters, |_| false)?;
    // An installation that was not upgraded yet has no such topic.
    let cleanups = match reader.topic_names()?.contains(&topics.cleanups) {
        true => of.newest(&topics.cleanups, |_| false)?,
        false => Newest::default(),
    };
    let waits = of.waits(topics)?;
    let damaged = of.damaged;
    let known = !(events.is_empty() && results.is_empty() && letters.is_empty()) || state.is_some();
    let rejected = match known || !damaged.is_empty() {
        true => None,
        false => Some(rejected(reader, &topics.rejected_notifications, &object)?),
    };
    Ok(Story {
        feed: feed(config, &object),
        object,
        asked,
        partition,
        events,
        results,
        letters,
        state,
        cleanups,
        waits,
        queue,
        damaged,
        rejected,
    })
}

/// The records of one key, topic by topic.
struct Records<'a> {
    reader: &'a Reader,
    key: &'a [u8],
    partition: i32,
    damaged: Vec<String>,
}

impl Records<'_> {
    fn newest<T: TopicRecord>(
        &mut self,
        topic: &str,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Newest<T>, ReadError> {
        let mut newest = Newest::default();
        self.each(topic, |record, value| {
            let (offset, appended_at) = (record.offset, record.appended_at);
            if let Some(record) = value {
                let told = Told {
                    offset,
                    appended_at,
                    record,
                };
                newest.push(told, &keep);
            }
        })?;
        Ok(newest)
    }

    /// What waits in retry topics, or waited.
    fn waits(&mut self, topics: &Topics) -> Result<Vec<(String, ObjectEvent)>, ReadError> {
        let mut waits = Vec::new();
        for topic in self.reader.topic_names()? {
            let Some(tier) = topics.tier_of(&topic) else {
                continue;
            };
            let mut newest = Newest::default();
            self.each(&topic, |record, value| {
                let (offset, appended_at) = (record.offset, record.appended_at);
                if let Some(record) = value {
                    let told = Told {
                        offset,
                        appended_at,
                        record,
                    };
                    newest.push(told, |_: &ObjectEvent| false);
                }
            })?;
            waits.extend(newest.into_records().map(|event| (tier.to_owned(), event)));
        }
        Ok(waits)
    }

    /// What stands in a table: the last value, unless a tombstone followed it.
    fn last(&mut self, topic: &str) -> Result<Option<ObjectState>, ReadError> {
        let mut last = None;
        self.each(topic, |_, value| last = value)?;
        Ok(last)
    }

    fn each<T: TopicRecord>(
        &mut self,
        topic: &str,
        mut take: impl FnMut(&Record<'_>, Option<T>),
    ) -> Result<(), ReadError> {
        let mut scan = self.reader.scan(topic, [self.partition], Window::ALL)?;
        loop {
            match scan.step()? {
                Step::Record(record) if record.key == self.key => match record.decode() {
                    Ok(value) => take(&record, value),
                    Err(damaged) => self.damaged(damaged.to_string()),
                },
                Step::Record(_) | Step::Quiet => {}
                Step::Damaged(damaged) => self.damaged(damaged.to_string()),
                Step::End => return Ok(()),
            }
        }
    }

    fn damaged(&mut self, what: String) {
        if self.damaged.len() < DAMAGED_KEPT {
            self.damaged.push(what);
        }
    }
}

/// How far the convert stage is in the partition.
fn queue(kafka: &Kafka, reader: &Reader, events: &str, partition: i32) -> Result<Queue, ReadError> {
    let group = format!("{}.{}", kafka.group, convert::STAGE);
    let timeout = settings::call_timeout(kafka);
    let error = |source| ReadError::Call {
        what: "the committed offset",
        topic: events.to_owned(),
        source,
    };
    // Uncommitted: an open transaction is no reason to wait, its events are pending.
    let settings = settings::reader(kafka, &group, Isolation::ReadUncommitted);
    let consumer: BaseConsumer<LogContext> =
        settings::create(&settings, LogContext).map_err(ReadError::Client)?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(events, partition);
    let answered = consumer.committed_offsets(asked, timeout).map_err(error)?;
    let log = reader.log(events, partition)?;
    let mut queue = Queue {
        log_start: log.start,
        log_end: log.end,
        workers: workers(&consumer, &group, timeout),
        group,
        ..Queue::default()
    };
    for element in answered.elements() {
        element.error().map_err(error)?;
        if let Offset::Offset(offset) = element.offset() {
            queue.committed = Some(offset);
            match progress::decode(offset, element.metadata()) {
                Ok(finished) => queue.finished = finished,
                Err(error) => queue.damage = Some(error.to_string()),
            }
        }
    }
    Ok(queue)
}

/// Members of the group; a group that never was has none. `None` when the broker does not say: the rest is worth telling.
fn workers(consumer: &BaseConsumer<LogContext>, group: &str, timeout: Duration) -> Option<usize> {
    match consumer.fetch_group_list(Some(group), timeout) {
        Ok(groups) => Some(
            groups
                .groups()
                .first()
                .map_or(0, |group| group.members().len()),
        ),
        Err(error) => {
            tracing::debug!(%error, "the group's members are unknown");
            None
        }
    }
}

fn feed(config: &Config, object: &ObjectRef) -> Result<Option<String>, String> {
    let router = Router::new(config).map_err(|error| error.to_string())?;
    let index = router.find(object);
    Ok(index.map(|index| config.feeds[index].name.clone()))
}

/// Counts what nobody could read, and what of it names the object's file, however the rest of the key is written there.
fn rejected(reader: &Reader, topic: &str, object: &ObjectRef) -> Result<Rejected, ReadError> {
    let name = object.key().trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or(name).as_bytes();
    let mut counts = Rejected {
        all: 0,
        naming_it: 0,
    };
    let mut scan = reader.scan(topic, 0..reader.partition_count(topic)?, Window::ALL)?;
    loop {
        match scan.step()? {
            Step::Record(record) => {
                let rejected = record.decode::<RejectedNotification>().ok().flatten();
                let names_it = rejected.is_some_and(|rejected| {
                    let mut windows = rejected.body.windows(name.len().max(1));
                    windows.any(|window| window == name)
                });
                counts.all += 1;
                counts.naming_it += u64::from(names_it);
            }
            Step::Damaged(_) | Step::Quiet => {}
            Step::End => return Ok(counts),
        }
    }
}
