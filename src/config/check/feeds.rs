//! Findings about `[[feeds]]` and where their outputs go.

use std::collections::HashSet;

use crate::config::matcher::{FeedMatch, Router};
use crate::config::template::KeyTemplate;
use crate::config::{Config, Feed, Layout};
use crate::feed::{Limits, Plan};

use super::Finding;

/// What outputs end with in layout `versioned`, whatever the template.
const VERSIONED_SUFFIX: &str = ".json";

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    if config.feeds.is_empty() {
        findings.push(Finding::error("feeds: there is none; each partner's feed is a [[feeds]] table with a name and a match"));
    }
    check_names(&config.feeds, findings);
    check_mappings(&config.feeds, &config.convert.limits, findings);
    let matches = parse_matches(&config.feeds, findings);
    check_shadowed(&matches, findings);
    check_router(config, &matches, findings);
    match KeyTemplate::parse(&config.output.key) {
        Ok(template) => check_outputs(config, &template, &matches, findings),
        Err(error) => findings.push(Finding::error(format!(
            "output.key: {:?}: {error}",
            config.output.key
        ))),
    }
}

fn check_names(feeds: &[Feed], findings: &mut Vec<Finding>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut seen = HashSet::new();
    for (index, Feed { name, .. }) in feeds.iter().enumerate() {
        if name.is_empty() {
            findings.push(Finding::error(format!("feeds[{index}]: its name is empty")));
        } else if !name.chars().all(legal) {
            findings.push(Finding::error(format!(
                "feed {name:?}: expected letters, digits, dots, underscores and hyphens in the name"
            )));
        } else if !seen.insert(name) {
            findings.push(Finding::error(format!(
                "feed {name:?}: there are two of this name"
            )));
        }
    }
}

fn check_mappings(feeds: &[Feed], limits: &Limits, findings: &mut Vec<Finding>) {
    for feed in feeds {
        if let Err(error) = Plan::compile(&feed.spec(), limits.clone()) {
            findings.push(Finding::error(format!(
                "feed {:?}: {}",
                feed.name,
                chain(&error)
            )));
        }
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn parse_matches<'a>(feeds: &'a [Feed], findings: &mut Vec<Finding>) -> Vec<(&'a Feed, FeedMatch)> {
    let mut matches = Vec::new();
    for feed in feeds {
        match FeedMatch::parse(&feed.r#match) {
            Ok(parsed) => matches.push((feed, parsed)),
            Err(error) => findings.push(Finding::error(format!(
                "feed {:?}: match: {}",
                feed.name,
                chain(&error)
            ))),
        }
    }
    matches
}

fn check_shadowed(matches: &[(&Feed, FeedMatch)], findings: &mut Vec<Finding>) {
    for (index, (feed, later)) in matches.iter().enumerate() {
        if let Some((first, _)) = matches[..index]
            .iter()
            .find(|(_, earlier)| earlier.covers(later))
        {
            findings.push(Finding::warning(format!(
                "feed {:?}: never gets an object, feed {:?} before it takes them all ({} covers {}); put it first",
                feed.name, first.name, first.r#match, feed.r#match
            )));
        }
    }
}

/// Globs that are fine one by one can be too much for one bucket.
fn check_router(config: &Config, matches: &[(&Feed, FeedMatch)], findings: &mut Vec<Finding>) {
    let all_parsed = matches.len() == config.feeds.len();
    if all_parsed && let Err(error) = Router::new(&config.feeds) {
        findings.push(Finding::error(format!("feeds: {}", chain(&error))));
    }
}

/// What is known of the keys of one feed's outputs without seeing a source.
struct Outputs<'a> {
    feed: &'a Feed,
    source: &'a FeedMatch,
    /// From the template, around the source's key.
    before: String,
    after: String,
}

impl Outputs<'_> {
    fn prefix(&self) -> String {
        format!("{}{}", self.before, self.source.prefix())
    }
}

fn check_outputs(
    config: &Config,
    template: &KeyTemplate,
    matches: &[(&Feed, FeedMatch)],
    findings: &mut Vec<Finding>,
) {
    let outputs: Vec<Outputs> = matches
        .iter()
        .map(|(feed, source)| {
            let (before, after) = template.around_key(source.bucket(), &feed.name);
            Outputs {
                feed,
                source,
                before,
                after,
            }
        })
        .collect();
    for (index, later) in outputs.iter().enumerate() {
        if config.output.layout == Layout::Mirror
            && let Some(earlier) = outputs[..index]
                .iter()
                .find(|earlier| can_collide(earlier, later))
        {
            findings.push(collision(&config.output.key, earlier, later));
        }
        if let Some((reader, _)) = matches
            .iter()
            .find(|(_, reader)| can_read(config, reader, later))
        {
            findings.push(loops(config, later, reader));
        }
    }
}

/// Whether two sources, one of each feed, may get the same output. `before + key + after` is the same for some pair of
/// keys unless the ends differ; the globs narrow the beginning.
fn can_collide(a: &Outputs, b: &Outputs) -> bool {
    let same_source =
        a.source.bucket() == b.source.bucket() && a.before == b.before && a.after == b.after;
    !same_source
        && one_begins_the_other(&a.prefix(), &b.prefix())
        && one_ends_the_other(&a.after, &b.after)
}

/// Whether `reader` may take an output for a source. Certain in its no, careful in its yes.
fn can_read(config: &Config, reader: &FeedMatch, outputs: &Outputs) -> bool {
    let suffix = match config.output.layout {
        Layout::Mirror => outputs.after.as_str(),
        Layout::Versioned => VERSIONED_SUFFIX,
    };
    config.output.bucket == reader.bucket()
        && one_begins_the_other(&outputs.prefix(), reader.prefix())
        && one_ends_the_other(suffix, reader.suffix())
}

fn one_begins_the_other(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn one_ends_the_other(a: &str, b: &str) -> bool {
    a.ends_with(b) || b.ends_with(a)
}

fn collision(template: &str, earlier: &Outputs, later: &Outputs) -> Finding {
    let (first, second) = (earlier.source.bucket(), later.source.bucket());
    Finding::error(match first == second {
        true => format!(
            "output.key: with {template:?} a source of feed {:?} and one of feed {:?} can get the same output; part {{feed}} from {{key}} by a slash, as in \"{{feed}}/{{key}}.json\"",
            earlier.feed.name, later.feed.name
        ),
        false => format!(
            "output.key: with {template:?} sources of the buckets {first} (feed {:?}) and {second} (feed {:?}) can get the same output; put the bucket in, as in \"{{bucket}}/{{key}}.json\"",
            earlier.feed.name, later.feed.name
        ),
    })
}

fn loops(config: &Config, outputs: &Outputs, reader: &Feed) -> Finding {
    Finding::error(format!(
        "feed {:?}: its match {} can take feedmill's own outputs for sources: those of feed {:?} go to s3://{}/{}...; write to another bucket, or under a prefix that no feed matches",
        reader.name,
        reader.r#match,
        outputs.feed.name,
        config.output.bucket,
        outputs.prefix()
    ))
}
