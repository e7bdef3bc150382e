//! The servers that a test run has, as `tests/run` names them in the environment.

use std::env;
use std::io::Write;

use super::world::WorldBuilder;

#[derive(Clone, Debug)]
pub struct Stack {
    /// `host:port`, several by comma.
    pub brokers: String,
    /// URL of the S3 server; its credentials are in the SDK's own variables.
    pub s3_endpoint: String,
}

impl Stack {
    /// `None`, and a printed note, when there are no servers; a panic where they are required.
    pub fn from_env() -> Option<Self> {
        let brokers = env::var("FEEDMILL_TEST_KAFKA").ok();
        let s3_endpoint = env::var("FEEDMILL_TEST_S3").ok();
        let stack = brokers.zip(s3_endpoint).map(|(brokers, s3_endpoint)| Self {
            brokers,
            s3_endpoint,
        });
        if stack.is_none() {
            let required = env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|value| value == "1");
            let note = "needs FEEDMILL_TEST_KAFKA and FEEDMILL_TEST_S3 (tests/run starts both)";
            assert!(!required, "{note}");
            say_skipped(note);
        }
        stack
    }

    /// What one test has for itself; `name` tells its topics and buckets from others' for people.
    pub fn world(&self, name: &str) -> WorldBuilder {
        WorldBuilder::new(self.clone(), name)
    }
}

/// Straight to standard error: the test runner keeps what `eprintln!` writes to itself.
fn say_skipped(note: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped {test}: {note}");
}
