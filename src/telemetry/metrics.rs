//! Every metric's name, in one place. Label values come from enums and configured names only; keys and ETags never.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Counter, Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    intake::{
        notification::{Dialect, IgnoreReason},
        queue::QueueFailure,
    },
    kafka::{Status, status::PartitionStatus},
    topics::{CleanupAction, CleanupOutcome, Outcome},
};

/// Label value of files that no feed matches.
const NO_FEED: &str = "none";

/// What the convert stage counts.
#[derive(Clone)]
pub struct ConvertMetrics {
    files: IntCounterVec,
    dead_letters: IntCounterVec,
    retries: IntCounterVec,
    seconds: Histogram,
}

impl ConvertMetrics {
    /// Counts how an event ended.
    pub fn ended(&self, outcome: Outcome, reason: Option<&str>, feed: Option<&str>) {
        let feed = feed.unwrap_or(NO_FEED);
        self.files.with_label_values(&[feed, outcome.name()]).inc();
        if let Some(reason) = reason {
            self.dead_letters
                .with_label_values(&["convert", reason])
                .inc();
        }
    }

    /// Counts an attempt that will be made again, by the code of what failed.
    pub fn retried(&self, failure: &'static str) {
        self.retries.with_label_values(&[failure]).inc();
    }

    /// Observes how long reading and converting one file took.
    pub fn converted_in(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }
}

/// What waits in retry topics.
#[derive(Clone)]
pub struct RetryMetrics {
    postponed: IntCounterVec,
    returned: IntCounterVec,
}

impl RetryMetrics {
    /// Counts an event that was sent to a tier, by the code of what failed.
    pub fn postponed(&self, tier: &str, reason: &str) {
        self.postponed.with_label_values(&[tier, reason]).inc();
    }

    /// Counts an event that came back from a tier.
    pub fn returned(&self, tier: &str) {
        self.returned.with_label_values(&[tier]).inc();
    }
}

/// What the clean-up stage counts.
#[derive(Clone)]
pub struct CleanupMetrics {
    cleanups: IntCounterVec,
}

impl CleanupMetrics {
    /// Counts how the clean-up of a source ended.
    pub fn ended(&self, feed: &str, action: CleanupAction, outcome: CleanupOutcome) {
        let labels = [feed, action.name(), outcome.name()];
        self.cleanups.with_label_values(&labels).inc();
    }
}

/// Which buckets are away.
#[derive(Clone)]
pub struct BreakerMetrics {
    open: IntGaugeVec,
}

impl BreakerMetrics {
    pub fn set_open(&self, bucket: &str, open: bool) {
        let gauge = self.open.with_label_values(&[bucket]);
        gauge.set(i64::from(open));
    }
}

/// What intake counts.
#[derive(Clone)]
pub struct IntakeMetrics {
    events: IntCounterVec,
    ignored: IntCounterVec,
}

impl IntakeMetrics {
    /// Counts a notification that became an event.
    pub fn accepted(&self, dialect: Dialect) {
        self.events.with_label_values(&[dialect.as_str()]).inc();
    }

    /// Counts one that asks for nothing.
    pub fn ignored(&self, dialect: Dialect, why: IgnoreReason) {
        self.ignored
            .with_label_values(&[dialect.as_str(), why.as_str()])
            .inc();
    }
}

/// What the receivers of queues count.
#[derive(Clone)]
pub struct QueueMetrics {
    received: IntCounterVec,
    deleted: IntCounterVec,
    failures: IntCounterVec,
}

impl QueueMetrics {
    pub fn received(&self, queue: &str, messages: usize) {
        let counter = self.received.with_label_values(&[queue]);
        counter.inc_by(messages as u64);
    }

    pub fn deleted(&self, queue: &str, messages: usize) {
        let counter = self.deleted.with_label_values(&[queue]);
        counter.inc_by(messages as u64);
    }

    pub fn failed(&self, queue: &str, failure: QueueFailure) {
        let labels = [queue, failure.code()];
        self.failures.with_label_values(&labels).inc();
    }
}

/// What the sweep counts.
#[derive(Clone)]
pub struct SweepMetrics {
    pub listed: IntCounter,
    pub announced: IntCounterVec,
    pub failures: IntCounterVec,
    pub duration: Histogram,
    pub running: IntGauge,
    pub last_success: IntGauge,
}

impl SweepMetrics {
    fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge =
            |name: &str, help: &str| register(registry, IntGauge::new(name.to_owned(), help));
        Self {
            listed: register(
                registry,
                IntCounter::new(
                    "feedmill_sweep_objects_listed_total",
                    "Sources and outputs that sweeps looked at.",
                ),
            ),
            announced: counters(
                "feedmill_sweep_announced_total",
                "Events that sweeps appended, by kind.",
                &["kind"],
            ),
            failures: counters(
                "feedmill_sweep_failures_total",
                "Requests of sweeps that failed, and entries that can't be read, by reason.",
                &["reason"],
            ),
            duration: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new("feedmill_sweep_duration_seconds", "Time of a sweep.")
                        .buckets(vec![1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 10_800.0]),
                ),
            ),
            running: gauge("feedmill_sweep_running", "1 while this process sweeps."),
            last_success: gauge(
                "feedmill_sweep_last_success_timestamp_seconds",
                "End of the last sweep of this process that saw everything, in seconds since 1970; 0 before.",
            ),
        }
    }
}

/// What reloading the configuration counts.
#[derive(Clone)]
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    last_successful: IntGauge,
    last_applied_at: IntGauge,
    feeds: IntGauge,
}

impl ReloadMetrics {
    fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let reloads = Opts::new(
            "feedmill_config_reloads_total",
            "Changed configurations, by whether they were taken over.",
        );
        Self {
            reloads: register(registry, IntCounterVec::new(reloads, &["result"])),
            last_successful: gauge(
                "feedmill_config_last_reload_successful",
                "1 when the files' configuration is sound, 0 when it was not taken over.",
            ),
            last_applied_at: gauge(
                "feedmill_config_last_reload_timestamp_seconds",
                "When the configuration that runs was taken over, in Unix time.",
            ),
            feeds: gauge("feedmill_config_feeds", "Feeds in use."),
        }
    }

    /// Notes the configuration of the start.
    pub fn started(&self, feeds: usize) {
        for result in ["applied", "failed"] {
            self.reloads.with_label_values(&[result]);
        }
        self.in_force(feeds);
    }

    /// Counts a configuration that was taken over.
    pub fn applied(&self, feeds: usize) {
        self.reloads.with_label_values(&["applied"]).inc();
        self.in_force(feeds);
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

    fn in_force(&self, feeds: usize) {
        self.last_successful.set(1);
        self.last_applied_at.set(jiff::Timestamp::now().as_second());
        self.feeds.set(i64::try_from(feeds).unwrap_or(i64::MAX));
    }
}

/// All metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub reload: ReloadMetrics,
    pub convert: ConvertMetrics,
    pub retry: RetryMetrics,
    pub breaker: BreakerMetrics,
    pub intake: IntakeMetrics,
    pub cleanup: CleanupMetrics,
    pub queue: QueueMetrics,
    pub sweep: SweepMetrics,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let convert = ConvertMetrics {
            files: counters(
                "feedmill_convert_files_total",
                "Events that ended, by feed and outcome.",
                &["feed", "outcome"],
            ),
            dead_letters: counters(
                "feedmill_dead_letters_total",
                "Dead letters opened, by stage and reason.",
                &["stage", "reason"],
            ),
            retries: counters(
                "feedmill_convert_retries_total",
                "Attempts made again, by what failed.",
                &["failure"],
            ),
            seconds: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "feedmill_convert_duration_seconds",
                        "Time to read and convert one file.",
                    )
                    .buckets(vec![
                        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
                    ]),
                ),
            ),
        };
        let retry = RetryMetrics {
            postponed: counters(
                "feedmill_retries_postponed_total",
                "Events that went to a retry topic, by tier and what failed.",
                &["tier", "reason"],
            ),
            returned: counters(
                "feedmill_retries_returned_total",
                "Events that came back from a retry topic, by tier.",
                &["tier"],
            ),
        };
        let breaker = BreakerMetrics {
            open: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "feedmill_breaker_open",
                        "1 while a bucket counts as away and its files wait, by bucket.",
                    ),
                    &["bucket"],
                ),
            ),
        };
        let cleanup = CleanupMetrics {
            cleanups: counters(
                "feedmill_cleanups_total",
                "Sources whose clean-up ended, by feed, action and outcome.",
                &["feed", "action", "outcome"],
            ),
        };
        let intake = IntakeMetrics {
            events: counters(
                "feedmill_intake_events_total",
                "Notifications appended to the events topic, by dialect.",
                &["dialect"],
            ),
            ignored: counters(
                "feedmill_intake_ignored_total",
                "Notifications that ask for nothing, by dialect and why.",
                &["dialect", "reason"],
            ),
        };
        let queue = QueueMetrics {
            received: counters(
                "feedmill_sqs_received_total",
                "Messages received from SQS, by queue; one that comes again counts again.",
                &["queue"],
            ),
            deleted: counters(
                "feedmill_sqs_deleted_total",
                "Messages deleted from SQS after Kafka acknowledged them, by queue.",
                &["queue"],
            ),
            failures: counters(
                "feedmill_sqs_failures_total",
                "What kept messages in their queue, by queue and what failed.",
                &["queue", "failure"],
            ),
        };
        let build = register(
            &registry,
            IntGauge::with_opts(
                Opts::new("feedmill_build_info", "Always 1; the version is a label.")
                    .const_label("version", env!("CARGO_PKG_VERSION")),
            ),
        );
        build.set(1);
        Self {
            reload: ReloadMetrics::new(&registry),
            sweep: SweepMetrics::new(&registry),
            registry,
            convert,
            retry,
            breaker,
            cleanup,
            intake,
            queue,
        }
    }

    /// The text exposition format, with the runtime's own numbers read now.
    pub fn render(&self, runtimes: &[(Arc<str>, Status)]) -> String {
        let mut families = self.registry.gather();
        let now = Registry::new();
        for (stage, status) in runtimes {
            describe(&now, stage, status);
        }
        families.extend(now.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        // Writing to memory does not fail; a broken family must not take the others down.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "metrics can't be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers a metric of a constant name; two of the same name would be a bug that any test run shows.
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("metric names and labels are constants");
    registry
        .register(Box::new(metric.clone()))
        .expect("metric names are unique");
    metric
}

fn describe(registry: &Registry, stage: &str, status: &Status) {
    let counters = status.counters();
    let number = |name: &str, help: &str, labels: &[(&str, &str)], value: u64| {
        let opts = labels.iter().fold(
            Opts::new(name, help).const_label("stage", stage),
            |opts, (label, value)| opts.const_label(*label, *value),
        );
        opts_counter(registry, opts, value as f64);
    };
    let transactions = "Kafka transactions, by outcome.";
    number(
        "feedmill_kafka_transactions_total",
        transactions,
        &[("outcome", "committed")],
        counters.commits,
    );
    number(
        "feedmill_kafka_transactions_total",
        transactions,
        &[("outcome", "aborted")],
        counters.aborts,
    );
    number(
        "feedmill_kafka_sessions_total",
        "Times the stage joined its group anew.",
        &[],
        counters.sessions,
    );
    number(
        "feedmill_kafka_rebalances_total",
        "Rebalances.",
        &[],
        counters.rebalances,
    );
    number(
        "feedmill_events_finished_total",
        "Events whose outcome is committed.",
        &[],
        counters.events_finished,
    );
    opts_counter(
        registry,
        Opts::new(
            "feedmill_kafka_commit_seconds_total",
            "Time spent in committed transactions.",
        )
        .const_label("stage", stage),
        counters.commit_time.as_secs_f64(),
    );
    let gauge = |name: &str, help: &str, labels: &[(&str, &str)], value: u64| {
        let opts = labels.iter().fold(
            Opts::new(name, help).const_label("stage", stage),
            |opts, (label, value)| opts.const_label(*label, *value),
        );
        if let Ok(gauge) = IntGauge::with_opts(opts) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            let _ = registry.register(Box::new(gauge));
        }
    };
    gauge(
        "feedmill_in_flight_files",
        "Events being worked on.",
        &[],
        counters.in_flight,
    );
    gauge(
        "feedmill_in_flight_bytes",
        "Memory budget in use by them.",
        &[],
        counters.in_flight_bytes,
    );
    let partitions = status.partitions();
    let count = |wanted: fn(&PartitionStatus) -> bool| {
        partitions.values().filter(|status| wanted(status)).count() as u64
    };
    let help = "Partitions owned, by what they are doing.";
    gauge(
        "feedmill_partitions",
        help,
        &[("status", "running")],
        count(|status| *status == PartitionStatus::Running),
    );
    gauge(
        "feedmill_partitions",
        help,
        &[("status", "restoring")],
        count(|status| *status == PartitionStatus::Restoring),
    );
    gauge(
        "feedmill_partitions",
        help,
        &[("status", "halted")],
        count(|status| matches!(status, PartitionStatus::Halted(_))),
    );
}

fn opts_counter(registry: &Registry, opts: Opts, value: f64) {
    if let Ok(counter) = Counter::with_opts(opts) {
        counter.inc_by(value);
        let _ = registry.register(Box::new(counter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_render_with_the_runtimes_numbers_and_each_family_once() {
        let metrics = Metrics::new();
        metrics.convert.ended(Outcome::Duplicate, None, Some("nsx"));
        let text = metrics.render(&[("convert".into(), Status::default())]);
        assert!(
            text.contains(r#"feedmill_convert_files_total{feed="nsx",outcome="duplicate"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(
                r#"feedmill_kafka_transactions_total{outcome="aborted",stage="convert"} 0"#
            ),
            "{text}"
        );
        let types: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let unique: std::collections::HashSet<&&str> = types.iter().collect();
        assert_eq!(types.len(), unique.len(), "{text}");
    }
}
