//! What the feeds ask to be done with their sources; replaced while running.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{
        After, Config,
        matcher::{FeedMatch, MatchError, Router},
    },
    object::ObjectRef,
    topics::CleanupAction,
};

/// The rules of one configuration.
pub struct Rules {
    router: Router,
    /// By the feed's number in the configuration; `None` for one that keeps its sources.
    rules: Vec<Option<Rule>>,
}

/// What one feed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub feed: String,
    pub after: After,
    pub action: CleanupAction,
    pub unsafe_delete: bool,
    /// Why its sources are kept all the same.
    pub refused: Option<String>,
}

/// Buckets in which nothing can be deleted safely, and why.
pub type Refused = BTreeMap<String, String>;

impl Rules {
    pub fn new(config: &Config, refused: &Refused) -> Result<Self, MatchError> {
        let rule = |feed: &crate::config::Feed| {
            let source = FeedMatch::parse(&feed.r#match)?;
            let proof_needed = feed.after.removes() && !feed.unsafe_delete;
            let refused = proof_needed.then(|| refused.get(source.bucket()).cloned());
            Ok(action(&feed.after).map(|action| Rule {
                feed: feed.name.clone(),
                after: feed.after.clone(),
                action,
                unsafe_delete: feed.unsafe_delete,
                refused: refused.flatten(),
            }))
        };
        Ok(Self {
            router: Router::new(config)?,
            rules: config
                .feeds
                .iter()
                .map(rule)
                .collect::<Result<_, MatchError>>()?,
        })
    }

    /// What is to be done with this object's sources, if anything.
    pub fn of(&self, object: &ObjectRef) -> Option<&Rule> {
        self.rules.get(self.router.find(object)?)?.as_ref()
    }
}

/// What a feed asks for; `None` when it keeps its sources.
pub fn action(after: &After) -> Option<CleanupAction> {
    match after {
        After::Keep => None,
        After::Delete => Some(CleanupAction::Delete),
        After::Move(_) => Some(CleanupAction::Move),
        After::Tag(_) => Some(CleanupAction::Tag),
    }
}

/// Whether any feed in use asks for something.
pub fn is_asked_for(config: &Config) -> bool {
    let mut in_use = config.feeds.iter().filter(|feed| feed.enabled);
    in_use.any(|feed| feed.after != After::Keep)
}

/// The buckets in which a conditional DELETE has to be proven.
pub fn unproven(config: &Config) -> BTreeSet<String> {
    let removing = config
        .feeds
        .iter()
        .filter(|feed| feed.enabled && feed.after.removes() && !feed.unsafe_delete);
    removing
        .filter_map(|feed| FeedMatch::parse(&feed.r#match).ok())
        .map(|parsed| parsed.bucket().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEEDS: &str = "
        feeds = [
            { name = 'kept', match = 's3://in/kept/**' },
            { name = 'gone', match = 's3://in/gone/**', after = 'delete' },
            { name = 'risky', match = 's3://in/risky/**', after = 'delete', unsafe_delete = true },
            { name = 'moved', match = 's3://other/**', after = { move = 's3://archive/' } },
            { name = 'tagged', match = 's3://in/tagged/**', after = 'tag' },
            { name = 'off', match = 's3://off/**', after = 'delete', enabled = false },
        ]
    ";

    fn config() -> Config {
        toml::from_str(FEEDS).unwrap()
    }

    fn rule(rules: &Rules, bucket: &str, key: &str) -> Option<Rule> {
        rules.of(&ObjectRef::try_new(bucket, key).unwrap()).cloned()
    }

    #[test]
    fn a_bucket_without_safe_deletion_keeps_the_sources_that_it_would_lose_and_no_others() {
        let refused = Refused::from([("in".to_owned(), "ignored If-Match".to_owned())]);
        let rules = Rules::new(&config(), &refused).unwrap();
        let why = |bucket, key| rule(&rules, bucket, key).unwrap().refused;
        assert_eq!(why("in", "gone/a").as_deref(), Some("ignored If-Match"));
        assert_eq!(why("in", "risky/a"), None);
        assert_eq!(why("in", "tagged/a"), None);
        assert_eq!(why("other", "a"), None);
        assert_eq!(rule(&rules, "in", "kept/a"), None);
        assert_eq!(rule(&rules, "off", "a"), None);
    }

    #[test]
    fn only_where_something_is_removed_on_a_condition_the_condition_is_tried() {
        assert_eq!(Vec::from_iter(unproven(&config())), ["in", "other"]);
        assert!(is_asked_for(&config()));
        let kept = "feeds = [{ name = 'a', match = 's3://in/**' }, { name = 'b', match = 's3://b/**', after = 'tag', enabled = false }]";
        assert!(!is_asked_for(&toml::from_str(kept).unwrap()));
    }
}
