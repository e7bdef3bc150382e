//! Logs: readable on a terminal, one JSON object a line otherwise. On standard error: standard output is for results.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("read log.level {level:?}: {reason}")]
    Filter { level: String, reason: String },
}

/// Sets the process's logging up; later calls do nothing.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| LoggingError::Filter {
        level: log.level.clone(),
        reason: error.to_string(),
    })?;
    let terminal = io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let set = match text {
        true => registry
            .with(fmt::layer().with_writer(io::stderr).with_ansi(terminal))
            .try_init(),
        false => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_writer(io::stderr),
            )
            .try_init(),
    };
    // An error means that logging is set up already.
    drop(set);
    Ok(())
}
