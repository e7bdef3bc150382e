//! The sweep: looks through the buckets for what no notification told of, and announces it.
//!
//! In: the listings of what the feeds watch, and what is settled. Out: an event for every object whose ETag is not the
//! settled one, and for every output that is not the one that was written. A set comparison with the state and never a
//! watermark, so that lost notifications, downtime and stray writes heal by themselves.
//!
//! Promises: a quiet bucket announces nothing. An announcement is not repeated while convert has still to come to it.
//! Memory is one page, whatever the size of the bucket. What can't be seen is said: in the log, in the metrics, and by a
//! sweep that is no success. Two sweepers at once do no harm, because an event too many is a duplicate.
//!
//! * [`plan`]: what is looked at, derived from the feeds
//! * [`storage`]: what S3 is asked for; [`lines`]: a listing file's
//! * [`candidate`]: what is concluded from what is seen and what is settled
//! * [`ledger`]: what Kafka is asked for; [`announced`]: what this sweeper announced
//! * [`pass`]: one sweep, page by page, [`list_file`] where a list names the objects; [`announce`]: from what is seen to
//!   events; [`tally`]: the numbers
//! * [`forget`]: old states of what is gone; [`listed`]: what is not

mod announce;
mod announced;
mod candidate;
mod forget;
mod ledger;
mod lines;
mod list_file;
mod listed;
mod pass;
mod plan;
mod storage;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::error;

use self::{
    listed::ListedKeys,
    pass::{Forgetting, Pass},
    plan::Plan,
    tally::{Counts, Tally},
};
use crate::{
    config::Config, failure::chain, kafka::leader::Leader, live::Live,
    telemetry::metrics::SweepMetrics, topics::Millis,
};

pub use candidate::Announcement;
pub(crate) use candidate::is_young;
pub use ledger::{KafkaLedger, Ledger, LedgerError, OldPage, OldStates};
pub use pass::{FIRST_PAUSE, LONGEST_PAUSE, Stopped};
pub use plan::{PlanError, watched_places};
pub use storage::{Cursor, Listed, Page, S3Storage, Storage};

/// The stage's name in its group and in the state folder.
pub const STAGE: &str = "sweep";

/// How long a server may be away before its part is left to the next sweep, unless the interval is longer.
pub const LEAST_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Sweeps again and again.
pub struct Sweeper<S, L> {
    pub storage: Arc<S>,
    pub ledger: Arc<L>,
    pub metrics: SweepMetrics,
    pub shutdown: CancellationToken,
}

impl<S: Storage, L: Ledger> Sweeper<S, L> {
    /// Sweeps now, to make up for the downtime, and then every interval, from start to start, until the shutdown; never
    /// two at a time. Only the leader begins one, and each goes by the configuration of its beginning.
    pub async fn run(self, config: &Live<Config>, mut leader: Leader) {
        let shutdown = self.shutdown.clone();
        let sweeps = async {
            loop {
                leader.elected().await;
                let began = Instant::now();
                let config = config.current();
                if self.sweep(&config).await.is_err() {
                    return;
                }
                tokio::time::sleep_until((began + config.sweep.interval).into()).await;
            }
        };
        shutdown.run_until_cancelled(sweeps).await;
    }

    /// One sweep; whether it saw everything.
    pub async fn sweep(&self, config: &Config) -> Result<bool, Stopped> {
        let plan = match Plan::new(config) {
            Ok(plan) => plan,
            Err(error) => {
                error!(error = chain(&error), "the sweep has no plan");
                self.metrics.failures.with_label_values(&["plan"]).inc();
                return Ok(false);
            }
        };
        let pass = Pass {
            tally: Tally::begin(plan.parts.len(), self.metrics.clone()),
            counts: Counts::default(),
            seen_at: Instant::now(),
            plan: Arc::new(plan),
            storage: Arc::clone(&self.storage),
            ledger: Arc::clone(&self.ledger),
            min_age: config.sweep.min_age,
            forgetting: config.state.retention.map(|retention| Forgetting {
                settled_before: before(retention),
                listed: ListedKeys::default(),
            }),
            patience: LEAST_PATIENCE.max(config.sweep.interval),
            shutdown: self.shutdown.clone(),
        };
        pass.run().await
    }
}

fn before(retention: Duration) -> Millis {
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    Millis(Millis::now().0.saturating_sub(retention_ms))
}
