//! Listing, choosing and sending, page by page.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use tracing::warn;

use super::{
    choose::{Asked, Choice, Today},
    place::Place,
    states::States,
    tally::Tally,
};
use crate::{
    backoff::jittered,
    config::Kafka,
    convert::Feeds,
    failure::Failure,
    intake::publish::{PublishError, Publisher},
    object::ObjectRef,
    s3,
    sweep::{Cursor, FIRST_PAUSE, LEAST_PATIENCE, LONGEST_PAUSE, Listed, Page, S3Storage, Storage},
    telemetry::metrics::Metrics,
    topics::{Millis, ObjectEvent, Topics},
};

/// Events on their way to Kafka at once.
const CONCURRENT: usize = 100;

/// A walk through a listing.
pub struct Walk<'a> {
    pub place: &'a Place,
    pub since: Option<Millis>,
    pub asked: &'a Asked,
    pub feeds: &'a Feeds,
    pub tally: &'a Arc<Tally>,
    pub storage: S3Storage,
    pub states: States,
    pub kafka: &'a Kafka,
    /// Connected when there is something to send: a dry run needs no right to write.
    pub publisher: Option<Publisher>,
    pub pace: Pace,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Option<Cursor>>,
}

impl Walk<'_> {
    /// The events for what is chosen of the next page; `None` at the end.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ObjectEvent>>, Failure> {
        let Some(cursor) = self.next.take() else {
            return Ok(None);
        };
        let page = self.page(cursor.as_ref()).await?;
        if page.next.is_some() && page.next == cursor {
            return Err(Failure::service(anyhow!(
                "list {}: the server answers the same page again and again",
                self.place
            )));
        }
        self.next = page.next.map(Some);
        let found = self.found(page.objects, page.unreadable);
        let events = self.choose(found).await.map_err(Failure::service)?;
        Ok(Some(events))
    }

    /// A page of the listing; a server that is away is asked again, for as long as the sweep would.
    async fn page(&self, cursor: Option<&Cursor>) -> Result<Page, Failure> {
        let Place { bucket, prefix } = self.place;
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.storage.page(bucket, prefix, cursor).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let may_pass = error.failure == s3::Failure::Unavailable;
            if !may_pass || began.elapsed() > LEAST_PATIENCE {
                let error = anyhow!(error).context(format!("list {}", self.place));
                return Err(Failure::service(error));
            }
            warn!(%error, "listing; it is tried again");
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What of a page is looked up: what a feed takes, and is young enough.
    fn found(&self, listed: Vec<Listed>, mut unreadable: Vec<String>) -> Vec<(ObjectRef, Listed)> {
        let mut found = Vec::with_capacity(listed.len());
        self.tally.change(|counts| {
            counts.listed += listed.len() as u64;
            for entry in listed {
                match ObjectRef::try_new(self.place.bucket.as_str(), entry.key.as_str()) {
                    Err(error) => unreadable.push(error.to_string()),
                    // The markers that make folders visible are objects of no content.
                    Ok(object)
                        if object.key().ends_with('/') || self.feeds.of(&object).is_none() =>
                    {
                        counts.unmatched += 1;
                    }
                    Ok(_) if entry.modified.is_some() && entry.modified < self.since => {
                        counts.older += 1;
                    }
                    Ok(object) => found.push((object, entry)),
                }
            }
            counts.unreadable += unreadable.len() as u64;
        });
        if let Some(reason) = unreadable.first() {
            let more = unreadable.len() - 1;
            warn!(
                reason,
                more, "an entry of the listing can't be taken for what it is"
            );
        }
        found
    }

    async fn choose(
        &mut self,
        found: Vec<(ObjectRef, Listed)>,
    ) -> anyhow::Result<Vec<ObjectEvent>> {
        let objects = found.iter().map(|(object, _)| object.clone()).collect();
        let states = self.states.of(objects).await?;
        let mut events = Vec::new();
        for ((object, listed), settled) in found.iter().zip(&states) {
            let feed = self.feeds.of(object).context("find the feed again")?;
            let today = Today {
                feed: &feed.name,
                mapping_hash: &feed.mapping_hash,
            };
            let choice = self.asked.choose(object, listed, today, settled.as_ref());
            self.tally.change(|counts| match choice {
                Choice::Announce(event) => events.push(*event),
                Choice::Settled => counts.settled += 1,
                Choice::LeftAlone => counts.left_alone += 1,
                Choice::Done => counts.done_before += 1,
            });
        }
        Ok(events)
    }

    /// Appends the events, at the pace that was asked for; returns when Kafka has acknowledged them all.
    pub async fn send(&mut self, events: Vec<ObjectEvent>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        self.tally.change(|counts| {
            counts.sending_since.get_or_insert_with(Instant::now);
        });
        let turns: Vec<_> = events.iter().map(|_| self.pace.turn()).collect();
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => none.insert(connect(self.kafka)?),
        };
        let (publisher, tally) = (&*publisher, self.tally);
        stream::iter(events.into_iter().zip(turns))
            .map(|(event, turn)| async move {
                tokio::time::sleep_until(turn.into()).await;
                publisher.append(&event).await?;
                tally.change(|counts| counts.announced += 1);
                Ok::<_, PublishError>(())
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await
            .map_err(Failure::service)
    }
}

fn connect(kafka: &Kafka) -> Result<Publisher, Failure> {
    let topics = Topics::with_prefix(&kafka.topic_prefix);
    Publisher::connect(kafka, &topics, Metrics::new().intake).map_err(Failure::service)
}

/// How fast events may go.
pub struct Pace {
    pause: Duration,
    next: Instant,
}

impl Pace {
    /// At most so many events a second, or as fast as Kafka takes them.
    pub fn new(rate: Option<u32>) -> Self {
        Self {
            pause: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
            next: Instant::now(),
        }
    }

    /// When the next event may go. What was missed meanwhile is not made up for.
    fn turn(&mut self) -> Instant {
        let turn = self.next.max(Instant::now());
        self.next = turn + self.pause;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_a_pause_apart_and_none_is_made_up_for() {
        let mut pace = Pace::new(Some(10));
        let first = pace.turn();
        assert_eq!(pace.turn(), first + Duration::from_millis(100));
        pace.next = Instant::now() - Duration::from_secs(60);
        let late = pace.turn();
        assert!(late.elapsed() < Duration::from_secs(1));
        assert_eq!(pace.turn(), late + Duration::from_millis(100));
    }
}
