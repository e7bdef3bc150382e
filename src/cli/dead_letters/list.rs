//! `feedmill dead-letters list`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal},
};

use clap::Args;
use serde::Serialize;

use super::letters::{self, Entry, Filter, Wanted};
use crate::{
    cli::{
        say,
        text::{escaped, printable},
    },
    config::Config,
    failure::Failure,
    topics::Millis,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// Those that were closed, too, as far as the topic still has them (30 days)
    #[arg(long)]
    all: bool,
    /// Count by reason and feed, instead of listing
    #[arg(long)]
    group: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let wanted = match arguments.all {
        true => Wanted::All,
        false => Wanted::Open,
    };
    let entries = letters::read(config, wanted, |letter| arguments.filter.takes(letter))?;
    let text = match (arguments.group, arguments.json) {
        (true, true) => json_lines(&groups(&entries))?,
        (true, false) => group_table(&groups(&entries)),
        (false, true) => json_lines(&entries)?,
        (false, false) => table(config, &entries),
    };
    match text.is_empty() {
        // For programs, nothing is nothing.
        true if arguments.json || !io::stdout().is_terminal() => Ok(()),
        true => say("no dead letters"),
        false => say(text.trim_end()),
    }
}

fn json_lines<T: Serialize>(values: &[T]) -> Result<String, Failure> {
    let mut text = String::new();
    for value in values {
        let line = serde_json::to_string(value)
            .map_err(|error| Failure::bug("write a dead letter as JSON", error))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn table(config: &Config, entries: &[Entry]) -> String {
    let mut text = String::new();
    if io::stdout().is_terminal() && !entries.is_empty() {
        push(
            &mut text,
            &row(
                "FAILED", "REASON", "FEED", "TRIES", "STATUS", "ID", "OBJECT",
            ),
        );
    }
    for entry in entries {
        let letter = &entry.letter;
        let status = match entry {
            entry if !entry.is_open() => "closed",
            entry if entry.is_parked(config) => "parked",
            _ => "open",
        };
        let object = format!("s3://{}/{}  {}", letter.bucket, letter.key, letter.message);
        let line = row(
            &letter.last_failed_at.to_string(),
            &letter.reason,
            &escaped(letter.feed.as_deref().unwrap_or("-")),
            &letter.attempts.to_string(),
            status,
            &letter.id,
            &printable(&object),
        );
        push(&mut text, &line);
    }
    text
}

fn row(
    failed: &str,
    reason: &str,
    feed: &str,
    tries: &str,
    status: &str,
    id: &str,
    object: &str,
) -> String {
    format!("{failed:24}  {reason:22}  {feed:16}  {tries:>5}  {status:6}  {id:36}  {object}")
}

/// Letters with the same reason and feed.
#[derive(Debug, PartialEq, Serialize)]
struct Group<'a> {
    count: usize,
    reason: &'a str,
    feed: Option<&'a str>,
    oldest: Millis,
    newest: Millis,
    /// The object of the newest.
    example: String,
}

/// The largest first.
fn groups(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(&str, Option<&str>), Group<'_>> = BTreeMap::new();
    for Entry { letter, .. } in entries {
        let key = (letter.reason.as_str(), letter.feed.as_deref());
        let group = groups.entry(key).or_insert_with(|| Group {
            count: 0,
            reason: key.0,
            feed: key.1,
            oldest: letter.last_failed_at,
            newest: letter.last_failed_at,
            example: String::new(),
        });
        // They come in the order of their times.
        group.count += 1;
        group.newest = letter.last_failed_at;
        group.example = format!("s3://{}/{}", letter.bucket, letter.key);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

fn group_table(groups: &[Group<'_>]) -> String {
    let mut text = String::new();
    if io::stdout().is_terminal() && !groups.is_empty() {
        push(
            &mut text,
            &group_row("COUNT", "REASON", "FEED", "OLDEST", "NEWEST", "EXAMPLE"),
        );
    }
    for group in groups {
        let line = group_row(
            &group.count.to_string(),
            group.reason,
            &escaped(group.feed.unwrap_or("-")),
            &group.oldest.to_string(),
            &group.newest.to_string(),
            &printable(&group.example),
        );
        push(&mut text, &line);
    }
    text
}

fn group_row(
    count: &str,
    reason: &str,
    feed: &str,
    oldest: &str,
    newest: &str,
    example: &str,
) -> String {
    format!("{count:>7}  {reason:22}  {feed:16}  {oldest:24}  {newest:24}  {example}")
}

fn push(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{line}");
}
