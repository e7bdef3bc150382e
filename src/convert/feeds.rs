//! All feeds, compiled: which one an object belongs to, and how it converts.

use super::{BuildError, Feed};
use crate::{
    config::{Config, matcher::Router},
    object::ObjectRef,
};

/// The feeds of one configuration. An event is handled by those of one moment, from its first look to its answer.
pub struct Feeds {
    router: Router,
    /// By their number in the configuration; `None` for one that is off.
    feeds: Vec<Option<Feed>>,
}

impl Feeds {
    pub fn compile(config: &Config) -> Result<Self, BuildError> {
        let compile = |feed: &crate::config::Feed| {
            feed.enabled
                .then(|| Feed::compile(feed, config))
                .transpose()
        };
        Ok(Self {
            router: Router::new(config)?,
            feeds: config.feeds.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }

    /// The feed of an object, if it has one.
    pub fn of(&self, object: &ObjectRef) -> Option<&Feed> {
        self.feeds.get(self.router.find(object)?)?.as_ref()
    }
}
