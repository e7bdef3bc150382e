//! Every metric that feedmill has: name, type, labels, meaning. What is registered is made from here, and so is
//! `docs/metrics.md`.
//!
//! Names follow Prometheus: base units at the end (`_seconds`, `_bytes`), `_total` for what only grows. Label values come
//! from enums and from configured names; keys and ETags never.

/// What a metric's numbers do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Grows, and begins at 0 with the process.
    Counter,
    Gauge,
    /// Counts observations up to each of these bounds.
    Histogram(&'static [f64]),
}

/// A metric as its documentation has it.
#[derive(Debug)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// A sentence for whoever reads a scrape.
    pub help: &'static str,
}

/// The metrics of one part of feedmill.
pub struct Chapter {
    pub title: &'static str,
    pub metrics: &'static [&'static Definition],
}

macro_rules! chapters {
    ($($title:literal { $($constant:ident: $kind:ident $(($buckets:expr))?, $name:literal, [$($label:literal),*], $help:literal;)* })*) => {
        $($(
            pub static $constant: Definition = Definition {
                name: $name,
                kind: Kind::$kind $(($buckets))?,
                labels: &[$($label),*],
                help: $help,
            };
        )*)*

        /// All of them, in the order of the documentation.
        pub static CHAPTERS: &[Chapter] = &[
            $(Chapter { title: $title, metrics: &[$(&$constant),*] },)*
        ];
    };
}

/// From a small file to the longest that a worker has time for, in seconds.
const WORK: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];
/// From a record to the largest file that S3 takes, in bytes.
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];
/// From what a healthy pipeline takes to what a sweep finds days later, in seconds.
const WAITS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0,
];
const MOMENTS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];
const RESTORES: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0];
const SWEEPS: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 10_800.0];

chapters! {
    "Files" {
        FILES: Counter, "feedmill_convert_files_total", ["feed", "outcome"], "Events whose outcome is committed, by feed and outcome; `none` stands for no feed.";
        BYTES: Counter, "feedmill_convert_bytes_total", ["feed", "outcome"], "Bytes of the files that were converted or refused, as far as their events say, by feed and outcome.";
        REJECTED_RECORDS: Counter, "feedmill_convert_rejected_records_total", ["feed", "reason"], "Records left out of outputs, by feed and reason; from the fifth reason of a feed on, and beyond the 20 of a file whose reasons are kept, `other`.";
        LAST_FILE: Gauge, "feedmill_feed_last_file_timestamp_seconds", ["feed"], "When the last file of a feed was converted or refused, in Unix time, as far as this worker saw.";
        EXPECTED_SINCE: Gauge, "feedmill_feed_expected_since_timestamp_seconds", ["feed"], "Since when this worker expects a feed that has `expect_every`: what a feed that never sent is missed from.";
        EXPECTED_INTERVAL: Gauge, "feedmill_feed_expected_interval_seconds", ["feed"], "The pause that a feed may make between deliveries: its `expect_every`, else the longest of its last 8 pauses, once there are 3.";
        CONVERT_SECONDS: Histogram(WORK), "feedmill_convert_duration_seconds", [], "Time to read and convert one file.";
        FILE_BYTES: Histogram(SIZES), "feedmill_convert_file_bytes", [], "Size of the files that were read, as stored.";
        LATENCY: Histogram(WAITS), "feedmill_convert_latency_seconds", [], "From an object's event, by the server's clock where it says, to the commit of its being converted or refused.";
        ATTEMPTS_AGAIN: Counter, "feedmill_convert_retries_total", ["failure"], "Attempts made again in place, by what failed.";
    }
    "Dead letters and retries" {
        DEAD_LETTERS: Counter, "feedmill_dead_letters_total", ["stage", "reason"], "Dead letters opened, by stage and reason.";
        DEAD_LETTERS_OPEN: Gauge, "feedmill_dead_letters_open", ["feed", "reason"], "Dead letters open in the partitions of this worker, by feed and reason; `other` beyond the five most frequent reasons of a feed.";
        POSTPONED: Counter, "feedmill_retries_postponed_total", ["tier", "reason"], "Events that went to a retry topic, by tier and what failed.";
        RETURNED: Counter, "feedmill_retries_returned_total", ["tier"], "Events that came back from a retry topic, by tier.";
        BREAKER_OPEN: Gauge, "feedmill_breaker_open", ["bucket"], "1 while a bucket counts as away and its files wait, by bucket.";
    }
    "Clean-up" {
        CLEANUPS: Counter, "feedmill_cleanups_total", ["action", "outcome"], "Sources whose clean-up ended, by action and outcome; of `failed` ones the log and the topic `cleanups` say why, and the next sweep hands them over again.";
    }
    "Backlog" {
        LAG_EVENTS: Gauge, "feedmill_lag_events", ["stage", "partition"], "Records of an owned partition that are not finished. For `convert` those that can be read; for other stages offsets, so that a busy topic shows some more.";
        LAG_BYTES: Gauge, "feedmill_lag_bytes", ["stage", "partition"], "Bytes of the files of those events, as far as they say.";
        LAG_UNKNOWN: Gauge, "feedmill_lag_unknown_size_events", ["stage", "partition"], "Those events that don't say their file's size.";
        LAG_AGE: Gauge, "feedmill_lag_oldest_age_seconds", ["stage", "partition"], "How long ago the oldest of those events was appended; 0 without any.";
        IN_FLIGHT: Gauge, "feedmill_in_flight_files", ["stage"], "Events being worked on.";
        IN_FLIGHT_LIMIT: Gauge, "feedmill_in_flight_files_limit", ["stage"], "Events that may be worked on at once.";
        IN_FLIGHT_BYTES: Gauge, "feedmill_in_flight_bytes", ["stage"], "Memory budget in use by the events being worked on.";
        IN_FLIGHT_BYTES_LIMIT: Gauge, "feedmill_in_flight_bytes_limit", ["stage"], "The memory budget.";
    }
    "Kafka" {
        EVENTS_FINISHED: Counter, "feedmill_events_finished_total", ["stage"], "Records whose answer is committed.";
        PARTITION_FINISHED: Counter, "feedmill_partition_events_finished_total", ["stage", "partition"], "The same by partition, since this worker has it.";
        PARTITIONS: Gauge, "feedmill_partitions", ["stage", "status"], "Partitions owned, by what they are doing: `running`, `restoring`, `halted`.";
        REBALANCES: Counter, "feedmill_kafka_rebalances_total", ["stage"], "Assignments and revocations.";
        SESSIONS: Counter, "feedmill_kafka_sessions_total", ["stage"], "Times the stage joined its group anew.";
        FENCINGS: Counter, "feedmill_kafka_fencings_total", ["stage"], "Times another producer, or the broker, fenced the stage.";
        TRANSACTIONS: Counter, "feedmill_kafka_transactions_total", ["stage", "outcome"], "Transactions, by outcome: `committed`, `aborted`, `fenced`, and `unknown` when nobody can say.";
        TRANSACTION_SECONDS: Histogram(MOMENTS), "feedmill_kafka_transaction_duration_seconds", ["stage"], "Time of committed transactions, from the first record to the answer.";
        RESTORE_SECONDS: Histogram(RESTORES), "feedmill_kafka_restore_duration_seconds", ["stage"], "Time to restore a partition.";
        RESTORED_RECORDS: Counter, "feedmill_kafka_restored_records_total", ["stage"], "State records read by restores.";
        STATE_ENTRIES: Gauge, "feedmill_state_entries", ["stage"], "Objects in the local state of the partitions this process has had, about: one that changed counts again until the files are compacted.";
        STATE_BYTES: Gauge, "feedmill_state_bytes", ["stage"], "Size of the local state on disk.";
    }
    "Intake" {
        INTAKE_REQUESTS: Counter, "feedmill_intake_requests_total", ["dialect", "status"], "Requests to the webhook, by dialect (`unknown` when the message was not read) and HTTP status.";
        INTAKE_EVENTS: Counter, "feedmill_intake_events_total", ["dialect"], "Notifications appended to the events topic, by dialect.";
        INTAKE_IGNORED: Counter, "feedmill_intake_ignored_total", ["dialect", "reason"], "Notifications that ask for nothing, by dialect and why.";
        SQS_RECEIVED: Counter, "feedmill_sqs_received_total", ["queue"], "Messages received from SQS, by queue; one that comes again counts again.";
        SQS_DELETED: Counter, "feedmill_sqs_deleted_total", ["queue"], "Messages deleted from SQS after Kafka acknowledged them, by queue.";
        SQS_FAILURES: Counter, "feedmill_sqs_failures_total", ["queue", "failure"], "What kept messages in their queue, by queue and what failed.";
    }
    "Sweep" {
        SWEEP_LISTED: Counter, "feedmill_sweep_objects_listed_total", [], "Sources and outputs that sweeps looked at.";
        SWEEP_ANNOUNCED: Counter, "feedmill_sweep_announced_total", ["kind"], "Events that sweeps appended, by kind.";
        SWEEP_FAILURES: Counter, "feedmill_sweep_failures_total", ["reason"], "Requests of sweeps that failed, and entries that can't be read, by reason.";
        SWEEP_SECONDS: Histogram(SWEEPS), "feedmill_sweep_duration_seconds", [], "Time of a sweep.";
        SWEEP_RUNNING: Gauge, "feedmill_sweep_running", [], "1 while this process sweeps.";
        SWEEP_INTERVAL: Gauge, "feedmill_sweep_interval_seconds", [], "Pause between sweeps, as configured; absent where none are made.";
        SWEEP_LAST_SUCCESS: Gauge, "feedmill_sweep_last_success_timestamp_seconds", [], "End of the last sweep of this process that saw everything, in Unix time; 0 before.";
    }
    "S3" {
        S3_REQUESTS: Counter, "feedmill_s3_requests_total", ["operation", "status"], "Requests to S3, each try of them, by operation and HTTP status; `none` without an answer, `other` for a status that S3 does not have.";
    }
    "Process" {
        BUILD: Gauge, "feedmill_build_info", ["version"], "Always 1; the version is a label.";
        RELOADS: Counter, "feedmill_config_reloads_total", ["result"], "Changed configurations, by whether they were taken over: `applied`, `failed`.";
        RELOAD_SUCCESSFUL: Gauge, "feedmill_config_last_reload_successful", [], "1 when the files' configuration is sound, 0 when it was not taken over.";
        RELOADED_AT: Gauge, "feedmill_config_last_reload_timestamp_seconds", [], "When the configuration that runs was taken over, in Unix time.";
        FEEDS: Gauge, "feedmill_config_feeds", [], "Feeds in use.";
        RESIDENT_BYTES: Gauge, "process_resident_memory_bytes", [], "Memory of the process.";
        MEMORY_LIMIT: Gauge, "feedmill_memory_limit_bytes", [], "What the process stays under, `memory.limit`.";
        CPU_SECONDS: Counter, "process_cpu_seconds_total", [], "Processor time of the process, in user and kernel mode.";
        STARTED_AT: Gauge, "process_start_time_seconds", [], "When the process started, in Unix time.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Definition> {
        CHAPTERS.iter().flat_map(|chapter| chapter.metrics).copied()
    }

    #[test]
    fn names_are_as_prometheus_wants_them_and_stand_once() {
        let mut names: Vec<_> = all().map(|metric| metric.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for metric in all() {
            let name = metric.name;
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert!(
                name.starts_with("feedmill_") || name.starts_with("process_"),
                "{name}"
            );
            for unit in ["_ms", "_millis", "_kb", "_mb", "_minutes", "_hours"] {
                assert!(!name.contains(unit), "{name}");
            }
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_bytes"),
                    "{name}"
                );
                assert!(buckets.is_sorted() && buckets.len() <= 13, "{name}");
            }
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
        }
    }

    /// `FEEDMILL_WRITE_DOCS=1 cargo test --lib the_page_of_metrics` writes it.
    #[test]
    fn the_page_of_metrics_is_made_from_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = page();
        if std::env::var_os("FEEDMILL_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/metrics.md is not what the list says; write it with FEEDMILL_WRITE_DOCS=1 cargo test --lib the_page_of_metrics"
        );
    }

    fn page() -> String {
        let mut page = String::from(INTRODUCTION);
        for chapter in CHAPTERS {
            page += &format!(
                "\n## {}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n",
                chapter.title
            );
            for metric in chapter.metrics {
                let kind = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
                let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
                page += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
            }
        }
        page
    }

    const INTRODUCTION: &str = "\
# Metrics

<!-- Made from src/telemetry/metrics/list.rs: FEEDMILL_WRITE_DOCS=1 cargo test --lib the_page_of_metrics -->

Every process serves them as `/metrics` on `admin.listen`, for Prometheus. The unit is the end of a name. Label values come
from feedmill itself and from the configuration, never from keys of objects; a feed has at most 25 series in each process,
and they go away with it when the configuration is reloaded. What happened to files is counted when its transaction is
committed: work that another worker does again counts once.

A partition belongs to one worker, so lags and open dead letters are summed over all of them:
`sum(feedmill_lag_bytes)`, `sum by (feed) (feedmill_dead_letters_open)`. What is known of a feed's deliveries is each
worker's own: `max by (feed) (feedmill_feed_last_file_timestamp_seconds)`,
`min by (feed) (feedmill_feed_expected_interval_seconds)`. Files less than 10 minutes apart are one delivery. A worker learns
from the files of its own partitions, and after a start from the last 500 results of each, so that a learnt interval may be
longer than the truth; `expect_every` in a feed's configuration says it for certain. What a worker does not find among those
results, it does not show: the alert asks Prometheus for what was seen in the last 14 days.

The lag of `convert` is read by the worker that owns the partition, from the committed offset to the end, with its own
reader: each event once, as it arrives. Up to 4,096 waiting events of a partition are known one by one; beyond that
neighbours are kept together, and what part of such a group is finished is estimated.
";
}
