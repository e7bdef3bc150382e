//! The rules of a process: proven at its start, renewed by a reload.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::rules::{Refused, Rules, is_asked_for, unproven};
use crate::{
    config::{self, Config, matcher::MatchError},
    failure::chain,
    live::Live,
    reload::Part,
    s3::{
        Accounts,
        probe::{self, DeleteProbeError},
    },
};

/// The buckets that have shown that they honour a condition on a DELETE, and the accounts that they were reached with then.
pub struct Proven(Mutex<(config::S3, BTreeSet<String>)>);

impl Proven {
    /// Each bucket in which sources are deleted on a condition is tried; the first that fails ends the start.
    pub async fn at_start(config: &Config, s3: &Accounts) -> Result<Self, DeleteProbeError> {
        let buckets = unproven(config);
        for bucket in &buckets {
            probe::conditional_deletes(s3.of(bucket), bucket).await?;
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
        Ok(Self(Mutex::new((config.s3.clone(), buckets))))
    }

    /// What a new configuration asks for and did not pass, each with the reason. What has passed is not tried again.
    async fn renew(&self, config: &Config, s3: &Accounts) -> Refused {
        let (accounts, mut passed) = self.lock().clone();
        if accounts != config.s3 {
            passed.clear();
        }
        let mut refused = Refused::new();
        for bucket in unproven(config).difference(&passed.clone()) {
            match probe::conditional_deletes(s3.of(bucket), bucket).await {
                Ok(()) => _ = passed.insert(bucket.clone()),
                Err(error) => _ = refused.insert(bucket.clone(), chain(&error)),
            }
        }
        *self.lock() = (config.s3.clone(), passed);
        refused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (config::S3, BTreeSet<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of the start, when every bucket has passed.
pub fn rules(config: &Config) -> Result<Arc<Live<Rules>>, MatchError> {
    Ok(Arc::new(Live::new(Rules::new(config, &Refused::new())?)))
}

/// A new configuration's rules. A bucket that does not pass stops nothing any more: its sources are kept.
pub fn renewed(
    rules: Arc<Live<Rules>>,
    proven: Arc<Proven>,
    accounts: Arc<Live<Accounts>>,
) -> Part {
    Part::new(rules, move |config: Arc<Config>| {
        let (accounts, proven) = (accounts.current(), Arc::clone(&proven));
        async move {
            // The accounts that it brings are not in use yet.
            let accounts = accounts.renewed(&config.s3).await;
            let refused = proven.renew(&config, &accounts).await;
            for why in refused.values() {
                warn!(
                    "sources are kept although a feed's after says otherwise, until the next reload or start: {why}"
                );
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
