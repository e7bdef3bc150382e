//! The kafka thread of a stage, and its one way back.
//!
//! One operating-system thread owns the group consumer and the transactional producer: rebalance events and commits are
//! made by the same hands, in order, and nothing that blocks in librdkafka blocks an async worker. It runs a
//! [`Session`](super::session) after another: whatever goes wrong in a way that is fatal or ambiguous ends the session
//! (consumer and producer dropped, work in memory forgotten), and the next one begins like a fresh process:
//! `init_transactions`, join, restore. So the only recovery there is, is the one that every start tests.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Stage, StageSettings, beside,
    error::RuntimeError,
    folder::StateFolder,
    journal::Journal,
    session::{Session, Stop},
    settings,
    shared::{Shared, State},
    status::Status,
    store::Store,
    watchdog,
};
use crate::config::Kafka;

/// Two fences within this time mean that somebody else uses our transactional id; one alone is the broker timing out a
/// transaction of our own.
const FENCE_WINDOW: Duration = Duration::from_secs(60);

/// Pause before a new session, growing while sessions end soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A session that lived this long had recovered.
const HEALTHY: Duration = Duration::from_secs(30);

/// A stage ready to run.
pub struct Runtime<S: Stage>(Arc<Shared<S>>);

/// A stage that is running.
pub struct RuntimeHandle {
    pub status: Status,
    result: oneshot::Receiver<Result<(), RuntimeError>>,
}

impl RuntimeHandle {
    /// Waits until the stage has ended: in order after a shutdown, or with the reason why it can't go on.
    pub async fn ended(self) -> Result<(), RuntimeError> {
        self.result
            .await
            .unwrap_or_else(|_| Err(RuntimeError::Panicked("the kafka thread".into())))
    }
}

impl<S: Stage> Runtime<S> {
    /// Opens the state of `folder`; must be called inside a tokio runtime, which will run the stage's work.
    pub fn new(
        stage: Arc<S>,
        settings: StageSettings,
        kafka: Kafka,
        folder: &StateFolder,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> Result<Self, RuntimeError> {
        let group = format!("{}.{}", kafka.group, settings.name);
        Ok(Self(Arc::new(Shared {
            transactional_id: folder.transactional_id(&group),
            state: match settings.input.changelog_topic() {
                None => None,
                Some(changelog_topic) => Some(State {
                    changelog_topic: changelog_topic.into(),
                    store: Store::open(&folder.store_path(&settings.name))?,
                }),
            },
            journal: match settings.input.changelog_topic() {
                None => None,
                Some(_) => {
                    let path = folder.journal_path(&settings.name);
                    let opened = Journal::open(&path);
                    Some(opened.map_err(|source| RuntimeError::Journal { path, source })?)
                }
            },
            status: Status::new(&settings.name),
            tasks: tokio::runtime::Handle::current(),
            stage,
            settings,
            kafka,
            group,
            shutdown,
            drain,
        })))
    }

    /// Starts the kafka thread.
    pub fn start(self) -> Result<RuntimeHandle, RuntimeError> {
        let shared = self.0;
        let (name, status) = (Arc::clone(&shared.settings.name), shared.status.clone());
        let (answer, result) = oneshot::channel();
        let alive = Arc::new(());
        let call_timeout = settings::call_timeout(&shared.kafka);
        watchdog::watch(&name, status.clone(), call_timeout, Arc::downgrade(&alive))?;
        beside::spawn(Arc::clone(&shared), Arc::downgrade(&alive))?;
        let run = move || {
            // Nobody waiting for the answer means the process is ending anyway.
            let _ = answer.send(run(&shared));
            drop(alive);
        };
        thread::Builder::new()
            .name(format!("{name}-kafka"))
            .spawn(run)
            .map_err(RuntimeError::Thread)?;
        Ok(RuntimeHandle { status, result })
    }
}

fn run<S: Stage>(shared: &Arc<Shared<S>>) -> Result<(), RuntimeError> {
    let mut last_fence: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let stop = match Session::begin(shared) {
            Ok(mut session) => session.run(),
            Err(stop) => stop,
        };
        shared.status.left_group(stop.trouble());
        match stop {
            Stop::Drained => {
                if let Some(journal) = &shared.journal {
                    journal.clear();
                }
                return Ok(());
            }
            Stop::Fatal(error) => return Err(error),
            _ if shared.shutdown.is_cancelled() => return Ok(()),
            Stop::Fenced(cause) => {
                if last_fence.is_some_and(|at| at.elapsed() < FENCE_WINDOW) {
                    return Err(RuntimeError::Fenced);
                }
                last_fence = Some(Instant::now());
                shared.status.count(|counters| counters.fencings += 1);
                warn!(cause, "fenced; starting over");
            }
            Stop::StartOver(cause) => warn!(cause, "starting over"),
        }
        pause = match began.elapsed() > HEALTHY {
            true => FIRST_PAUSE,
            false => (pause * 2).min(LONGEST_PAUSE),
        };
        wait(shared, pause);
        info!(stage = &*shared.settings.name, "beginning a new session");
    }
}

fn wait<S: Stage>(shared: &Shared<S>, pause: Duration) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !shared.shutdown.is_cancelled() {
        shared.status.polled();
        thread::sleep(Duration::from_millis(20));
    }
}
