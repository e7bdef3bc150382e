//! `feedmill dead-letters show ID`.

use std::{fmt::Write as _, io::BufReader};

use anyhow::anyhow;
use aws_sdk_s3::Client;
use clap::Args;
use tokio::task::spawn_blocking;

use super::{
    fetch,
    letters::{self, Entry, Wanted},
};
use crate::{
    cli::{on_runtime, say, text::escaped},
    config::{self, Config},
    failure::Failure,
    feed::{self, Around, Plan},
    object::ETag,
    s3::{Accounts, S3Error},
    topics::DeadLetter,
};

/// How much of the source is shown on each side of the place, in bytes.
const CONTEXT_BYTES: u64 = 400;

/// Read from the beginning of a file to see whether it is packed, in bytes.
const HEAD_BYTES: u64 = 4 << 10;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Id of the letter, or the beginning of one
    id: String,
    /// Fetch what stands at the place from the bucket, in the version that failed, and mark it
    #[arg(long)]
    source: bool,
    /// As one JSON object
    #[arg(long, conflicts_with = "source")]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let entry = one(config, &arguments.id)?;
    if arguments.json {
        return say(serde_json::to_string(&entry)
            .map_err(|error| Failure::bug("write a dead letter as JSON", error))?);
    }
    say(told(config, &entry).trim_end())?;
    if !arguments.source {
        return Ok(());
    }
    say("")?;
    on_runtime(async {
        source(config, &entry.letter)
            .await
            .map_err(|error| Failure::service(error.context("read the source")))
            .and_then(|text| say(text.trim_end()))
    })
}

/// The letter with this id, or the only one whose id begins so.
pub fn one(config: &Config, id: &str) -> Result<Entry, Failure> {
    let mut found = letters::read(config, Wanted::All, |letter| letter.id.starts_with(id))?;
    match (found.len(), found.pop()) {
        (1, Some(entry)) => Ok(entry),
        (0, _) => Err(Failure::usage(anyhow!(
            "find the dead letter {id:?}; `feedmill dead-letters list --all` shows what there is"
        ))),
        (count, _) => Err(Failure::usage(anyhow!(
            "tell which dead letter is meant: {count} ids begin with {id:?}"
        ))),
    }
}

fn told(config: &Config, entry: &Entry) -> String {
    let letter = &entry.letter;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name:13} {}", escaped(&value));
        }
    };
    let number = |value: Option<i64>| value.map(|value| value.to_string());
    line("letter", Some(letter.id.clone()));
    line(
        "status",
        Some(match entry.closed_at {
            Some(at) => format!("closed, or replaced by another letter, at {at}"),
            None if entry.is_parked(config) => format!(
                "open, and parked: it was replayed {} times; `replay --parked` takes it all the same",
                letter.replays
            ),
            None => "open".to_owned(),
        }),
    );
    line(
        "object",
        Some(format!("s3://{}/{}", letter.bucket, letter.key)),
    );
    line(
        "etag",
        letter.etag.as_ref().map(|etag| etag.as_str().to_owned()),
    );
    line("version", letter.version_id.clone());
    line("size", number(letter.size));
    line("feed", letter.feed.clone());
    line("mapping", letter.mapping_hash.clone());
    line("stage", Some(letter.stage.clone()));
    line("reason", Some(letter.reason.clone()));
    line("message", Some(letter.message.clone()));
    line("record", number(letter.record));
    line("line", number(letter.line));
    line("column", number(letter.column));
    line("byte", number(letter.byte_offset));
    line("path", letter.path.clone());
    line("excerpt", letter.excerpt.clone());
    line("attempts", Some(letter.attempts.to_string()));
    line("replays", Some(letter.replays.to_string()));
    line("first failed", Some(letter.first_failed_at.to_string()));
    line("last failed", Some(letter.last_failed_at.to_string()));
    line(
        "event",
        Some(format!(
            "partition {}, offset {}",
            letter.event_partition, letter.event_offset
        )),
    );
    line("worker", Some(letter.worker.clone()));
    line("trace", letter.trace_parent.clone());
    text
}

/// What stands around the place, by a request for these bytes alone.
async fn source(config: &Config, letter: &DeadLetter) -> anyhow::Result<String> {
    let Some(place) = letter
        .byte_offset
        .and_then(|place| u64::try_from(place).ok())
    else {
        return Ok("the letter names no place in the file".to_owned());
    };
    let s3 = &Accounts::new(&config.s3).await.of(&letter.bucket).clone();
    let fetch = async |from: u64, bytes: u64| {
        let request = s3
            .get_object()
            .bucket(&letter.bucket)
            .key(&letter.key)
            .range(format!("bytes={from}-{}", from + bytes - 1))
            .set_version_id(letter.version_id.clone())
            .set_if_match(letter.etag.as_ref().map(ETag::quoted));
        let response = request.send().await;
        let body = response
            .map_err(|error| S3Error::new("GetObject", &error))?
            .body;
        let bytes = body.collect().await;
        bytes
            .map(|bytes| bytes.into_bytes())
            .map_err(|error| S3Error::unavailable("GetObject", error))
    };
    let head = fetch(0, HEAD_BYTES).await?;
    if feed::is_packed(&head) || !is_utf8(&head) || has_encoding(config, letter) {
        return decoded(config, letter, s3, place).await;
    }
    let from = place.saturating_sub(CONTEXT_BYTES);
    let around = fetch(from, 2 * CONTEXT_BYTES).await?;
    let split = usize::try_from(place - from)
        .unwrap_or(usize::MAX)
        .min(around.len());
    Ok(marked(&around[..split], &around[split..]))
}

/// Whether the file's beginning is, and says, that it is in UTF-8: then its bytes are those of the text.
fn is_utf8(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // Cut inside a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let declaration = text.split_once("?>").map_or("", |(declared, _)| declared);
    let declaration = declaration.to_ascii_lowercase();
    !text.contains('\0') && (!declaration.contains("encoding") || declaration.contains("utf-8"))
}

/// Whether the letter's feed reads files in another encoding than UTF-8.
fn has_encoding(config: &Config, letter: &DeadLetter) -> bool {
    feed_of(config, letter).is_some_and(|feed| feed.encoding.is_some())
}

fn feed_of<'a>(config: &'a Config, letter: &DeadLetter) -> Option<&'a config::Feed> {
    let name = letter.feed.as_deref()?;
    config.feeds.iter().find(|feed| feed.name == name)
}

/// The place is one in the text: what is compressed, or in another encoding, is read as a conversion reads it.
async fn decoded(
    config: &Config,
    letter: &DeadLetter,
    s3: &Client,
    place: u64,
) -> anyhow::Result<String> {
    let spec = feed_of(config, letter).map(config::Feed::spec);
    let plan = Plan::compile(&spec.unwrap_or_default(), config.convert.limits.clone())?;
    let fetched = fetch::fetch(s3, letter).await?;
    let path = letter.path.clone();
    let context = usize::try_from(CONTEXT_BYTES).unwrap_or(usize::MAX);
    let around = spawn_blocking(move || {
        let input = BufReader::new(fetched.file);
        feed::text_around(&plan, input, path.as_deref(), place, context)
    });
    Ok(match around.await?? {
        Some(Around { before, after }) => marked(&before, &after),
        None => "the entry that the path names is not in the zip".to_owned(),
    })
}

/// The lines around a place, with a mark under it.
fn marked(before: &[u8], after: &[u8]) -> String {
    let (before, after) = (
        String::from_utf8_lossy(before),
        String::from_utf8_lossy(after),
    );
    let (lines_before, begun) = before.rsplit_once('\n').unwrap_or(("", &before));
    let (rest, lines_after) = after.split_once('\n').unwrap_or((&after, ""));
    let shown = |lines: &str| -> String {
        let lines = lines.lines().map(|line| format!("  {}\n", escaped(line)));
        lines.collect()
    };
    let begun = escaped(begun);
    format!(
        "{}  {begun}{}\n  {:>width$}\n{}",
        shown(lines_before),
        escaped(rest),
        "^",
        shown(lines_after),
        width = begun.chars().count() + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked_in_its_line() {
        assert_eq!(
            marked(b"<items>\n <item", b"></itm>\n</items>\n"),
            "  <items>\n   <item></itm>\n        ^\n  </items>\n"
        );
        assert_eq!(marked(b"", b""), "  \n  ^\n");
    }
}
