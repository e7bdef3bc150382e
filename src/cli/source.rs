//! What stands in for the object when a file is converted without S3: `$source` in mappings.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::feed::Source;

/// What is said of the object; the feed's name comes from the feed.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StandIn {
    bucket: Option<String>,
    key: Option<String>,
    etag: Option<String>,
    #[serde(deserialize_with = "utc")]
    last_modified: Option<String>,
}

impl StandIn {
    /// Of `--source` arguments.
    pub fn of(pairs: &[Pair]) -> Result<Self, String> {
        let mut table = toml::Table::new();
        for Pair { key, value } in pairs {
            if table.insert(key.clone(), value.clone().into()).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        table
            .try_into()
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// As a mapping sees it; the key is `key` unless it was said.
    pub fn source(self, key: impl Into<String>, feed: &str) -> Source {
        Source {
            bucket: self.bucket.unwrap_or_default(),
            key: self.key.unwrap_or_else(|| key.into()),
            etag: self.etag.unwrap_or_default(),
            last_modified: self.last_modified,
            feed: feed.to_owned(),
        }
    }
}

/// `KEY=VALUE` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    key: String,
    value: String,
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, such as last_modified=2026-11-21T10:00:00Z")?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A moment as text or as TOML has it; in UTC, as S3 gives it.
fn utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    match text.parse::<Timestamp>() {
        Ok(moment) => Ok(Some(moment.to_string())),
        Err(_) => Err(D::Error::custom(format!(
            "`last_modified` is {text:?}; expected a moment as RFC 3339 has it, such as 2026-11-21T10:00:00Z"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[&str]) -> Result<Source, String> {
        let pairs: Vec<Pair> = pairs.iter().map(|pair| pair.parse().unwrap()).collect();
        StandIn::of(&pairs).map(|given| given.source("a.xml", "nsx"))
    }

    #[test]
    fn what_is_given_stands_in_and_the_moment_is_in_utc() {
        assert_eq!(
            given(&[
                "bucket=b",
                "etag=x=y",
                "last_modified=2026-11-21T11:00:00+01:00"
            ]),
            Ok(Source {
                bucket: "b".into(),
                key: "a.xml".into(),
                etag: "x=y".into(),
                last_modified: Some("2026-11-21T10:00:00Z".into()),
                feed: "nsx".into(),
            })
        );
        assert_eq!(given(&["key="]).unwrap().key, "");
        let written: StandIn = toml::from_str("last_modified = 2026-11-21T11:00:00+01:00").unwrap();
        let source = written.source("", "");
        assert_eq!(source.last_modified.unwrap(), "2026-11-21T10:00:00Z");
    }

    #[test]
    fn what_is_not_known_or_no_moment_is_said() {
        let error = |pairs: &[&str]| given(pairs).unwrap_err();
        assert!(error(&["feed=x"]).contains("unknown field `feed`, expected one of `bucket`"));
        assert!(error(&["last_modified=yesterday"]).contains("RFC 3339"));
        assert!(error(&["last_modified=2026-11-21"]).contains("RFC 3339"));
        assert_eq!(error(&["key=a", "key=b"]), "`key` is given twice");
        assert!("bucket".parse::<Pair>().is_err());
        assert!(toml::from_str::<StandIn>("last_modified = 7").is_err());
    }
}
