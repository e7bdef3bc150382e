//! What the runtime of each stage says of itself, read at each scrape.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{list, register::Registrar};
use crate::kafka::{
    Status,
    status::{Counters, PartitionView},
};

/// Adds the numbers of every stage.
pub fn describe(registry: &Registry, runtimes: &[(Arc<str>, Status)]) {
    let registrar = Registrar(registry);
    let sheet = Sheet::new(&registrar);
    for (stage, status) in runtimes {
        sheet.count(stage, &status.counters());
        sheet.partitions(stage, status);
        for histogram in status.histograms() {
            // Of one name, and of another stage each.
            let _ = registry.register(Box::new(histogram));
        }
    }
}

/// The metrics of one scrape.
struct Sheet {
    finished: IntCounterVec,
    rebalances: IntCounterVec,
    sessions: IntCounterVec,
    fencings: IntCounterVec,
    transactions: IntCounterVec,
    restored: IntCounterVec,
    in_flight: IntGaugeVec,
    in_flight_limit: IntGaugeVec,
    in_flight_bytes: IntGaugeVec,
    in_flight_bytes_limit: IntGaugeVec,
    state_entries: IntGaugeVec,
    state_bytes: IntGaugeVec,
    partitions: IntGaugeVec,
    partition_finished: IntCounterVec,
    lag_events: IntGaugeVec,
    lag_bytes: IntGaugeVec,
    lag_unknown: IntGaugeVec,
    lag_age: prometheus::GaugeVec,
}

impl Sheet {
    fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            finished: registrar.counters(&list::EVENTS_FINISHED),
            rebalances: registrar.counters(&list::REBALANCES),
            sessions: registrar.counters(&list::SESSIONS),
            fencings: registrar.counters(&list::FENCINGS),
            transactions: registrar.counters(&list::TRANSACTIONS),
            restored: registrar.counters(&list::RESTORED_RECORDS),
            in_flight: registrar.gauges(&list::IN_FLIGHT),
            in_flight_limit: registrar.gauges(&list::IN_FLIGHT_LIMIT),
            in_flight_bytes: registrar.gauges(&list::IN_FLIGHT_BYTES),
            in_flight_bytes_limit: registrar.gauges(&list::IN_FLIGHT_BYTES_LIMIT),
            state_entries: registrar.gauges(&list::STATE_ENTRIES),
            state_bytes: registrar.gauges(&list::STATE_BYTES),
            partitions: registrar.gauges(&list::PARTITIONS),
            partition_finished: registrar.counters(&list::PARTITION_FINISHED),
            lag_events: registrar.gauges(&list::LAG_EVENTS),
            lag_bytes: registrar.gauges(&list::LAG_BYTES),
            lag_unknown: registrar.gauges(&list::LAG_UNKNOWN),
            lag_age: registrar.fractions(&list::LAG_AGE),
        }
    }

    fn count(&self, stage: &str, counters: &Counters) {
        let count = |family: &IntCounterVec, labels: &[&str], value: u64| {
            family.with_label_values(labels).inc_by(value);
        };
        count(&self.finished, &[stage], counters.events_finished);
        count(&self.rebalances, &[stage], counters.rebalances);
        count(&self.sessions, &[stage], counters.sessions);
        count(&self.fencings, &[stage], counters.fencings);
        count(&self.restored, &[stage], counters.restored_records);
        for (outcome, value) in [
            ("committed", counters.commits),
            ("aborted", counters.aborts),
            ("fenced", counters.fenced),
            ("unknown", counters.unknown),
        ] {
            count(&self.transactions, &[stage, outcome], value);
        }
        set(&self.in_flight, &[stage], counters.in_flight);
        set(&self.in_flight_limit, &[stage], counters.in_flight_limit);
        set(&self.in_flight_bytes, &[stage], counters.in_flight_bytes);
        let limit = counters.in_flight_bytes_limit;
        set(&self.in_flight_bytes_limit, &[stage], limit);
        if let Some((entries, bytes)) = counters.state {
            set(&self.state_entries, &[stage], entries);
            set(&self.state_bytes, &[stage], bytes);
        }
    }

    fn partitions(&self, stage: &str, status: &Status) {
        for status in ["running", "restoring", "halted"] {
            set(&self.partitions, &[stage, status], 0);
        }
        for (partition, view) in status.partition_views() {
            let by_status = [stage, view.status.name()];
            self.partitions.with_label_values(&by_status).inc();
            self.partition(&[stage, &partition.to_string()], &view);
        }
    }

    fn partition(&self, labels: &[&str; 2], view: &PartitionView) {
        let finished = self.partition_finished.with_label_values(labels);
        finished.inc_by(view.finished);
        let Some(lag) = &view.lag else { return };
        set(&self.lag_events, labels, lag.events);
        let Some(waiting) = &lag.waiting else { return };
        set(&self.lag_bytes, labels, waiting.bytes);
        set(&self.lag_unknown, labels, waiting.unknown_sizes);
        let now = jiff::Timestamp::now().as_millisecond();
        let age = waiting.oldest.map_or(0, |oldest| (now - oldest).max(0));
        let gauge = self.lag_age.with_label_values(labels);
        gauge.set(age as f64 / 1_000.0);
    }
}

fn set(family: &IntGaugeVec, labels: &[&str], value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    family.with_label_values(labels).set(value);
}
