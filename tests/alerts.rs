//! The alerts of `deploy/prometheus`: sound, tested, explained in the runbook, and about metrics that there are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use feedmill::telemetry::metrics::list::{CHAPTERS, Kind};

const RULES: &str = include_str!("../deploy/prometheus/alerts.yml");
const TESTS: &str = include_str!("../deploy/prometheus/tests/alerts.yml");
const RUNBOOK: &str = include_str!("../docs/runbook.md");

/// Debian's package prometheus has it; `tests/run` says where.
fn promtool(arguments: &[&str]) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus"));
    let promtool = std::env::var_os("FEEDMILL_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let ran = Command::new(promtool)
        .args(arguments)
        .current_dir(folder)
        .output();
    match ran {
        Ok(ran) => {
            let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "promtool {arguments:?}: {said}");
        }
        Err(error) => {
            let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
            let note = format!("needs promtool ({error}): apt-get install prometheus");
            assert!(!required, "{note}");
            eprintln!("skipped: {note}");
        }
    }
}

fn alerts() -> Vec<&'static str> {
    let lines = RULES.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

#[test]
fn every_alert_fires_on_its_series_and_a_healthy_installation_is_silent() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "tests/alerts.yml"]);
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
        let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_part_of_a_name(c)) {
            if word.starts_with("feedmill_") || word.starts_with("process_") {
                assert!(names.contains(word), "{word}");
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
