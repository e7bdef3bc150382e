//! Waits that can't work.

use super::{Finding, at_least_one};
use crate::config::Retry;

/// A history has room for so many attempts, and each tier is a topic.
const MAX_TIERS: usize = 10;

pub(super) fn check(retry: &Retry, findings: &mut Vec<Finding>) {
    if retry.tiers.len() > MAX_TIERS {
        findings.push(Finding::error(format!(
            "retry.tiers: at most {MAX_TIERS}, each is a topic; found {}",
            retry.tiers.len()
        )));
    }
    if retry.tiers.iter().any(|tier| tier.0.is_zero()) {
        findings.push(Finding::error(
            "retry.tiers: a wait must be longer than nothing",
        ));
    }
    if retry.tiers.windows(2).any(|pair| pair[0] >= pair[1]) {
        findings.push(Finding::error(
            "retry.tiers: each wait must be longer than the one before",
        ));
    }
    if retry.breaker.pause.is_zero() {
        findings.push(Finding::error(
            "retry.breaker.pause: must be longer than nothing",
        ));
    }
    at_least_one(
        "retry.breaker.failures",
        retry.breaker.failures as u64,
        findings,
    );
}
