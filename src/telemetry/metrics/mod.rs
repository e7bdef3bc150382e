//! What is counted, and how a scrape shows it. [`list`] has every metric's name and meaning.

mod cleanup;
mod convert;
mod feeds;
mod intake;
mod kafka;
pub mod list;
mod process;
pub mod register;
mod reload;
mod s3;
mod sweep;

use std::sync::Arc;

use prometheus::{Encoder, IntGauge, Registry, TextEncoder};

use self::register::Registrar;
pub use self::{
    cleanup::CleanupMetrics,
    convert::{BreakerMetrics, ConvertMetrics, RetryMetrics},
    feeds::{Ended, FeedMetrics, Letters},
    intake::{IntakeMetrics, QueueMetrics},
    reload::ReloadMetrics,
    s3::S3Metrics,
    sweep::SweepMetrics,
};
use crate::kafka::Status;

/// All metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    memory_limit: IntGauge,
    pub reload: ReloadMetrics,
    pub feeds: FeedMetrics,
    pub convert: ConvertMetrics,
    pub retry: RetryMetrics,
    pub breaker: BreakerMetrics,
    pub cleanup: CleanupMetrics,
    pub intake: IntakeMetrics,
    pub queue: QueueMetrics,
    pub sweep: SweepMetrics,
    pub s3: S3Metrics,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        let build = registrar.gauges(&list::BUILD);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        process::started_at();
        let feeds = FeedMetrics::new(&registrar);
        Self {
            reload: ReloadMetrics::new(&registrar, feeds.clone()),
            feeds,
            convert: ConvertMetrics::new(&registrar),
            retry: RetryMetrics::new(&registrar),
            breaker: BreakerMetrics::new(&registrar),
            cleanup: CleanupMetrics::new(&registrar),
            intake: IntakeMetrics::new(&registrar),
            queue: QueueMetrics::new(&registrar),
            sweep: SweepMetrics::new(&registrar),
            s3: S3Metrics::new(&registrar),
            memory_limit: registrar.gauge(&list::MEMORY_LIMIT),
            registry,
        }
    }

    /// Shows the ceiling of the process, in bytes.
    pub fn limit_memory(&self, bytes: u64) {
        self.memory_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The text exposition format, with the runtime's and the process's own numbers read now.
    pub fn render(&self, runtimes: &[(Arc<str>, Status)]) -> String {
        let mut families = self.registry.gather();
        let now = Registry::new();
        kafka::describe(&now, runtimes);
        process::describe(&now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::Outcome;

    #[test]
    fn the_metrics_render_with_the_runtimes_numbers_and_each_family_once() {
        let metrics = Metrics::new();
        metrics.feeds.ended(&Ended {
            feed: None,
            outcome: Outcome::Ignored,
            bytes: None,
            rejected: Vec::new(),
            rejected_count: 0,
        });
        let runtimes = ["convert", "retry.1m"].map(|stage| (stage.into(), Status::new(stage)));
        let text = metrics.render(&runtimes);
        for line in [
            r#"feedmill_convert_files_total{feed="none",outcome="ignored"} 1"#,
            r#"feedmill_kafka_transactions_total{outcome="aborted",stage="convert"} 0"#,
            r#"feedmill_kafka_transaction_duration_seconds_count{stage="retry.1m"} 0"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        let types: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let unique: std::collections::HashSet<&&str> = types.iter().collect();
        assert_eq!(types.len(), unique.len(), "{text}");
    }
}
