//! A producer whose delivery reports, errors and log lines are served as they come, by a thread of its own.
//!
//! In place of rust-rdkafka's `ThreadedProducer` and `FutureProducer`: with 0.39 their thread waits 100 ms at a time and spins
//! through the last millisecond of each wait, which costs one percent of a processor for each producer, idle or not.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, ProducerContext},
};

use super::{ffi, settings};

/// How often the queue is looked at without having been told to: a net, not the way.
const LOOK: Duration = Duration::from_secs(1);

/// A producer and the thread that serves it, which ends with it.
pub struct ServedProducer<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> ServedProducer<C> {
    pub fn create(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let producer: Arc<BaseProducer<C>> = Arc::new(settings::create(config, context)?);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("producer".into()).spawn({
            let (producer, stop) = (Arc::clone(&producer), Arc::clone(&stop));
            move || serve(&producer, &stop)
        });
        let thread = thread.map_err(|error| no_thread(&error))?;
        Ok(Self {
            producer,
            stop,
            thread: Some(thread),
        })
    }
}

fn serve<C: ProducerContext>(producer: &BaseProducer<C>, stop: &AtomicBool) {
    let bell = ffi::Bell::of(producer);
    let stopped = || stop.load(Ordering::Acquire);
    while !stopped() {
        // What is left at the end, the producer serves itself while it is dropped.
        while bell.waiting() > 0 && !stopped() {
            // One of them; with any longer time-out it would spin.
            producer.poll(Duration::ZERO);
        }
        thread::park_timeout(LOOK);
    }
}

fn no_thread(error: &io::Error) -> KafkaError {
    KafkaError::ClientCreation(format!(
        "the thread of a producer can't be started: {error}"
    ))
}

impl<C: ProducerContext + 'static> Deref for ServedProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for ServedProducer<C> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say; a panic was printed.
            let _ = thread.join();
        }
    }
}
