//! `feedmill feed infer` and `feedmill feed test`: work on a feed, without Kafka and S3.

mod infer;
mod test;

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
    /// Run the fixtures of the feeds: files of partners, and the JSON that they have to become; exit code 4 when some differ
    ///
    /// The fixtures of the feed `acme` are in the folder `acme.tests` beside the file that the feed stands in. `kettle.xml` there is a
    /// file of the partner, `kettle.expected.json` (or `.expected.jsonl`) what it becomes. `kettle.rejected.json` has the reason,
    /// and as much of the place as one likes, when the file has to be refused, or a list of those of the records that are left out.
    /// `kettle.source.toml` has what `$source` has in the mapping: bucket, key, etag, last_modified.
    Test(test::Arguments),
}

pub fn run(sources: Sources, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Infer(arguments) => infer::run(&loaded(sources)?.config, arguments),
        Command::Test(arguments) => test::run(&loaded(sources)?, arguments),
    }
}
