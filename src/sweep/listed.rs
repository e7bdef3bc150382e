//! Which keys a sweep has listed, in memory that does not grow: a Bloom filter.
//!
//! A key that was listed is always known. One that was not may be taken for one that was, more often the more keys there are:
//! one in 2,700 beside 10 million listed keys, one in three beside 100 million. Which ones differs from sweep to sweep,
//! because the hash does, so that each is told sooner or later.

use std::hash::{BuildHasher, RandomState};

/// Enough for some 100 million keys; only while a sweep runs, and only when something is to be forgotten.
const BYTES: usize = 32 * 1024 * 1024;

/// Bits of a key.
const PROBES: u64 = 4;

const WORD_BITS: u64 = u64::BITS as u64;

/// The keys so far.
pub struct ListedKeys {
    words: Vec<u64>,
    hash: RandomState,
}

impl Default for ListedKeys {
    fn default() -> Self {
        Self::of_bytes(BYTES)
    }
}

impl ListedKeys {
    fn of_bytes(bytes: usize) -> Self {
        Self {
            words: vec![0; bytes / size_of::<u64>()],
            hash: RandomState::new(),
        }
    }

    pub fn add(&mut self, key: &[u8]) {
        for bit in self.bits(key) {
            self.words[(bit / WORD_BITS) as usize] |= 1 << (bit % WORD_BITS);
        }
    }

    /// Whether the key may have been listed; not so only if it was not.
    pub fn may_hold(&self, key: &[u8]) -> bool {
        self.bits(key)
            .all(|bit| self.words[(bit / WORD_BITS) as usize] & (1 << (bit % WORD_BITS)) != 0)
    }

    /// Two hashes make all of them: Kirsch and Mitzenmacher, "Less Hashing, Same Performance".
    fn bits(&self, key: &[u8]) -> impl Iterator<Item = u64> + use<> {
        let bits = self.words.len() as u64 * WORD_BITS;
        let first = self.hash.hash_one(key);
        let step = self.hash.hash_one((key, first)) | 1;
        (0..PROBES).map(move |probe| first.wrapping_add(probe.wrapping_mul(step)) % bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> String {
        format!("bucket/folder/{number:09}.xml")
    }

    #[test]
    fn what_was_listed_is_known_and_most_of_the_rest_is_told_apart() {
        const KEYS: usize = 20_000;
        // As many bits for a key as 32 MiB have for 13 million.
        let mut listed = ListedKeys::of_bytes(KEYS * 20 / 8);
        for number in 0..KEYS {
            listed.add(key(number).as_bytes());
        }
        assert!((0..KEYS).all(|number| listed.may_hold(key(number).as_bytes())));
        let taken = |listed: &ListedKeys| {
            let others = KEYS..2 * KEYS;
            others
                .filter(|number| listed.may_hold(key(*number).as_bytes()))
                .collect::<Vec<_>>()
        };
        let first = taken(&listed);
        assert!(first.len() < KEYS / 200, "{}", first.len());

        let mut again = ListedKeys::of_bytes(KEYS * 20 / 8);
        for number in 0..KEYS {
            again.add(key(number).as_bytes());
        }
        assert_ne!(taken(&again), first, "others in the next sweep");
    }
}
