//! `feedmill run`: checks the outside world, starts the chosen stages, watches them, and ends in order.

use std::{collections::BTreeSet, future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    aws::Base,
    cleanup::{self, CleanUp, KafkaObjects, rules},
    config::{Config, Sources, topic_arn::TopicArn},
    convert::{Convert, Feeds},
    failure::Failure,
    feed,
    intake::{
        deliver::Source,
        publish::Publisher,
        queue::{Queue, Receiver},
        sns::{Sns, web::Https},
        topic::NotificationTopic,
        webhook::{self, WebhookState},
    },
    kafka::{
        self, Answers, Runtime, RuntimeError, StageSettings, StateFolder, Status, admin::Admin,
        leader::Leader,
    },
    live::Live,
    reload::{Part, Reload},
    retry::Retry,
    s3::{
        self, Accounts,
        probe::{self, ProbeError},
    },
    shutdown,
    sweep::{self, KafkaLedger, S3Storage, Sweeper},
    telemetry::{
        admin::{self, AdminState},
        metrics::Metrics,
    },
    topics::{Topics, layout},
};

/// A part of feedmill that can run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Stage {
    /// The webhook: notifications to events.
    Intake,
    /// Looking through the buckets for what no notification told of.
    Sweep,
    /// Events to results and JSON.
    Convert,
    /// Events that waited in a retry topic, back to the events topic.
    Retry,
    /// Sources deleted, moved or tagged after their result, where a feed asks for it.
    Cleanup,
}

/// Longest wait for a connection or a Kafka call that is under way when everything else has ended.
const CLOSING: Duration = Duration::from_secs(5);

/// Runs the stages until a signal or a failure; `sources` is where `config` comes from, and its changes.
pub async fn run(
    config: Config,
    sources: Sources,
    stages: &BTreeSet<Stage>,
) -> Result<(), Failure> {
    let shutdown = shutdown::on_signal().map_err(|error| Failure::bug("handle signals", error))?;
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        started = start(config, sources, stages, shutdown.clone()) => started?.ended(shutdown.clone()).await,
    }
}

/// The tasks of a running process.
struct Running {
    tasks: JoinSet<Result<(), Failure>>,
}

impl Running {
    /// Waits for the first task to end, asks the others to, and gives the first failure.
    async fn ended(mut self, shutdown: CancellationToken) -> Result<(), Failure> {
        let mut failure = None;
        while let Some(ended) = self.tasks.join_next().await {
            let result = ended.unwrap_or_else(|panic| Err(Failure::bug("run a stage", panic)));
            if let Err(error) = result {
                failure.get_or_insert(error);
            }
            shutdown.cancel();
        }
        info!("stopped");
        failure.map_or(Ok(()), Err)
    }
}

async fn start(
    config: Config,
    sources: Sources,
    stages: &BTreeSet<Stage>,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let metrics = Metrics::new();
    metrics.limit_memory(config.memory.limit);
    let reload = Reload::new(sources, &config, metrics.reload.clone())
        .map_err(|error| Failure::bug("handle SIGHUP", error))?;
    check_topics(&config, stages).await?;
    let topics = Topics::with_prefix(&config.kafka.topic_prefix);
    let feeds = Feeds::compile(&config)
        .map_err(|error| Failure::usage(anyhow!(error).context("compile the feeds")))?;
    let feeds = Arc::new(Live::new(feeds));
    let accounts = Arc::new(Live::new(
        Accounts::new(&config.s3).await.counted(metrics.s3.clone()),
    ));
    let swept = Arc::new(Live::new(config.clone()));
    let mut tasks = JoinSet::new();
    let mut runtimes = Vec::new();
    let mut folder = Folder {
        dir: &config.state.dir,
        claimed: None,
    };
    if stages.contains(&Stage::Convert) {
        let folder = folder.get()?;
        let stage = build_convert(&config, &feeds, &accounts, &topics, &folder, &metrics).await?;
        let settings = Convert::settings(&config, &topics);
        let runtime = start_runtime(stage, settings, &config, folder, &shutdown, &mut tasks)?;
        runtimes.push(runtime);
    }
    if stages.contains(&Stage::Sweep) && config.sweep.enabled {
        let folder = folder.get()?;
        let (config, s3) = (Arc::clone(&swept), Arc::clone(&accounts));
        start_sweep(config, s3, &topics, folder, &metrics, &shutdown, &mut tasks).await?;
    }
    if stages.contains(&Stage::Intake) {
        start_intake(&config, &topics, &metrics, &shutdown, &mut tasks).await?;
        for topic in &config.intake.topics {
            let stage =
                NotificationTopic::new(topic, &config.kafka, &topics, metrics.intake.clone());
            let settings = stage.settings();
            let folder = folder.get()?;
            let stage = Answers(stage);
            let runtime = start_runtime(stage, settings, &config, folder, &shutdown, &mut tasks)?;
            runtimes.push(runtime);
        }
    }
    if stages.contains(&Stage::Retry) {
        for (topic, tier) in retry_topics(&config, &topics).await? {
            let stage = Retry::new(&topic, &tier, &topics, metrics.retry.clone());
            let settings = stage.settings();
            let folder = folder.get()?;
            let stage = Answers(stage);
            let runtime = start_runtime(stage, settings, &config, folder, &shutdown, &mut tasks)?;
            runtimes.push(runtime);
        }
    }
    let cleanup_part = match stages.contains(&Stage::Cleanup) {
        true if rules::is_asked_for(&config) => {
            let folder = folder.get()?;
            let built = cleanup::start::build(&config, &accounts, &topics, &folder, &metrics);
            let (stage, part) = built.await?;
            let settings = CleanUp::<KafkaObjects>::settings(&topics);
            let runtime = start_runtime(stage, settings, &config, folder, &shutdown, &mut tasks)?;
            runtimes.push(runtime);
            Some(part)
        }
        true => Some(cleanup::start::not_running()),
        false => None,
    };
    let converts = stages.contains(&Stage::Convert);
    let reload = reload
        // Before the feeds that are in new buckets.
        .part(Part::new(Arc::clone(&accounts), {
            let accounts = Arc::clone(&accounts);
            move |config| renew_accounts(accounts.current(), config)
        }))
        .part(Part::new(feeds, compile_feeds))
        .part(Part::new(swept, async |config: Arc<Config>| {
            Ok(Config::clone(&config))
        }))
        .probing_buckets(converts.then_some(accounts));
    let reload = match cleanup_part {
        Some(part) => reload.part(part),
        None => reload,
    };
    let state = AdminState {
        metrics,
        runtimes,
        reload: reload.status(),
    };
    start_admin(&config, state, &shutdown, &mut tasks).await?;
    if converts {
        tasks.spawn(restart_when_programs_hang(shutdown.clone()));
    }
    tasks.spawn(async move {
        reload.run(shutdown).await;
        Ok(())
    });
    Ok(Running { tasks })
}

/// The state folder that the stages of this process share; claimed by the first that has something to keep.
struct Folder<'a> {
    dir: &'a Path,
    claimed: Option<Arc<StateFolder>>,
}

impl Folder<'_> {
    fn get(&mut self) -> Result<Arc<StateFolder>, Failure> {
        if let Some(folder) = &self.claimed {
            return Ok(Arc::clone(folder));
        }
        let folder = StateFolder::claim(self.dir).map_err(Failure::service)?;
        info!(folder = %folder.path().display(), worker = folder.worker(), "state folder");
        Ok(Arc::clone(self.claimed.insert(Arc::new(folder))))
    }
}

async fn renew_accounts(running: Arc<Accounts>, config: Arc<Config>) -> anyhow::Result<Accounts> {
    Ok(running.renewed(&config.s3).await)
}

async fn compile_feeds(config: Arc<Config>) -> anyhow::Result<Feeds> {
    Ok(tokio::task::spawn_blocking(move || Feeds::compile(&config)).await??)
}

/// Every start checks that the topics are there and fit.
async fn check_topics(config: &Config, stages: &BTreeSet<Stage>) -> Result<(), Failure> {
    let kafka = config.kafka.clone();
    let admin = blocking(move || Admin::connect(&kafka))
        .await?
        .map_err(Failure::service)?;
    let mut problems = admin
        .problems(&layout::specs(config))
        .await
        .map_err(Failure::service)?;
    if stages.contains(&Stage::Intake) {
        let absent = admin.absent(&config.intake.topics);
        problems.extend(absent.map_err(Failure::service)?.into_iter().map(|topic| {
            format!("the topic {topic} of intake.topics is not there; it belongs to the S3 server that writes its notifications to it")
        }));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let list = problems.join("\n  ");
    Err(Failure::service(anyhow!("use the topics:\n  {list}")))
}

/// The retry topics that are there, with their tiers: those of the configuration, and those of earlier ones, in which events
/// may still wait.
async fn retry_topics(config: &Config, topics: &Topics) -> Result<Vec<(String, String)>, Failure> {
    let kafka = config.kafka.clone();
    let names = blocking(move || Admin::connect(&kafka)?.topic_names());
    let names = names.await?.map_err(Failure::service)?;
    let mut tiers: Vec<_> = (names.into_iter())
        .filter_map(|name| {
            let tier = topics.tier_of(&name)?.to_owned();
            Some((name, tier))
        })
        .collect();
    tiers.sort();
    Ok(tiers)
}

async fn build_convert(
    config: &Config,
    feeds: &Arc<Live<Feeds>>,
    accounts: &Arc<Live<Accounts>>,
    topics: &Topics,
    folder: &StateFolder,
    metrics: &Metrics,
) -> Result<Convert, Failure> {
    check_buckets(config, &accounts.current()).await?;
    Convert::new(
        config,
        Arc::clone(feeds),
        Arc::clone(accounts),
        topics,
        folder.worker(),
        metrics,
    )
    .map_err(|error| Failure::usage(anyhow!(error).context("build the convert stage")))
}

/// How often the threads that hang in jq programs are counted.
const HANGING_LOOK: Duration = Duration::from_secs(1);

/// A thread that hangs can't be ended, only left behind; a process with too many of them ends in order, to be started again.
async fn restart_when_programs_hang(shutdown: CancellationToken) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(HANGING_LOOK) => {}
        }
        let hanging = feed::abandoned_threads();
        if hanging >= feed::MAX_ABANDONED {
            warn!(
                hanging,
                "jq programs hang and their threads can't be ended; stopping in order, to be started again"
            );
            return Err(Failure::service(anyhow!(
                "{hanging} jq programs hang; their files are dead letters (mapping_timeout), this process has to be started again"
            )));
        }
    }
}

/// Starts a stage on the Kafka runtime; its name and its status.
fn start_runtime<S: kafka::Stage>(
    stage: S,
    settings: StageSettings,
    config: &Config,
    folder: Arc<StateFolder>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(Arc<str>, Status), Failure> {
    let name = Arc::clone(&settings.name);
    let drain = Duration::from_secs(config.shutdown.drain_timeout_secs);
    let runtime = Runtime::new(
        Arc::new(stage),
        settings,
        config.kafka.clone(),
        &folder,
        shutdown.clone(),
        drain,
    );
    let failed = {
        let name = Arc::clone(&name);
        move |error| runtime_failure(&name, error)
    };
    let handle = runtime.and_then(Runtime::start).map_err(&failed)?;
    let status = handle.status.clone();
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let ended = tokio::select! {
            ended = handle.ended() => ended.map_err(failed),
            () = after(&shutdown, drain + CLOSING) => {
                warn!("Kafka does not answer; leaving without it, which is safe");
                Ok(())
            }
        };
        // The lock on the folder is held until the last transaction is over.
        drop(folder);
        ended
    });
    Ok((name, status))
}

/// The buckets are there, and outputs can be fenced.
async fn check_buckets(config: &Config, s3: &Accounts) -> Result<(), Failure> {
    let inputs = config.input_buckets();
    for bucket in inputs.iter().chain([&config.output.bucket]) {
        check_bucket(s3, bucket).await.map_err(Failure::service)?;
    }
    let output = &config.output;
    match output.conditional_writes {
        true => probe::conditional_writes(s3.of(&output.bucket), output)
            .await
            .map_err(Failure::service),
        false => {
            warn!(
                "output.conditional_writes is off: a stalled worker may overwrite a newer output"
            );
            Ok(())
        }
    }
}

/// A public bucket may hide its listing and give its objects all the same.
async fn check_bucket(s3: &Accounts, bucket: &str) -> Result<(), ProbeError> {
    match probe::bucket(s3.of(bucket), bucket).await {
        Err(ProbeError::Bucket { source, .. })
            if s3.is_anonymous(bucket) && source.failure == s3::Failure::Denied =>
        {
            warn!(bucket, %source, "the bucket can't be listed without credentials; its objects may be readable");
            Ok(())
        }
        checked => checked,
    }
}

async fn start_sweep(
    swept: Arc<Live<Config>>,
    accounts: Arc<Live<Accounts>>,
    topics: &Topics,
    folder: Arc<StateFolder>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let config = swept.current();
    metrics.sweep.sweeps_every(config.sweep.interval);
    let group = format!("{}.{}", config.kafka.group, sweep::STAGE);
    let (kafka, names, intake) = (config.kafka.clone(), topics.clone(), metrics.intake.clone());
    let stop = shutdown.clone();
    let ledger = blocking(move || {
        let publisher = Publisher::connect(&kafka, &names, intake)?;
        KafkaLedger::open(&kafka, &names, publisher, folder, stop)
    });
    let ledger = ledger.await?.map_err(Failure::service)?;
    let election = &topics.rejected_notifications;
    let leader = Leader::join(&config.kafka, &group, election, shutdown.clone());
    let leader = leader.map_err(|error| runtime_failure(sweep::STAGE, error))?;
    let sweeper = Sweeper {
        storage: Arc::new(S3Storage {
            accounts,
            stall: Duration::from_millis(config.s3.read_timeout_ms),
        }),
        ledger: Arc::new(ledger),
        metrics: metrics.sweep.clone(),
        shutdown: shutdown.clone(),
    };
    tasks.spawn(async move {
        sweeper.run(&swept, leader).await;
        Ok(())
    });
    Ok(())
}

async fn start_intake(
    config: &Config,
    topics: &Topics,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let (kafka, topics, intake) = (config.kafka.clone(), topics.clone(), metrics.intake.clone());
    let publisher = blocking(move || Publisher::connect(&kafka, &topics, intake))
        .await?
        .map_err(Failure::service)?;
    start_queues(config, &publisher, metrics, shutdown, tasks).await?;
    let state = WebhookState {
        publisher,
        token: config.intake.token.clone(),
        sns: Arc::new(sns(config)?),
        max_body_bytes: config.intake.max_body_bytes,
    };
    let listener = listen(config.intake.listen, "intake.listen").await?;
    info!(address = %address(&listener), "webhook listening");
    serve(
        tasks,
        "serve the webhook",
        webhook::serve(listener, state, shutdown.clone()),
        shutdown,
    );
    Ok(())
}

fn sns(config: &Config) -> Result<Sns, Failure> {
    let topics = config.intake.sns_topics.iter();
    let topics: Result<Vec<_>, _> = topics.map(|topic| TopicArn::parse(topic)).collect();
    let topics = topics.map_err(|error| Failure::usage(anyhow!("intake.sns_topics: {error}")))?;
    Ok(Sns::new(topics, Https::default()))
}

/// Every start checks that the queues are there and may be read.
async fn start_queues(
    config: &Config,
    publisher: &Publisher,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    if config.intake.queues.is_empty() {
        return Ok(());
    }
    let base = Base::load(&config.s3).await;
    for settings in &config.intake.queues {
        let queue = Queue::new(&base, settings).await;
        let queue = queue.map_err(|error| Failure::usage(anyhow!("intake.queues: {error}")))?;
        queue.check().await.map_err(Failure::service)?;
        let receiver = Receiver {
            source: Source {
                name: format!("sqs:{}", queue.name()),
                publisher: publisher.clone(),
            },
            queue,
            metrics: metrics.queue.clone(),
            shutdown: shutdown.clone(),
        };
        let received = async {
            receiver.run().await;
            Ok(())
        };
        serve(tasks, "receive from a queue", received, shutdown);
    }
    Ok(())
}

async fn start_admin(
    config: &Config,
    state: AdminState,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let listener = listen(config.admin.listen, "admin.listen").await?;
    info!(address = %address(&listener), "admin listening");
    serve(
        tasks,
        "serve the admin endpoints",
        admin::serve(listener, state, shutdown.clone()),
        shutdown,
    );
    Ok(())
}

/// Runs a server as a task; a connection that stays open does not hold up the end for ever.
fn serve(
    tasks: &mut JoinSet<Result<(), Failure>>,
    what: &'static str,
    server: impl Future<Output = std::io::Result<()>> + Send + 'static,
    shutdown: &CancellationToken,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            served = server => served.map_err(|error| Failure::bug(what, error)),
            () = after(&shutdown, CLOSING) => Ok(()),
        }
    });
}

/// Resolves a while after a shutdown was asked for.
async fn after(shutdown: &CancellationToken, pause: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(pause).await;
}

async fn listen(address: std::net::SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    bound
        .with_context(|| format!("listen on {address}; choose another address as {setting}"))
        .map_err(Failure::usage)
}

fn address(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |address| address.to_string())
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|panic| Failure::bug("call Kafka", panic))
}

fn runtime_failure(stage: &str, error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Panicked(_) | RuntimeError::Thread(_) => {
            Failure::bug(format!("run the stage {stage}"), error)
        }
        other => Failure::service(other),
    }
}
