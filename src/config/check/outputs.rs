//! Findings about where outputs go: two sources that would share one, and outputs that feedmill would read again.
//!
//! Feeds are compared only with those whose outputs may begin alike, so that thousands of partners are checked in no time.

use std::collections::HashMap;

use crate::config::matcher::one_ends_the_other;
use crate::config::template::{KeyTemplate, REJECTED_SUFFIX};
use crate::config::{Config, Feed, Layout};
use crate::feed::MaxRejected;

use super::Finding;
use super::feeds::Parsed;
use super::prefixes::Prefixes;

/// What outputs end with in layout `versioned`, whatever the template.
pub(super) const VERSIONED_SUFFIX: &str = ".json";

/// What is known of the keys of one feed's outputs without seeing a source.
struct Outputs<'a> {
    source: &'a Parsed<'a>,
    /// What the outputs' keys begin with: what the template puts before the source's key, and what that begins with.
    prefix: String,
    /// From the template, behind the source's key.
    after: String,
    /// The same number, the same bucket and the same template around the key: no two keys give one output.
    kind: usize,
}

pub(super) fn check(
    config: &Config,
    template: &KeyTemplate,
    matches: &[&Parsed],
    findings: &mut Vec<Finding>,
) {
    let outputs = outputs(template, matches);
    if config.output.layout == Layout::Mirror {
        check_collisions(config, &outputs, findings);
    }
    check_loops(config, &outputs, matches, findings);
}

fn outputs<'a>(template: &KeyTemplate, matches: &[&'a Parsed]) -> Vec<Outputs<'a>> {
    let mut kinds = HashMap::new();
    let outputs = matches.iter().map(|parsed| {
        let bucket = parsed.source.bucket();
        let (before, after) = template.around_key(bucket, &parsed.feed.name);
        let prefix = format!("{before}{}", parsed.source.prefix());
        let next = kinds.len();
        let kind = *kinds.entry((bucket, before, after.clone())).or_insert(next);
        Outputs {
            source: parsed,
            prefix,
            after,
            kind,
        }
    });
    outputs.collect()
}

fn check_collisions(config: &Config, outputs: &[Outputs], findings: &mut Vec<Finding>) {
    // One kind is the usual case: one bucket, and a template without {feed}.
    if outputs.iter().all(|outputs| outputs.kind == 0) {
        return;
    }
    let mut earlier: Prefixes<&Outputs> = Prefixes::default();
    for later in outputs {
        let same_prefix = earlier.related(&later.prefix);
        let collides = same_prefix
            .filter(|earlier| can_collide(earlier, later))
            .min_by_key(|earlier| earlier.source.index);
        if let Some(first) = collides {
            findings.push(collision(&config.output.key, first, later));
        }
        earlier.insert(&later.prefix, later);
    }
}

/// Whether two sources, one of each feed, may get the same output; their outputs begin alike. `before + key + after` is the
/// same for some pair of keys unless the ends differ; the globs narrow the beginning.
fn can_collide(a: &Outputs, b: &Outputs) -> bool {
    a.kind != b.kind && one_ends_the_other(&a.after, &b.after)
}

fn check_loops(
    config: &Config,
    outputs: &[Outputs],
    matches: &[&Parsed],
    findings: &mut Vec<Finding>,
) {
    let mut readers = Prefixes::default();
    let in_output_bucket = |parsed: &&&Parsed| parsed.source.bucket() == config.output.bucket;
    for reader in matches.iter().filter(in_output_bucket) {
        readers.insert(reader.source.prefix(), *reader);
    }
    for outputs in outputs {
        let suffix = match config.output.layout {
            Layout::Mirror => outputs.after.as_str(),
            Layout::Versioned => VERSIONED_SUFFIX,
        };
        let report = format!("{suffix}{REJECTED_SUFFIX}");
        let mut suffixes = vec![suffix];
        if outputs.source.feed.max_rejected != MaxRejected::default() {
            suffixes.push(&report);
        }
        let reads = |reader: &&Parsed| {
            suffixes
                .iter()
                .any(|suffix| one_ends_the_other(suffix, reader.source.suffix()))
        };
        // Certain in its no, careful in its yes.
        let reader = readers
            .related(&outputs.prefix)
            .filter(reads)
            .min_by_key(|reader| reader.index);
        if let Some(reader) = reader {
            findings.push(loops(config, outputs, reader.feed));
        }
    }
}

fn collision(template: &str, earlier: &Outputs, later: &Outputs) -> Finding {
    let (first, second) = (earlier.source.source.bucket(), later.source.source.bucket());
    let (earlier, later) = (earlier.source.feed.label(), later.source.feed.label());
    Finding::error(match first == second {
        true => format!(
            "output.key: with {template:?} a source of {earlier} and one of {later} can get the same output; part {{feed}} from {{key}} by a slash, as in \"{{feed}}/{{key}}.json\""
        ),
        false => format!(
            "output.key: with {template:?} sources of the buckets {first} ({earlier}) and {second} ({later}) can get the same output; put the bucket in, as in \"{{bucket}}/{{key}}.json\""
        ),
    })
}

fn loops(config: &Config, outputs: &Outputs, reader: &Feed) -> Finding {
    Finding::error(format!(
        "{}: its match {} can take feedmill's own outputs for sources: those of {} go to s3://{}/{}...; write to another bucket, or under a prefix that no feed matches",
        reader.label(),
        reader.r#match,
        outputs.source.feed.label(),
        config.output.bucket,
        outputs.prefix
    ))
}
