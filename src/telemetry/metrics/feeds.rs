//! What is counted for each feed: a few series of each, which go when the feed goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::{
    IntCounterVec, IntGaugeVec,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use super::{list, register::Registrar};
use crate::topics::{Millis, Outcome};

/// Label value of files that no feed matches, and of what a feed has left behind that is configured no longer.
const NO_FEED: &str = "none";

/// Label value of reasons beyond those that are told apart.
const OTHER: &str = "other";

/// Reasons of a feed's rejected records that are told apart.
const RECORD_REASONS: usize = 4;

/// Reasons of a feed's open dead letters that are told apart.
const LETTER_REASONS: usize = 5;

/// Files closer to each other than this, in milliseconds, are one delivery.
const DELIVERY_MS: i64 = 10 * 60 * 1_000;

/// Deliveries that are remembered: eight pauses lie between them.
const DELIVERIES: usize = 9;

/// Pauses needed to say what is usual.
const PAUSES: usize = 3;

/// Open dead letters, by feed and reason.
pub type Letters = BTreeMap<(Option<String>, String), u64>;

/// How an event ended, once that is committed.
#[derive(Debug, Clone)]
pub struct Ended {
    pub feed: Option<String>,
    pub outcome: Outcome,
    /// Size of the file, if its event says it.
    pub bytes: Option<u64>,
    /// Reasons of the records that were left out, as far as they are kept.
    pub rejected: Vec<String>,
    /// How many were left out.
    pub rejected_count: u64,
}

/// The metrics of all feeds.
#[derive(Clone)]
pub struct FeedMetrics(Arc<Inner>);

struct Inner {
    files: IntCounterVec,
    bytes: IntCounterVec,
    rejected: IntCounterVec,
    letters: IntGaugeVec,
    last_file: IntGaugeVec,
    expected: IntGaugeVec,
    expected_since: IntGaugeVec,
    feeds: Mutex<HashMap<String, Known>>,
}

/// A configured feed, and what is known of its deliveries.
#[derive(Default)]
struct Known {
    expect_every: Option<Duration>,
    /// The beginnings of the last deliveries, in milliseconds since 1970.
    deliveries: BTreeSet<i64>,
    last_file: Option<i64>,
    reasons: Vec<String>,
}

impl FeedMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self(Arc::new(Inner {
            files: registrar.counters(&list::FILES),
            bytes: registrar.counters(&list::BYTES),
            rejected: registrar.counters(&list::REJECTED_RECORDS),
            letters: registrar.gauges(&list::DEAD_LETTERS_OPEN),
            last_file: registrar.gauges(&list::LAST_FILE),
            expected: registrar.gauges(&list::EXPECTED_INTERVAL),
            expected_since: registrar.gauges(&list::EXPECTED_SINCE),
            feeds: Mutex::default(),
        }))
    }

    /// Takes the feeds of a configuration, each with its `expect_every`; the series of all others go.
    pub fn configure<'a>(&self, feeds: impl Iterator<Item = (&'a str, Option<Duration>)>) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut *known);
        for (name, expect_every) in feeds {
            let mut feed = before.remove(name).unwrap_or_default();
            match (feed.expect_every, expect_every) {
                // A feed that never sends must be missed too: the wait begins now, and goes on over other reloads.
                (None, Some(_)) => {
                    let since = self.0.expected_since.with_label_values(&[name]);
                    since.set(Millis::now().0 / 1_000);
                }
                // It may have none.
                (_, None) => drop(self.0.expected_since.remove_label_values(&[name])),
                (Some(_), Some(_)) => {}
            }
            feed.expect_every = expect_every;
            self.show_interval(name, &feed);
            // From 0 on, or Prometheus would not see the first of them as an increase.
            for outcome in [Outcome::Converted, Outcome::DeadLettered] {
                self.0.files.with_label_values(&[name, outcome.name()]);
            }
            known.insert(name.to_owned(), feed);
        }
        let is_known = |labels: &HashMap<&str, &str>| {
            let feed = labels.get("feed").copied().unwrap_or(NO_FEED);
            feed == NO_FEED || known.contains_key(feed)
        };
        let Inner {
            files,
            bytes,
            rejected,
            letters,
            last_file,
            expected,
            expected_since,
            ..
        } = &*self.0;
        for counters in [files, bytes, rejected] {
            keep(counters, is_known);
        }
        for gauges in [letters, last_file, expected, expected_since] {
            keep(gauges, is_known);
        }
    }

    /// Counts an event whose outcome is committed.
    pub fn ended(&self, ended: &Ended) {
        let mut known = self.known();
        let feed = ended
            .feed
            .as_deref()
            .filter(|feed| known.contains_key(*feed));
        let name = feed.unwrap_or(NO_FEED);
        let labels = [name, ended.outcome.name()];
        self.0.files.with_label_values(&labels).inc();
        if !was_read(ended.outcome) {
            return;
        }
        if let Some(bytes) = ended.bytes {
            self.0.bytes.with_label_values(&labels).inc_by(bytes);
        }
        let Some(feed) = feed else { return };
        let feed = known.entry(feed.to_owned()).or_default();
        self.count_rejected(name, feed, ended);
        self.delivered(name, feed, Millis::now());
    }

    /// Takes note of a file of earlier days.
    pub fn was_delivered(&self, feed: &str, outcome: Outcome, at: Millis) {
        let mut known = self.known();
        if let Some(known) = known.get_mut(feed).filter(|_| was_read(outcome)) {
            self.delivered(feed, known, at);
        }
    }

    /// Shows the dead letters that are open.
    pub fn show_letters(&self, letters: &Letters) {
        let known = self.known();
        let mut shown: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for ((feed, reason), count) in letters {
            let feed = feed.as_deref().filter(|feed| known.contains_key(*feed));
            let reasons = shown.entry(feed.unwrap_or(NO_FEED)).or_default();
            match reasons.iter_mut().find(|(other, _)| other == reason) {
                Some((_, sum)) => *sum += count,
                None => reasons.push((reason, *count)),
            }
        }
        let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for (feed, mut reasons) in shown {
            reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
            for (rank, (reason, count)) in reasons.into_iter().enumerate() {
                let reason = if rank < LETTER_REASONS { reason } else { OTHER };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                *sums.entry((feed, reason)).or_default() += count;
            }
        }
        // One by one: a scrape in between must not miss what stays.
        for ((feed, reason), count) in &sums {
            self.0
                .letters
                .with_label_values(&[*feed, *reason])
                .set(*count);
        }
        keep(&self.0.letters, |labels| {
            let [feed, reason] = ["feed", "reason"].map(|label| labels.get(label).copied());
            let kind = feed.zip(reason);
            kind.is_some_and(|kind| sums.contains_key(&kind))
        });
    }

    fn count_rejected(&self, name: &str, feed: &mut Known, ended: &Ended) {
        for reason in &ended.rejected {
            if !feed.reasons.contains(reason) && feed.reasons.len() < RECORD_REASONS {
                feed.reasons.push(reason.clone());
            }
            let is_told_apart = feed.reasons.contains(reason);
            let reason = if is_told_apart { reason } else { OTHER };
            self.0.rejected.with_label_values(&[name, reason]).inc();
        }
        let rest = ended
            .rejected_count
            .saturating_sub(ended.rejected.len() as u64);
        if rest > 0 {
            let counter = self.0.rejected.with_label_values(&[name, OTHER]);
            counter.inc_by(rest);
        }
    }

    fn delivered(&self, name: &str, feed: &mut Known, at: Millis) {
        if feed.last_file.is_none_or(|last| last < at.0) {
            feed.last_file = Some(at.0);
            let last_file = self.0.last_file.with_label_values(&[name]);
            last_file.set(at.0 / 1_000);
        }
        let near = at.0 - DELIVERY_MS..=at.0 + DELIVERY_MS;
        if feed.deliveries.range(near).next().is_none() {
            feed.deliveries.insert(at.0);
            while feed.deliveries.len() > DELIVERIES {
                feed.deliveries.pop_first();
            }
            self.show_interval(name, feed);
        }
    }

    fn show_interval(&self, name: &str, feed: &Known) {
        match feed.interval() {
            Some(interval) => {
                let seconds = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
                self.0.expected.with_label_values(&[name]).set(seconds);
            }
            // It was configured and is no longer.
            None => drop(self.0.expected.remove_label_values(&[name])),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The pause that is usual: what is configured, else the longest of the last ones.
    fn interval(&self) -> Option<Duration> {
        let learnt = || {
            let later = self.deliveries.iter().skip(1);
            let pauses = self.deliveries.iter().zip(later).map(|(a, b)| b - a);
            let longest = pauses.clone().max().filter(|_| pauses.count() >= PAUSES)?;
            u64::try_from(longest).ok().map(Duration::from_millis)
        };
        self.expect_every.or_else(learnt)
    }
}

/// Whether a file was worked on: other outcomes say nothing of what a partner delivers.
fn was_read(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Converted | Outcome::DeadLettered)
}

/// Removes the series whose labels are not to be kept.
fn keep<B: MetricVecBuilder>(metrics: &MetricVec<B>, is_kept: impl Fn(&HashMap<&str, &str>) -> bool)
where
    MetricVec<B>: Collector,
{
    for family in metrics.collect() {
        for metric in family.get_metric() {
            let labels = metric.get_label().iter();
            let labels: HashMap<&str, &str> = labels.map(|l| (l.name(), l.value())).collect();
            if !is_kept(&labels) {
                // It was there a moment ago.
                let _ = metrics.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    const DAY_MS: i64 = 24 * 3_600 * 1_000;

    struct Scene {
        registry: Registry,
        feeds: FeedMetrics,
    }

    impl Scene {
        fn of(names: &[String]) -> Self {
            let registry = Registry::new();
            let feeds = FeedMetrics::new(&Registrar(&registry));
            feeds.configure(names.iter().map(|name| (name.as_str(), None)));
            Self { registry, feeds }
        }

        /// Series of each feed.
        fn series(&self) -> HashMap<String, usize> {
            let mut series = HashMap::new();
            for family in self.registry.gather() {
                for metric in family.get_metric() {
                    let labels = metric.get_label().iter();
                    for feed in labels.filter(|label| label.name() == "feed") {
                        *series.entry(feed.value().to_owned()).or_default() += 1;
                    }
                }
            }
            series
        }

        fn interval(&self, feed: &str) -> Option<Duration> {
            self.feeds.known()[feed].interval()
        }
    }

    fn ended(feed: &str, outcome: Outcome) -> Ended {
        Ended {
            feed: Some(feed.to_owned()),
            outcome,
            bytes: Some(7),
            rejected: (0..20).map(|n| format!("reason_{n}")).collect(),
            rejected_count: 50,
        }
    }

    #[test]
    fn five_hundred_feeds_have_at_most_25_series_each_and_removed_ones_none() {
        let names: Vec<String> = (0..500).map(|n| format!("partner-{n}")).collect();
        let scene = Scene::of(&names);
        let mut letters = Letters::new();
        for name in &names {
            for outcome in Outcome::ALL {
                scene.feeds.ended(&ended(name, outcome));
            }
            for day in 0..20 {
                let at = Millis(day * DAY_MS);
                scene.feeds.was_delivered(name, Outcome::Converted, at);
            }
            for n in 0..43 {
                letters.insert((Some(name.clone()), format!("reason_{n}")), 1);
            }
        }
        scene.feeds.show_letters(&letters);
        let series = scene.series();
        assert_eq!(series.len(), 500);
        let most = series.values().max().unwrap();
        assert!((20..=25).contains(most), "{most}");

        scene
            .feeds
            .configure(names[..10].iter().map(|name| (name.as_str(), None)));
        // What was under way when its feed went brings no series back.
        scene.feeds.ended(&ended("partner-400", Outcome::Converted));
        scene.feeds.show_letters(&letters);
        let series = scene.series();
        assert_eq!(series.len(), 11);
        assert!(series.contains_key(NO_FEED) && !series.contains_key("partner-400"));
    }

    #[test]
    fn every_rejected_record_and_open_letter_is_in_some_series() {
        let scene = Scene::of(&["nsx".into()]);
        scene.feeds.ended(&ended("nsx", Outcome::Converted));
        let letters = (0..8).map(|n| ((Some("nsx".into()), format!("reason_{n}")), n + 1));
        scene.feeds.show_letters(&letters.collect());
        let sum = |name: &str| -> f64 {
            let families = scene.registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            let metrics = family.unwrap().get_metric().iter();
            metrics
                .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
                .sum()
        };
        assert_eq!(sum("feedmill_convert_rejected_records_total"), 50.0);
        assert_eq!(sum("feedmill_dead_letters_open"), 36.0);
        // What was closed is shown no more.
        let one = Letters::from([((Some("nsx".into()), "reason_1".into()), 2)]);
        scene.feeds.show_letters(&one);
        assert_eq!(sum("feedmill_dead_letters_open"), 2.0);
    }

    #[test]
    fn the_usual_pause_is_learnt_from_deliveries_in_any_order_and_configured_over_it() {
        let scene = Scene::of(&["nsx".into()]);
        let seen = |at| {
            scene
                .feeds
                .was_delivered("nsx", Outcome::Converted, Millis(at))
        };
        // Ten files a day, a weekend without any.
        for day in [4, 0, 1, 7, 2] {
            assert_eq!(scene.interval("nsx").is_some(), day == 2, "day {day}");
            for file in 0..10 {
                seen(day * DAY_MS + file * 30_000);
            }
        }
        assert_eq!(scene.interval("nsx"), Some(Duration::from_hours(72)));
        let duplicate = Millis(30 * DAY_MS);
        scene
            .feeds
            .was_delivered("nsx", Outcome::Duplicate, duplicate);
        assert_eq!(scene.interval("nsx"), Some(Duration::from_hours(72)));
        let day = Duration::from_hours(24);
        scene.feeds.configure([("nsx", Some(day))].into_iter());
        assert_eq!(scene.interval("nsx"), Some(day));
    }

    #[test]
    fn a_feed_that_is_expected_and_never_came_is_missed_since_it_is_expected() {
        let scene = Scene::of(&[]);
        let day = Duration::from_hours(24);
        let configure = |nsx| {
            let feeds = [("nsx", nsx), ("other", None)];
            scene.feeds.configure(feeds.into_iter());
        };
        configure(Some(day));
        let since = scene.feeds.0.expected_since.with_label_values(&["nsx"]);
        assert!(since.get() > 0);
        assert_eq!(scene.series()["nsx"], scene.series()["other"] + 2);
        // A reload, which may be of any other feed, does not put it off.
        since.set(7);
        configure(Some(2 * day));
        assert_eq!(since.get(), 7);
        configure(None);
        assert_eq!(scene.series()["nsx"], scene.series()["other"]);
    }
}
