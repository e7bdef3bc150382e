//! Which events of a partition are done.
//!
//! Work finishes out of order. The committed offset stays at the prefix: the lowest offset that was delivered and is not
//! finished, or the consumer's position when there is none. The finished offsets above it travel in the offset's
//! metadata: `fm1:` and a bitset in base64. Offsets that are never delivered (transaction markers, aborted records) never
//! hold the prefix back.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

/// Offsets from the prefix to the highest one in work: bounded, so that the bitset stays under 2 KB of base64
/// (the broker's limit on the metadata, `offset.metadata.max.bytes`, is 4,096 bytes unless said).
pub const MAX_GAP: i64 = 10_000;

/// Marks metadata written by this code, version 1.
pub const TAG: &str = "fm1:";

/// A committed offset with the finished offsets above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPoint {
    /// The next offset to read.
    pub offset: i64,
    pub metadata: String,
}

impl CommitPoint {
    /// A point with nothing finished above it.
    pub fn plain(offset: i64) -> Self {
        Self {
            offset,
            metadata: encode(offset, &BTreeSet::new()),
        }
    }
}

/// What is done of one partition, since its restore.
#[derive(Debug)]
pub struct Progress {
    /// Where the prefix was at the restore; it never goes below.
    start: i64,
    /// Delivered, not finished.
    open: BTreeSet<i64>,
    /// Finished, at or above the prefix.
    finished: BTreeSet<i64>,
    /// One past the highest delivered offset.
    delivered_end: i64,
}

/// What a delivered offset is.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    New,
    /// Finished and committed before the restore: skipped in silence.
    AlreadyFinished,
}

impl Progress {
    pub fn resume(offset: i64, finished: BTreeSet<i64>) -> Self {
        Self {
            start: offset,
            open: BTreeSet::new(),
            finished,
            delivered_end: offset,
        }
    }

    /// Whether another event may be taken: the gap behind a slow one is bounded.
    pub fn has_room(&self) -> bool {
        self.fits(self.delivered_end)
    }

    /// Whether an event of this offset may be worked on now. One far behind others (much was aborted between them) has to
    /// wait, or its finishing could not be written down.
    pub fn fits(&self, offset: i64) -> bool {
        offset - self.prefix(&BTreeSet::new(), offset) < MAX_GAP
    }

    pub fn deliver(&mut self, offset: i64) -> Delivery {
        self.delivered_end = self.delivered_end.max(offset + 1);
        if self.finished.contains(&offset) {
            return Delivery::AlreadyFinished;
        }
        self.open.insert(offset);
        Delivery::New
    }

    /// Takes note of offsets whose outcomes are committed, and not before: an outcome that is only on its way into a
    /// transaction may still be lost.
    pub fn finish(&mut self, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            if self.open.remove(&offset) {
                self.finished.insert(offset);
            }
        }
        // Below the prefix nothing is ever asked for again; what was restored and not delivered yet lies above it.
        let prefix = self.open.first().copied().unwrap_or(self.delivered_end);
        self.finished = self.finished.split_off(&prefix);
    }

    /// The point to commit together with the outcomes of these offsets, given the consumer's position (which passes
    /// markers and aborted records). Changes nothing.
    pub fn commit_point(&self, outcomes: &BTreeSet<i64>, position: i64) -> CommitPoint {
        let prefix = self.prefix(outcomes, position);
        let finished = self
            .finished
            .union(outcomes)
            .copied()
            .filter(|offset| *offset >= prefix)
            .collect();
        CommitPoint {
            offset: prefix,
            metadata: encode(prefix, &finished),
        }
    }

    /// The lowest offset that is delivered, not finished, and not about to be.
    fn prefix(&self, outcomes: &BTreeSet<i64>, position: i64) -> i64 {
        let end = position.max(self.delivered_end).max(self.start);
        self.open
            .iter()
            .find(|offset| !outcomes.contains(offset))
            .copied()
            .unwrap_or(end)
    }

    /// Delivered events that are not finished.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }
}

/// `fm1:` and the bitset: bit `i` of byte `i / 8` stands for `prefix + i`; zero bytes at the end are left out.
fn encode(prefix: i64, finished: &BTreeSet<i64>) -> String {
    let Some(last) = finished.last() else {
        return TAG.to_owned();
    };
    let bits = usize::try_from(last - prefix).expect("finished offsets lie above the prefix") + 1;
    let mut set = vec![0u8; bits.div_ceil(8)];
    for offset in finished {
        let bit = (offset - prefix) as usize;
        set[bit / 8] |= 1 << (bit % 8);
    }
    format!("{TAG}{}", STANDARD_NO_PAD.encode(set))
}

/// Why the metadata of a committed offset is not ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("the committed offset does not carry feedmill's tag: somebody reset the group")]
    Foreign,
    #[error("the committed offset's metadata is damaged")]
    Damaged,
}

/// Reads the finished offsets back.
pub fn decode(offset: i64, metadata: &str) -> Result<BTreeSet<i64>, MetadataError> {
    let text = metadata.strip_prefix(TAG).ok_or(MetadataError::Foreign)?;
    let set = STANDARD_NO_PAD
        .decode(text)
        .map_err(|_| MetadataError::Damaged)?;
    let offsets = set.iter().enumerate().flat_map(|(index, byte)| {
        (0..8)
            .filter(move |bit| byte & (1 << bit) != 0)
            .map(move |bit| offset + (index * 8 + bit) as i64)
    });
    Ok(offsets.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Commits the outcomes of these offsets.
    fn commit(progress: &mut Progress, offsets: &[i64], position: i64) -> CommitPoint {
        let point = progress.commit_point(&offsets.iter().copied().collect(), position);
        progress.finish(offsets.iter().copied());
        point
    }

    #[test]
    fn work_finished_behind_a_slow_event_is_skipped_after_a_restart() {
        let mut progress = Progress::resume(5, BTreeSet::new());
        for offset in 5..10 {
            assert_eq!(progress.deliver(offset), Delivery::New);
        }
        let point = commit(&mut progress, &[6, 7, 9], 10);
        assert_eq!(point.offset, 5);

        let mut restarted = Progress::resume(5, decode(5, &point.metadata).unwrap());
        let again: Vec<i64> = (5..10)
            .filter(|offset| restarted.deliver(*offset) == Delivery::New)
            .collect();
        assert_eq!(again, [5, 8]);
    }

    #[test]
    fn an_outcome_that_was_not_committed_holds_the_prefix_back() {
        let mut progress = Progress::resume(0, BTreeSet::new());
        (0..3).for_each(|offset| assert_eq!(progress.deliver(offset), Delivery::New));
        // All three were in a transaction that was aborted; now only the first is committed.
        progress.commit_point(&BTreeSet::from([0, 1, 2]), 3);
        assert_eq!(commit(&mut progress, &[0], 3), CommitPoint::plain(1));
        assert_eq!(commit(&mut progress, &[1, 2], 3), CommitPoint::plain(3));
    }

    #[test]
    fn markers_and_aborted_records_do_not_hold_the_prefix_back() {
        let mut progress = Progress::resume(0, BTreeSet::new());
        progress.deliver(0);
        progress.deliver(4); // 1..4 were aborted
        assert_eq!(commit(&mut progress, &[0], 5).offset, 4);
        assert_eq!(commit(&mut progress, &[4], 6), CommitPoint::plain(6)); // 5 is a marker
    }

    #[test]
    fn finished_offsets_that_were_not_delivered_again_yet_are_kept() {
        let mut progress = Progress::resume(3, BTreeSet::from([5, 8]));
        assert_eq!(progress.deliver(3), Delivery::New);
        let point = progress.commit_point(&BTreeSet::new(), 4);
        assert_eq!(
            decode(point.offset, &point.metadata).unwrap(),
            BTreeSet::from([5, 8])
        );
    }

    #[test]
    fn the_gap_behind_a_slow_event_is_bounded_and_its_metadata_fits_the_broker() {
        let mut progress = Progress::resume(0, BTreeSet::new());
        let mut next = 0;
        while progress.has_room() {
            progress.deliver(next);
            next += 1;
        }
        assert_eq!(next, MAX_GAP);
        let point = commit(&mut progress, &(1..next).collect::<Vec<_>>(), next);
        assert_eq!(point.offset, 0);
        assert!(
            point.metadata.len() < 2048,
            "{} bytes",
            point.metadata.len()
        );
    }

    #[test]
    fn an_event_far_behind_a_slow_one_waits_for_it() {
        let mut progress = Progress::resume(0, BTreeSet::new());
        progress.deliver(100);
        progress.deliver(100 + 4 * MAX_GAP); // what lay between was aborted
        assert!(progress.fits(100) && !progress.fits(100 + 4 * MAX_GAP));
        progress.finish([100]);
        assert!(progress.fits(100 + 4 * MAX_GAP));
    }

    #[test]
    fn what_lies_below_the_prefix_is_forgotten_also_when_nothing_is_open() {
        let mut progress = Progress::resume(0, BTreeSet::from([5_000]));
        for offset in 0..1_000 {
            progress.deliver(offset);
            progress.finish([offset]);
        }
        assert_eq!(progress.finished, BTreeSet::from([5_000]));
    }

    #[test]
    fn metadata_of_others_is_told_from_damaged_metadata() {
        assert_eq!(decode(0, ""), Err(MetadataError::Foreign));
        assert_eq!(decode(0, "fm1:*"), Err(MetadataError::Damaged));
    }

    proptest! {
        /// Against a model: whatever the order of deliveries, completions, commits of any part of what is finished, aborts
        /// and restarts, every offset is worked on until it is committed, never after, and the prefix never goes back.
        #[test]
        fn nothing_is_skipped_and_nothing_committed_is_done_twice(
            steps in prop::collection::vec((0..5u8, 0..40usize), 1..300)
        ) {
            let mut progress = Progress::resume(0, BTreeSet::new());
            let (mut next, mut committed, mut last) = (0i64, BTreeSet::new(), 0);
            let (mut in_work, mut done): (BTreeSet<i64>, BTreeSet<i64>) = Default::default();
            let mut point = CommitPoint::plain(0);
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        let delivery = progress.deliver(next);
                        prop_assert_eq!(delivery == Delivery::AlreadyFinished, committed.contains(&next));
                        if delivery == Delivery::New {
                            in_work.insert(next);
                        }
                        next += 1;
                    }
                    2 => {
                        if let Some(offset) = in_work.iter().nth(pick % in_work.len().max(1)).copied() {
                            in_work.remove(&offset);
                            done.insert(offset);
                        }
                    }
                    3 => {
                        // A batch of some of what is done; every third transaction is aborted.
                        let batch: BTreeSet<i64> = done.iter().copied().take(pick % 5).collect();
                        let tried = progress.commit_point(&batch, next);
                        if pick % 3 != 0 {
                            progress.finish(batch.iter().copied());
                            done.retain(|offset| !batch.contains(offset));
                            committed.extend(batch);
                            prop_assert!(tried.offset >= last);
                            last = tried.offset;
                            point = tried;
                        }
                    }
                    _ => {
                        let finished = decode(point.offset, &point.metadata).unwrap();
                        progress = Progress::resume(point.offset, finished);
                        (next, in_work, done) = (point.offset, BTreeSet::new(), BTreeSet::new());
                    }
                }
                for offset in 0..point.offset {
                    prop_assert!(committed.contains(&offset), "{} was skipped", offset);
                }
            }
        }
    }
}
