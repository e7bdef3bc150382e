//! Findings about `[sweep]`, and about what it forgets.

use std::collections::HashSet;
use std::time::Duration;

use crate::config::{After, Config, ListFile};
use crate::object::ObjectRef;

use super::Finding;

/// Shorter, and a partner's file that is replaced once a day would be forgotten between two uploads.
const LEAST_RETENTION: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let sweep = &config.sweep;
    if sweep.interval.is_zero() {
        findings.push(Finding::error(
            "sweep.interval: must be longer than 0; sweep.enabled = false ends the sweeps",
        ));
    }
    if !sweep.enabled && !sweep.lists.is_empty() {
        findings.push(Finding::warning(
            "sweep.lists: are not read, because sweep.enabled is off",
        ));
    }
    match config.state.retention {
        Some(retention) if retention < LEAST_RETENTION => findings.push(Finding::error(
            "state.retention: must be at least a day; left out, states are kept for ever",
        )),
        Some(_) if !sweep.enabled => findings.push(Finding::warning(
            "state.retention: nothing is forgotten, because sweep.enabled is off and only a sweep sees what is gone",
        )),
        _ => {}
    }
    if !sweep.enabled
        && config
            .feeds
            .iter()
            .any(|feed| feed.enabled && feed.after != After::Keep)
    {
        findings.push(Finding::warning(
            "sweep.enabled: is off, so a source whose clean-up fails stays: only a sweep hands it over again",
        ));
    }
    let inputs = config.input_buckets();
    let mut seen = HashSet::new();
    for ListFile { list, prefix } in &sweep.lists {
        match ObjectRef::from_url(list) {
            Err(error) => findings.push(Finding::error(format!(
                "sweep.lists: {error}; it names the object that has one key a line"
            ))),
            Ok(_) if !seen.insert((list, prefix)) => findings.push(Finding::error(format!(
                "sweep.lists: {list} is named twice with the prefix {prefix:?}"
            ))),
            Ok(object) if !inputs.contains(object.bucket()) => {
                findings.push(Finding::warning(format!(
                    "sweep.lists: no feed in use reads the bucket of {list}, so nothing in it is taken"
                )));
            }
            Ok(_) => {}
        }
    }
}
