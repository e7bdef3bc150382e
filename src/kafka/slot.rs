//! What a worker may work on at once: a number of events, and the memory they are expected to hold.
//!
//! An event that waits for something outside (a server that is away, a permission) gives its slot back while it waits, so
//! that any number of them hold nobody up.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// The byte budget is counted in units of this many bytes, because semaphores count in 32 bits.
const UNIT: u64 = 4096;

/// The slots of one worker.
#[derive(Clone)]
pub struct Slots {
    events: Arc<Semaphore>,
    units: Arc<Semaphore>,
    max_events: usize,
    max_units: u32,
}

impl Slots {
    pub fn new(max_events: usize, max_bytes: u64) -> Self {
        let max_units = u32::try_from((max_bytes / UNIT).max(1))
            .unwrap_or(u32::MAX)
            .min(1 << 28);
        Self {
            events: Arc::new(Semaphore::new(max_events.max(1))),
            units: Arc::new(Semaphore::new(max_units as usize)),
            max_events: max_events.max(1),
            max_units,
        }
    }

    /// Waits for a slot. After [`Slots::close`] it waits for ever: nothing new begins.
    pub async fn take(&self, weight_bytes: u64) -> Slot {
        self.take_several(1, weight_bytes).await
    }

    /// Waits until nothing else is worked on, and keeps it so.
    pub async fn take_alone(&self, weight_bytes: u64) -> Slot {
        let all = u32::try_from(self.max_events).unwrap_or(u32::MAX);
        self.take_several(all, weight_bytes).await
    }

    async fn take_several(&self, events: u32, weight_bytes: u64) -> Slot {
        // One event is always let through, however heavy.
        let units = u32::try_from(weight_bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.max_units);
        let mut slot = Slot {
            slots: self.clone(),
            events,
            units,
            held: None,
        };
        slot.hold().await;
        slot
    }

    /// Begins no more work; what has a slot goes on.
    pub fn close(&self) {
        self.events.close();
        self.units.close();
    }

    /// Events being worked on.
    pub fn in_use(&self) -> usize {
        self.max_events - self.events.available_permits()
    }

    /// Bytes of the budget in use.
    pub fn bytes_in_use(&self) -> u64 {
        (u64::from(self.max_units) - self.units.available_permits() as u64) * UNIT
    }
}

/// Leave to work on one event, until dropped.
pub struct Slot {
    slots: Slots,
    /// Slots it fills: one, or all of them.
    events: u32,
    units: u32,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Slot {
    /// Waits without the slot, then for a slot again; but alone, if it is alone.
    pub async fn pause(&mut self, pause: Duration) {
        // Who has to be alone stays so: what would begin meanwhile could be to blame for what happens.
        if self.events > 1 {
            return sleep(pause).await;
        }
        self.held = None;
        sleep(pause).await;
        self.hold().await;
    }

    async fn hold(&mut self) {
        // The number before the bytes, always: whoever has bytes can finish.
        let event = Arc::clone(&self.slots.events)
            .acquire_many_owned(self.events)
            .await;
        let units = Arc::clone(&self.slots.units)
            .acquire_many_owned(self.units)
            .await;
        match (event, units) {
            (Ok(event), Ok(units)) => self.held = Some((event, units)),
            // Closed: the work is left to the next owner of the partition, and cancelled with the session.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn events_and_bytes_are_bounded_and_the_heaviest_event_runs_alone() {
        let slots = Slots::new(2, 10 * UNIT);
        let first = slots.take(UNIT).await;
        let second = slots.take(UNIT).await;
        assert!(
            slots.take(UNIT).now_or_never().is_none(),
            "a third event was let in"
        );
        drop((first, second));
        let heavy = slots.take(u64::MAX).await;
        assert_eq!((slots.in_use(), slots.bytes_in_use()), (1, 10 * UNIT));
        assert!(
            slots.take(1).now_or_never().is_none(),
            "a byte more was let in"
        );
        drop(heavy);
        assert_eq!((slots.in_use(), slots.bytes_in_use()), (0, 0));
    }

    #[tokio::test]
    async fn whoever_waits_holds_nobody_up_and_goes_on_in_a_slot() {
        let slots = Slots::new(1, UNIT);
        let mut waiting = slots.take(1).await;
        let pause = Duration::from_millis(20);
        // The only slot is free while its owner waits, and the owner waits for it when it is taken.
        tokio::join!(waiting.pause(pause), async {
            let other = slots.take(1).await;
            sleep(2 * pause).await;
            assert_eq!(slots.in_use(), 1);
            drop(other);
        });
        assert_eq!(slots.in_use(), 1);
        drop(waiting);
        assert_eq!(slots.in_use(), 0);
    }

    #[tokio::test]
    async fn whoever_is_alone_waits_for_all_others_and_lets_nobody_beside_him() {
        let slots = Slots::new(2, 10 * UNIT);
        let first = slots.take(1).await;
        assert!(slots.take_alone(1).now_or_never().is_none());
        drop(first);
        let mut alone = slots.take_alone(1).await;
        assert!(slots.take(1).now_or_never().is_none());
        let pause = alone.pause(Duration::from_millis(20));
        let (_, other) = tokio::join!(pause, async { slots.take(1).now_or_never().is_some() });
        assert!(!other, "somebody else began meanwhile");
        drop(alone);
        assert!(slots.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn after_closing_nothing_new_begins() {
        let slots = Slots::new(2, 10 * UNIT);
        let running = slots.take(1).await;
        slots.close();
        assert!(slots.take(1).now_or_never().is_none());
        assert_eq!(slots.in_use(), 1);
        drop(running);
        assert_eq!(slots.in_use(), 0);
    }
}
