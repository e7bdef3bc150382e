//! The end of a sweep: old states whose object is listed no more are announced, so that convert forgets them.
//!
//! What is announced: a state of more than `state.retention`, of a key that this sweep's listings cover and a feed takes, that
//! was in none of them, and of which a HEAD says that it is not there. All of that or nothing: after a sweep that did not see
//! everything no state is looked at. Convert looks once more, after its grace, before it forgets.

use std::sync::Arc;

use tracing::warn;

use super::{
    candidate::{Candidate, Seen},
    ledger::{Ledger, OldStates},
    pass::{Forgetting, Pass, Stopped, Trouble},
    storage::Storage,
    tally::Counts,
};
use crate::{object::ObjectRef, topics::Millis};

/// Announced for a partition and sweep: each costs convert some seconds of looking, and nothing else should wait for it long.
const MOST_GONE: u64 = 1_000;

/// Which objects may be forgotten, by their names.
type Wanted = dyn Fn(&ObjectRef) -> bool + Send + Sync;

impl<S: Storage, L: Ledger> Pass<S, L> {
    /// Announces the old states whose object is gone. What fails is left to the next sweep: nothing is lost by it.
    pub(super) async fn forget(&mut self) -> Result<(), Stopped> {
        let Some(Forgetting {
            settled_before,
            listed,
        }) = self.forgetting.take()
        else {
            return Ok(());
        };
        if !self.tally.is_complete() {
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let is_wanted: Arc<Wanted> = Arc::new(move |object: &ObjectRef| {
            !listed.may_hold(object.message_key().as_bytes()) && plan.lists(object)
        });
        for partition in 0..self.ledger.partitions() {
            match self.forget_in(partition, settled_before, &is_wanted).await {
                Ok(()) => {}
                Err(Trouble::Stopped) => return Err(Stopped),
                Err(trouble) => {
                    self.tally.failed(trouble.code());
                    warn!(error = %trouble, "what is gone can't be looked at; the next sweep forgets it");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn forget_in(
        &mut self,
        partition: i32,
        before: Millis,
        is_wanted: &Arc<Wanted>,
    ) -> Result<(), Trouble> {
        let (mut next, mut gone) = (Some(0), 0);
        while let Some(next_offset) = next.filter(|_| gone < MOST_GONE) {
            let from = OldStates {
                partition,
                next_offset,
                before,
            };
            let is_wanted = Arc::clone(is_wanted);
            let page = self
                .with_kafka(move |ledger| ledger.old_states(from, &*is_wanted))
                .await?;
            next = page.next_offset;
            let candidates = page.states.into_iter().map(|(object, state)| Candidate {
                object,
                seen: Seen::Nothing(Box::new(state)),
            });
            self.counts = Counts::default();
            self.announce(candidates.collect()).await?;
            gone += self.counts.gone;
            self.tally.add(self.counts);
        }
        Ok(())
    }
}
