//! `feedmill feed infer`: work on a feed, without Kafka and S3.

mod infer;

use clap::Subcommand;

use super::loaded;
use crate::{config::Sources, failure::Failure};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a feed's configuration from samples of its files
    ///
    /// Format, record path, namespaces, arrays and fields with their types, each with a comment on what was seen. What it
    /// writes converts the samples: a file for feeds.d, to be read and edited.
    Infer(infer::Arguments),
}

pub fn run(sources: Sources, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Infer(arguments) => infer::run(&loaded(sources)?.config, arguments),
    }
}
