//! What a sweep knows from Kafka, and what it writes there: settled states, convert's progress, announcements.

use std::{
    future::Future,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    announced::{Announced, Entry},
    candidate::{Announcement, Kind},
};
use crate::{
    cleanup::{self, state::Cleaned},
    config::Kafka,
    convert::{
        STAGE,
        state::{self, Settled},
    },
    failure::chain,
    intake::publish::{PublishError, Publisher},
    kafka::{
        Position, StateFolder, partitioner::partition_of, reader::ReadError, store::StoreError,
        view::View,
    },
    object::ObjectRef,
    topics::{Millis, ObjectEvent, Topics},
};

/// Why Kafka, or the local copy of what is in it, could not be used. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("read what is settled")]
    Read(#[from] ReadError),
    #[error("use the sweep's local state")]
    Store(#[from] StoreError),
    #[error("append an announcement")]
    Publish(#[from] PublishError),
    #[error(
        "the local state of {0} can't be read: {1}; stop this worker and delete its state folder"
    )]
    Damaged(String, String),
    #[error("look at what is settled: {0}")]
    Panicked(String),
}

/// Where to look for old states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldStates {
    pub partition: i32,
    pub next_offset: i64,
    /// They were settled before.
    pub before: Millis,
}

/// Some old states, and where there are more.
#[derive(Debug, Default)]
pub struct OldPage {
    pub states: Vec<(ObjectRef, Settled)>,
    pub next_offset: Option<i64>,
}

/// Old states that are looked at together.
const OLD_PAGE: usize = 500;

/// Kafka, as far as a sweep needs it. All but `append` block.
pub trait Ledger: Send + Sync + 'static {
    /// Sees what convert has finished and settled until now.
    fn refresh(&self) -> Result<(), LedgerError>;

    fn settled(&self, object: &ObjectRef) -> Result<Option<Settled>, LedgerError>;

    /// Partitions that states are in.
    fn partitions(&self) -> i32;

    /// The next states of a partition that were settled before a time, of objects that are wanted. What is settled now may be
    /// something else.
    fn old_states(
        &self,
        from: OldStates,
        wanted: &dyn Fn(&ObjectRef) -> bool,
    ) -> Result<OldPage, LedgerError>;

    /// What was done to the source, if that is known.
    fn cleaned(&self, object: &ObjectRef) -> Result<Option<Cleaned>, LedgerError>;

    /// Whether convert has still to come to an announcement of exactly this, or the clean-up to the results it has.
    fn covers(&self, announcement: &Announcement) -> Result<bool, LedgerError>;

    /// Appends an event; where it is, once it is there to stay.
    fn append(
        &self,
        event: &ObjectEvent,
    ) -> impl Future<Output = Result<Position, LedgerError>> + Send;

    /// Remembers what was appended, and where.
    fn record(&self, announced: &[(Announcement, Position)]) -> Result<(), LedgerError>;
}

/// The real Kafka.
pub struct KafkaLedger {
    view: View,
    cleanups: View,
    announced: Announced,
    publisher: Publisher,
    events: String,
    committed: Mutex<Vec<i64>>,
    /// What the clean-up stage has still to come to; `None` when that and its view are older than the rest: they are looked at
    /// when the first object asks for it.
    cleanup_ahead: Mutex<Option<Ahead>>,
    results: String,
    /// Ends a refresh that waits.
    shutdown: CancellationToken,
    /// Locked as long as anything works in it.
    _folder: Arc<StateFolder>,
}

impl KafkaLedger {
    /// Opens what an earlier run left in the folder. Blocks.
    pub fn open(
        kafka: &Kafka,
        topics: &Topics,
        publisher: Publisher,
        folder: Arc<StateFolder>,
        shutdown: CancellationToken,
    ) -> Result<Self, LedgerError> {
        let group = format!("{}.{STAGE}", kafka.group);
        let path = folder.store_path(super::STAGE);
        let view = View::open(
            kafka,
            &group,
            &topics.objects,
            &path.join("objects"),
            state::fold,
        )?;
        let cleanups = View::open(
            kafka,
            &format!("{}.{}", kafka.group, cleanup::STAGE),
            &topics.cleanups,
            &path.join("cleanups"),
            cleanup::state::fold,
        )?;
        let log = view.log_of(kafka, &topics.events)?;
        let announced = Announced::open(&path.join("announced"), log, view.partitions())?;
        Ok(Self {
            view,
            cleanups,
            announced,
            publisher,
            events: topics.events.clone(),
            committed: Mutex::default(),
            cleanup_ahead: Mutex::default(),
            results: topics.results.clone(),
            shutdown,
            _folder: folder,
        })
    }
}

/// Results that the clean-up stage may have before it when it is handed more: one that is away, or far behind, may find in
/// them what it would be handed.
const MAX_CLEANUP_BEHIND: i64 = 1_000;

/// How long what was seen of the clean-up stage is believed: a sweep that hands over much must see that it has come on.
const CLEANUPS_SEEN_FOR: Duration = Duration::from_secs(5);

/// What lies before the clean-up stage.
struct Ahead {
    seen_at: Instant,
    /// Results, and what was handed over since they were counted, by partition.
    behind: Vec<i64>,
}

impl KafkaLedger {
    fn lock_cleanup(&self) -> MutexGuard<'_, Option<Ahead>> {
        (self.cleanup_ahead.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what was cleaned up until a moment ago; whether the stage may be handed more in a partition. What can't be seen is
    /// said and left to a later look: it must not keep the sweep from its other work.
    fn may_hand_over(&self, partition: i32) -> bool {
        let mut ahead = self.lock_cleanup();
        let known = ahead
            .take()
            .filter(|ahead| ahead.seen_at.elapsed() < CLEANUPS_SEEN_FOR);
        let known = ahead.insert(known.unwrap_or_else(|| Ahead {
            behind: self.see_cleanups().unwrap_or_else(|error| {
                warn!(
                    error = chain(&error),
                    "what was cleaned up can't be seen; nothing is handed to the clean-up"
                );
                Vec::new()
            }),
            seen_at: Instant::now(),
        }));
        let index = usize::try_from(partition).unwrap_or_default();
        let behind = known.behind.get(index).copied();
        behind.is_some_and(|behind| behind <= MAX_CLEANUP_BEHIND)
    }

    fn see_cleanups(&self) -> Result<Vec<i64>, ReadError> {
        let behind = self.cleanups.behind(&self.results, &self.shutdown)?;
        self.cleanups.catch_up(&self.shutdown)?;
        Ok(behind)
    }

    fn count_handed_over(&self, partition: i32) {
        let index = usize::try_from(partition).unwrap_or_default();
        let mut ahead = self.lock_cleanup();
        let behind = ahead.as_mut().and_then(|ahead| ahead.behind.get_mut(index));
        if let Some(behind) = behind {
            *behind += 1;
        }
    }
}

impl Ledger for KafkaLedger {
    /// In this order: what lies below a committed offset has its state in the view that is read after it.
    fn refresh(&self) -> Result<(), LedgerError> {
        let committed = self.view.committed_offsets(&self.events, &self.shutdown)?;
        self.view.catch_up(&self.shutdown)?;
        *self.lock_cleanup() = None;
        self.announced.forget_passed(&committed)?;
        *self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = committed;
        Ok(())
    }

    fn settled(&self, object: &ObjectRef) -> Result<Option<Settled>, LedgerError> {
        let Some(bytes) = self.view.get(object.message_key().as_bytes())? else {
            return Ok(None);
        };
        Settled::read(&bytes, object.key())
            .map(Some)
            .map_err(|reason| LedgerError::Damaged(object.to_string(), reason))
    }

    fn partitions(&self) -> i32 {
        self.view.partitions()
    }

    /// Reads the topic itself: the copy has only hashes of the keys.
    fn old_states(
        &self,
        from: OldStates,
        wanted: &dyn Fn(&ObjectRef) -> bool,
    ) -> Result<OldPage, LedgerError> {
        let before_ms = from.before.0;
        let mut states = Vec::new();
        let next_offset = self.view.read_older(
            from.partition,
            from.next_offset,
            before_ms,
            &self.shutdown,
            |key, value| {
                let object = ObjectRef::from_message_key(key).filter(wanted);
                if let (Some(object), Some(value)) = (object, value) {
                    let settled = state::settled_before(value, object.key(), before_ms)?;
                    states.extend(settled.map(|settled| (object, settled)));
                }
                Ok(match states.len() < OLD_PAGE {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            },
        )?;
        Ok(OldPage {
            states,
            next_offset,
        })
    }

    fn cleaned(&self, object: &ObjectRef) -> Result<Option<Cleaned>, LedgerError> {
        let key = object.message_key();
        // Brings the view up to date; where that fails, `covers` hands nothing over.
        self.may_hand_over(partition_of(key.as_bytes(), self.view.partitions()));
        let Some(bytes) = self.cleanups.get(key.as_bytes())? else {
            return Ok(None);
        };
        Cleaned::read(&bytes)
            .map(Some)
            .map_err(|reason| LedgerError::Damaged(object.to_string(), reason))
    }

    fn covers(&self, announcement: &Announcement) -> Result<bool, LedgerError> {
        let key = announcement.message_key();
        let partition = partition_of(key.as_bytes(), self.view.partitions());
        if announcement.kind == Kind::Uncleaned && !self.may_hand_over(partition) {
            return Ok(true);
        }
        let announced =
            self.announced
                .offset_of(partition, &announcement.subject(), &announcement.mark)?;
        let committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(partition).unwrap_or_default();
        let committed = committed.get(index).copied().unwrap_or(0);
        Ok(announced.is_some_and(|offset| committed <= offset))
    }

    async fn append(&self, event: &ObjectEvent) -> Result<Position, LedgerError> {
        Ok(self.publisher.append(event).await?)
    }

    fn record(&self, announced: &[(Announcement, Position)]) -> Result<(), LedgerError> {
        let entry = |(announcement, position): &(Announcement, Position)| Entry {
            partition: position.partition,
            subject: announcement.subject(),
            mark: announcement.mark.clone(),
            offset: position.offset,
        };
        let uncleaned = announced
            .iter()
            .filter(|(announcement, _)| announcement.kind == Kind::Uncleaned);
        uncleaned.for_each(|(_, position)| self.count_handed_over(position.partition));
        let entries: Vec<Entry> = announced.iter().map(entry).collect();
        Ok(self.announced.record(&entries)?)
    }
}
