//! `feedmill feed test`: does every fixture still become what is expected?
//!
//! A fixture's file is converted as the feed says, but for the form of the output: what counts are its records.

mod fixture;
mod outcome;
mod report;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use clap::Args;
use fixture::{Fixture, MAX_BYTES, json_lines};
use outcome::Outcome;
use report::{Report, Verdict};

use crate::{
    cli::feed_named,
    config::{Config, Feed, Loaded},
    failure::{Failure, chain},
    feed::{self, ConvertError, Plan, spec::OutputFormat},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill feed test                     all feeds
  feedmill feed test acme                one feed, which must have fixtures
  feedmill feed test acme --update       take what comes out today for what is expected

Look at what --update wrote before you keep it. Exit code 4 when something differs, is missing, or can't be read.")]
pub struct Arguments {
    /// Feeds to test [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write down what the files become today, where nothing is expected yet or something else
    #[arg(long)]
    update: bool,
}

pub fn run(loaded: &Loaded, arguments: &Arguments) -> Result<(), Failure> {
    let config = &loaded.config;
    let named = arguments.names.iter().map(|name| feed_named(config, name));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let feeds = match named.is_empty() {
        true => config.feeds.iter().collect(),
        false => named,
    };
    let mut report = Report::default();
    for feed in feeds {
        let folder = fixture::folder(loaded, feed);
        match Fixture::all(&folder) {
            Ok(fixtures) if !fixtures.is_empty() => {
                let plan = plan(feed, config)?;
                for fixture in fixtures {
                    let verdict = judge(&plan, &feed.name, &fixture, arguments.update);
                    let verdict = verdict.unwrap_or_else(|error| Verdict::Failed(chain(&*error)));
                    report.say(&format!("{}/{}", feed.name, fixture.name()), &verdict)?;
                }
            }
            Ok(_) if arguments.names.is_empty() => report.without(&feed.name, &folder)?,
            Ok(_) => return Err(nothing_to_test(feed, &folder)),
            Err(error) => report.say(&feed.name, &Verdict::Failed(chain(&error)))?,
        }
    }
    report.end()
}

fn nothing_to_test(feed: &Feed, folder: &Path) -> Failure {
    Failure::usage(anyhow!(
        "find a fixture of {}: put a file of the partner into {}, and run again with --update",
        feed.label(),
        folder.display()
    ))
}

/// The feed's, but for the output, which is to be read here again.
fn plan(feed: &Feed, config: &Config) -> Result<Plan, Failure> {
    let mut spec = feed.spec();
    (spec.output, spec.compress) = (OutputFormat::Lines, None);
    Plan::compile(&spec, config.convert.limits.clone()).map_err(|error| {
        Failure::usage(anyhow!(error).context(format!("compile the {}", feed.label())))
    })
}

fn judge(plan: &Plan, feed: &str, fixture: &Fixture, update: bool) -> anyhow::Result<Verdict> {
    let found = convert(plan, feed, fixture)?;
    let verdict = match fixture.expected() {
        Ok(Some(expected)) => compare(&expected, &found),
        Ok(None) => Verdict::Missing(format!(
            "no {} yet; --update writes it",
            fixture.output().display()
        )),
        // What can't be read is replaced, too.
        Err(error) if update => Verdict::Failed(chain(&error)),
        Err(error) => return Err(error.into()),
    };
    if !update || matches!(verdict, Verdict::Ok(_)) {
        return Ok(verdict);
    }
    let told = found.to_string();
    let paths = fixture.write(&found.brief())?;
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Ok(Verdict::Written(format!("{}: {told}", paths.join(", "))))
}

fn compare(expected: &Outcome, found: &Outcome) -> Verdict {
    match expected.diff(found) {
        Some(lines) if lines.is_empty() => Verdict::Ok(found.to_string()),
        Some(lines) => Verdict::Differs("- is expected, + is what it becomes".to_owned(), lines),
        None => Verdict::Differs(format!("{found}; expected: {expected}"), found.lines()),
    }
}

fn convert(plan: &Plan, feed: &str, fixture: &Fixture) -> anyhow::Result<Outcome> {
    let source = fixture.source()?.source(fixture.name(), feed);
    let (mut output, mut report) = (Bounded::default(), Bounded::default());
    let input = fixture.open()?;
    match feed::convert_reporting(plan, &source, input, &mut output, Some(&mut report)) {
        Ok(_) => Ok(Outcome::Converted {
            records: json_lines(&output.0).context("read the output")?,
            rejected: json_lines(&report.0).context("read the rejected records")?,
        }),
        Err(ConvertError::Rejected(rejection)) => {
            Outcome::refused(&rejection).context("read the rejection")
        }
        Err(error) => Err(error.into()),
    }
}

/// Bytes in memory, and no more than a fixture has.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_BYTES {
            let message = format!("more than {MAX_BYTES} bytes come out; a fixture is small");
            return Err(io::Error::other(message));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
