//! `feedmill convert FILE|-`: the conversion engine alone.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Read, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;

use crate::{
    config::Config,
    failure::Failure,
    feed::{self, ConvertError, Plan, Rejection, Source, spec::Spec},
    spool,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill convert partner.xml                       convert every record whole, to standard output
  feedmill convert partner.xml.gz --feed nsx -o out.json
  curl -s https://example.com/feed.xml | feedmill convert - --feed google

Exit code 4 when the file is refused; no output is written then.")]
pub struct Arguments {
    /// File to convert, - for standard input
    file: PathBuf,
    /// Feed of the configuration whose mapping to use [default: every record whole]
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// File for the records that were left out (max_rejected), one JSON line each
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let plan = plan(config, arguments.feed.as_deref())?;
    let source = Source {
        key: arguments.file.display().to_string(),
        feed: arguments.feed.clone().unwrap_or_default(),
        ..Source::default()
    };
    let input = open(&arguments.file)?;
    let started = Instant::now();
    let mut report = report(arguments.rejected.as_deref())?;
    let work = Work {
        plan: &plan,
        source: &source,
        report: report.as_mut(),
    };
    let converted = match &arguments.output {
        Some(path) => work.into_file(input, path),
        None => work.into_standard_output(input),
    };
    let summary = match converted {
        Ok(summary) => summary,
        Err(ConvertError::Rejected(rejection)) => {
            eprintln!("{}", refusal(&arguments.file, &rejection));
            say_rejected(
                &arguments.file,
                rejection.rejected_count,
                &rejection.rejected,
            );
            return Err(Failure::Findings);
        }
        // Whoever reads our output may stop reading.
        Err(ConvertError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(());
        }
        Err(error) => {
            let what = match (&error, &arguments.output) {
                (ConvertError::Write(_), Some(path)) => format!("write {}", path.display()),
                _ => format!("convert {}", arguments.file.display()),
            };
            return Err(Failure::service(anyhow!(error).context(what)));
        }
    };
    for warning in &summary.warnings {
        eprintln!("{}: warning: {warning}", arguments.file.display());
    }
    say_rejected(&arguments.file, summary.rejected, &summary.rejections);
    let seconds = started.elapsed().as_secs_f64().max(0.001);
    eprintln!(
        "{} records, {} rejected, {} bytes in, {} bytes out, {seconds:.2} s, {:.1} MB/s",
        summary.records,
        summary.rejected,
        summary.input_bytes,
        summary.output_bytes,
        summary.decoded_bytes as f64 / 1e6 / seconds
    );
    Ok(())
}

fn plan(config: &Config, feed: Option<&str>) -> Result<Plan, Failure> {
    let spec = match feed {
        None => Spec::default(),
        Some(name) => {
            let found = config.feeds.iter().find(|feed| feed.name == name);
            found.map(crate::config::Feed::spec).ok_or_else(|| {
                let names: Vec<&str> = config.feeds.iter().map(|feed| feed.name.as_str()).collect();
                Failure::usage(anyhow!(
                    "find the feed {name:?}; the configuration has: {}",
                    names.join(", ")
                ))
            })?
        }
    };
    Plan::compile(&spec, config.convert.limits.clone())
        .map_err(|error| Failure::usage(anyhow!(error).context("compile the feed")))
}

fn open(path: &Path) -> Result<Progress<Box<dyn Read>>, Failure> {
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => {
            let file = File::open(path).with_context(|| format!("open {}", path.display()));
            Box::new(file.map_err(Failure::usage)?)
        }
    };
    Ok(Progress::new(input))
}

/// How many rejected records are shown.
const SHOWN: usize = 5;

fn say_rejected(file: &Path, count: u64, first: &[Rejection]) {
    for rejection in first.iter().take(SHOWN) {
        eprintln!("rejected: {}", refusal(file, rejection));
    }
    let shown = first.len().min(SHOWN) as u64;
    if count > shown {
        eprintln!("rejected: {} more", count - shown);
    }
}

fn report(path: Option<&Path>) -> Result<Option<BufWriter<File>>, Failure> {
    let create = |path: &Path| {
        let file = File::create(path).with_context(|| format!("write {}", path.display()));
        file.map(BufWriter::new).map_err(Failure::usage)
    };
    path.map(create).transpose()
}

struct Work<'a> {
    plan: &'a Plan,
    source: &'a Source,
    report: Option<&'a mut BufWriter<File>>,
}

impl Work<'_> {
    fn convert(
        self,
        input: impl Read,
        output: &mut impl Write,
    ) -> Result<feed::Summary, ConvertError> {
        let report = self.report.map(|report| report as &mut dyn Write);
        let summary = feed::convert_reporting(self.plan, self.source, input, &mut *output, report)?;
        output.flush().map_err(ConvertError::Write)?;
        Ok(summary)
    }

    /// The file appears whole or not at all.
    fn into_file(self, input: impl Read, path: &Path) -> Result<feed::Summary, ConvertError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let written = File::create(&part)
            .map_err(ConvertError::Write)
            .and_then(|file| {
                let summary = self.convert(input, &mut BufWriter::new(file))?;
                std::fs::rename(&part, path).map_err(ConvertError::Write)?;
                Ok(summary)
            });
        if written.is_err() {
            // What is left of it is of no use; that it can't be removed is not the news.
            let _ = std::fs::remove_file(&part);
        }
        written
    }

    /// A refused file must leave no half output behind: it is spooled on disk until it is known to be good.
    fn into_standard_output(self, input: impl Read) -> Result<feed::Summary, ConvertError> {
        let mut spool = spool::unnamed_file().map_err(ConvertError::Write)?;
        let summary = self.convert(input, &mut BufWriter::new(&mut spool))?;
        spool.rewind().map_err(ConvertError::Write)?;
        io::copy(&mut spool, &mut io::stdout().lock()).map_err(ConvertError::Write)?;
        Ok(summary)
    }
}

pub(super) fn refusal(path: &Path, rejection: &Rejection) -> String {
    let mut text = format!(
        "{}: {}: {}",
        path.display(),
        rejection.reason,
        rejection.message
    );
    let places = [
        ("record", rejection.record),
        ("line", rejection.line),
        ("column", rejection.column),
        ("byte", rejection.byte_offset),
    ];
    for (name, place) in places {
        text.extend(place.map(|place| format!(", {name} {place}")));
    }
    text.extend(rejection.path.as_ref().map(|path| format!(", at {path}")));
    text.extend(
        rejection
            .excerpt
            .as_ref()
            .map(|excerpt| format!("\n  {excerpt}")),
    );
    text
}

/// Says on a terminal how far a long conversion is.
struct Progress<R> {
    inner: R,
    bytes: u64,
    said_at: Instant,
    shown: bool,
}

/// Nothing is said of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);

impl<R> Progress<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            bytes: 0,
            said_at: Instant::now(),
            shown: io::stderr().is_terminal(),
        }
    }
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.shown && self.said_at.elapsed() > PATIENCE {
            self.said_at = Instant::now();
            eprintln!("{} MB read", self.bytes / 1_000_000);
        }
        Ok(count)
    }
}
