//! The records of a partition that wait: how many, how large, since when; in bounded memory.
//!
//! Up to [`MOST`] of them are known one by one. Beyond that neighbours are kept together in groups of two, four, eight; of a
//! group that is finished in part, the rest is taken to be like the whole.

use std::collections::{BTreeSet, VecDeque};

use super::status::Waiting;

/// Groups kept of a partition: 48 bytes each.
const MOST: usize = 4_096;

/// The records of one partition from the committed offset on, as far as they were read.
pub struct Backlog {
    groups: VecDeque<Group>,
    /// Records that a new group may hold.
    width: u64,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first: i64,
    last: i64,
    events: u64,
    unknown_sizes: u64,
    bytes: u64,
    oldest: i64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            groups: VecDeque::new(),
            width: 1,
        }
    }
}

impl Backlog {
    /// Takes note of the next record: its size, if it says it, and when it was appended.
    pub fn push(&mut self, offset: i64, bytes: Option<u64>, at: i64) {
        let record = Group {
            first: offset,
            last: offset,
            events: 1,
            unknown_sizes: u64::from(bytes.is_none()),
            bytes: bytes.unwrap_or(0),
            oldest: at,
        };
        match self.groups.back_mut() {
            Some(group) if group.events < self.width => group.join(&record),
            _ => self.groups.push_back(record),
        }
        if self.groups.len() > MOST {
            self.coarsen();
        }
    }

    /// Forgets what lies below a committed offset.
    pub fn forget_below(&mut self, offset: i64) {
        while self.groups.front().is_some_and(|group| group.last < offset) {
            self.groups.pop_front();
        }
        if self.groups.is_empty() {
            self.width = 1;
        }
    }

    /// How many are not finished, and what they say; everything below `prefix` is finished, and these offsets.
    pub fn left(&self, prefix: i64, finished: &BTreeSet<i64>) -> (u64, Waiting) {
        let mut events = 0;
        let mut waiting = Waiting::default();
        for group in &self.groups {
            let done = group.finished(prefix, finished);
            let left = group.events.saturating_sub(done);
            let share =
                |of: u64| (u128::from(of) * u128::from(left) / u128::from(group.events)) as u64;
            events += left;
            waiting.bytes = waiting.bytes.saturating_add(share(group.bytes));
            waiting.unknown_sizes += share(group.unknown_sizes);
            if left > 0 && waiting.oldest.is_none() {
                waiting.oldest = Some(group.oldest);
            }
        }
        (events, waiting)
    }

    fn coarsen(&mut self) {
        self.width *= 2;
        let mut groups: VecDeque<Group> = VecDeque::with_capacity(MOST);
        for group in self.groups.drain(..) {
            match groups.back_mut() {
                Some(before) if before.events + group.events <= self.width => before.join(&group),
                _ => groups.push_back(group),
            }
        }
        self.groups = groups;
    }
}

impl Group {
    fn join(&mut self, next: &Self) {
        self.last = next.last;
        self.events += next.events;
        self.unknown_sizes += next.unknown_sizes;
        self.bytes = self.bytes.saturating_add(next.bytes);
        self.oldest = self.oldest.min(next.oldest);
    }

    /// How many of it are finished. Below the prefix all are, spread evenly over its offsets.
    fn finished(&self, prefix: i64, finished: &BTreeSet<i64>) -> u64 {
        let below = (prefix - self.first).clamp(0, self.last - self.first + 1);
        let span = (self.last - self.first + 1) as u64;
        let above = prefix.max(self.first)..=self.last.max(prefix);
        below as u64 * self.events / span + finished.range(above).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BTreeSet<i64> {
        BTreeSet::new()
    }

    #[test]
    fn what_waits_is_known_one_by_one_and_markers_between_do_not_count() {
        let mut backlog = Backlog::default();
        for (offset, size) in [(3, Some(10)), (4, None), (6, Some(30)), (9, Some(40))] {
            backlog.push(offset, size, 100 * offset);
        }
        let (events, waiting) = backlog.left(4, &BTreeSet::from([6]));
        assert_eq!(events, 2);
        let expected = Waiting {
            bytes: 40,
            unknown_sizes: 1,
            oldest: Some(400),
        };
        assert_eq!(waiting, expected);
        backlog.forget_below(10);
        assert_eq!(backlog.left(10, &none()), (0, Waiting::default()));
    }

    #[test]
    fn a_million_records_fit_into_bounded_memory_and_their_sums_stay_right() {
        let mut backlog = Backlog::default();
        let total = 1_000_000;
        for offset in 0..total {
            backlog.push(offset, Some(100), offset);
        }
        assert!(backlog.groups.len() <= MOST);
        let (events, waiting) = backlog.left(0, &none());
        assert_eq!((events, waiting.bytes), (1_000_000, 100_000_000));
        // One more than half, so that a group is cut somewhere.
        let prefix = total / 2 + 1;
        backlog.forget_below(prefix);
        let (events, waiting) = backlog.left(prefix, &none());
        assert!((498_000..=502_000).contains(&events), "{events}");
        assert!((49_800_000..=50_200_000).contains(&waiting.bytes));
        assert!((prefix - waiting.oldest.unwrap()).abs() < 1_000);
        backlog.forget_below(total);
        backlog.push(total, Some(1), 7);
        assert_eq!(backlog.left(total, &none()).1.oldest, Some(7));
    }
}
