//! The command line: arguments in, one command run, an exit code out.

mod audit;
mod backfill;
mod config;
mod confirm;
mod convert;
mod dead_letters;
mod diff;
mod doctor;
mod explain;
mod feed;
mod filter;
mod moment;
mod progress;
mod reader;
mod results;
mod source;
mod text;
mod topics;
mod version;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    app::{self, Stage},
    config::{Config, Feed, Loaded, Log, Sources, load},
    failure::{Failure, chain},
    telemetry::logging,
};

/// Converts partners' product files in S3 to JSON, exactly once.
#[derive(Debug, Parser)]
#[command(about, after_help = EXAMPLES, max_term_width = 120, arg_required_else_help = true)]
struct Arguments {
    /// Print which build this is
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: as JSON, with the versions of everything that is read and written
    #[arg(long, requires = "version")]
    json: bool,
    /// Configuration file [default: feedmill.toml, if it is there]
    #[arg(long, global = true, env = "FEEDMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Profile of the configuration file to apply: its [profile.NAME] table
    #[arg(long, global = true, env = "FEEDMILL_PROFILE", value_name = "NAME")]
    profile: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  feedmill config check                          is the configuration sound?
  feedmill doctor                                is everything in place, and what grants what is missing
  feedmill topics create                         make the Kafka topics
  feedmill run                                   take notifications in and convert
  feedmill feed infer partner.xml                write a feed from a sample file
  feedmill convert partner.xml --feed nsx        try a feed on a local file
  feedmill feed test                             do the feeds' fixtures still become what they should?
  feedmill dead-letters list --group             what could not be converted, and why
  feedmill explain s3://partner-files/a.xml      what happened to this file?
  feedmill backfill s3://partner-files/nsx/      convert what lies there and is not settled
  feedmill audit s3://partner-files/             is every file converted?
  feedmill --version --json                      which build is this, and what does it read and write?

Exit codes: 0 done, 1 a bug, 2 usage or configuration, 3 an outside service, 4 done, with findings,
130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    /// Take notifications in, sweep the buckets and convert, until stopped
    ///
    /// SIGTERM or Ctrl-C finishes and commits what is under way; a second one leaves at once. Both are safe.
    #[command(after_help = "Example: feedmill run --config feedmill.toml --stages convert")]
    Run {
        /// Stages to run in this process, separated by commas
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "intake,sweep,convert,retry,cleanup"
        )]
        stages: Vec<Stage>,
    },
    /// Convert a local file, without Kafka and S3
    Convert(convert::Arguments),
    /// Work on feeds, without Kafka and S3
    #[command(
        subcommand,
        after_help = "Examples:\n  feedmill feed infer partner.xml\n  feedmill feed test acme"
    )]
    Feed(feed::Command),
    /// Make and check the Kafka topics
    #[command(subcommand, after_help = "Example: feedmill topics create")]
    Topics(topics::Command),
    /// Check and show the configuration
    #[command(subcommand, after_help = "Example: feedmill config check")]
    Config(config::Command),
    /// Look at everything a worker needs, and say what is missing and what grants it
    ///
    /// Checks in order the configuration, Kafka (reachable, transactions, permissions, topics), S3 (each bucket: list,
    /// get, conditional put and delete of a scratch key, conditional delete where sources are
    /// deleted afterwards), the clocks, and the disk of the state folder. It reads only,
    /// but for the scratch key and a scratch transactional id.
    Doctor(doctor::Arguments),
    /// What became of the files: the results topic, each object's oldest first
    Results(results::Arguments),
    /// The files that could not be converted: list, look into, try again, close
    #[command(subcommand, after_help = dead_letters::EXAMPLES)]
    DeadLetters(dead_letters::Command),
    /// One object's story: its events, attempts and outcomes, what is settled now, and what is pending
    Explain(explain::Arguments),
    /// Announce what lies in a bucket and is not settled, or ask for it to be converted again
    ///
    /// Lists what begins with the prefix, page by page, and compares each object that a feed takes with what is settled for it.
    /// Without --force or --mapping-changed it announces what is new or has changed; doing it twice does no harm. To interrupt it
    /// is safe: the command that goes on is printed. What is settled is copied to a temporary folder (TMPDIR) meanwhile.
    #[command(after_help = backfill::EXAMPLES)]
    Backfill(backfill::Arguments),
    /// Prove that every object below a prefix has its outcome, or name what it has not
    ///
    /// Compares the listings of the sources and of their outputs with what is settled and what is under way; safe beside
    /// live traffic. It changes nothing, unless --repair asks for it.
    Audit(audit::Arguments),
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(error) = failure.error() {
                eprintln!("feedmill: failed to {}", chain(error.as_ref()));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    if arguments.version {
        return version::print(arguments.json);
    }
    let Some(command) = arguments.command else {
        let missing = "a command is missing; feedmill --help lists them";
        Arguments::command()
            .error(ErrorKind::MissingSubcommand, missing)
            .exit();
    };
    let sources = Sources::of_process(arguments.config, arguments.profile);
    match command {
        Command::Run { stages } => {
            let config = sound(sources.clone())?;
            let stages: BTreeSet<Stage> = stages.into_iter().collect();
            on_runtime(app::run(config, sources, &stages))
        }
        Command::Convert(arguments) => on_runtime(convert::run(loaded(sources)?.config, arguments)),
        Command::Feed(command) => feed::run(sources, &command),
        Command::Topics(command) => {
            let config = reaches_kafka(sources)?;
            on_runtime(topics::run(&config, command))
        }
        Command::Config(command) => config::run(sources, &command),
        Command::Doctor(arguments) => on_runtime(doctor::run(read(sources)?, arguments)),
        Command::Results(arguments) => results::run(&reaches_kafka(sources)?, &arguments),
        Command::DeadLetters(command) => dead_letters::run(&reaches_kafka(sources)?, command),
        Command::Explain(arguments) => explain::run(&reaches_kafka(sources)?, &arguments),
        Command::Backfill(arguments) => backfill::run(&sound_and_quiet(sources)?, &arguments),
        Command::Audit(arguments) => audit::run(&sound_and_quiet(sources)?, &arguments),
    }
}

/// The configuration as it was read; what it says may not make sense yet.
fn loaded(sources: Sources) -> Result<Loaded, Failure> {
    logged(read(sources)?)
}

/// Without the process's logging: what a client library complains of is part of `doctor`'s verdict.
fn read(sources: Sources) -> Result<Loaded, Failure> {
    load(sources).map_err(|error| Failure::usage(anyhow!(error).context("load the configuration")))
}

/// With logging set up as the configuration says.
fn logged(loaded: Loaded) -> Result<Loaded, Failure> {
    logging::init(&loaded.config.log).map_err(Failure::usage)?;
    Ok(loaded)
}

/// The configuration, checked whole.
fn sound(sources: Sources) -> Result<Config, Failure> {
    checked(loaded(sources)?)
}

/// The same for a command that shows itself how far it is: the log has only what is wrong, unless a level was asked for.
fn sound_and_quiet(sources: Sources) -> Result<Config, Failure> {
    let mut loaded = read(sources)?;
    let level = &mut loaded.config.log.level;
    if *level == Log::default().level {
        *level = "warn".to_owned();
    }
    checked(logged(loaded)?)
}

fn checked(loaded: Loaded) -> Result<Config, Failure> {
    let warnings = loaded
        .validate()
        .map_err(|error| Failure::usage(anyhow!(error).context("use the configuration")))?;
    for warning in warnings {
        tracing::warn!("{}", warning.message);
    }
    Ok(loaded.config)
}

/// The configuration of a command that needs only Kafka.
fn reaches_kafka(sources: Sources) -> Result<Config, Failure> {
    let config = loaded(sources)?.config;
    if config.kafka.brokers.is_empty() {
        return Err(Failure::usage(anyhow!(
            "find the brokers: set kafka.brokers in feedmill.toml, name the file with --config, or set FEEDMILL_KAFKA__BROKERS"
        )));
    }
    Ok(config)
}

/// The feed of this name.
fn feed_named<'a>(config: &'a Config, name: &str) -> Result<&'a Feed, Failure> {
    let found = config.feeds.iter().find(|feed| feed.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = config.feeds.iter().map(|feed| &*feed.name).collect();
        Failure::usage(anyhow!(
            "find the feed {name:?}; the configuration has: {}",
            names.join(", ")
        ))
    })
}

/// Writes to standard output. That nobody reads it any more is no failure.
pub(crate) fn say(text: impl std::fmt::Display) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::service(
            anyhow!(error).context("write to standard output"),
        )),
        _ => Ok(()),
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::bug("start the async runtime", error))?;
    let result = runtime.block_on(work);
    // Conversions that were given up must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
