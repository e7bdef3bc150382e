//! `feedmill dead-letters replay` and `discard`: events that ask convert to do something about open letters.
//!
//! An event counts only while its letter is open, otherwise it is an ordinary one, and a version that is settled is not converted
//! twice: so an event that is sent again is harmless, and an idempotent producer is all that is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::letters::{self, Entry, Filter, Wanted};
use crate::{
    cli::{confirm::confirm, on_runtime, progress::watched, say, text::printable},
    config::Config,
    failure::Failure,
    intake::publish::{PublishError, Publisher},
    object::{ObjectRef, ObjectRefError},
    telemetry::metrics::Metrics,
    topics::{Attempt, DeadLetter, Intent, MESSAGE_BYTES, Millis, ObjectEvent, Topics, cut},
};

/// Above so many letters, a person is asked first.
const ASK_ABOVE: usize = 100;

/// Events on their way to Kafka at once.
const CONCURRENT: usize = 100;

/// A replay that was interrupted longer ago begins anew.
const RESUMED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Which open letters.
#[derive(Debug, Args)]
pub struct Selection {
    /// Ids of letters, or the beginnings of ids
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All that are open
    #[arg(long)]
    all: bool,
    /// Say which letters are meant, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, however many there are
    #[arg(long)]
    yes: bool,
    /// Events a second [default: as fast as Kafka takes them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// Those, too, that were replayed dead_letters.max_replays times
    #[arg(long)]
    parked: bool,
    /// Take those, too, that failed again since the same command was interrupted
    #[arg(long)]
    anew: bool,
}

#[derive(Debug, Args)]
pub struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Why, for those who read the results
    #[arg(long, value_name = "TEXT")]
    why: String,
}

pub fn replay(config: &Config, arguments: &Replay) -> Result<(), Failure> {
    let selection = &arguments.selection;
    let bookmark = Bookmark::of_this_command(config);
    let begun = match arguments.anew {
        true => None,
        false => bookmark.read(),
    };
    if let Some(begun) = begun {
        say(format_args!(
            "going on with the replay that was begun at {begun}; what failed again since then is left out (--anew takes it)"
        ))?;
    }
    let open = selection.letters(config)?;
    // A letter that was never replayed is not of its doing.
    let failed_before = |Entry { letter, .. }: &Entry| {
        letter.replays == 0 || begun.is_none_or(|begun| letter.last_failed_at < begun)
    };
    let (parked, mut open): (Vec<_>, Vec<_>) = open
        .into_iter()
        .filter(failed_before)
        .partition(|entry| entry.is_parked(config) && !arguments.parked);
    if !parked.is_empty() {
        say(format_args!(
            "{} parked: replayed {} times or more; --parked takes them all the same",
            parked.len(),
            config.dead_letters.max_replays
        ))?;
    }
    open.retain(Entry::is_open);
    if open.is_empty() {
        // It was at its end already; the next time is a replay of its own.
        bookmark.remove();
    }
    if !selection.is_go(&open, "replay")? {
        return Ok(());
    }
    bookmark.write(begun.unwrap_or_else(Millis::now));
    let sent = send(config, selection, &open, |letter| {
        let event = about(letter, Intent::Replay)?;
        Ok(ObjectEvent {
            replays: letter.replays.saturating_add(1),
            ..event
        })
    })?;
    bookmark.remove();
    say(format_args!(
        "{sent} asked for; `feedmill dead-letters list` shows what is still open when convert has come to them"
    ))
}

pub fn discard(config: &Config, arguments: &Discard) -> Result<(), Failure> {
    let selection = &arguments.selection;
    let open = selection.letters(config)?;
    if !selection.is_go(&open, "discard")? {
        return Ok(());
    }
    let why = cut(&arguments.why, MESSAGE_BYTES);
    let sent = send(config, selection, &open, |letter| {
        let event = about(letter, Intent::Discard)?;
        Ok(ObjectEvent {
            history: vec![Attempt {
                at: Millis::now(),
                reason: "discarded".into(),
                message: why.clone(),
            }],
            ..event
        })
    })?;
    say(format_args!(
        "{sent} asked to be closed; `feedmill results --outcome discarded` shows them when convert has come to them"
    ))
}

/// An event that names the letter.
fn about(letter: &DeadLetter, intent: Intent) -> Result<ObjectEvent, ObjectRefError> {
    let object = ObjectRef::try_new(letter.bucket.clone(), letter.key.clone())?;
    let event = ObjectEvent::observed(&object, "dead-letters");
    Ok(ObjectEvent {
        etag: letter.etag.clone(),
        version_id: letter.version_id.clone(),
        size: letter.size,
        intent,
        intent_id: Some(letter.id.clone()),
        // The file's story goes on.
        trace_parent: letter.trace_parent.clone().or(event.trace_parent),
        ..event
    })
}

impl Selection {
    /// The open letters that are meant, by the time of their last failure.
    fn letters(&self, config: &Config) -> Result<Vec<Entry>, Failure> {
        if self.ids.iter().any(String::is_empty) {
            return Err(Failure::usage(anyhow!(
                "tell which letters are meant: an id is empty"
            )));
        }
        if self.ids.is_empty() && self.filter.is_empty() && !self.all {
            return Err(Failure::usage(anyhow!(
                "tell which letters are meant: give ids, filters such as --reason and --feed, or --all"
            )));
        }
        let named = |letter: &DeadLetter| {
            self.ids.is_empty() || self.ids.iter().any(|id| letter.id.starts_with(id))
        };
        let open = letters::read(config, Wanted::Open, |letter| {
            named(letter) && self.filter.takes(letter)
        })?;
        for id in &self.ids {
            let meant = open.iter().filter(|entry| entry.letter.id.starts_with(id));
            match meant.count() {
                0 => say(format_args!(
                    "{id}: not open, or passed over by the filters"
                ))?,
                1 => {}
                // Ids of one minute begin alike: what was meant to be one letter must not become many.
                count => {
                    return Err(Failure::usage(anyhow!(
                        "tell which letter is meant: {count} open ones have ids that begin with {id:?}"
                    )));
                }
            }
        }
        Ok(open)
    }

    /// Whether to go on: there is something to do, it is no dry run, and whoever is asked says yes.
    fn is_go(&self, entries: &[Entry], what: &str) -> Result<bool, Failure> {
        if entries.is_empty() {
            say("no open letters to take")?;
            return Ok(false);
        }
        if self.dry_run {
            for Entry { letter, .. } in entries {
                let object = printable(&format!("s3://{}/{}", letter.bucket, letter.key));
                say(format_args!(
                    "{}  {:22}  {object}",
                    letter.id, letter.reason
                ))?;
            }
            say(format_args!("would {what} {}", counted(entries.len())))?;
            return Ok(false);
        }
        match entries.len() > ASK_ABOVE && !self.yes {
            true => confirm(
                &format!("{what} {}?", counted(entries.len())),
                "say --yes, or --dry-run to see them",
            ),
            false => Ok(true),
        }
    }
}

fn counted(letters: usize) -> String {
    match letters {
        1 => "1 letter".to_owned(),
        _ => format!("{letters} letters"),
    }
}

/// Sends an event for each letter; how many letters that were, in words.
fn send(
    config: &Config,
    selection: &Selection,
    entries: &[Entry],
    event: impl Fn(&DeadLetter) -> Result<ObjectEvent, ObjectRefError>,
) -> Result<String, Failure> {
    let events: Result<Vec<ObjectEvent>, ObjectRefError> =
        entries.iter().map(|entry| event(&entry.letter)).collect();
    let events = events.map_err(|error| Failure::bug("name the object of a letter", error))?;
    let count = events.len();
    let pause = selection.rate.map(|rate| Duration::from_secs(1) / rate);
    let sent = AtomicUsize::new(0);
    let sent = &sent;
    let sending = async {
        let topics = Topics::with_prefix(&config.kafka.topic_prefix);
        let metrics = Metrics::new().intake;
        let publisher =
            Publisher::connect(&config.kafka, &topics, metrics).map_err(Failure::service)?;
        let began = tokio::time::Instant::now();
        stream::iter(events.into_iter().enumerate())
            .map(|(number, event)| {
                let publisher = publisher.clone();
                async move {
                    if let Some(pause) = pause {
                        let turn = u32::try_from(number).unwrap_or(u32::MAX);
                        tokio::time::sleep_until(began + pause * turn).await;
                    }
                    publisher.append(&event).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, PublishError>(())
                }
            })
            .buffered(CONCURRENT)
            .try_collect::<()>()
            .await
            .map_err(Failure::service)
    };
    let line = |elapsed| line(sent.load(Ordering::Relaxed), count, elapsed);
    watched(line, || on_runtime(sending))?;
    Ok(counted(count))
}

/// `1200 of 10000 sent (12 %), 350 a second`.
fn line(sent: usize, total: usize, elapsed: Duration) -> String {
    let percent = sent * 100 / total.max(1);
    let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
    format!("{sent} of {total} sent ({percent} %), {rate:.0} a second")
}

/// When a replay was begun that did not come to its end, kept in the state folder: letters that failed again since then are its
/// own doing, and going on must not take them again.
struct Bookmark(PathBuf);

#[derive(Serialize, Deserialize)]
struct Begun {
    at: Millis,
}

impl Bookmark {
    /// By the arguments as they were written: a span back from now means the same replay when it is given again.
    fn of_this_command(config: &Config) -> Self {
        let told = ["--yes", "--anew"];
        let arguments = std::env::args().skip(1);
        let arguments: Vec<_> = arguments
            .filter(|it| !told.contains(&it.as_str()))
            .collect();
        let prefix = &config.kafka.topic_prefix;
        let hash = Sha256::digest(format!("{prefix}\n{}", arguments.join("\n")));
        let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(Path::new(&config.state.dir).join(format!("replay-{name}.json")))
    }

    fn read(&self) -> Option<Millis> {
        let begun: Begun = serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?;
        let age = u64::try_from(Millis::now().0 - begun.at.0).ok()?;
        (Duration::from_millis(age) < RESUMED_FOR).then_some(begun.at)
    }

    /// Without it a replay that is interrupted can't be gone on with, and that is said.
    fn write(&self, at: Millis) {
        let write = || {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&self.0, serde_json::to_vec(&Begun { at })?)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.0.display(), %error, "if this replay is interrupted, the same command will take what failed again, too: its beginning can't be noted");
        }
    }

    fn remove(&self) {
        // What is left of it ends by its age.
        let _ = fs::remove_file(&self.0);
    }
}
