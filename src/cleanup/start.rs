//! The rules of a process: proven at its start, renewed by a reload.

use std::sync::Arc;

use tracing::{info, warn};

use super::rules::{Refused, Rules, is_asked_for, prove, unproven};
use crate::{
    config::Config,
    failure::chain,
    live::Live,
    reload::Part,
    s3::{
        Accounts,
        probe::{self, DeleteProbeError},
    },
};

/// Each bucket in which sources are deleted on a condition has to prove that it honours the condition.
pub async fn check_buckets(config: &Config, s3: &Accounts) -> Result<(), DeleteProbeError> {
    for bucket in unproven(config) {
        probe::conditional_deletes(s3.of(&bucket), &bucket).await?;
    }
    for bucket in config.archive_buckets() {
        // Leave to list is not needed to move something there, so this stops nothing.
        if let Err(error) = probe::bucket(s3.of(&bucket), &bucket).await {
            warn!(
                "sources may not be moved as a feed's after asks for: {}",
                chain(&error)
            );
        }
    }
    Ok(())
}

/// A new configuration's rules. A bucket that does not pass the probe stops nothing any more: its sources are kept.
pub fn renewed(rules: Arc<Live<Rules>>, accounts: Arc<Live<Accounts>>) -> Part {
    Part::new(rules, move |config: Arc<Config>| {
        let accounts = accounts.current();
        async move {
            // The accounts that it brings are not in use yet.
            let accounts = accounts.renewed(&config.s3).await;
            let refused = prove(&config, &accounts).await;
            for why in refused.values() {
                warn!("sources are kept although a feed's after says otherwise: {why}");
            }
            Ok(Rules::new(&config, &refused)?)
        }
    })
}

/// For a process that began with feeds that keep their sources, and so without this stage.
pub fn not_running() -> Part {
    Part::new(Arc::new(Live::new(())), |config: Arc<Config>| async move {
        if is_asked_for(&config) {
            warn!(
                "a feed's after asks for its sources to be cleaned up, and this process began without such a feed; sources are kept until a process with the stage cleanup is started again, which makes up for them"
            );
        }
        Ok(())
    })
}

/// The rules of the start, when every bucket has passed.
pub fn rules(config: &Config) -> Result<Arc<Live<Rules>>, crate::config::matcher::MatchError> {
    info!("sources are cleaned up as the feeds' after says");
    Ok(Arc::new(Live::new(Rules::new(config, &Refused::new())?)))
}
