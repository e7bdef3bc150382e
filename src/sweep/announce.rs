//! From candidates to announcements: look at what is settled, look again, append, remember.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use tracing::{info, warn};

use super::{
    candidate::{Announcement, Candidate, Kind},
    ledger::{Ledger, LedgerError},
    list_file::Head,
    pass::{FIRST_PAUSE, LONGEST_PAUSE, MAX_HEADS, Pass, Stopped, Trouble},
    storage::Storage,
};
use crate::{backoff::jittered, failure::chain, kafka::Position, object::ObjectRef, s3::S3Error};

/// Announcements waiting for Kafka at a time.
const MAX_APPENDING: usize = 64;

/// How old the view of what is settled may be when a page is looked at again. Younger costs requests to Kafka page by
/// page; older, and objects that were converted in the meantime are announced once more, each a duplicate.
const MAX_VIEW_AGE: Duration = Duration::from_secs(5);

/// What has to be announced, by what is known.
#[derive(Default)]
struct Due {
    announcements: Vec<Announcement>,
    /// Source objects that differ, those that are covered included.
    unsettled: u64,
}

impl<S: Storage, L: Ledger> Pass<S, L> {
    /// Appends an event for every candidate that is neither settled nor announced already.
    pub(super) async fn announce(&mut self, candidates: Vec<Candidate>) -> Result<(), Trouble> {
        let candidates = Arc::new(candidates);
        let mut due = self.due(&candidates).await?;
        self.counts.unsettled += due.unsettled;
        if due.announcements.is_empty() {
            return Ok(());
        }
        if self.seen_at.elapsed() > MAX_VIEW_AGE {
            self.refresh().await?;
            due = self.due(&candidates).await?;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let confirmed = self.confirmed(due.announcements).await?;
            let (announced, failure) = self.append(confirmed).await?;
            for (announcement, _) in &announced {
                self.counts.count_announced(announcement.kind);
            }
            self.with_kafka(move |ledger| ledger.record(&announced))
                .await?;
            let Some(error) = failure else {
                return Ok(());
            };
            self.kafka_failed(&error, &mut pause).await?;
            due = self.due(&candidates).await?;
        }
    }

    /// Sees what convert has finished and settled until now.
    pub(super) async fn refresh(&mut self) -> Result<(), Stopped> {
        self.with_kafka(L::refresh).await?;
        self.seen_at = Instant::now();
        Ok(())
    }

    /// The announcements to make, by what is known now.
    async fn due(&self, candidates: &Arc<Vec<Candidate>>) -> Result<Due, Stopped> {
        let candidates = Arc::clone(candidates);
        self.with_kafka(move |ledger| {
            let mut due = Due::default();
            for candidate in candidates.iter() {
                let settled = ledger.settled(&candidate.object)?;
                let cleaned = match candidate.may_be_cleaned_up() {
                    true => ledger.cleaned(&candidate.object)?,
                    false => None,
                };
                let announcement = candidate.announcement(settled.as_ref(), cleaned.as_ref());
                let Some(announcement) = announcement else {
                    continue;
                };
                due.unsettled += u64::from(announcement.kind == Kind::New);
                if !ledger.covers(&announcement)? {
                    due.announcements.push(announcement);
                }
            }
            Ok(due)
        })
        .await
    }

    /// Leaves out what a look at the source does not bear out. An altered output whose source is not the settled one any more:
    /// an event of its own is on its way, or the source's part of the sweep announces it. A source that is there again, or of
    /// which the server does not say that it is gone.
    async fn confirmed(&self, due: Vec<Announcement>) -> Result<Vec<Announcement>, Trouble> {
        let confirmed = stream::iter(due).map(|announcement| async move {
            if matches!(announcement.kind, Kind::New | Kind::Uncleaned) {
                return Ok(Some(announcement));
            }
            let source = ObjectRef::try_new(
                announcement.event.bucket.as_str(),
                announcement.event.key.as_str(),
            );
            let Ok(source) = source else { return Ok(None) };
            let confirmed = match (announcement.kind, self.look(&source).await?) {
                (Kind::Gone, head) => head == Head::Gone,
                (_, Head::There(head)) => Some(head.etag) == announcement.event.etag,
                (_, Head::Gone | Head::Untold) => false,
            };
            Ok::<_, S3Error>(confirmed.then_some(announcement))
        });
        let confirmed = confirmed
            .buffer_unordered(MAX_HEADS)
            .try_collect::<Vec<_>>();
        let confirmed = self.or_stopped(confirmed).await??;
        Ok(confirmed.into_iter().flatten().collect())
    }

    /// What Kafka has acknowledged, and why it did not the rest.
    async fn append(
        &self,
        announcements: Vec<Announcement>,
    ) -> Result<(Vec<(Announcement, Position)>, Option<LedgerError>), Stopped> {
        let appends = stream::iter(announcements).map(|announcement| async move {
            let position = self.ledger.append(&announcement.event).await?;
            info!(
                bucket = announcement.event.bucket, key = announcement.event.key,
                event_id = %announcement.event.id, traceparent = announcement.event.trace_parent,
                kind = announcement.kind.name(), mark = announcement.mark,
                "announced by the sweep"
            );
            Ok::<_, LedgerError>((announcement, position))
        });
        let ended = appends.buffer_unordered(MAX_APPENDING).collect::<Vec<_>>();
        let mut announced = Vec::new();
        let mut failure = None;
        for end in self.or_stopped(ended).await? {
            match end {
                Ok(end) => announced.push(end),
                Err(error) => failure = Some(error),
            }
        }
        Ok((announced, failure))
    }

    /// A call to the ledger, again and again until it succeeds, on a thread that may block.
    pub(super) async fn with_kafka<T: Send + 'static>(
        &self,
        call: impl Fn(&L) -> Result<T, LedgerError> + Send + Sync + 'static,
    ) -> Result<T, Stopped> {
        let call = Arc::new(call);
        let mut pause = FIRST_PAUSE;
        loop {
            let (ledger, call) = (Arc::clone(&self.ledger), Arc::clone(&call));
            let called = tokio::task::spawn_blocking(move || call(&ledger));
            let answer = self.or_stopped(called).await?;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(panic) => LedgerError::Panicked(panic.to_string()),
            };
            self.kafka_failed(&error, &mut pause).await?;
        }
    }

    async fn kafka_failed(&self, error: &LedgerError, pause: &mut Duration) -> Result<(), Stopped> {
        self.tally.failed("kafka");
        warn!(error = chain(error), "the sweep waits for Kafka");
        self.wait_until(Instant::now() + jittered(*pause)).await?;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
