//! `feedmill feed infer FILE...`: a feed's configuration from samples.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::{
    cli::{say, text::refusal},
    config::{Config, matcher::FeedMatch},
    failure::Failure,
    feed::{
        ConvertError, Reason, Rejection,
        infer::{InferError, Options, Survey, Target},
        spec::Format,
    },
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill feed infer acme.xml                              print the feed
  feedmill feed infer monday.csv tuesday.csv.gz -o feeds.d/acme.toml --name acme --match 's3://partner-files/acme/**'
  curl -s https://example.com/feed.xml | feedmill feed infer -

Exit code 4 when a file can't be read as a feed: malformed, empty, or of no known format.")]
pub struct Arguments {
    /// Samples of one feed, all of one format, - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File to write, which must not be there yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the output file
    #[arg(long, requires = "output")]
    force: bool,
    /// Name of the feed [default: that of the first file]
    #[arg(long)]
    name: Option<String>,
    /// Which objects the feed takes [default: s3://partner-files/NAME/**, to be edited]
    #[arg(long, value_name = "URL")]
    r#match: Option<String>,
    /// Convert records whole, with `arrays` and without `fields`
    #[arg(long)]
    whole: bool,
    /// Records that are enough of one file; of a file up to 16 MiB all are read
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    records: u64,
    /// Format of the files: auto, xml, json, json_lines, csv or tsv
    #[arg(long, default_value = "auto", value_parser = format, hide_default_value = true)]
    format: Format,
    /// Encoding of files that don't say, windows-1252 for one
    #[arg(long, value_name = "LABEL")]
    encoding: Option<String>,
}

/// As the configuration names it.
fn format(name: &str) -> Result<Format, ValueError> {
    Format::deserialize(StrDeserializer::new(name))
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let target = arguments.target()?;
    arguments.check_output()?;
    let options = Options {
        format: arguments.format,
        encoding: arguments.encoding.clone(),
        records: arguments.records,
    };
    let mut survey = Survey::new(options, config.convert.limits.clone())
        .map_err(|error| Failure::usage(anyhow!(error).context("read samples")))?;
    for path in &arguments.files {
        read(path, &mut survey)?;
    }
    let text = survey.write(&target);
    match &arguments.output {
        None => say(text.trim_end()),
        Some(path) => write(path, arguments.force, &text),
    }
}

impl Arguments {
    fn target(&self) -> Result<Target, Failure> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(name) = &self.name
            && (name.is_empty() || !name.chars().all(is_allowed))
        {
            return Err(Failure::usage(anyhow!(
                "name the feed {name:?}: expected letters, digits, dots, underscores and hyphens"
            )));
        }
        if let Some(text) = &self.r#match {
            FeedMatch::parse(text)
                .map_err(|error| Failure::usage(anyhow!(error).context("understand --match")))?;
        }
        Ok(Target {
            name: self.name.clone(),
            r#match: self.r#match.clone(),
            whole: self.whole,
        })
    }

    /// Before the samples are read, which may take a while.
    fn check_output(&self) -> Result<(), Failure> {
        match &self.output {
            Some(path) if path.exists() && !self.force => Err(Failure::usage(anyhow!(
                "write {}: it is there already; --force overwrites it",
                path.display()
            ))),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path, survey: &mut Survey) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    match survey.read(&name.to_string_lossy(), open(path)?) {
        Ok(()) => Ok(()),
        Err(InferError::Convert(ConvertError::Rejected(rejection))) => {
            eprintln!("{}", refusal(path, &rejection));
            if let Some(hint) = hint(&rejection) {
                eprintln!("{hint}");
            }
            Err(Failure::Findings)
        }
        Err(InferError::Convert(error)) => {
            let what = format!("read {}", path.display());
            Err(Failure::service(anyhow!(error).context(what)))
        }
        Err(error) => Err(Failure::usage(error)),
    }
}

/// What may help with a file that says too little of itself.
fn hint(rejection: &Rejection) -> Option<&'static str> {
    match rejection.reason {
        Reason::InvalidEncoding => {
            Some("if it is in another encoding and does not say so: --encoding windows-1252")
        }
        Reason::UnknownFormat => Some("if it is CSV all the same: --format csv"),
        _ => None,
    }
}

fn open(path: &Path) -> Result<Progress<Box<dyn Read>>, Failure> {
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => {
            let file = File::open(path).with_context(|| format!("open {}", path.display()));
            Box::new(file.map_err(Failure::usage)?)
        }
    };
    Ok(Progress {
        inner: input,
        bytes: 0,
        said_at: Instant::now(),
        is_shown: io::stderr().is_terminal(),
    })
}

fn write(path: &Path, force: bool, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut options = OpenOptions::new();
        match force {
            true => options.create(true).truncate(true),
            false => options.create_new(true),
        };
        options.write(true).open(path)?.write_all(text.as_bytes())
    };
    write()
        .with_context(|| format!("write {}", path.display()))
        .map_err(Failure::usage)
}

/// Says on a terminal how much has been read.
struct Progress<R> {
    inner: R,
    bytes: u64,
    said_at: Instant,
    is_shown: bool,
}

/// Nothing is said of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.is_shown && self.said_at.elapsed() > PATIENCE {
            self.said_at = Instant::now();
            eprintln!("{} MB read", self.bytes / 1_000_000);
        }
        Ok(count)
    }
}
