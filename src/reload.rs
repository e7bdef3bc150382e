//! A new configuration without a restart: on SIGHUP at once, and when the files have changed.
//!
//! In: where the settings come from, and the parts of the process that are built from them. Out: [`Live`] values replaced, all
//! of them or none; what changed in the log, what failed in the log, the metrics and `/readyz`.
//!
//! Promise: a configuration that can't be read, is not sound, or can't be built changes nothing and stops nothing.
//!
//! * [`watch`]: whether the files have changed
//! * [`changes`]: what a new configuration means for the feeds

mod changes;
mod watch;

use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::anyhow;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{self, Config, ConfigError, Feed, Finding, Loaded, Sources, load},
    failure::chain,
    live::Live,
    s3::{Accounts, probe},
    telemetry::metrics::ReloadMetrics,
    topics::cut,
};
use changes::{Changes, few};
use watch::Fingerprint;

/// How often the files are looked at. A change is taken over when two looks in a row see the same, so that a file which is
/// being written is left alone.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longest message on `/readyz`, in bytes.
const SHOWN_BYTES: usize = 2_000;

/// A part of the process that is built from the configuration and replaced when that changes.
pub struct Part(
    Box<dyn Fn(Arc<Config>) -> BoxFuture<'static, anyhow::Result<Replace>> + Send + Sync>,
);

/// Puts what was built in place; can't fail.
type Replace = Box<dyn FnOnce() + Send>;

impl Part {
    /// A live value, and how to build it.
    pub fn new<T, F>(
        live: Arc<Live<T>>,
        build: impl Fn(Arc<Config>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Send + Sync + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        Self(Box::new(move |config| {
            let (live, built) = (Arc::clone(&live), build(config));
            Box::pin(async move {
                let built = built.await?;
                Ok(Box::new(move || live.replace(built)) as Replace)
            })
        }))
    }
}

/// Why a configuration was not taken over.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "the feeds do not fit the settings that this process runs with, which only a restart changes ({settings}): {problems}"
    )]
    Unfit { settings: String, problems: String },
    #[error("build what the configuration describes")]
    Build(#[source] anyhow::Error),
}

/// What `/readyz` says of the last reload.
#[derive(Clone, Default)]
pub struct ReloadStatus(Arc<Mutex<Option<Failed>>>);

struct Failed {
    at: Timestamp,
    message: String,
}

impl ReloadStatus {
    /// The failure that has not been mended yet, in one line.
    pub fn failure(&self) -> Option<String> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map(|Failed { at, message }| {
            let words: Vec<&str> = message.split_whitespace().collect();
            let message = cut(&words.join(" "), SHOWN_BYTES);
            format!("configuration: reload failed at {at:.0}: {message}")
        })
    }

    fn message(&self) -> Option<String> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map(|failed| failed.message.clone())
    }

    fn set(&self, failed: Option<Failed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }
}

/// Watches the configuration of a running process.
pub struct Reload {
    sources: Sources,
    running: Arc<Config>,
    parts: Vec<Part>,
    status: ReloadStatus,
    metrics: ReloadMetrics,
    hangups: Signal,
    /// Whether the buckets of new feeds are tried.
    probes: Option<Arc<Live<Accounts>>>,
    /// Input buckets that were ever read from.
    buckets: BTreeSet<String>,
    /// Warnings that were said already.
    warned: HashSet<String>,
    /// Settings that differ and need a restart, as said last.
    waiting: Vec<String>,
    /// Where partners' files are looked for.
    feeds_dir: Option<PathBuf>,
    /// The files at the last look, and as they were read last; `None` while that is not known for certain, as at the
    /// start, which read them before anybody looked.
    seen: Option<Fingerprint>,
    taken: Option<Fingerprint>,
}

impl Reload {
    /// From here on SIGHUP asks for a reload and ends nothing.
    pub fn new(
        sources: Sources,
        running: &Config,
        metrics: ReloadMetrics,
    ) -> std::io::Result<Self> {
        metrics.started(running);
        Ok(Self {
            sources,
            running: Arc::new(running.clone()),
            parts: Vec::new(),
            status: ReloadStatus::default(),
            metrics,
            hangups: signal(SignalKind::hangup())?,
            probes: None,
            buckets: running.input_buckets(),
            warned: HashSet::new(),
            waiting: Vec::new(),
            feeds_dir: None,
            seen: None,
            taken: None,
        })
    }

    /// What is to be replaced. All of them are built before the first is.
    pub fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// New feeds' buckets are tried, and one that can't be read is a warning.
    pub fn probing_buckets(mut self, accounts: Option<Arc<Live<Accounts>>>) -> Self {
        self.probes = accounts;
        self
    }

    pub fn status(&self) -> ReloadStatus {
        self.status.clone()
    }

    /// Watches until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = self.hangups.recv() => {
                    info!("asked to reload the configuration");
                    self.reload(true).await;
                }
                _ = looks.tick() => {
                    let found = self.look().await;
                    let is_stable = found == self.seen;
                    // What failed is tried again: what stood in its way may be no file of ours.
                    let is_new = found != self.taken || self.status.message().is_some();
                    if is_stable && is_new {
                        self.reload(false).await;
                    } else {
                        self.seen = found;
                    }
                }
            }
        }
    }

    async fn look(&self) -> Option<Fingerprint> {
        let (file, folder) = (self.sources.file.clone(), self.feeds_dir.clone());
        let documents = self
            .running
            .feeds
            .iter()
            .flat_map(Feed::documents)
            .collect();
        let looked =
            tokio::task::spawn_blocking(move || Fingerprint::take(file, folder, documents));
        looked.await.ok()
    }

    async fn reload(&mut self, asked: bool) {
        let before = self.look().await;
        match self.take_over().await {
            Ok(changes) => self.succeeded(&changes, asked),
            Err(error) => self.failed(&error, asked),
        }
        // What changed while it was read may have been read or not, and is looked at again.
        self.seen = self.look().await;
        self.taken = before.filter(|before| self.seen.as_ref() == Some(before));
    }

    /// Reads, checks and builds everything, then replaces everything.
    async fn take_over(&mut self) -> Result<Changes, ReloadError> {
        let (sources, running) = (self.sources.clone(), Arc::clone(&self.running));
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(sources, &running));
        let prepared = prepared
            .await
            .map_err(|panic| ReloadError::Build(anyhow!(panic)))??;
        if !prepared.changes.is_empty() {
            let mut replacements = Vec::new();
            for Part(build) in &self.parts {
                let built = build(Arc::clone(&prepared.config)).await;
                replacements.push(built.map_err(ReloadError::Build)?);
            }
            for replace in replacements {
                replace();
            }
        }
        self.try_new_buckets(&prepared.config);
        self.sources.file = prepared.loaded.file;
        self.feeds_dir = prepared.loaded.feeds_dir;
        self.say_restarts(prepared.restarts);
        self.say_warnings(prepared.warnings, &prepared.changes);
        self.running = prepared.config;
        Ok(prepared.changes)
    }

    fn succeeded(&mut self, changes: &Changes, asked: bool) {
        let was_failing = self.status.message().is_some();
        self.status.set(None);
        if !changes.is_empty() {
            self.metrics.applied(&self.running);
            changes.log(enabled(&self.running));
        } else if was_failing {
            self.metrics.mended();
            info!("the configuration is sound again, and as it runs");
        } else if asked {
            info!("the configuration has not changed");
        }
    }

    /// The same failure again is no news, unless somebody asked.
    fn failed(&mut self, error: &ReloadError, asked: bool) {
        let message = chain(error);
        if self.status.message().as_ref() == Some(&message) && !asked {
            return;
        }
        error!("the configuration is not taken over, what ran before goes on: {message}");
        self.metrics.failed();
        self.status.set(Some(Failed {
            at: Timestamp::now(),
            message,
        }));
    }

    fn say_restarts(&mut self, settings: Vec<String>) {
        if settings != self.waiting && !settings.is_empty() {
            let settings = few(&settings);
            warn!(
                settings,
                "settings have changed that only a restart takes over; this process goes on with the old ones"
            );
        }
        self.waiting = settings;
    }

    fn say_warnings(&mut self, warnings: Vec<Finding>, changes: &Changes) {
        let warnings = warnings.into_iter().map(|warning| warning.message);
        let (known, new): (HashSet<_>, HashSet<_>) =
            warnings.partition(|warning| self.warned.contains(warning));
        // Those of the start were said by the start.
        if !changes.is_empty() {
            new.iter().for_each(|warning| warn!("{warning}"));
        }
        self.warned = known.into_iter().chain(new).collect();
    }

    /// As every start does it, but a bucket that can't be read holds up nothing.
    fn try_new_buckets(&mut self, config: &Arc<Config>) {
        let wanted = config.input_buckets();
        let new: Vec<String> = wanted.difference(&self.buckets).cloned().collect();
        self.buckets.extend(wanted);
        let Some(accounts) = self.probes.as_ref().filter(|_| !new.is_empty()) else {
            return;
        };
        let accounts = accounts.current();
        tokio::spawn(async move {
            for bucket in new {
                if let Err(error) = probe::bucket(accounts.of(&bucket), &bucket).await {
                    warn!("a new feed's files can't be read: {}", chain(&error));
                }
            }
        });
    }
}

/// A configuration that is sound, and what it means for the process.
struct Prepared {
    loaded: Loaded,
    /// What runs, with everything taken over that can be.
    config: Arc<Config>,
    changes: Changes,
    restarts: Vec<String>,
    warnings: Vec<Finding>,
}

impl Prepared {
    /// Blocks while it reads.
    fn new(sources: Sources, running: &Config) -> Result<Self, ReloadError> {
        let loaded = load(sources)?;
        let warnings = loaded.validate()?;
        let config = config::reloaded(running, &loaded.config);
        let restarts = config::restart_needed(&config, &loaded.config);
        if !restarts.is_empty() {
            check_fit(&config, &restarts)?;
        }
        Ok(Self {
            changes: Changes::between(running, &config),
            config: Arc::new(config),
            restarts,
            warnings,
            loaded,
        })
    }
}

/// Feeds that are sound with the file's other settings may not be with those that run.
fn check_fit(config: &Config, restarts: &[String]) -> Result<(), ReloadError> {
    let findings = config::check(config);
    let errors: Vec<String> = findings
        .into_iter()
        .filter(Finding::is_error)
        .map(|finding| finding.message)
        .collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ReloadError::Unfit {
            settings: few(restarts),
            problems: errors.join("; "),
        }),
    }
}

fn enabled(config: &Config) -> usize {
    config.feeds.iter().filter(|feed| feed.enabled).count()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    const SOUND: &str = r#"
        kafka.brokers = ["kafka-1:9092"]
        output.bucket = "shop-json"
        feeds = [{ name = "nsx", match = "s3://in/nsx/**" }]
    "#;

    /// A process that runs with the sound configuration and keeps the names of the feeds.
    struct Process {
        folder: tempfile::TempDir,
        metrics: Metrics,
        names: Arc<Live<Vec<String>>>,
        reload: Reload,
    }

    impl Process {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("feedmill.toml");
            fs::write(&file, SOUND).unwrap();
            let sources = Sources {
                file: Some(file),
                ..Sources::default()
            };
            let running = load(sources.clone()).unwrap().config;
            let metrics = Metrics::new();
            let names = Arc::new(Live::new(feed_names(&running)));
            let reload = Reload::new(sources, &running, metrics.reload.clone()).unwrap();
            let part = Part::new(Arc::clone(&names), async |config: Arc<Config>| {
                Ok(feed_names(&config))
            });
            Self {
                folder,
                metrics,
                names,
                reload: reload.part(part),
            }
        }

        async fn reload_with(&mut self, text: &str) {
            fs::write(self.folder.path().join("feedmill.toml"), text).unwrap();
            self.reload.reload(false).await;
        }

        fn reloads(&self, result: &str) -> bool {
            let name = format!("feedmill_config_reloads_total{{result=\"{result}\"}} 1");
            self.metrics.render(&[]).contains(&name)
        }
    }

    fn feed_names(config: &Config) -> Vec<String> {
        config.feeds.iter().map(|feed| feed.name.clone()).collect()
    }

    #[tokio::test]
    async fn the_same_failure_is_said_once_and_forgotten_when_the_files_are_as_they_run() {
        let mut process = Process::new();
        let status = process.reload.status();
        for _ in 0..3 {
            process.reload_with("feeds = [").await;
        }
        assert!(process.reloads("failed"));
        let said = status.failure().unwrap();
        assert!(
            said.starts_with("configuration: reload failed at 2")
                && said.contains("feedmill.toml:1:"),
            "{said}"
        );
        process.reload_with(SOUND).await;
        assert_eq!(status.failure(), None);
        assert!(!process.reloads("applied"), "nothing was taken over");
        assert_eq!(*process.names.current(), ["nsx"]);
    }

    #[tokio::test]
    async fn when_one_part_cannot_be_built_none_is_replaced() {
        let mut process = Process::new();
        let never = Part::new(Arc::new(Live::new(())), async |_| {
            Err(anyhow!("no such role"))
        });
        process.reload = process.reload.part(never);
        process.reload_with(&SOUND.replace("nsx", "late")).await;
        assert_eq!(*process.names.current(), ["nsx"]);
        let said = process.reload.status().failure().unwrap();
        assert!(said.ends_with("no such role"), "{said}");
    }

    #[tokio::test]
    async fn what_is_sound_replaces_every_part() {
        let mut process = Process::new();
        process.reload_with(&SOUND.replace("nsx", "late")).await;
        assert_eq!(*process.names.current(), ["late"]);
        assert!(process.reloads("applied"));
    }
}
