//! What the convert stage counts beside its feeds, and what waits in retry topics.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, IntGaugeVec};

use super::{list, register::Registrar};

/// What the convert stage counts.
#[derive(Clone)]
pub struct ConvertMetrics {
    dead_letters: IntCounterVec,
    retries: IntCounterVec,
    seconds: Histogram,
    file_bytes: Histogram,
    latency: Histogram,
}

impl ConvertMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            dead_letters: registrar.counters(&list::DEAD_LETTERS),
            retries: registrar.counters(&list::ATTEMPTS_AGAIN),
            seconds: registrar.histogram(&list::CONVERT_SECONDS),
            file_bytes: registrar.histogram(&list::FILE_BYTES),
            latency: registrar.histogram(&list::LATENCY),
        }
    }

    /// Counts a dead letter that is committed.
    pub fn dead_lettered(&self, reason: &str) {
        let labels = ["convert", reason];
        self.dead_letters.with_label_values(&labels).inc();
    }

    /// Observes the time from an event to the commit of its outcome.
    pub fn committed_after(&self, time: Duration) {
        self.latency.observe(time.as_secs_f64());
    }

    /// Counts an attempt that will be made again, by the code of what failed.
    pub fn retried(&self, failure: &'static str) {
        self.retries.with_label_values(&[failure]).inc();
    }

    /// Observes how long reading and converting one file took, and its size where the server says it.
    pub fn converted(&self, time: Duration, bytes: Option<u64>) {
        self.seconds.observe(time.as_secs_f64());
        if let Some(bytes) = bytes {
            self.file_bytes.observe(bytes as f64);
        }
    }
}

/// What waits in retry topics.
#[derive(Clone)]
pub struct RetryMetrics {
    postponed: IntCounterVec,
    returned: IntCounterVec,
}

impl RetryMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            postponed: registrar.counters(&list::POSTPONED),
            returned: registrar.counters(&list::RETURNED),
        }
    }

    /// Counts an event that was sent to a tier, by the code of what failed.
    pub fn postponed(&self, tier: &str, reason: &str) {
        self.postponed.with_label_values(&[tier, reason]).inc();
    }

    /// Counts an event that came back from a tier.
    pub fn returned(&self, tier: &str) {
        self.returned.with_label_values(&[tier]).inc();
    }
}

/// Which buckets are away.
#[derive(Clone)]
pub struct BreakerMetrics {
    open: IntGaugeVec,
}

impl BreakerMetrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            open: registrar.gauges(&list::BREAKER_OPEN),
        }
    }

    pub fn set_open(&self, bucket: &str, open: bool) {
        let gauge = self.open.with_label_values(&[bucket]);
        gauge.set(i64::from(open));
    }
}
