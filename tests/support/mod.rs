//! The harness of the tests that need a real Kafka and a real S3 server; `tests/run` starts both.
//!
//! [`Stack`] is the servers, [`World`] what one test has on them for itself (topics, group, buckets, a folder with
//! `feedmill.toml`), [`Worker`] a running `feedmill run`. [`dump`] takes down what a run left, [`checker`] judges it.

// Each test file compiles the harness for itself and uses its own part of it.
#![allow(dead_code, unused_imports)]

mod avro;
pub mod checker;
pub mod dump;
pub mod files;
pub mod kafka;
pub mod process;
mod results;
pub mod s3;
mod stack;
mod worker;
mod world;

use std::time::{Duration, Instant};

pub use process::Finished;
pub use s3::{Store, Stored};
pub use stack::Stack;
pub use worker::{Signal, Worker, WorkerOptions};
pub use world::{World, WorldBuilder};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Asks every 50 ms until there is an answer; `None` when there was none in time.
pub async fn poll_until<T>(
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = probe().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits for a condition that the test cannot do without.
pub async fn wait_until<T>(
    description: &str,
    timeout: Duration,
    probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    match poll_until(timeout, probe).await {
        Some(answer) => answer,
        None => panic!("{description}: not within {timeout:?}"),
    }
}
