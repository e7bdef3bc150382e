//! Which feed an object belongs to.
//!
//! In: the feeds' `match` texts, `s3://bucket/glob`, and `intake.exclude`. Out: a [`Router`] that names the first feed whose
//! match fits, in one pass over the key however many feeds there are.
//!
//! The bucket is literal. In the key `*` stays within a `/`, `**` crosses it, `{a,b}` chooses, and a backslash takes the
//! next character literally. `?` and `[ab]` stand for one byte, which is one character only in ASCII.

use std::collections::HashMap;
use std::sync::OnceLock;

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::object::{ObjectRef, ObjectRefError};

use super::Config;
use super::exclude::Excludes;

/// Characters that mean something in a glob.
pub(super) const META: [char; 8] = ['*', '?', '[', ']', '{', '}', ',', '\\'];

/// Longest glob. What it compiles to grows with it, and a key has no more than 1,024 bytes.
const MAX_GLOB_BYTES: usize = 4_096;

/// A feed's parsed `match`.
#[derive(Clone, Debug)]
pub struct FeedMatch {
    bucket: String,
    glob: Glob,
}

/// Why a `match` is none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MatchError {
    #[error("expected s3://bucket/glob, found {0:?}")]
    NotAUrl(String),
    #[error("the bucket {0:?} holds a wildcard; a feed matches within one bucket")]
    WildcardInBucket(String),
    #[error("{bucket:?} cannot be a bucket")]
    Bucket {
        bucket: String,
        source: ObjectRefError,
    },
    #[error("no glob after the bucket; s3://{0}/** takes every key")]
    EmptyGlob(String),
    #[error(
        "the brackets in {0:?} hold more than ASCII and could never fit; write {{ä,ö}} instead of [äö]"
    )]
    WideBrackets(String),
    #[error("the glob {glob:?} cannot be read: {reason}")]
    Glob { glob: String, reason: String },
    #[error("the glob has {0} bytes, more than {MAX_GLOB_BYTES}")]
    LongGlob(usize),
}

impl FeedMatch {
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        let (bucket, glob) = text
            .strip_prefix("s3://")
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .ok_or_else(|| MatchError::NotAUrl(text.to_owned()))?;
        if bucket.contains(META) {
            return Err(MatchError::WildcardInBucket(bucket.to_owned()));
        }
        ObjectRef::try_new(bucket, "any").map_err(|source| MatchError::Bucket {
            bucket: bucket.to_owned(),
            source,
        })?;
        if glob.is_empty() {
            return Err(MatchError::EmptyGlob(bucket.to_owned()));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            glob: compile(glob)?,
        })
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key of this match begins with: the glob up to its first wildcard.
    pub(crate) fn prefix(&self) -> &str {
        let glob = self.glob.glob();
        &glob[..glob.find(META).unwrap_or(glob.len())]
    }

    /// What every key of this match ends with: the glob from behind its last wildcard.
    pub(super) fn suffix(&self) -> &str {
        let glob = self.glob.glob();
        let Some(last) = glob.rfind(META) else {
            return glob;
        };
        let suffix = &glob[last + 1..];
        // The slash of `**/` is not in every key: `**/a` takes `a`.
        match glob[..=last].ends_with("**") {
            true => suffix.strip_prefix('/').unwrap_or(suffix),
            false => suffix,
        }
    }

    /// The folder of every key of this match, as far as it is known: `nsx/` for `nsx/*.xml`, nothing for `*.xml`.
    fn folder(&self) -> &str {
        let end = ends_of_folders(self.prefix()).last().unwrap_or(0);
        &self.prefix()[..end]
    }

    /// Whether this match takes the object.
    pub fn takes(&self, object: &ObjectRef) -> bool {
        self.bucket == object.bucket() && self.glob.compile_matcher().is_match(object.key())
    }

    pub(super) fn glob(&self) -> &str {
        self.glob.glob()
    }

    /// The folder that a match takes whole, `nsx/` for `nsx/**` and nothing for `**`; `None` when it takes something else.
    pub(super) fn whole_folder(&self) -> Option<&str> {
        let folder = self.glob.glob().strip_suffix("**")?;
        let is_whole = folder.is_empty() || folder.ends_with('/');
        (is_whole && !folder.contains(META)).then_some(folder)
    }

    /// Whether this match certainly takes everything that the other takes. Sees equal globs and whole folders (`a/**`);
    /// `false` means not seen, not disproved.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.bucket == other.bucket
            && (self.glob.glob() == other.glob.glob()
                || self
                    .whole_folder()
                    .is_some_and(|folder| other.prefix().starts_with(folder)))
    }

    /// What this match takes, under another bucket and behind a prefix; `None` when that can't be a match.
    pub(super) fn moved(&self, bucket: &str, prefix: &str) -> Option<Self> {
        let mut glob = String::new();
        for c in prefix.chars() {
            if META.contains(&c) {
                glob.push('\\');
            }
            glob.push(c);
        }
        glob.push_str(self.glob.glob());
        Some(Self {
            bucket: bucket.to_owned(),
            glob: compile(&glob).ok()?,
        })
    }

    /// Whether every key of this match lies in fewer folders than any of the other: `*.xml` above `done/**`. `false` means not
    /// seen.
    pub(super) fn lies_above(&self, other: &Self) -> bool {
        let glob = self.glob.glob();
        let is_flat = !glob.contains("**") && !glob.contains(['{', '[', '\\']);
        let folders = |text: &str| text.matches('/').count();
        is_flat && folders(glob) < folders(other.prefix())
    }

    /// Whether both may take one object. Certain in its no, careful in its yes.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        self.bucket == other.bucket
            && one_begins_the_other(self.prefix(), other.prefix())
            && one_ends_the_other(self.suffix(), other.suffix())
    }

    /// Whether a glob of keys, in whatever bucket, certainly takes everything that this match takes.
    pub(super) fn is_covered_by(&self, glob: Glob) -> bool {
        let is_one_key = !self.glob.glob().contains(META);
        if is_one_key {
            return glob.compile_matcher().is_match(self.glob.glob());
        }
        let bucket = self.bucket.clone();
        Self { bucket, glob }.covers(self)
    }
}

pub(super) fn one_begins_the_other(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

pub(super) fn one_ends_the_other(a: &str, b: &str) -> bool {
    a.ends_with(b) || b.ends_with(a)
}

/// Reads a glob over keys by the rules above.
pub(crate) fn compile(glob: &str) -> Result<Glob, MatchError> {
    if glob.len() > MAX_GLOB_BYTES {
        return Err(MatchError::LongGlob(glob.len()));
    }
    let mut brackets = glob
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split(']').next());
    if brackets.any(|inside| !inside.is_ascii()) {
        return Err(MatchError::WideBrackets(glob.to_owned()));
    }
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| MatchError::Glob {
            glob: glob.to_owned(),
            reason: error.kind().to_string(),
        })
}

/// Finds the feed of an object.
#[derive(Clone, Debug)]
pub struct Router {
    buckets: HashMap<String, BucketFeeds>,
    excludes: Excludes,
}

/// One bucket's feeds, by the folder that a match begins with, up to its first wildcard. Partners have a folder each as a
/// rule, so that of thousands of globs the few that may fit are tried.
type BucketFeeds = HashMap<String, Vec<Candidate>>;

#[derive(Clone, Debug)]
struct Candidate {
    /// The feed's number in the configuration; ascending within a folder.
    feed: usize,
    source: FeedMatch,
    /// Compiled when a key comes that has the match's ends: most of thousands never see one, and a start need not wait.
    matcher: OnceLock<GlobMatcher>,
}

impl Candidate {
    fn takes(&self, key: &str) -> bool {
        let glob = &self.source.glob;
        key.starts_with(self.source.prefix())
            && key.ends_with(self.source.suffix())
            && self
                .matcher
                .get_or_init(|| glob.compile_matcher())
                .is_match(key)
    }
}

impl Router {
    /// Indices are those of `config.feeds`; feeds that are off take nothing.
    pub fn new(config: &Config) -> Result<Self, MatchError> {
        let mut buckets: HashMap<String, BucketFeeds> = HashMap::new();
        for (index, feed) in config.feeds.iter().enumerate() {
            if !feed.enabled {
                continue;
            }
            let source = FeedMatch::parse(&feed.r#match)?;
            let folders = buckets.entry(source.bucket.clone()).or_default();
            let candidates = folders.entry(source.folder().to_owned()).or_default();
            candidates.push(Candidate {
                feed: index,
                source,
                matcher: OnceLock::new(),
            });
        }
        Ok(Self {
            buckets,
            excludes: Excludes::new(&config.intake.exclude)?,
        })
    }

    /// The first feed whose match fits the object; none for an excluded key.
    pub fn find(&self, object: &ObjectRef) -> Option<usize> {
        let bucket = self.buckets.get(object.bucket())?;
        let key = object.key();
        let first = ends_of_folders(key)
            .filter_map(|end| bucket.get(&key[..end]))
            .filter_map(|candidates| candidates.iter().find(|candidate| candidate.takes(key)))
            .map(|candidate| candidate.feed)
            .min()?;
        (!self.excludes.takes(object)).then_some(first)
    }
}

/// Where the folders of a key end: 0, then behind each slash.
pub(super) fn ends_of_folders(key: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(key.match_indices('/').map(|(slash, _)| slash + 1))
}

#[cfg(test)]
mod tests {
    use globset::GlobSet;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Feed, testing};

    fn router(matches: &[&str]) -> Router {
        let feeds = matches.iter().map(|text| testing::feed("any", text));
        Router::new(&Config {
            feeds: feeds.collect(),
            ..Config::default()
        })
        .unwrap()
    }

    fn find(router: &Router, bucket: &str, key: &str) -> Option<usize> {
        router.find(&ObjectRef::try_new(bucket, key).unwrap())
    }

    #[test]
    fn the_first_match_wins_within_its_bucket() {
        let router = router(&["s3://a/nsx/**", "s3://b/**", "s3://a/**/*.xml", "s3://a/**"]);
        assert_eq!(find(&router, "a", "nsx/x.xml"), Some(0));
        assert_eq!(find(&router, "a", "other/x.xml"), Some(2));
        assert_eq!(find(&router, "a", "x.csv"), Some(3));
        assert_eq!(find(&router, "b", "nsx/x.xml"), Some(1));
        assert_eq!(find(&router, "c", "nsx/x.xml"), None);
    }

    #[test]
    fn excluded_keys_and_feeds_that_are_off_are_passed_over() {
        let off = Feed {
            enabled: false,
            ..testing::feed("off", "s3://a/nsx/**")
        };
        let router = Router::new(&Config {
            feeds: vec![off, testing::feed("all", "s3://a/**")],
            ..Config::default()
        })
        .unwrap();
        assert_eq!(find(&router, "a", "nsx/x.xml"), Some(1));
        assert_eq!(find(&router, "a", "nsx/x.xml.tmp"), None);
    }

    #[test]
    fn one_star_stays_in_its_folder_and_two_do_not() {
        let router = router(&["s3://a/in/*.xml", "s3://a/deep/**/*.xml"]);
        assert_eq!(find(&router, "a", "in/x.xml"), Some(0));
        assert_eq!(find(&router, "a", "in/sub/x.xml"), None);
        assert_eq!(find(&router, "a", "deep/x.xml"), Some(1));
        assert_eq!(find(&router, "a", "deep/b/c/x.xml"), Some(1));
    }

    #[test]
    fn odd_keys_match_like_any_other() {
        let router = router(&["s3://a/in/**", "s3://a/**/*.xml", r"s3://a/literal\*"]);
        for key in ["in/ü 😀\n+%20", "in//", "in/.", "in/..", "in/a."] {
            assert_eq!(find(&router, "a", key), Some(0), "{key:?}");
        }
        for key in ["/a/ü\n.xml", "a//.xml", ".xml", "a/../b.xml"] {
            assert_eq!(find(&router, "a", key), Some(1), "{key:?}");
        }
        assert_eq!(find(&router, "a", "literal*"), Some(2));
        assert_eq!(find(&router, "a", "literalx"), None);
    }

    #[test]
    fn a_thousand_feeds_are_told_apart() {
        let matches: Vec<String> = (0..1_000)
            .map(|n| format!("s3://a/partner-{n}/**/*.xml*"))
            .collect();
        let router = router(&matches.iter().map(String::as_str).collect::<Vec<_>>());
        for n in [0, 1, 10, 999] {
            assert_eq!(
                find(&router, "a", &format!("partner-{n}/x/y.xml.gz")),
                Some(n)
            );
        }
        assert_eq!(find(&router, "a", "partner-1000/x.xml"), None);
    }

    #[test]
    fn a_later_feed_of_a_nearer_folder_does_not_win() {
        let router = router(&[
            "s3://a/**/x.xml",
            "s3://a/in/x.xml",
            "s3://a/in/*",
            "s3://a/**",
        ]);
        assert_eq!(find(&router, "a", "in/x.xml"), Some(0));
        assert_eq!(find(&router, "a", "in/y.xml"), Some(2));
        assert_eq!(find(&router, "a", "out/y.xml"), Some(3));
    }

    #[test]
    fn every_key_of_a_match_has_its_prefix_and_its_suffix() {
        let ends = |text: &str| {
            let parsed = FeedMatch::parse(text).unwrap();
            (parsed.prefix().to_owned(), parsed.suffix().to_owned())
        };
        let pair = |prefix: &str, suffix: &str| (prefix.to_owned(), suffix.to_owned());
        assert_eq!(ends("s3://a/nsx/**"), pair("nsx/", ""));
        assert_eq!(ends("s3://a/nsx/*.xml"), pair("nsx/", ".xml"));
        assert_eq!(ends("s3://a/**/feed.xml"), pair("", "feed.xml"));
        assert_eq!(ends("s3://a/x/feed.xml"), pair("x/feed.xml", "x/feed.xml"));
        assert_eq!(ends("s3://a/x.{xml,json}"), pair("x.", ""));
        assert_eq!(ends(r"s3://a/x\*y.xml"), pair("x", "y.xml"));
    }

    fn pieces(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(of), 1..6)
            .prop_map(|pieces| pieces.concat())
    }

    fn globs() -> impl Strategy<Value = FeedMatch> {
        pieces(&[
            "a", "b", "ü", ".x", "/", "*", "**/", "/**", "?", "[ab]", "{a,/b}", r"\*",
        ])
        .prop_filter_map("is a glob", |glob| {
            FeedMatch::parse(&format!("s3://bucket/{glob}")).ok()
        })
    }

    fn keys() -> impl Strategy<Value = String> {
        pieces(&["a", "b", "ü", ".x", "/", "*", "\n", "."])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_feed_that_is_found_is_the_first_whose_glob_fits(
            globs in proptest::collection::vec(globs(), 1..5), key in keys()
        ) {
            let urls: Vec<String> = globs.iter().map(|parsed| format!("s3://bucket/{}", parsed.glob())).collect();
            let router = router(&urls.iter().map(String::as_str).collect::<Vec<_>>());
            let fits = |parsed: &FeedMatch| parsed.glob.compile_matcher().is_match(&key);
            prop_assert_eq!(find(&router, "bucket", &key), globs.iter().position(fits));
        }

        #[test]
        fn a_set_of_globs_agrees_with_each_glob_alone(glob in globs(), key in keys()) {
            let set = GlobSet::new([glob.glob.clone()]).unwrap();
            prop_assert_eq!(set.is_match(&key), glob.glob.compile_matcher().is_match(&key));
        }

        #[test]
        fn what_is_concluded_from_a_glob_holds_for_its_keys(glob in globs(), other in globs(), key in keys()) {
            if other.glob.compile_matcher().is_match(&key) {
                prop_assert!(key.starts_with(other.prefix()));
                prop_assert!(key.ends_with(other.suffix()));
                if glob.covers(&other) {
                    prop_assert!(glob.glob.compile_matcher().is_match(&key));
                }
            }
        }
    }

    #[test]
    fn whole_folders_and_equal_globs_are_seen_to_cover() {
        let covers = |earlier: &str, later: &str| {
            FeedMatch::parse(earlier)
                .unwrap()
                .covers(&FeedMatch::parse(later).unwrap())
        };
        assert!(covers("s3://a/**", "s3://a/x/*.xml"));
        assert!(covers("s3://a/x/**", "s3://a/x/y/*.xml"));
        assert!(covers("s3://a/x*", "s3://a/x*"));
        assert!(!covers("s3://a/x/**", "s3://a/x*/y"));
        assert!(!covers("s3://a/*/**", "s3://a/x/y"));
        assert!(!covers("s3://a/**", "s3://b/**"));
    }

    #[test]
    fn a_match_that_cannot_work_says_why() {
        let error = |text: &str| FeedMatch::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("nsx/**"),
            "expected s3://bucket/glob, found \"nsx/**\""
        );
        assert_eq!(
            error("s3://partner-*/nsx/**"),
            "the bucket \"partner-*\" holds a wildcard; a feed matches within one bucket"
        );
        assert_eq!(
            error("s3://partner"),
            "no glob after the bucket; s3://partner/** takes every key"
        );
        assert_eq!(error("s3:///nsx"), "\"\" cannot be a bucket");
        assert_eq!(
            error("s3://a/[äö]*"),
            "the brackets in \"[äö]*\" hold more than ASCII and could never fit; write {ä,ö} instead of [äö]"
        );
        assert!(FeedMatch::parse("s3://a/ä[a-z]ö").is_ok());
        assert_eq!(
            error("s3://a/[x"),
            "the glob \"[x\" cannot be read: unclosed character class; missing ']'"
        );
    }
}
