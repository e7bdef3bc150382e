//! One sweep from its start to its end, page by page.
//!
//! Nothing is held but the page that is looked at. A page that fails is asked for again, from where the listing was, with
//! backoff; meanwhile the parts of other servers go on. Kafka is one for all parts, so it is waited for.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    candidate::{Candidate, Seen, is_young},
    ledger::Ledger,
    lines::{Bookmark, MAX_LIST_BYTES},
    listed::ListedKeys,
    plan::{Part, Plan, Way},
    storage::{Cursor, Listed, Page, Storage},
    tally::{Counts, Tally},
};
use crate::{
    backoff::jittered,
    config::After,
    object::ObjectRef,
    s3::{Failure, S3Error},
    topics::Millis,
};

/// HEAD requests at a time.
pub const MAX_HEADS: usize = 16;

/// How many times older than `min_age` a source is when it is handed to the clean-up: a younger one is left to the result
/// that is on its way there.
const CLEANUP_AGES: u32 = 10;

/// Pause after a failure, doubling up to the longest.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The shutdown began, and the sweep is not over.
#[derive(Debug)]
pub struct Stopped;

/// Why a page could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error("the list is not there; write it, or take it out of sweep.lists")]
    NoList,
    #[error("the list has {0} bytes, more than {MAX_LIST_BYTES}; split it")]
    LongList(u64),
    #[error("the list holds no line end in 64 KiB; it must name one key a line")]
    NoLines,
    #[error("the list changed while it was read, and is read anew")]
    ListChanged,
    #[error("the server answers the same page again and again")]
    Stuck,
    #[error("the shutdown began")]
    Stopped,
}

impl From<Stopped> for Trouble {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Trouble {
    /// Reason in metrics.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::S3(error) => error.failure.code(),
            Self::NoList => "list_missing",
            Self::LongList(_) => "list_too_large",
            Self::NoLines => "list_unreadable",
            Self::ListChanged => "list_changed",
            Self::Stuck => "listing_stuck",
            Self::Stopped => "stopped",
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::S3(error) => error.failure == Failure::Unavailable,
            other => matches!(other, Self::ListChanged),
        }
    }
}

/// One sweep over a plan.
pub struct Pass<S, L> {
    pub plan: Arc<Plan>,
    pub storage: Arc<S>,
    pub ledger: Arc<L>,
    pub min_age: Duration,
    /// What is to be forgotten when it is gone.
    pub forgetting: Option<Forgetting>,
    /// How long a part's server may be away before the part is left to the next sweep.
    pub patience: Duration,
    pub shutdown: CancellationToken,
    pub tally: Tally,
    /// What the page that is looked at comes to.
    pub counts: Counts,
    /// When the view of what is settled was last brought up to date.
    pub seen_at: Instant,
}

/// What a sweep needs to find the old states whose objects are gone.
pub struct Forgetting {
    /// They were settled before.
    pub settled_before: Millis,
    pub listed: ListedKeys,
}

/// A part, and how far it is looked through.
struct Progress {
    part: Part,
    place: Place,
    failing: Option<Failing>,
}

/// Where the next page of a part begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Start,
    Listing(Cursor),
    List(Bookmark),
}

/// What a page holds.
#[derive(Debug, Default)]
pub struct Found {
    pub candidates: Vec<Candidate>,
    /// Entries that can't be taken for what they are, each with the reason.
    pub unreadable: Vec<String>,
    /// `None` at the end of the part.
    pub next: Option<Place>,
}

/// A part whose requests fail, and may succeed later.
#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    pause: Duration,
    retry_at: Instant,
}

impl Failing {
    fn again(earlier: Option<Self>) -> Self {
        let now = Instant::now();
        let pause = earlier.map_or(FIRST_PAUSE, |failing| {
            (failing.pause * 2).min(LONGEST_PAUSE)
        });
        Self {
            since: earlier.map_or(now, |failing| failing.since),
            pause,
            retry_at: now + jittered(pause),
        }
    }
}

impl Progress {
    fn new(part: &Part) -> Self {
        Self {
            part: part.clone(),
            place: Place::Start,
            failing: None,
        }
    }
}

impl<S: Storage, L: Ledger> Pass<S, L> {
    /// Looks through all parts; whether everything was seen.
    pub async fn run(mut self) -> Result<bool, Stopped> {
        self.refresh().await?;
        let mut queue: VecDeque<Progress> = self.plan.parts.iter().map(Progress::new).collect();
        while let Some(mut progress) = queue.pop_front() {
            if let Some(failing) = progress.failing {
                self.wait_until(failing.retry_at).await?;
            }
            match self.page(&mut progress).await {
                Ok(true) => {
                    progress.failing = None;
                    queue.push_front(progress);
                }
                Ok(false) => self.tally.part_done(),
                Err(Trouble::Stopped) => return Err(Stopped),
                Err(trouble) => self.put_off(progress, &trouble, &mut queue),
            }
        }
        self.forget().await?;
        Ok(self.tally.end())
    }

    /// Puts a part behind those that go on, or gives it up.
    fn put_off(
        &mut self,
        mut progress: Progress,
        trouble: &Trouble,
        queue: &mut VecDeque<Progress>,
    ) {
        let part = progress.part.name();
        self.tally.failed(trouble.code());
        let failing = Failing::again(progress.failing);
        if !trouble.may_pass() || failing.since.elapsed() >= self.patience {
            warn!(part, error = %trouble, "can't be swept");
            self.tally.incomplete(part);
            return;
        }
        warn!(part, error = %trouble, "the sweep comes back to it");
        if matches!(trouble, Trouble::ListChanged) {
            progress.place = Place::Start;
        }
        progress.failing = Some(failing);
        let waits_longer = |other: &Progress| {
            let other = other.failing.as_ref();
            other.is_some_and(|other| other.retry_at > failing.retry_at)
        };
        let place = queue.iter().position(waits_longer);
        queue.insert(place.unwrap_or(queue.len()), progress);
    }

    /// Looks at the next page of a part; whether there are more.
    async fn page(&mut self, progress: &mut Progress) -> Result<bool, Trouble> {
        self.counts = Counts::default();
        let found = self.find(&progress.part, &progress.place).await?;
        if found.next.as_ref() == Some(&progress.place) {
            return Err(Trouble::Stuck);
        }
        self.announce(found.candidates).await?;
        self.say_unreadable(&progress.part, &found.unreadable);
        self.tally.add(self.counts);
        let more = found.next.is_some();
        progress.place = found.next.unwrap_or(Place::Start);
        Ok(more)
    }

    async fn find(&mut self, part: &Part, place: &Place) -> Result<Found, Trouble> {
        match part {
            Part::ListFile { list, prefix } => self.named(list, prefix, place).await,
            Part::Sources { bucket, prefix } => {
                let page = self.listed(bucket, prefix, place).await?;
                Ok(self.listed_sources(bucket, page))
            }
            Part::Outputs {
                bucket,
                prefix,
                ways,
            } => {
                let page = self.listed(bucket, prefix, place).await?;
                Ok(self.listed_outputs(bucket, ways, page))
            }
        }
    }

    async fn listed(&self, bucket: &str, prefix: &str, place: &Place) -> Result<Page, Trouble> {
        let cursor = match place {
            Place::Listing(cursor) => Some(cursor),
            Place::Start | Place::List(_) => None,
        };
        let page = self.storage.page(bucket, prefix, cursor);
        Ok(self.or_stopped(page).await??)
    }

    fn listed_sources(&mut self, bucket: &str, page: Page) -> Found {
        let mut unreadable = page.unreadable;
        let mut sources = Vec::with_capacity(page.objects.len());
        for listed in page.objects {
            match ObjectRef::try_new(bucket, listed.key.as_str()) {
                Ok(object) => {
                    if let Some(forgetting) = &mut self.forgetting {
                        forgetting.listed.add(object.message_key().as_bytes());
                    }
                    sources.push((object, listed));
                }
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        Found {
            candidates: self.sources(sources),
            unreadable,
            next: page.next.map(Place::Listing),
        }
    }

    fn listed_outputs(&mut self, bucket: &str, ways: &[Way], page: Page) -> Found {
        let now = Millis::now();
        let mut candidates = Vec::new();
        for listed in page.objects {
            self.counts.outputs += 1;
            let Some(object) = self.plan.source_of(&listed.key, ways) else {
                continue;
            };
            if self.is_young(&listed, now) {
                self.counts.waiting += 1;
                continue;
            }
            candidates.push(Candidate {
                object,
                seen: Seen::Output {
                    bucket: bucket.to_owned(),
                    key: listed.key,
                    etag: listed.etag,
                },
            });
        }
        Found {
            candidates,
            unreadable: page.unreadable,
            next: page.next.map(Place::Listing),
        }
    }

    /// The source objects that have to be compared.
    pub(super) fn sources(&mut self, objects: Vec<(ObjectRef, Listed)>) -> Vec<Candidate> {
        let now = Millis::now();
        let mut candidates = Vec::new();
        for (object, listed) in objects {
            self.counts.sources += 1;
            let Some(after) = self.plan.takes(&object) else {
                self.counts.unmatched += 1;
                continue;
            };
            if self.is_young(&listed, now) {
                self.counts.waiting += 1;
                continue;
            }
            let has_left_results = !is_young(listed.modified, CLEANUP_AGES * self.min_age, now);
            let clean_up = has_left_results.then(|| after.clone());
            let clean_up = clean_up.filter(|after| *after != After::Keep);
            candidates.push(Candidate {
                seen: Seen::Source {
                    etag: listed.etag,
                    size: listed.size,
                    modified: listed.modified,
                    clean_up,
                },
                object,
            });
        }
        candidates
    }

    fn say_unreadable(&mut self, part: &Part, entries: &[String]) {
        let Some(first) = entries.first() else {
            return;
        };
        let part = part.name();
        let more = entries.len() - 1;
        warn!(
            part,
            reason = first,
            more,
            "an entry can't be taken for what it is"
        );
        self.counts.unreadable += entries.len() as u64;
        self.tally.failed("unreadable_entry");
        self.tally.incomplete(part);
    }

    fn is_young(&self, listed: &Listed, now: Millis) -> bool {
        is_young(listed.modified, self.min_age, now)
    }

    pub(super) async fn wait_until(&self, at: Instant) -> Result<(), Stopped> {
        self.or_stopped(tokio::time::sleep_until(at.into())).await
    }

    pub(super) async fn or_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        let stopped = self.shutdown.run_until_cancelled(work).await;
        stopped.ok_or(Stopped)
    }
}
