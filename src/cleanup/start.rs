//! The stage of a process: its rules are proven at the start, and renewed by a reload.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::anyhow;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{
    CleanUp, KafkaObjects,
    rules::{Refused, Rules, is_asked_for, unproven},
};
use crate::{
    config::{self, Config},
    failure::{Failure, chain},
    kafka::StateFolder,
    live::Live,
    reload::Part,
    s3::{
        Accounts,
        probe::{self, DeleteProbeError},
    },
    telemetry::metrics::Metrics,
    topics::Topics,
};

/// The buckets that have shown that they honour a condition on a DELETE, and how they were reached then.
struct Proven(Mutex<BTreeMap<String, config::S3>>);

/// How a bucket is reached, and nothing of the others.
fn reached(s3: &config::S3, bucket: &str) -> config::S3 {
    let own = s3.buckets.get_key_value(bucket);
    config::S3 {
        buckets: own
            .map(|(name, own)| (name.clone(), own.clone()))
            .into_iter()
            .collect(),
        ..s3.clone()
    }
}

impl Proven {
    /// Each bucket in which sources are deleted on a condition is tried; the first that fails ends the start.
    async fn at_start(config: &Config, s3: &Accounts) -> Result<Self, DeleteProbeError> {
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
        let reached = |bucket: String| {
            let how = reached(&config.s3, &bucket);
            (bucket, how)
        };
        Ok(Self(Mutex::new(buckets.into_iter().map(reached).collect())))
    }

    /// What a new configuration asks for and did not pass, each with the reason. What has passed, and is reached as it was, is
    /// not tried again.
    async fn renew(&self, config: &Config, s3: &Accounts) -> Refused {
        let mut refused = Refused::new();
        for bucket in unproven(config) {
            let how = reached(&config.s3, &bucket);
            if self.lock().get(&bucket) == Some(&how) {
                continue;
            }
            match probe::conditional_deletes(s3.of(&bucket), &bucket).await {
                Ok(()) => _ = self.lock().insert(bucket, how),
                Err(error) => _ = refused.insert(bucket, chain(&error)),
            }
        }
        refused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, config::S3>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage, when every bucket has passed, and what renews its rules.
pub async fn build(
    config: &Config,
    accounts: &Arc<Live<Accounts>>,
    topics: &Topics,
    folder: &Arc<StateFolder>,
    metrics: &Metrics,
) -> Result<(CleanUp<KafkaObjects>, Part), Failure> {
    let rules = Rules::new(config, &Refused::new())
        .map_err(|error| Failure::usage(anyhow!(error).context("build the clean-up stage")))?;
    let rules = Arc::new(Live::new(rules));
    let proven = Proven::at_start(config, &accounts.current()).await;
    let proven = Arc::new(proven.map_err(Failure::service)?);
    let (kafka, names, kept) = (config.kafka.clone(), topics.clone(), Arc::clone(folder));
    let opened = spawn_blocking(move || KafkaObjects::open(&kafka, &names, kept)).await;
    let opened = opened.map_err(|panic| Failure::bug("open the view of objects", panic))?;
    let stage = CleanUp::new(
        config,
        opened.map_err(Failure::service)?,
        Arc::clone(&rules),
        Arc::clone(accounts),
        topics,
        folder.worker(),
        metrics.cleanup.clone(),
    );
    Ok((stage, renewed(rules, proven, Arc::clone(accounts))))
}

/// A new configuration's rules. A bucket that does not pass stops nothing any more: its sources are kept.
fn renewed(rules: Arc<Live<Rules>>, proven: Arc<Proven>, accounts: Arc<Live<Accounts>>) -> Part {
    Part::new(rules, move |config: Arc<Config>| {
        let (accounts, proven) = (accounts.current(), Arc::clone(&proven));
        async move {
            // The accounts that it brings are not in use yet.
            let accounts = accounts.renewed(&config.s3).await;
            let refused = proven.renew(&config, &accounts).await;
            for why in refused.values() {
                warn!(
                    "sources are kept although a feed's after says otherwise, until a reload of a changed configuration, or a start: {why}"
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
