//! From a definition to a metric in a registry.

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use super::list::{Definition, Kind};

/// Makes metrics and registers them; each definition once, which any test run shows.
pub struct Registrar<'a>(pub &'a Registry);

impl Registrar<'_> {
    pub fn counter(&self, of: &Definition) -> IntCounter {
        is(of, matches!(of.kind, Kind::Counter));
        self.register(IntCounter::with_opts(opts(of)))
    }

    pub fn counters(&self, of: &Definition) -> IntCounterVec {
        is(of, matches!(of.kind, Kind::Counter));
        self.register(IntCounterVec::new(opts(of), of.labels))
    }

    pub fn seconds(&self, of: &Definition) -> Counter {
        is(of, matches!(of.kind, Kind::Counter));
        self.register(Counter::with_opts(opts(of)))
    }

    pub fn gauge(&self, of: &Definition) -> IntGauge {
        is(of, matches!(of.kind, Kind::Gauge));
        self.register(IntGauge::with_opts(opts(of)))
    }

    pub fn gauges(&self, of: &Definition) -> IntGaugeVec {
        is(of, matches!(of.kind, Kind::Gauge));
        self.register(IntGaugeVec::new(opts(of), of.labels))
    }

    pub fn fraction(&self, of: &Definition) -> Gauge {
        is(of, matches!(of.kind, Kind::Gauge));
        self.register(Gauge::with_opts(opts(of)))
    }

    pub fn fractions(&self, of: &Definition) -> GaugeVec {
        is(of, matches!(of.kind, Kind::Gauge));
        self.register(GaugeVec::new(opts(of), of.labels))
    }

    pub fn histogram(&self, of: &Definition) -> Histogram {
        self.register(Histogram::with_opts(histogram_opts(of)))
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("metric names and labels are constants");
        self.0
            .register(Box::new(metric.clone()))
            .expect("metric names are unique");
        metric
    }
}

/// One of several of a definition that differ in the value of its only label; whoever shows it registers it.
pub fn histogram_of(of: &Definition, value: &str) -> Histogram {
    let [label] = of.labels else {
        panic!("{} has one label", of.name);
    };
    let opts = histogram_opts(of).const_label(*label, value);
    Histogram::with_opts(opts).expect("metric names and labels are constants")
}

fn is(of: &Definition, kind: bool) {
    debug_assert!(kind, "{} is {:?}", of.name, of.kind);
}

fn opts(of: &Definition) -> Opts {
    Opts::new(of.name, of.help)
}

fn histogram_opts(of: &Definition) -> HistogramOpts {
    let buckets: &[f64] = match of.kind {
        Kind::Histogram(buckets) => buckets,
        _ => &[],
    };
    HistogramOpts::from(opts(of)).buckets(buckets.to_vec())
}
