//! Findings about `after`: sources that would be moved to where a feed takes them again, where an output or another source
//! stands, or where the server can't copy them.

use crate::config::exclude;
use crate::config::matcher::{FeedMatch, one_ends_the_other};
use crate::config::template::{KeyTemplate, REJECTED_SUFFIX};
use crate::config::{After, Config, Layout, Place};
use crate::s3;

use super::Finding;
use super::feeds::Parsed;
use super::outputs::VERSIONED_SUFFIX;
use super::prefixes::Prefixes;

/// The sources of a feed where they are moved to.
struct Moved<'a> {
    parsed: &'a Parsed<'a>,
    place: &'a Place,
    target: FeedMatch,
}

pub(super) fn check(
    config: &Config,
    template: &KeyTemplate,
    matches: &[&Parsed],
    findings: &mut Vec<Finding>,
) {
    check_unsafe(matches, findings);
    let moved: Vec<Moved> = matches.iter().filter_map(|parsed| moved(parsed)).collect();
    if moved.is_empty() {
        return;
    }
    check_accounts(config, &moved, findings);
    check_readers(config, matches, &moved, findings);
    check_outputs(config, template, matches, &moved, findings);
    check_collisions(&moved, findings);
}

fn moved<'a>(parsed: &'a Parsed<'a>) -> Option<Moved<'a>> {
    let After::Move(place) = &parsed.feed.after else {
        return None;
    };
    Some(Moved {
        parsed,
        place,
        target: parsed.source.moved(&place.bucket, &place.prefix)?,
    })
}

fn check_unsafe(matches: &[&Parsed], findings: &mut Vec<Finding>) {
    for parsed in matches.iter().filter(|parsed| parsed.feed.unsafe_delete) {
        let label = parsed.feed.label();
        findings.push(Finding::warning(match parsed.feed.after.removes() {
            true => format!(
                "{label}: unsafe_delete is on, so a file that a partner uploads in the moment of the deletion can be lost"
            ),
            false => format!(
                "{label}: unsafe_delete says nothing without after = \"delete\" or {{ move = ... }}"
            ),
        }));
    }
}

fn check_accounts(config: &Config, moved: &[Moved], findings: &mut Vec<Finding>) {
    for Moved { parsed, place, .. } in moved {
        let source = parsed.source.bucket();
        if !s3::can_copy(&config.s3, source, &place.bucket) {
            findings.push(Finding::error(format!(
                "{}: after: sources of {source} can't be moved to {place}: the two buckets have other endpoints or credentials (s3.buckets), and it is the server that copies",
                parsed.feed.label()
            )));
        }
    }
}

/// A source that was moved is a source no more.
fn check_readers(
    config: &Config,
    matches: &[&Parsed],
    moved: &[Moved],
    findings: &mut Vec<Finding>,
) {
    let mut readers = Prefixes::default();
    for reader in matches {
        readers.insert(reader.source.prefix(), *reader);
    }
    for Moved {
        parsed,
        place,
        target,
    } in moved
    {
        let excluded = (config.intake.exclude.iter()).any(|glob| exclude::covers(glob, target));
        let reader = readers
            .related(target.prefix())
            .filter(|reader| !excluded && reader.source.may_overlap(target))
            .filter(|reader| !reader.source.lies_above(target))
            .min_by_key(|reader| reader.index);
        if let Some(reader) = reader {
            findings.push(Finding::error(format!(
                "{}: after: sources that are moved to {place} can be taken for new ones by {} ({}); move them to another bucket, under a prefix that no feed matches, or exclude that by intake.exclude",
                parsed.feed.label(),
                reader.feed.label(),
                reader.feed.r#match
            )));
        }
    }
}

fn check_outputs(
    config: &Config,
    template: &KeyTemplate,
    matches: &[&Parsed],
    moved: &[Moved],
    findings: &mut Vec<Finding>,
) {
    let beside_outputs = |moved: &&Moved| moved.place.bucket == config.output.bucket;
    let mut beside = moved.iter().filter(beside_outputs).peekable();
    if beside.peek().is_none() {
        return;
    }
    let mut outputs = Prefixes::default();
    let keys: Vec<(String, String)> = matches
        .iter()
        .map(|parsed| {
            let (before, after) = template.around_key(parsed.source.bucket(), &parsed.feed.name);
            let suffix = match config.output.layout {
                Layout::Mirror => after,
                Layout::Versioned => VERSIONED_SUFFIX.to_owned(),
            };
            (before + parsed.source.prefix(), suffix)
        })
        .collect();
    for (prefix, suffix) in &keys {
        outputs.insert(prefix, suffix.as_str());
    }
    let replaces = |target: &FeedMatch, suffix: &str| {
        one_ends_the_other(target.suffix(), suffix)
            || one_ends_the_other(target.suffix(), &format!("{suffix}{REJECTED_SUFFIX}"))
    };
    for Moved {
        parsed,
        place,
        target,
    } in beside
    {
        let mut related = outputs.related(target.prefix());
        if related.any(|suffix| replaces(target, suffix)) {
            findings.push(Finding::error(format!(
                "{}: after: a source that is moved to {place} can replace an output; move it to another bucket, or under a prefix that no output has",
                parsed.feed.label()
            )));
        }
    }
}

/// Two sources may not be moved to one key.
fn check_collisions(moved: &[Moved], findings: &mut Vec<Finding>) {
    let mut earlier: Prefixes<&Moved> = Prefixes::default();
    for later in moved {
        let same_way = |other: &Moved| {
            (other.parsed.source.bucket(), other.place)
                == (later.parsed.source.bucket(), later.place)
        };
        let first = earlier
            .related(later.target.prefix())
            .filter(|other| !same_way(other) && other.target.may_overlap(&later.target))
            .min_by_key(|other| other.parsed.index);
        if let Some(first) = first {
            findings.push(Finding::error(format!(
                "{}: after: a source of it and one of {} can be moved to the same key under {}; give each its own prefix",
                later.parsed.feed.label(),
                first.parsed.feed.label(),
                later.place
            )));
        }
        earlier.insert(later.target.prefix(), later);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, check};

    /// The errors about feeds of `s3://in` that do this with their sources.
    fn errors(settings: &str, feeds: &[(&str, &str)]) -> Vec<String> {
        let feed = |(number, (matches, after)): (usize, &(&str, &str))| {
            format!("{{ name = 'f{number}', match = 's3://{matches}', after = {after} }}")
        };
        let feeds: Vec<String> = feeds.iter().enumerate().map(feed).collect();
        let text = format!(
            "kafka.brokers = ['k:9092']\noutput.bucket = 'out'\noutput.key = '{{bucket}}/{{key}}.json'\n{settings}\nfeeds = [{}]",
            feeds.join(", ")
        );
        let config: Config = toml::from_str(&text).unwrap();
        let errors = check(&config).into_iter().filter(super::Finding::is_error);
        errors.map(|finding| finding.message).collect()
    }

    #[track_caller]
    fn only(found: &[String], says: &str) {
        assert!(matches!(found, [one] if one.contains(says)), "{found:?}");
    }

    #[test]
    fn a_target_that_a_feed_takes_is_refused_unless_it_is_excluded() {
        let done = "{ move = 's3://in/done/' }";
        only(
            &errors("", &[("in/**", done)]),
            "can be taken for new ones by feed \"f0\"",
        );
        assert_eq!(
            errors("intake.exclude = ['done/**']", &[("in/**", done)]),
            [""; 0]
        );
        assert_eq!(errors("", &[("in/a/**", done)]), [""; 0]);
        assert_eq!(errors("", &[("in/*.xml", done)]), [""; 0]);
        only(
            &errors("", &[("in/a/*.xml", done), ("in/done/**/*.xml", "'keep'")]),
            "by feed \"f1\"",
        );
        assert_eq!(
            errors("", &[("in/a/*.xml", done), ("in/done/**/*.csv", "'keep'")]),
            [""; 0]
        );
        only(
            &errors("", &[("in/a/**", "{ move = 's3://in/' }")]),
            "by feed \"f0\"",
        );
    }

    #[test]
    fn two_sources_are_never_moved_to_one_key() {
        let to = "{ move = 's3://archive/' }";
        only(
            &errors("", &[("a/x/**", to), ("b/**", to)]),
            "can be moved to the same key",
        );
        assert_eq!(errors("", &[("a/x/**", to), ("a/y/**", to)]), [""; 0]);
        assert_eq!(
            errors(
                "",
                &[("a/**", to), ("b/**", "{ move = 's3://archive/b/b/' }")]
            )
            .len(),
            1
        );
        assert_eq!(
            errors(
                "",
                &[("a/x/**", to), ("b/**", "{ move = 's3://archive/b/' }")]
            ),
            [""; 0]
        );
    }

    #[test]
    fn a_moved_source_never_takes_an_outputs_place() {
        only(
            &errors("", &[("in/**", "{ move = 's3://out/in/' }")]),
            "can replace an output",
        );
        assert_eq!(
            errors("", &[("in/**", "{ move = 's3://out/sources/' }")]),
            [""; 0]
        );
        assert_eq!(
            errors("", &[("in/*.xml", "{ move = 's3://out/in/' }")]),
            [""; 0]
        );
    }

    #[test]
    fn the_server_copies_so_both_buckets_must_be_on_it() {
        let elsewhere = "s3.buckets.archive.endpoint = 'http://other.example.com'";
        let to = "{ move = 's3://archive/' }";
        only(
            &errors(elsewhere, &[("in/**", to)]),
            "other endpoints or credentials",
        );
        assert_eq!(
            errors("s3.buckets.archive.region = 'eu-2'", &[("in/**", to)]),
            [""; 0]
        );
        assert_eq!(errors(elsewhere, &[("in/**", "'delete'")]).len(), 0);
    }
}
