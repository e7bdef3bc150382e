//! `feedmill config check | show | feeds | match`.

use std::collections::BTreeSet;

use anyhow::anyhow;
use clap::Subcommand;

use super::{loaded, say};
use crate::{
    config::{
        Config, Feed, Loaded, Sources,
        exclude::Excludes,
        matcher::{FeedMatch, Router},
        show,
        template::KeyTemplate,
    },
    convert,
    failure::Failure,
    object::ObjectRef,
};

/// Buckets named in a summary.
const NAMED: usize = 5;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what is wrong with the configuration; exit code 2 when something is
    ///
    /// Finds unknown keys, outputs that would collide, outputs that feedmill would read again, feeds that can never
    /// match, mappings that do not compile, accounts that are half given, and unsafe listening.
    #[command(
        after_help = "Example: feedmill config check --config feedmill.toml --profile production"
    )]
    Check,
    /// Print the settings in force as TOML, secrets hidden
    #[command(after_help = "Example: feedmill config show --profile production")]
    Show,
    /// List the feeds in the order in which they are tried
    ///
    /// The mapping hash changes with whatever decides the JSON of a file: the mapping, the order of its fields, the output's
    /// bucket, key and layout. Comments, the order of other keys, the name and the owner do not change it.
    #[command(after_help = "Example: feedmill config feeds --json")]
    Feeds {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Say which feed takes an object and where its output goes, or why none does; exit code 4 then
    #[command(after_help = "Example: feedmill config match s3://partner-files/nsx/spring.xml")]
    Match {
        /// s3://bucket/key; the object need not be there
        #[arg(value_parser = ObjectRef::from_url)]
        object: ObjectRef,
    },
}

pub fn run(sources: Sources, command: &Command) -> Result<(), Failure> {
    let loaded = loaded(sources)?;
    match command {
        Command::Show => say(show(&loaded.config).trim_end()),
        Command::Check => check(&loaded),
        Command::Feeds { json } => feeds(&loaded, *json),
        Command::Match { object } => find(&loaded.config, object),
    }
}

fn check(loaded: &Loaded) -> Result<(), Failure> {
    let findings = loaded.findings();
    for finding in &findings {
        say(finding)?;
    }
    if findings.iter().any(|finding| finding.is_error()) {
        return Err(Failure::usage(anyhow!(
            "accept the configuration: see above"
        )));
    }
    say(format_args!(
        "the configuration is sound: {}",
        summary(&loaded.config)
    ))
}

/// `12 feeds (11 enabled, from 3 files), reading from a, b, outputs to s3://json/{key}.json`
fn summary(config: &Config) -> String {
    let enabled = config.feeds.iter().filter(|feed| feed.enabled).count();
    let files: BTreeSet<&str> = config
        .feeds
        .iter()
        .filter_map(|feed| feed.file.as_deref())
        .collect();
    let files = files.len().max(1);
    let buckets: Vec<String> = config.input_buckets().into_iter().collect();
    let more = match buckets.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} ({enabled} enabled, from {}), reading from {}{more}, outputs to s3://{}/{}",
        counted(config.feeds.len(), "feed"),
        counted(files, "file"),
        buckets[..buckets.len().min(NAMED)].join(", "),
        config.output.bucket,
        config.output.key
    )
}

/// `1 feed`, `2 feeds`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn feeds(loaded: &Loaded, json: bool) -> Result<(), Failure> {
    let config = &loaded.config;
    let main_file = loaded.file.as_ref().map(|file| file.display().to_string());
    let main_file = main_file.unwrap_or_default();
    let rows = config
        .feeds
        .iter()
        .map(|feed| Row::new(feed, config, &main_file));
    if json {
        for row in rows {
            say(serde_json::to_string(&row).map_err(|error| Failure::bug("write JSON", error))?)?;
        }
        return Ok(());
    }
    let heading = [
        "NAME", "MATCH", "FORMAT", "OWNER", "ENABLED", "AFTER", "MAPPING", "FILE",
    ];
    let cells = rows.map(Row::cells);
    say(table(heading.map(str::to_owned), cells.collect()).trim_end())
}

/// A feed, for a list.
#[derive(serde::Serialize)]
struct Row<'a> {
    name: &'a str,
    r#match: &'a str,
    format: crate::feed::spec::Format,
    enabled: bool,
    owner: Option<&'a str>,
    description: Option<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
    after: String,
    /// `None` for a mapping that does not compile.
    mapping_hash: Option<String>,
    file: &'a str,
}

impl<'a> Row<'a> {
    fn new(feed: &'a Feed, config: &Config, main_file: &'a str) -> Self {
        let compiled = convert::Feed::compile(feed, config);
        Self {
            name: &feed.name,
            r#match: &feed.r#match,
            format: feed.format,
            enabled: feed.enabled,
            owner: feed.owner.as_deref(),
            description: feed.description.as_deref(),
            labels: &feed.labels,
            after: feed.after.to_string(),
            mapping_hash: compiled.ok().map(|feed| feed.mapping_hash),
            file: feed.file.as_deref().unwrap_or(main_file),
        }
    }

    fn cells(self) -> [String; 8] {
        let format = serde_json::to_value(self.format).unwrap_or_default();
        [
            self.name.to_owned(),
            self.r#match.to_owned(),
            format.as_str().unwrap_or_default().to_owned(),
            self.owner.unwrap_or("-").to_owned(),
            if self.enabled { "yes" } else { "no" }.to_owned(),
            self.after,
            self.mapping_hash.unwrap_or_else(|| "-".to_owned()),
            self.file.to_owned(),
        ]
    }
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(heading: [String; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn find(config: &Config, object: &ObjectRef) -> Result<(), Failure> {
    let unusable = |error| Failure::usage(anyhow::Error::new(error).context("use the feeds"));
    let router = Router::new(config).map_err(unusable)?;
    let Some(index) = router.find(object) else {
        say(format_args!(
            "no feed takes {object}: {}",
            why_none(config, object)?
        ))?;
        return Err(Failure::Findings);
    };
    let feed = &config.feeds[index];
    let template = KeyTemplate::parse(&config.output.key)
        .map_err(|error| Failure::usage(anyhow!(error).context("read output.key")))?;
    let key = template.expand(object, &feed.name);
    let key = match config.output.layout {
        crate::config::Layout::Mirror => key,
        crate::config::Layout::Versioned => format!("{key}/<etag>-<event id>.json"),
    };
    say(format_args!(
        "{} takes {object}\noutput: s3://{}/{key}",
        feed.label(),
        config.output.bucket
    ))
}

/// The first reason there is.
fn why_none(config: &Config, object: &ObjectRef) -> Result<String, Failure> {
    let unusable = |error| Failure::usage(anyhow::Error::new(error).context("use the feeds"));
    let excludes = Excludes::new(&config.intake.exclude).map_err(unusable)?;
    if let Some(index) = excludes.find(object) {
        let glob = &config.intake.exclude[index];
        return Ok(format!("intake.exclude has {glob:?}"));
    }
    let takes =
        |feed: &&Feed| FeedMatch::parse(&feed.r#match).is_ok_and(|parsed| parsed.takes(object));
    if let Some(feed) = config.feeds.iter().find(takes) {
        return Ok(format!(
            "{} would, and is off (enabled = false)",
            feed.label()
        ));
    }
    Ok(match config.input_buckets().contains(object.bucket()) {
        true => format!(
            "no match of a feed of the bucket {} fits the key",
            object.bucket()
        ),
        false => format!("no feed reads the bucket {}", object.bucket()),
    })
}
