//! `feedmill feed test`: work on a feed, without Kafka and S3.

mod test;

use clap::Subcommand;

use super::loaded;
use crate::{config::Sources, failure::Failure};

#[derive(Debug, Subcommand)]
pub enum Command {
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
        Command::Test(arguments) => test::run(&loaded(sources)?, arguments),
    }
}
