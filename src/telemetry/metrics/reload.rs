//! What reloading the configuration counts.

use prometheus::{IntCounterVec, IntGauge};

use super::{FeedMetrics, list, register::Registrar};
use crate::config::{Config, Feed};

/// What reloading the configuration counts.
#[derive(Clone)]
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    last_successful: IntGauge,
    last_applied_at: IntGauge,
    feeds: IntGauge,
    by_feed: FeedMetrics,
}

impl ReloadMetrics {
    pub fn new(registrar: &Registrar<'_>, by_feed: FeedMetrics) -> Self {
        Self {
            reloads: registrar.counters(&list::RELOADS),
            last_successful: registrar.gauge(&list::RELOAD_SUCCESSFUL),
            last_applied_at: registrar.gauge(&list::RELOADED_AT),
            feeds: registrar.gauge(&list::FEEDS),
            by_feed,
        }
    }

    /// Notes the configuration of the start.
    pub fn started(&self, config: &Config) {
        for result in ["applied", "failed"] {
            self.reloads.with_label_values(&[result]);
        }
        self.in_force(config);
    }

    /// Counts a configuration that was taken over.
    pub fn applied(&self, config: &Config) {
        self.reloads.with_label_values(&["applied"]).inc();
        self.in_force(config);
    }

    /// Counts a configuration that was not taken over.
    pub fn failed(&self) {
        self.reloads.with_label_values(&["failed"]).inc();
        self.last_successful.set(0);
    }

    /// The files are again as they run.
    pub fn mended(&self) {
        self.last_successful.set(1);
    }

    fn in_force(&self, config: &Config) {
        let feeds: Vec<&Feed> = config.feeds.iter().filter(|feed| feed.enabled).collect();
        self.last_successful.set(1);
        self.last_applied_at.set(jiff::Timestamp::now().as_second());
        self.feeds
            .set(i64::try_from(feeds.len()).unwrap_or(i64::MAX));
        let feeds = feeds.into_iter();
        self.by_feed
            .configure(feeds.map(|feed| (feed.name.as_str(), feed.expect_every)));
    }
}
