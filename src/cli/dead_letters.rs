//! `feedmill dead-letters`: the desk for files that could not be converted.
//!
//! * [`letters`]: reads the topic; which letters are open, which were closed
//! * [`list`], [`show`]: what there is, and everything about one
//! * [`attempt`]: `try`, which converts the file of a letter here and writes nothing
//! * [`ask`]: `replay` and `discard`, which ask convert to do something about open letters

mod ask;
mod attempt;
mod fetch;
mod letters;
mod list;
mod show;

use clap::Subcommand;

use crate::{config::Config, failure::Failure};

pub const EXAMPLES: &str = "\
Examples:
  feedmill dead-letters list --group                      how many, by reason and feed
  feedmill dead-letters list --feed nsx --since 1d
  feedmill dead-letters show 0199c3a4-7c1e-7bb0-8e05-4f1d2a6b9c01 --source
  feedmill dead-letters try 0199c3a4-7c1e-7bb0-8e05-4f1d2a6b9c01 --feed changed/nsx.toml
  feedmill dead-letters replay --reason missing_field --feed nsx --dry-run
  feedmill dead-letters discard --key 'nsx/test/**' --why 'test files of the partner'

A letter is open until its object is converted, gone or refused anew, or until somebody discards it. A filter given several
times takes what fits one of its values; different filters must all fit. A time is RFC 3339, or a span back from now: 90m, 3h, 2d.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The open letters, oldest first
    #[command(after_help = "Example: feedmill dead-letters list --reason malformed_xml --since 1d")]
    List(list::Arguments),
    /// Everything that is known of one letter
    #[command(
        after_help = "Example: feedmill dead-letters show 0199c3a4-7c1e-7bb0-8e05-4f1d2a6b9c01 --source"
    )]
    Show(show::Arguments),
    /// Convert the file of a letter here and now, write nothing, and show what would come of it
    ///
    /// The version that failed is fetched, or what is in the bucket now when that version is gone, and converted by today's
    /// configuration, or another one; what comes out is compared with the object's last output. Exit code 4 when it is refused.
    #[command(after_help = "\
Examples:
  feedmill dead-letters try 0199c3a4-7c1e-7bb0-8e05-4f1d2a6b9c01
  feedmill dead-letters try 0199c3a4-7c1e-7bb0-8e05-4f1d2a6b9c01 --feed changed/acme.toml")]
    Try(attempt::Arguments),
    /// Convert the files of open letters again, in the version that is in the bucket now
    ///
    /// Asks convert to try again, by an event each. A letter is closed when its file is converted; a file that fails again has a
    /// new letter, which says how often it was replayed. To interrupt it is safe: the same command goes on where it was.
    #[command(
        after_help = "Example: feedmill dead-letters replay --feed nsx --reason missing_field"
    )]
    Replay(ask::Replay),
    /// Close open letters without converting their files
    ///
    /// The version that failed counts as settled then: only a newer one of the file is converted.
    #[command(
        after_help = "Example: feedmill dead-letters discard --feed nsx --until 7d --why 'replaced by the new catalogue'"
    )]
    Discard(ask::Discard),
}

pub fn run(config: &Config, command: Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list::run(config, &arguments),
        Command::Show(arguments) => show::run(config, &arguments),
        Command::Try(arguments) => attempt::run(config, arguments),
        Command::Replay(arguments) => ask::replay(config, &arguments),
        Command::Discard(arguments) => ask::discard(config, &arguments),
    }
}
