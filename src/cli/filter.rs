//! Which records a command is about: filters that several commands share.

use clap::Args;
use globset::GlobMatcher;

use crate::config::matcher;

/// Filters by the source object.
#[derive(Debug, Default, Args)]
pub struct ObjectFilter {
    /// Only of this source bucket
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// Only of keys that fit this glob, by the rules of a feed's match: * stays within a folder, ** does not
    #[arg(long, value_name = "GLOB", value_parser = key_glob)]
    key: Option<GlobMatcher>,
}

impl ObjectFilter {
    pub fn takes(&self, bucket: &str, key: &str) -> bool {
        (self.bucket.is_empty() || self.bucket.iter().any(|name| name == bucket))
            && self.key.as_ref().is_none_or(|glob| glob.is_match(key))
    }

    pub fn is_empty(&self) -> bool {
        self.bucket.is_empty() && self.key.is_none()
    }
}

fn key_glob(glob: &str) -> Result<GlobMatcher, String> {
    let glob = matcher::compile(glob).map_err(|error| error.to_string())?;
    Ok(glob.compile_matcher())
}

/// Whether a value is one of those asked for; all are when none was.
pub fn among<T: PartialEq>(asked: &[T], value: Option<&T>) -> bool {
    asked.is_empty() || value.is_some_and(|value| asked.contains(value))
}
