//! The alerts of `deploy/prometheus` and the dashboards of `deploy/grafana`: sound, about metrics that there are; the alerts
//! tested, and explained in the runbook.

#[path = "support/dashboards.rs"]
mod dashboards;

#[path = "support/promtool.rs"]
mod promtool;

use std::collections::BTreeSet;
use std::fs;

use dashboards::{Dashboard, dashboards};
use feedmill::telemetry::metrics::list::{CHAPTERS, Kind};
use promtool::promtool;

const RULES: &str = include_str!("../deploy/prometheus/alerts.yml");
const TESTS: &str = include_str!("../deploy/prometheus/tests/alerts.yml");
const RUNBOOK: &str = include_str!("../docs/runbook.md");

fn alerts() -> Vec<&'static str> {
    let lines = RULES.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

#[test]
fn every_alert_fires_on_its_series_and_a_healthy_installation_is_silent() {
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["test", "rules", "tests/alerts.yml"], "");
}

#[test]
fn every_alert_is_seen_to_fire_and_has_its_section_in_the_runbook() {
    let alerts = alerts();
    assert!(alerts.len() >= 12, "{alerts:?}");
    let expected: BTreeSet<&str> = TESTS
        .split("- alertname: ")
        .skip(1)
        .filter(|case| case.contains("exp_alerts:"))
        .filter_map(|case| case.lines().next())
        .collect();
    for alert in &alerts {
        assert!(expected.contains(alert), "{alert} is never seen to fire");
        let section = RUNBOOK
            .split("\n## ")
            .find(|section| section.starts_with(alert));
        let section = section.unwrap_or_else(|| panic!("docs/runbook.md says nothing of {alert}"));
        for part in ["**Means:**", "**Look at**", "**Do"] {
            assert!(section.contains(part), "{alert} has no {part}");
        }
        let link = format!("runbook_url: docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(RULES.contains(&link), "{alert} has no link to its section");
    }
    let sections = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## "));
    for section in sections {
        assert!(alerts.contains(&section), "{section} is no alert");
    }
}

#[test]
fn alerts_their_tests_and_the_runbook_speak_of_metrics_that_there_are() {
    let names = names();
    for text in [RULES, TESTS, RUNBOOK] {
        metrics_in(text).for_each(|name| assert!(names.contains(name), "{name}"));
    }
}

/// What looks like the name of a metric.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part_of_a_name(c))
        .filter(|word| word.starts_with("feedmill_") || word.starts_with("process_"))
}

#[test]
fn every_query_of_every_panel_parses_and_asks_for_metrics_that_there_are() {
    let names = names();
    let mut rules = Vec::new();
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 4);
    for dashboard in &dashboards {
        for query in dashboard.queries() {
            for name in metrics_in(&query) {
                assert!(names.contains(name), "{}: {query}", dashboard.file);
            }
            assert!(metrics_in(&query).next().is_some(), "{query}");
            // JSON is YAML, and promtool parses what a rule records.
            let record = format!("query_{}", rules.len());
            rules.push(serde_json::json!({ "record": record, "expr": query }));
        }
    }
    assert!(rules.len() >= 75, "{}", rules.len());
    let rules = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

#[test]
fn every_metric_is_on_a_dashboard_but_those_that_only_support_others() {
    let dashboards = dashboards();
    let queries: Vec<String> = dashboards.iter().flat_map(Dashboard::queries).collect();
    let shown: BTreeSet<&str> = queries.iter().flat_map(|query| metrics_in(query)).collect();
    let metrics = CHAPTERS.iter().flat_map(|chapter| chapter.metrics);
    let missing: Vec<_> = metrics
        .map(|metric| metric.name)
        .filter(|name| !shown.iter().any(|shown| shown.starts_with(name)))
        .collect();
    // Counted for whoever asks: the queues' healthy work, the sweep's course, what a reload did.
    let unshown = [
        "feedmill_sqs_received_total",
        "feedmill_sqs_deleted_total",
        "feedmill_sweep_duration_seconds",
        "feedmill_sweep_running",
        "feedmill_config_reloads_total",
        "feedmill_config_last_reload_timestamp_seconds",
        "feedmill_config_feeds",
    ];
    assert_eq!(missing, unshown);
}

#[test]
fn dashboards_ask_the_chosen_prometheus_and_their_panels_do_not_overlap() {
    for Dashboard { file, json } in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in json["panels"].as_array().expect("panels") {
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}");
            }
            let place = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{file}: {}", panel["title"]);
                }
            }
        }
    }
}

/// Every name that a query may use.
fn names() -> BTreeSet<String> {
    let metrics = CHAPTERS.iter().flat_map(|chapter| chapter.metrics);
    let names = metrics.flat_map(|metric| match metric.kind {
        Kind::Histogram(_) => ["_bucket", "_sum", "_count"]
            .map(|end| format!("{}{end}", metric.name))
            .to_vec(),
        _ => vec![metric.name.to_owned()],
    });
    names.collect()
}
