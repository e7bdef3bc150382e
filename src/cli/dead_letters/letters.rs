//! The dead letters as the topic has them: of each object the last one, open or closed.

use std::collections::HashMap;

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        filter::{ObjectFilter, among},
        moment::moment,
        reader::{Damaged, ReadError, Reader, Record, Step, Window},
    },
    config::Config,
    failure::Failure,
    kafka::admin::Admin,
    topics::{DeadLetter, Millis, Topics},
};

/// Which letters are meant.
#[derive(Debug, Default, Args)]
pub struct Filter {
    /// Only with this reason, such as malformed_xml
    #[arg(long, value_name = "CODE")]
    reason: Vec<String>,
    /// Only of this feed
    #[arg(long, value_name = "NAME")]
    feed: Vec<String>,
    #[command(flatten)]
    object: ObjectFilter,
    /// Only what failed last at this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Millis>,
    /// Only what failed last before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Millis>,
}

impl Filter {
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        let at = letter.last_failed_at;
        self.object.takes(&letter.bucket, &letter.key)
            && among(&self.reason, Some(&letter.reason))
            && among(&self.feed, letter.feed.as_ref())
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }

    pub fn is_empty(&self) -> bool {
        let Self {
            reason,
            feed,
            object,
            since,
            until,
        } = self;
        reason.is_empty()
            && feed.is_empty()
            && object.is_empty()
            && since.is_none()
            && until.is_none()
    }
}

/// A letter, and whether something is still to be done about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// When it was closed, or another one took its place; `None` while it is open.
    pub closed_at: Option<Millis>,
}

impl Entry {
    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Whether it was replayed so often that it is left alone.
    pub fn is_parked(&self, config: &Config) -> bool {
        self.is_open()
            && u32::try_from(self.letter.replays)
                .is_ok_and(|replays| replays >= config.dead_letters.max_replays)
    }
}

/// How much of the topic is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Open,
    /// Those that were closed, too, as far as the topic still has them (30 days).
    All,
}

/// Reads the letters that `takes` picks, by the time of their last failure.
pub fn read(
    config: &Config,
    wanted: Wanted,
    takes: impl Fn(&DeadLetter) -> bool,
) -> Result<Vec<Entry>, Failure> {
    // Says clearly when Kafka can't be reached.
    drop(Admin::connect(&config.kafka).map_err(Failure::service)?);
    let reader = Reader::connect(&config.kafka).map_err(Failure::service)?;
    let topic = Topics::with_prefix(&config.kafka.topic_prefix).dead_letters;
    let mut entries = fold(&reader, &topic, wanted, takes).map_err(Failure::service)?;
    entries.sort_by(|a, b| {
        let order = |entry: &Entry| (entry.letter.last_failed_at.0, entry.letter.event_offset);
        order(a).cmp(&order(b))
    });
    Ok(entries)
}

fn fold(
    reader: &Reader,
    topic: &str,
    wanted: Wanted,
    takes: impl Fn(&DeadLetter) -> bool,
) -> Result<Vec<Entry>, ReadError> {
    let mut fold = Fold::default();
    let mut scan = reader.scan(topic, 0..reader.partition_count(topic)?, Window::ALL)?;
    loop {
        match scan.step()? {
            Step::Record(record) => fold.take(&record, wanted, &takes),
            Step::Damaged(damaged) => tracing::warn!("{damaged}"),
            Step::Quiet => {}
            Step::End => return Ok(fold.entries()),
        }
    }
}

#[derive(Default)]
struct Fold {
    open: HashMap<Vec<u8>, DeadLetter>,
    closed: Vec<Entry>,
}

impl Fold {
    /// The last record of a key tells; it is of one partition, so they come in order. Only what is meant is kept.
    fn take(&mut self, record: &Record<'_>, wanted: Wanted, takes: &impl Fn(&DeadLetter) -> bool) {
        let letter = match record.decode::<DeadLetter>() {
            Ok(letter) => letter,
            Err(damaged) => return complain(&damaged),
        };
        let before = match letter.filter(takes) {
            Some(letter) => self.open.insert(record.key.clone(), letter),
            None => self.open.remove(&record.key),
        };
        if let Some(letter) = before
            && wanted == Wanted::All
        {
            let closed_at = record.appended_at.unwrap_or(letter.last_failed_at);
            self.closed.push(Entry {
                letter,
                closed_at: Some(closed_at),
            });
        }
    }

    fn entries(self) -> Vec<Entry> {
        let open = self.open.into_values().map(|letter| Entry {
            letter,
            closed_at: None,
        });
        open.chain(self.closed).collect()
    }
}

fn complain(damaged: &Damaged) {
    tracing::warn!("{damaged}");
}
