//! How a command fails: what to say, and the exit code.

use std::borrow::Cow;

/// How a command failed; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// A bug of ours: 1.
    Bug(anyhow::Error),
    /// The command line or the configuration: 2.
    Usage(anyhow::Error),
    /// Kafka, S3, or something else outside: 3.
    Service(anyhow::Error),
    /// Everything was done, and something was found: 4. It has been said already.
    Findings,
    /// By Ctrl-C or SIGTERM, before everything was done: 130, as shells have it.
    Interrupted(anyhow::Error),
}

impl Failure {
    pub fn bug(what: impl Into<Cow<'static, str>>, error: impl Into<anyhow::Error>) -> Self {
        Self::Bug(error.into().context(what.into()))
    }

    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    pub fn interrupted(error: impl Into<anyhow::Error>) -> Self {
        Self::Interrupted(error.into())
    }

    pub fn service(error: impl Into<anyhow::Error>) -> Self {
        Self::Service(error.into())
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Bug(_) => 1,
            Self::Usage(_) => 2,
            Self::Service(_) => 3,
            Self::Findings => 4,
            Self::Interrupted(_) => 130,
        }
    }

    /// What to print, unless it has been said already.
    pub fn error(&self) -> Option<&anyhow::Error> {
        match self {
            Self::Bug(error)
            | Self::Usage(error)
            | Self::Service(error)
            | Self::Interrupted(error) => Some(error),
            Self::Findings => None,
        }
    }
}

/// An error and everything that caused it, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}
