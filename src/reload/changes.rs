//! What a new configuration means for the feeds, for people to read.

use std::collections::HashMap;

use tracing::info;

use crate::{
    config::{self, Config},
    convert,
};

/// Longest list in a log line.
const LISTED: usize = 20;

/// What changed, by the names of the feeds in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    /// Those that give other JSON from now on.
    remapped: Vec<String>,
    /// Those that take other objects, as far as their own `match` says.
    rematched: Vec<String>,
    /// Those whose sources meet with something else afterwards, and what.
    cleaned_otherwise: Vec<String>,
    /// Something else: the order, descriptions, feeds that are off, excluded keys, accounts of buckets.
    others: bool,
}

impl Changes {
    pub fn between(old: &Config, new: &Config) -> Self {
        let (before, now) = (by_name(old), by_name(new));
        let mut changes = Self {
            others: differ(old, new),
            ..Self::default()
        };
        let names = |feeds: &[&config::Feed]| feeds.iter().map(|feed| feed.name.clone()).collect();
        let added: Vec<_> = in_use(new)
            .filter(|feed| !before.contains_key(feed.name.as_str()))
            .collect();
        let removed: Vec<_> = in_use(old)
            .filter(|feed| !now.contains_key(feed.name.as_str()))
            .collect();
        (changes.added, changes.removed) = (names(&added), names(&removed));
        for feed in in_use(new) {
            let Some(old_feed) = before.get(feed.name.as_str()) else {
                continue;
            };
            if old_feed.r#match != feed.r#match {
                changes.rematched.push(feed.name.clone());
            }
            if old_feed.after != feed.after {
                let after = format!("{}: {} -> {}", feed.name, old_feed.after, feed.after);
                changes.cleaned_otherwise.push(after);
            }
            if !old_feed.says_the_same(feed)
                && mapping_hash(old_feed, old) != mapping_hash(feed, new)
            {
                changes.remapped.push(feed.name.clone());
            }
        }
        changes
    }

    /// Whether nothing has to be built anew.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn log(&self, feeds: usize) {
        info!(
            feeds,
            added = few(&self.added),
            removed = few(&self.removed),
            mapping_changed = few(&self.remapped),
            match_changed = few(&self.rematched),
            after_changed = few(&self.cleaned_otherwise),
            "configuration reloaded"
        );
        if !self.remapped.is_empty() {
            info!(
                "a changed mapping is for files that come from now on; what was converted before stays as it is"
            );
        }
    }
}

fn in_use(config: &Config) -> impl Iterator<Item = &config::Feed> {
    config.feeds.iter().filter(|feed| feed.enabled)
}

fn by_name(config: &Config) -> HashMap<&str, &config::Feed> {
    in_use(config)
        .map(|feed| (feed.name.as_str(), feed))
        .collect()
}

/// Whether anything differs of what is taken over.
fn differ(old: &Config, new: &Config) -> bool {
    old.intake.exclude != new.intake.exclude
        || old.s3.buckets != new.s3.buckets
        || old.feeds.len() != new.feeds.len()
        || old
            .feeds
            .iter()
            .zip(&new.feeds)
            .any(|(old, new)| !old.says_the_same(new))
}

fn mapping_hash(feed: &config::Feed, config: &Config) -> Option<String> {
    let compiled = convert::Feed::compile(feed, config).ok()?;
    Some(compiled.mapping_hash)
}

/// A list that fits in a line, however long it is.
pub fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().checked_sub(LISTED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
        feeds = [
            { name = "a", match = "s3://in/a/**", fields = { x = "x", y = "y" } },
            { name = "b", match = "s3://in/b/**" },
            { name = "off", match = "s3://in/off/**", enabled = false },
        ]
    "#;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn changes(new: &str) -> Changes {
        Changes::between(&config(OLD), &config(new))
    }

    #[test]
    fn the_same_in_other_words_is_no_change() {
        let same = r#"
            # a comment
            [[feeds]]
            match = "s3://in/a/**"
            name = "a"
            fields = { x = { path = "x" }, y = "y" }
            [[feeds]]
            name = "b"
            match = "s3://in/b/**"
            [[feeds]]
            name = "off"
            enabled = false
            match = "s3://in/off/**"
        "#;
        assert!(changes(same).is_empty());
    }

    #[test]
    fn feeds_that_come_go_or_change_are_named() {
        let new = r#"
            feeds = [
                { name = "a", match = "s3://in/a/**", fields = { y = "y", x = "x" } },
                { name = "b", match = "s3://in/b/*.xml", enabled = false },
                { name = "off", match = "s3://in/off/**" },
            ]
        "#;
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let deleting = OLD.replace("in/b/**\"", "in/b/**\", after = \"delete\"");
        assert_eq!(
            changes(&deleting).cleaned_otherwise,
            names(&["b: keep -> delete"])
        );
        let found = changes(new);
        assert_eq!(found.added, names(&["off"]));
        assert_eq!(found.removed, names(&["b"]));
        assert_eq!(
            found.remapped,
            names(&["a"]),
            "the order of fields is that of the output"
        );
        assert_eq!(found.rematched, names(&[]));
        let matched = changes(&OLD.replace("in/b/**", "in/b/*.xml"));
        assert_eq!(
            (matched.rematched, matched.remapped),
            (names(&["b"]), names(&[]))
        );
    }

    #[test]
    fn order_and_excluded_keys_count_too() {
        let excluded = changes(&format!("intake.exclude = ['*.md5']\n{OLD}"));
        assert!(excluded.others && excluded.added.is_empty());
        let described = changes(&OLD.replace("name = \"b\",", "name = \"b\", owner = 'x',"));
        assert!(described.others && described.remapped.is_empty());
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<String> = (0..22).map(|n| n.to_string()).collect();
        assert!(few(&names).ends_with("18, 19 and 2 more"));
        assert_eq!(few(&names[..2]), "0, 1");
    }
}
