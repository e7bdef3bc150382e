//! `intake.exclude`: keys that no feed takes, whoever announces them.
//!
//! A glob without a slash is about the last part of the key, as in `.gitignore`: `*.tmp` excludes `a/b.tmp`. One with a slash is
//! about the whole key: `drafts/**`. Wildcards are those of a feed's `match`.

use globset::{Glob, GlobSet};

use super::matcher::{FeedMatch, META, MatchError, compile};
use crate::{object::ObjectRef, s3::probe};

/// The excluded keys.
#[derive(Clone, Debug)]
pub struct Excludes(GlobSet);

impl Excludes {
    pub fn new(globs: &[String]) -> Result<Self, MatchError> {
        let parsed: Vec<Glob> = globs
            .iter()
            .map(|glob| parse(glob))
            .collect::<Result<_, _>>()?;
        GlobSet::new(parsed)
            .map(Self)
            .map_err(|error| MatchError::Glob {
                glob: globs.join(", "),
                reason: error.kind().to_string(),
            })
    }

    /// The scratch objects of feedmill's own probes are excluded always.
    pub fn takes(&self, object: &ObjectRef) -> bool {
        object.key().starts_with(probe::PREFIX) || self.0.is_match(object.key())
    }

    /// The number of the first glob that takes the object.
    pub fn find(&self, object: &ObjectRef) -> Option<usize> {
        self.0.matches(object.key()).into_iter().min()
    }
}

pub(super) fn parse(glob: &str) -> Result<Glob, MatchError> {
    match glob.contains('/') {
        true => compile(glob),
        false => compile(&format!("**/{glob}")),
    }
}

/// Whether the glob certainly excludes everything that a feed matches. Sees what [`FeedMatch::covers`] sees, and endings
/// such as `*.tmp`; `false` means not seen.
pub(super) fn covers(glob: &str, feed: &FeedMatch) -> bool {
    let ending = glob
        .strip_prefix('*')
        .filter(|ending| !ending.contains(META) && !ending.contains('/'));
    ending.is_some_and(|ending| feed.suffix().ends_with(ending))
        || parse(glob).is_ok_and(|parsed| feed.is_covered_by(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(glob: &str, key: &str) -> bool {
        let excludes = Excludes::new(&[glob.to_owned()]).unwrap();
        excludes.takes(&ObjectRef::try_new("any", key).unwrap())
    }

    #[test]
    fn a_glob_without_a_slash_is_about_the_last_part_of_the_key() {
        for key in ["x.tmp", "a/x.tmp", "a/b/.tmp"] {
            assert!(excluded("*.tmp", key), "{key}");
        }
        for key in ["x.tmp/a", "x.tmpx", "a.tmp/x.xml"] {
            assert!(!excluded("*.tmp", key), "{key}");
        }
        assert!(excluded("_SUCCESS", "a/_SUCCESS"));
        assert!(!excluded("_SUCCESS", "a/not_SUCCESS"));
    }

    #[test]
    fn a_glob_with_a_slash_is_about_the_whole_key() {
        assert!(excluded("drafts/**", "drafts/a/b.xml"));
        assert!(excluded("drafts/**", ".feedmill-probe/any"), "our own");
        assert!(!excluded("drafts/**", "nsx/drafts/b.xml"));
        assert!(!excluded("*/x.xml", "a/b/x.xml"));
        assert!(excluded("**/x.xml", "a/b/x.xml"));
    }

    #[test]
    fn a_feed_that_takes_only_excluded_keys_is_seen_where_that_is_plain() {
        let covers = |glob: &str, text: &str| covers(glob, &FeedMatch::parse(text).unwrap());
        assert!(covers("*.tmp", "s3://a/in/*.tmp"));
        assert!(covers("*", "s3://a/in/**"));
        assert!(covers("drafts/**", "s3://a/drafts/x/*.xml"));
        assert!(covers("x.*", "s3://a/in/x.xml"));
        assert!(!covers("*.tmp", "s3://a/in/*.xml"));
        assert!(!covers("*.tmp", "s3://a/in/*"));
        assert!(!covers("drafts/**", "s3://a/**"));
    }
}
