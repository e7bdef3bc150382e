//! What a backfill lists.

use std::{collections::BTreeSet, fmt, str::FromStr};

use anyhow::anyhow;

use crate::{
    config::{Config, matcher::FeedMatch},
    object::ObjectRef,
};

/// A bucket, and what keys in it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    /// Taken literally; empty for the whole bucket.
    pub prefix: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("s3://")
            .ok_or("expected s3://bucket/prefix")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // A prefix obeys the limits of a key; the bucket alone is one, too.
        let key = if prefix.is_empty() { "any" } else { prefix };
        ObjectRef::try_new(bucket, key).map_err(|error| error.to_string())?;
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl Place {
    /// Refuses a place where no feed can take anything.
    pub fn check(&self, config: &Config) -> anyhow::Result<()> {
        let mut buckets = BTreeSet::new();
        let mut matches = Vec::new();
        for feed in config.feeds.iter().filter(|feed| feed.enabled) {
            let watched = FeedMatch::parse(&feed.r#match)?;
            let prefix = watched.prefix();
            buckets.insert(watched.bucket().to_owned());
            if watched.bucket() != self.bucket {
                continue;
            }
            if prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix) {
                return Ok(());
            }
            matches.push(feed.r#match.as_str());
        }
        if matches.is_empty() {
            let buckets = Vec::from_iter(buckets).join(", ");
            return Err(anyhow!(
                "find a feed that reads the bucket {}; those that are on read: {buckets}",
                self.bucket
            ));
        }
        Err(anyhow!(
            "find a feed that takes anything under {self}; those of the bucket match: {}",
            matches.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_a_bucket_and_a_prefix_taken_literally() {
        for (text, bucket, prefix) in [
            ("s3://a", "a", ""),
            ("s3://a/", "a", ""),
            ("s3://a/x", "a", "x"),
            ("s3://a/x/b%20c *", "a", "x/b%20c *"),
        ] {
            let place = place(text);
            assert_eq!((&*place.bucket, &*place.prefix), (bucket, prefix), "{text}");
        }
        for text in ["", "a/b", "s3://", "s3:///x", "https://a/b"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_where_no_feed_takes_anything_is_refused_and_the_feeds_are_named() {
        let config: Config = toml::from_str(
            "[[feeds]]\nname = 'n'\nmatch = 's3://a/nsx/*.xml'\n\
             [[feeds]]\nname = 'off'\nmatch = 's3://b/**'\nenabled = false\n",
        )
        .unwrap();
        for text in ["s3://a", "s3://a/n", "s3://a/nsx/", "s3://a/nsx/2026"] {
            assert!(place(text).check(&config).is_ok(), "{text}");
        }
        let refusal = |text: &str| place(text).check(&config).unwrap_err().to_string();
        assert!(refusal("s3://a/acme/").contains("match: s3://a/nsx/*.xml"));
        assert!(refusal("s3://b/x").contains("read: a"));
    }
}
