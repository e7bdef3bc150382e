//! Finds what begins like a text without looking at everything.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Values by a text each; several may share one.
pub(super) struct Prefixes<T>(BTreeMap<String, Vec<T>>);

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> Prefixes<T> {
    pub fn insert(&mut self, text: &str, value: T) {
        self.0.entry(text.to_owned()).or_default().push(value);
    }

    /// The values whose text begins this one, or is begun by it.
    pub fn related<'a>(&'a self, text: &'a str) -> impl Iterator<Item = T> + 'a {
        let ends = text.char_indices().map(|(end, _)| end);
        let begin_it = ends.filter_map(|end| self.0.get(&text[..end]));
        let from = (Bound::Included(text), Bound::Unbounded);
        let begun_by_it = self
            .0
            .range::<str, _>(from)
            .take_while(move |(key, _)| key.starts_with(text))
            .map(|(_, values)| values);
        begin_it.chain(begun_by_it).flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::matcher::one_begins_the_other;

    proptest! {
        #[test]
        fn what_is_found_is_what_a_look_at_everything_finds(
            texts in proptest::collection::vec("[abü/]{0,4}", 0..20), wanted in "[abü/]{0,4}"
        ) {
            let mut prefixes = Prefixes::default();
            for (index, text) in texts.iter().enumerate() {
                prefixes.insert(text, index);
            }
            let mut found: Vec<usize> = prefixes.related(&wanted).collect();
            found.sort_unstable();
            let by_looking: Vec<usize> =
                (0..texts.len()).filter(|index| one_begins_the_other(&texts[*index], &wanted)).collect();
            prop_assert_eq!(found, by_looking);
        }
    }
}
