//! Records on their way through the [`Steps`], in their order.
//!
//! Without jq the steps are done at once, unless records may be very deep. Programs run on a thread of their own, batch by batch, while the parser goes on with the
//! next one: a program that hangs in a native function can't be stopped, so its thread is left behind, and the file is refused. Threads
//! left behind are counted: a process with too many of them should be started again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::Source;
use super::jq::{STACK_BYTES, late};
use super::limits::Limits;
use super::reject::{ConvertError, Place, Rejection};
use super::steps::{Outputs, Runner, Steps};

/// A batch goes on its way when it has this many bytes of JSON, or items.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_ITEMS: usize = 512;

/// Deeper records take the larger stack of a thread, whatever is done to them.
const SHALLOW: usize = 200;

/// Outputs are handed back when they are this many bytes.
const OUTPUT_BYTES: usize = 256 << 10;

/// More threads than these are not left behind: no program is run any more.
pub const MAX_ABANDONED: usize = 4;

/// How much longer than its time a program may take to be stopped by its guard before its thread is left behind.
const GRACE: Duration = Duration::from_millis(250);

static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// Threads of this process that hang in a program; from [`MAX_ABANDONED`] on, the process should be started again.
pub fn abandoned_threads() -> usize {
    ABANDONED.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Batch {
    json: Vec<u8>,
    items: Vec<Item>,
}

enum Item {
    Record {
        /// Where its JSON ends.
        end: usize,
        number: u64,
        place: Option<Place>,
    },
    /// Rejected before it came here; it keeps its place among the others.
    Rejected {
        number: u64,
        rejection: Box<Rejection>,
    },
}

/// What became of some records.
#[derive(Default)]
pub struct Done {
    pub outputs: Outputs,
    pub records: Vec<DoneRecord>,
    is_last: bool,
}

/// What became of a record: how many of the outputs are its.
pub struct DoneRecord {
    pub number: u64,
    pub outputs: Result<usize, ConvertError>,
}

/// The steps of one file's records.
pub struct Batches<'w> {
    work: Work<'w>,
    batch: Batch,
}

enum Work<'w> {
    Here(Box<Runner<'w>>),
    There { worker: Worker, is_busy: bool },
}

impl<'w> Batches<'w> {
    pub fn new(
        steps: &'w Arc<Steps>,
        limits: &'w Limits,
        source: &'w Source,
    ) -> Result<Self, ConvertError> {
        let work = match steps.run_jq() || limits.depth > SHALLOW {
            false => Work::Here(Box::new(Runner::new(steps, limits, source))),
            true => Work::There {
                worker: Worker::start(Arc::clone(steps), limits.clone(), source.clone())
                    .map_err(ConvertError::Read)?,
                is_busy: false,
            },
        };
        Ok(Self {
            work,
            batch: Batch::default(),
        })
    }

    /// Where the JSON of the next record goes.
    pub fn json(&mut self) -> &mut Vec<u8> {
        &mut self.batch.json
    }

    /// The JSON of a record is complete.
    pub fn push(&mut self, number: u64, place: Option<Place>) {
        let end = self.batch.json.len();
        self.batch.items.push(Item::Record { end, number, place });
    }

    pub fn push_rejected(&mut self, number: u64, rejection: Box<Rejection>) {
        self.batch.items.push(Item::Rejected { number, rejection });
    }

    /// Does what is due, or all there is; `deliver` gets what is done.
    pub fn run(
        &mut self,
        all: bool,
        deliver: &mut dyn FnMut(Done) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let is_full = self.batch.json.len() >= BATCH_BYTES || self.batch.items.len() >= BATCH_ITEMS;
        match &mut self.work {
            Work::Here(runner) => run_batch(runner, &mut self.batch, &mut |_| (), deliver),
            Work::There { worker, is_busy } => {
                if (is_full || all) && *is_busy {
                    *is_busy = false;
                    worker.take(deliver)?;
                }
                if (is_full || all) && !self.batch.items.is_empty() {
                    worker.give(std::mem::take(&mut self.batch))?;
                    *is_busy = true;
                }
                if all && *is_busy {
                    *is_busy = false;
                    worker.take(deliver)?;
                }
                Ok(())
            }
        }
    }
}

/// Does the steps of a batch, and empties it. `begin` hears of each record.
fn run_batch(
    runner: &mut Runner<'_>,
    batch: &mut Batch,
    begin: &mut dyn FnMut(bool),
    deliver: &mut dyn FnMut(Done) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let mut done = Done::default();
    let mut start = 0;
    for item in batch.items.drain(..) {
        let record = match item {
            Item::Rejected { number, rejection } => DoneRecord {
                number,
                outputs: Err(rejection.into()),
            },
            Item::Record { end, number, place } => {
                begin(true);
                let count = done.outputs.ends.len();
                let ran = runner.run(&batch.json[start..end], &mut done.outputs);
                begin(false);
                start = end;
                DoneRecord {
                    number,
                    outputs: ran
                        .map(|()| done.outputs.ends.len() - count)
                        .map_err(|error| located(error, number, place)),
                }
            }
        };
        done.records.push(record);
        if done.outputs.json.len() >= OUTPUT_BYTES {
            deliver(std::mem::take(&mut done))?;
        }
    }
    batch.json.clear();
    done.is_last = true;
    deliver(done)
}

fn located(error: ConvertError, number: u64, place: Option<Place>) -> ConvertError {
    error.complete(|rejection| {
        rejection.record = Some(number);
        if let Some(place) = place {
            rejection.place(place);
        }
    })
}

/// A thread that runs programs.
struct Worker {
    batches: SyncSender<Batch>,
    done: Receiver<Done>,
    watch: Arc<Watch>,
    budget: Duration,
}

/// What the thread and the one that waits for it know of each other.
#[derive(Default)]
struct Watch {
    /// When the record in hand was begun, in nanoseconds of the [`clock`]; 0 when none is.
    began: AtomicU64,
    is_abandoned: AtomicBool,
}

/// Nanoseconds since some moment, never 0.
fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let passed = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
}

impl Drop for Watch {
    /// With the thread, or with the one who waited when the thread has ended before.
    fn drop(&mut self) {
        if *self.is_abandoned.get_mut() {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Worker {
    fn start(steps: Arc<Steps>, limits: Limits, source: Source) -> io::Result<Self> {
        if abandoned_threads() >= MAX_ABANDONED {
            return Err(io::Error::other(
                "too many jq programs hang; the process has to be started again",
            ));
        }
        let budget = limits.jq_timeout;
        let (batches, given) = sync_channel::<Batch>(1);
        let (give_back, done) = sync_channel(1);
        let watch = Arc::<Watch>::default();
        let watched = Arc::clone(&watch);
        let work = move || {
            let mut runner = Runner::new(&steps, &limits, &source);
            let mut begin = |begins: bool| {
                let began = if begins { clock() } else { 0 };
                watched.began.store(began, Ordering::Release);
            };
            let mut deliver = |done| {
                let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                give_back
                    .send(done)
                    .map_err(gone)
                    .map_err(ConvertError::Write)
            };
            while let Ok(mut batch) = given.recv() {
                if run_batch(&mut runner, &mut batch, &mut begin, &mut deliver).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("jq".into())
            .stack_size(STACK_BYTES)
            .spawn(work)?;
        Ok(Self {
            batches,
            done,
            watch,
            budget,
        })
    }

    fn give(&self, batch: Batch) -> Result<(), ConvertError> {
        self.batches.send(batch).map_err(|_| ended())
    }

    /// Waits for all of a batch, but for no record longer than its time.
    fn take(
        &self,
        deliver: &mut dyn FnMut(Done) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let patience = self.budget + GRACE;
        loop {
            let began = self.watch.began.load(Ordering::Acquire);
            let passed = match began {
                0 => Duration::ZERO,
                began => Duration::from_nanos(clock().saturating_sub(began)),
            };
            let wait = patience
                .saturating_sub(passed)
                .max(Duration::from_millis(1));
            match self.done.recv_timeout(wait) {
                Ok(done) => {
                    let is_last = done.is_last;
                    deliver(done)?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) => {
                    let still = self.watch.began.load(Ordering::Acquire);
                    if began != 0 && still == began && passed + wait >= patience {
                        return Err(self.abandon());
                    }
                }
            }
        }
    }

    fn abandon(&self) -> ConvertError {
        ABANDONED.fetch_add(1, Ordering::Relaxed);
        self.watch.is_abandoned.store(true, Ordering::Release);
        late(self.budget).into()
    }
}

/// Its thread catches what programs do, so it does not end by itself.
fn ended() -> ConvertError {
    ConvertError::Read(io::Error::other("the thread that runs jq has ended"))
}
