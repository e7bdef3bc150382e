//! `feedmill convert FILE|-`: the conversion engine alone.

mod ending;
mod part;
mod progress;

use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, anyhow};
use clap::Args;
use ending::Ending;
use part::{Part, Parts};

use super::{
    feed_named,
    source::{Pair, StandIn},
};
use crate::{
    config::Config,
    failure::Failure,
    feed::{self, ConvertError, Plan, Progress, Source, Summary, spec::Spec},
    shutdown, spool,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill convert partner.xml                       convert every record whole, to standard output
  feedmill convert partner.xml.gz --feed nsx -o out.json
  feedmill convert a.xml --feed nsx --source last_modified=2026-11-21T10:00:00Z
  curl -s https://example.com/feed.xml | feedmill convert - --feed google

Exit code 4 when the file is refused; no output is written then.")]
pub struct Arguments {
    /// File to convert, - for standard input
    file: PathBuf,
    /// Feed of the configuration whose mapping to use [default: every record whole]
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// What $source has in the mapping: bucket, key, etag or last_modified; may be repeated [default: the file's path as key]
    #[arg(long, value_name = "KEY=VALUE")]
    source: Vec<Pair>,
    /// File to write, replaced whole if it is there [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// File for the records that were left out (max_rejected), one JSON line each
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Say what it came to, on standard error, as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs until the file is converted, or a signal comes; nothing half done is left behind.
pub async fn run(config: Config, arguments: Arguments) -> Result<(), Failure> {
    let signal =
        shutdown::first_signal().map_err(|error| Failure::bug("listen for signals", error))?;
    let parts = Parts::default();
    let working = parts.clone();
    let work = tokio::task::spawn_blocking(move || convert(&config, &arguments, &working));
    tokio::select! {
        ended = work => ended.map_err(|error| Failure::bug("end the conversion", error))?,
        number = signal => {
            parts.remove();
            crate::cli::progress::clear();
            // As shells have it.
            std::process::exit(128 + number)
        }
    }
}

fn convert(config: &Config, arguments: &Arguments, parts: &Parts) -> Result<(), Failure> {
    let plan = plan(config, arguments.feed.as_deref())?;
    let source = source(arguments)?;
    let input = open(&arguments.file)?;
    let started = Instant::now();
    let mut report = match &arguments.rejected {
        Some(path) => Some(create(parts, path).map_err(Failure::usage)?),
        None => None,
    };
    let work = Work {
        plan: &plan,
        source: &source,
        input,
        report: report.as_mut(),
    };
    let converted = match &arguments.output {
        Some(path) if is_replaceable(path) => {
            work.into_file(create(parts, path).map_err(Failure::service)?)
        }
        Some(path) => work.spooled(create(parts, path).map_err(Failure::service)?),
        None => work.spooled(io::stdout()),
    };
    let is_done = matches!(converted, Ok(_) | Err(ConvertError::Rejected(_)));
    if let (Some(report), true) = (report, is_done) {
        let kept = report.keep().context("write the rejected records");
        kept.map_err(Failure::service)?;
    }
    let say = |ending: Ending<'_>| {
        let said = ending.say(&arguments.file, arguments.json);
        said.map_err(|error| Failure::bug("write JSON", error))
    };
    match converted {
        Ok(summary) => say(Ending::Converted {
            seconds: started.elapsed().as_secs_f64(),
            summary: &summary,
        }),
        Err(ConvertError::Rejected(rejection)) => {
            say(Ending::refused(&rejection))?;
            Err(Failure::Findings)
        }
        // Whoever reads our output may stop reading.
        Err(ConvertError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let what = match (&error, &arguments.output) {
                (ConvertError::Write(_), Some(path)) => format!("write {}", path.display()),
                _ => format!("convert {}", arguments.file.display()),
            };
            Err(Failure::service(anyhow!(error).context(what)))
        }
    }
}

fn plan(config: &Config, feed: Option<&str>) -> Result<Plan, Failure> {
    let spec = match feed {
        None => Spec::default(),
        Some(name) => feed_named(config, name)?.spec(),
    };
    Plan::compile(&spec, config.convert.limits.clone())
        .map_err(|error| Failure::usage(anyhow!(error).context("compile the feed")))
}

fn source(arguments: &Arguments) -> Result<Source, Failure> {
    let given = StandIn::of(&arguments.source)
        .map_err(|error| Failure::usage(anyhow!(error).context("read --source")))?;
    let feed = arguments.feed.as_deref().unwrap_or_default();
    Ok(given.source(arguments.file.display().to_string(), feed))
}

fn open(path: &Path) -> Result<File, Failure> {
    let file = match path.as_os_str() == "-" {
        true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        false => File::open(path),
    };
    file.with_context(|| format!("open {}", path.display()))
        .map_err(Failure::usage)
}

fn create(parts: &Parts, path: &Path) -> anyhow::Result<Part> {
    parts
        .create(path)
        .with_context(|| format!("write {}", path.display()))
}

/// Whether a file can take the place of what is there.
fn is_replaceable(path: &Path) -> bool {
    path.metadata().map_or(true, |found| found.is_file())
}

struct Work<'a> {
    plan: &'a Plan,
    source: &'a Source,
    input: File,
    report: Option<&'a mut Part>,
}

impl Work<'_> {
    fn convert(self, output: &mut impl Write) -> Result<Summary, ConvertError> {
        let report = self.report.map(|report| report as &mut dyn Write);
        let total = self.input.metadata().ok();
        let total = total
            .filter(|found| found.is_file())
            .map(|found| found.len());
        let progress = Progress::default();
        let line = |elapsed| progress::line(&progress, total, elapsed);
        crate::cli::progress::watched(line, || {
            feed::convert_watched(
                self.plan,
                self.source,
                self.input,
                output,
                report,
                &progress,
            )
        })
    }

    fn into_file(self, mut part: Part) -> Result<Summary, ConvertError> {
        let summary = self.convert(&mut part)?;
        part.keep().map_err(ConvertError::Write)?;
        Ok(summary)
    }

    /// A refused file must leave no half output behind: it is spooled on disk until it is known to be good.
    fn spooled(self, mut output: impl Write) -> Result<Summary, ConvertError> {
        let mut spool = spool::unnamed_file().map_err(ConvertError::Write)?;
        let mut writer = BufWriter::new(&mut spool);
        let summary = self.convert(&mut writer)?;
        writer.flush().map_err(ConvertError::Write)?;
        drop(writer);
        let copied = spool
            .rewind()
            .and_then(|()| io::copy(&mut spool, &mut output))
            .and_then(|_| output.flush());
        copied.map_err(ConvertError::Write)?;
        Ok(summary)
    }
}
