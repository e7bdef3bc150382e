//! Which buckets are away: one circuit breaker for each, input and output buckets alike.
//!
//! A breaker opens when several files in a row fail at a bucket. Then files that need it wait in a retry topic, at the price of
//! a record, instead of holding a slot each; now and then one of them tries whether the bucket is back, and the first
//! success closes the breaker. One file that can't be read never opens it: others succeed in between.
//!
//! Each worker has breakers of its own, in memory: they say what its requests met, nothing that has to be agreed on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{config, s3::S3Error, telemetry::metrics::BreakerMetrics, topics::Id};

/// How much longer than the first the pause between two tries may become.
const LONGEST_PAUSE: u32 = 10;

/// The breakers of all buckets.
pub struct Breakers {
    settings: config::Breaker,
    metrics: BreakerMetrics,
    buckets: Mutex<HashMap<String, State>>,
}

/// A bucket without a state is closed, and nothing failed lately.
enum State {
    /// Events that failed since the last success.
    Failing(Vec<Id>),
    Open {
        /// From then on one file may try.
        try_at: Instant,
        pause: Duration,
        /// One has begun to, and has not failed yet.
        is_trying: bool,
        why: S3Error,
    },
}

impl Breakers {
    pub fn new(settings: &config::Breaker, metrics: BreakerMetrics) -> Self {
        Self {
            settings: settings.clone(),
            metrics,
            buckets: Mutex::default(),
        }
    }

    /// Why files that need this bucket should wait; `None` when one may go on, if only to try.
    pub fn away(&self, bucket: &str, now: Instant) -> Option<S3Error> {
        match self.lock().get_mut(bucket) {
            Some(State::Open {
                try_at,
                pause,
                is_trying,
                why,
            }) => {
                if now < *try_at {
                    return Some(why.clone());
                }
                // This one tries. The next may when its pause is over, whatever became of this one.
                (*try_at, *is_trying) = (now + *pause, true);
                None
            }
            _ => None,
        }
    }

    /// A request for this event met the bucket in order.
    pub fn succeeded(&self, bucket: &str) {
        let Some(state) = self.lock().remove(bucket) else {
            return;
        };
        if matches!(state, State::Open { .. }) {
            info!(bucket, "the bucket is back");
            self.metrics.set_open(bucket, false);
        }
    }

    /// A request for this event failed at the bucket; whether its breaker is open now.
    pub fn failed(&self, bucket: &str, event: Id, error: &S3Error, now: Instant) -> bool {
        let mut buckets = self.lock();
        let state = buckets
            .entry(bucket.to_owned())
            .or_insert_with(|| State::Failing(Vec::new()));
        let pause = match state {
            // What was under way when it opened says nothing new.
            State::Open {
                is_trying: false, ..
            } => return true,
            State::Open { pause, .. } => (*pause * 2).min(self.settings.pause * LONGEST_PAUSE),
            State::Failing(events) => {
                if !events.contains(&event) {
                    events.push(event);
                }
                if events.len() < self.settings.failures {
                    return false;
                }
                warn!(bucket, %error, "the bucket is away; its files wait in a retry topic until it is back");
                self.metrics.set_open(bucket, true);
                self.settings.pause
            }
        };
        *state = State::Open {
            try_at: now + pause,
            pause,
            is_trying: false,
            why: error.clone(),
        };
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    const PAUSE: Duration = Duration::from_secs(5);

    fn breakers() -> Breakers {
        let settings = config::Breaker {
            failures: 3,
            pause: PAUSE,
        };
        Breakers::new(&settings, Metrics::new().breaker)
    }

    fn error() -> S3Error {
        S3Error::unavailable("GetObject", "HTTP 503")
    }

    /// Fails for so many different files; whether it is open then.
    fn fail(breakers: &Breakers, files: usize, now: Instant) -> bool {
        let failed = (0..files).map(|_| breakers.failed("b", Id::mint(), &error(), now));
        failed.last().unwrap()
    }

    #[test]
    fn it_opens_when_several_files_fail_in_a_row_and_only_for_their_bucket() {
        let (breakers, now) = (breakers(), Instant::now());
        assert!(!fail(&breakers, 2, now));
        assert!(breakers.away("b", now).is_none());
        assert!(fail(&breakers, 1, now));
        assert_eq!(breakers.away("b", now).unwrap().message, "HTTP 503");
        assert!(breakers.away("other", now).is_none());
    }

    #[test]
    fn files_that_were_under_way_when_it_opened_do_not_make_the_pause_longer() {
        let (breakers, now) = (breakers(), Instant::now());
        assert!(fail(&breakers, 16, now));
        assert!(breakers.away("b", now + PAUSE).is_none(), "nobody tries");
    }

    #[test]
    fn one_file_that_fails_again_and_again_does_not_open_it_and_a_success_starts_the_count_anew() {
        let (breakers, now) = (breakers(), Instant::now());
        let id = Id::mint();
        for _ in 0..100 {
            assert!(!breakers.failed("b", id, &error(), now));
        }
        assert!(!fail(&breakers, 1, now));
        breakers.succeeded("b");
        assert!(!fail(&breakers, 2, now));
    }

    #[test]
    fn while_it_is_open_one_file_at_a_time_tries_and_a_success_closes_it() {
        let (breakers, now) = (breakers(), Instant::now());
        fail(&breakers, 3, now);
        let later = now + PAUSE;
        assert!(breakers.away("b", later).is_none(), "nobody tries");
        assert!(breakers.away("b", later).is_some(), "two try at once");
        assert!(
            breakers.away("b", later + PAUSE).is_none(),
            "one that never came back holds up the next"
        );
        breakers.succeeded("b");
        assert!(breakers.away("b", later).is_none());
        assert!(breakers.away("b", later).is_none());
    }

    #[test]
    fn the_pause_between_tries_grows_to_a_bound() {
        let (breakers, mut now) = (breakers(), Instant::now());
        fail(&breakers, 3, now);
        for factor in [1, 2, 4, 8, 10, 10] {
            let pause = PAUSE * factor;
            assert!(
                breakers
                    .away("b", now + pause - Duration::from_millis(1))
                    .is_some()
            );
            now += pause;
            assert!(breakers.away("b", now).is_none(), "{factor}");
            fail(&breakers, 1, now);
        }
    }
}
