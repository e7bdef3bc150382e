//! What happens to a file whose server, bucket or permission fails: how long it is tried again, and how often.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::pause;

/// Failures that may pass: a server that is away, a permission that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How long a failing file is tried again on the spot, with growing pauses, before it waits in a retry topic.
    #[serde(with = "pause")]
    pub in_place: Duration,
    /// Waits before the attempts that follow the first, each in a topic of its own: `feedmill.retries.1m`. After the last one
    /// the file is a dead letter.
    pub tiers: Vec<Tier>,
    /// How long a file may wait for a bucket that is away altogether; its attempts are not counted meanwhile.
    #[serde(with = "pause")]
    pub max_age: Duration,
    pub breaker: Breaker,
}

impl Default for Retry {
    fn default() -> Self {
        let minutes = |minutes: u64| Tier(Duration::from_secs(60 * minutes));
        Self {
            in_place: Duration::from_secs(10),
            tiers: vec![minutes(1), minutes(10), minutes(60)],
            max_age: Duration::from_secs(24 * 3600),
            breaker: Breaker::default(),
        }
    }
}

/// When a bucket counts as away: then its files wait at once, and do not hold up those of others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Different files that failed since the last request to the bucket that succeeded.
    pub failures: usize,
    /// Wait before one file tries whether the bucket is back; doubles with each that fails, up to ten times as long.
    #[serde(with = "pause")]
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(5),
        }
    }
}

/// A wait before another attempt. Shown, it is the end of its topic's name: `1m`, `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Tier(#[serde(with = "pause")] pub Duration);

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What the configuration can say fits: see `pause`.
        let length = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        f.write_str(&format!("{length:#}").replace(' ', ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_named_by_its_length_in_letters_that_a_topic_may_have() {
        let named = |millis| Tier(Duration::from_millis(millis)).to_string();
        for (millis, name) in [
            (60_000, "1m"),
            (600_000, "10m"),
            (3_600_000, "1h"),
            (90_000, "1m30s"),
            (500, "500ms"),
            (2_000, "2s"),
        ] {
            assert_eq!(named(millis), name);
        }
    }
}
