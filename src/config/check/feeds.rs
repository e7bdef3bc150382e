//! Findings about `[[feeds]]`, and about `intake.exclude`, which takes keys from all of them.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::exclude;
use crate::config::matcher::{FeedMatch, ends_of_folders};
use crate::config::template::KeyTemplate;
use crate::config::{Config, Feed};
use crate::failure::chain;
use crate::feed::{Limits, Plan};

use super::outputs;
use super::prefixes::Prefixes;
use super::{Finding, after};

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    if config.feeds.is_empty() {
        findings.push(Finding::error("feeds: there is none; each partner's feed is a [[feeds]] table with a name and a match"));
    } else if config.feeds.iter().all(|feed| !feed.enabled) {
        findings.push(Finding::warning(
            "feeds: all of them are off (enabled = false), so every object is ignored",
        ));
    }
    check_names(&config.feeds, findings);
    check_pauses(&config.feeds, findings);
    check_mappings(&config.feeds, &config.convert.limits, findings);
    let matches = parse_matches(&config.feeds, findings);
    let (used, off): (Vec<_>, Vec<_>) = matches.iter().partition(|parsed| parsed.feed.enabled);
    check_shadowed(&used, findings);
    check_off(&off, &used, findings);
    check_excluded(config, &used, findings);
    match KeyTemplate::parse(&config.output.key) {
        Ok(template) => {
            outputs::check(config, &template, &used, findings);
            after::check(config, &template, &used, findings);
        }
        Err(error) => findings.push(Finding::error(format!(
            "output.key: {:?}: {error}",
            config.output.key
        ))),
    }
}

/// A feed whose `match` can be read.
pub(super) struct Parsed<'a> {
    /// Its number: the order in which feeds are tried.
    pub index: usize,
    pub feed: &'a Feed,
    pub source: FeedMatch,
}

/// A pause this short would be over again and again between the files of one delivery.
const LEAST_PAUSE: Duration = Duration::from_secs(60);

fn check_pauses(feeds: &[Feed], findings: &mut Vec<Finding>) {
    let is_short = |feed: &&Feed| feed.expect_every.is_some_and(|pause| pause < LEAST_PAUSE);
    for feed in feeds.iter().filter(is_short) {
        findings.push(Finding::error(format!(
            "{}: expect_every is shorter than a minute, so the feed would be missed all the time; say how often its partner delivers, or leave it out",
            feed.label()
        )));
    }
}

fn check_names(feeds: &[Feed], findings: &mut Vec<Finding>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut seen: HashMap<&str, &Feed> = HashMap::new();
    for (index, feed) in feeds.iter().enumerate() {
        let name = feed.name.as_str();
        if name.is_empty() {
            let file = feed.file.iter().map(|file| format!(" ({file})"));
            let file: String = file.collect();
            findings.push(Finding::error(format!(
                "feeds[{index}]{file}: its name is empty"
            )));
        } else if !name.chars().all(legal) {
            findings.push(Finding::error(format!(
                "{}: expected letters, digits, dots, underscores and hyphens in the name",
                feed.label()
            )));
        } else if let Some(first) = seen.get(name) {
            findings.push(Finding::error(match &first.file {
                Some(file) => format!(
                    "{}: there is another of this name in {file}; every feed needs its own",
                    feed.label()
                ),
                None => format!("{}: there are two of this name", feed.label()),
            }));
        } else {
            seen.insert(name, feed);
        }
    }
}

/// A mapping that is not in use stops nothing.
fn check_mappings(feeds: &[Feed], limits: &Limits, findings: &mut Vec<Finding>) {
    for feed in feeds {
        let cases = feed.cases.values().map(|case| (&case.jq, &case.jq_file));
        let mut programs = cases.chain([(&feed.jq, &feed.jq_file)]);
        if programs.any(|(jq, file)| jq.is_some() && file.is_some()) {
            let message = format!("{}: jq and jq_file are both set; one must go", feed.label());
            findings.push(Finding::error(message));
        }
        if let Err(error) = Plan::compile(&feed.spec(), limits.clone()) {
            let message = format!("{}: {}", feed.label(), chain(&error));
            findings.push(match feed.enabled {
                true => Finding::error(message),
                false => Finding::warning(format!("{message} (it is off, so this stops nothing)")),
            });
        }
    }
}

fn parse_matches<'a>(feeds: &'a [Feed], findings: &mut Vec<Finding>) -> Vec<Parsed<'a>> {
    let mut matches = Vec::new();
    for (index, feed) in feeds.iter().enumerate() {
        match FeedMatch::parse(&feed.r#match) {
            Ok(source) => matches.push(Parsed {
                index,
                feed,
                source,
            }),
            Err(error) => findings.push(Finding::error(format!(
                "{}: match: {}",
                feed.label(),
                chain(&error)
            ))),
        }
    }
    matches
}

/// Each feed is compared with equal globs and with the folders above it, not with every other feed.
fn check_shadowed(matches: &[&Parsed], findings: &mut Vec<Finding>) {
    let mut globs: HashMap<(&str, &str), &Parsed> = HashMap::new();
    let mut folders: HashMap<(&str, &str), &Parsed> = HashMap::new();
    for later in matches {
        let (bucket, prefix) = (later.source.bucket(), later.source.prefix());
        let equal = globs.get(&(bucket, later.source.glob()));
        let above =
            ends_of_folders(prefix).filter_map(|end| folders.get(&(bucket, &prefix[..end])));
        if let Some(first) = equal
            .into_iter()
            .chain(above)
            .min_by_key(|first| first.index)
        {
            findings.push(Finding::warning(format!(
                "{}: never gets an object, {} before it takes them all ({} covers {}); put it first",
                later.feed.label(),
                first.feed.label(),
                first.feed.r#match,
                later.feed.r#match
            )));
        }
        globs.entry((bucket, later.source.glob())).or_insert(later);
        if let Some(folder) = later.source.whole_folder() {
            folders.entry((bucket, folder)).or_insert(later);
        }
    }
}

/// What a feed that is off would have taken goes to the next one that fits, and another mapping is not what was meant.
fn check_off(off: &[&Parsed], used: &[&Parsed], findings: &mut Vec<Finding>) {
    let mut prefixes = Prefixes::default();
    for parsed in used {
        prefixes.insert(parsed.source.prefix(), *parsed);
    }
    for parsed in off {
        let takers = prefixes.related(parsed.source.prefix());
        let next = takers
            .filter(|used| used.index > parsed.index && used.source.may_overlap(&parsed.source))
            .min_by_key(|used| used.index);
        if let Some(next) = next {
            findings.push(Finding::warning(format!(
                "{}: is off, and {} may take its objects ({} for {}), with another mapping; exclude their keys by intake.exclude if they must wait",
                parsed.feed.label(),
                next.feed.label(),
                next.feed.r#match,
                parsed.feed.r#match
            )));
        }
    }
}

fn check_excluded(config: &Config, used: &[&Parsed], findings: &mut Vec<Finding>) {
    for glob in &config.intake.exclude {
        if let Some(problem) = problem_of_exclude(glob) {
            findings.push(problem);
            continue;
        }
        for parsed in used
            .iter()
            .filter(|parsed| exclude::covers(glob, &parsed.source))
        {
            findings.push(Finding::warning(format!(
                "{}: never gets an object, intake.exclude has {glob:?}, which covers {}",
                parsed.feed.label(),
                parsed.feed.r#match
            )));
        }
    }
}

fn problem_of_exclude(glob: &str) -> Option<Finding> {
    if glob.is_empty() {
        return Some(Finding::error("intake.exclude: a glob in it is empty"));
    }
    if glob.starts_with("s3://") {
        return Some(Finding::error(format!(
            "intake.exclude: {glob:?} is a URL; expected a glob of keys, it holds in every bucket"
        )));
    }
    if let Err(error) = exclude::parse(glob) {
        return Some(Finding::error(format!("intake.exclude: {}", chain(&error))));
    }
    if glob.ends_with('/') {
        return Some(Finding::warning(format!(
            "intake.exclude: {glob:?} is about the folder's marker only; {:?} excludes what is in it",
            format!("{glob}**")
        )));
    }
    glob.starts_with('/').then(|| {
        Finding::warning(format!(
            "intake.exclude: {glob:?} begins with a slash, as hardly any key does; leave it out"
        ))
    })
}
