//! Prometheus' own judge of rules, queries and scrapes; `tests/run` unpacks it from Debian's package prometheus.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs promtool in `deploy/prometheus`; without one, says so and judges nothing, unless all tests are required.
pub fn promtool(arguments: &[&str], input: &str) {
    let promtool = std::env::var_os("FEEDMILL_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let started = Command::new(promtool)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
            let note = format!("needs promtool ({error}): apt-get install prometheus");
            assert!(!required, "{note}");
            eprintln!("skipped: {note}");
            return;
        }
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that reads no input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ended = child.wait_with_output().expect("promtool ends");
    let errors = String::from_utf8_lossy(&ended.stderr);
    let said = String::from_utf8_lossy(&ended.stdout) + errors.as_ref();
    // `check metrics` complains on standard error, and ends well all the same.
    let is_content = ended.status.success() && (input.is_empty() || errors.is_empty());
    assert!(is_content, "promtool {arguments:?}: {said}");
}
