//! `feedmill backfill s3://bucket/prefix`: announces what lies there and is not settled, or asks for it to be converted again.
//!
//! In: a listing, page by page, and a copy of what is settled. Out: an event for each object that is chosen. An event too
//! many is harmless: an observation of what is settled is a duplicate, and convert runs a request once for each id. So
//! there is nothing to remember between runs, and going on after an interruption is running the same command with the
//! same request id.
//!
//! Promises: memory is one page, whatever the size of the bucket; an event counts when Kafka has acknowledged it; above
//! 100 events a person is asked first; a dry run writes nothing to Kafka or S3.
//!
//! * [`place`]: what is listed, checked against the feeds
//! * [`choose`]: what is concluded from a listed object and its state; pure
//! * [`states`]: the copy of what is settled
//! * [`walk`]: listing, choosing and sending, page by page
//! * [`tally`]: the numbers, while it runs and at the end

mod choose;
mod place;
mod states;
mod tally;
mod walk;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args};
use tokio_util::sync::CancellationToken;

use self::{
    choose::Asked,
    place::Place,
    states::States,
    tally::{Report, Tally},
    walk::{Pace, Walk},
};
use super::{confirm::confirm, moment::moment, on_runtime, progress, say, text::quoted};
use crate::{
    config::Config,
    convert::Feeds,
    failure::Failure,
    live::Live,
    s3::Accounts,
    shutdown,
    sweep::S3Storage,
    topics::{ALTERED_OUTPUT, Id, Millis, Topics},
};

/// Above so many events, a person is asked first.
const ASK_ABOVE: usize = 100;

/// Keys that a dry run shows.
const SHOWN: usize = 10;

/// Longest request id, in bytes: it is kept in each object's state.
const MAX_REQUEST_BYTES: usize = 100;

pub const EXAMPLES: &str = "\
Examples:
  feedmill backfill s3://partner-files/nsx/ --dry-run         what would be announced?
  feedmill backfill s3://partner-files/nsx/ --since 3h        of what came in three hours
  feedmill backfill s3://partner-files --mapping-changed      after a change of feeds
  feedmill backfill s3://partner-files/nsx/2026/ --force --rate 50

What is announced, of the objects that a feed takes:
  by default         what is not settled with the listed ETag: new, changed, or never heard of
  --force            everything
  --mapping-changed  what another mapping or feed than today's converted or refused
                     (`feedmill config feeds` shows the hashes). What is not settled is left to
                     the default, and what somebody discarded stays so.

An object that has had this request is passed over; only its last request is remembered.
The prefix is taken literally: it is no glob.";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("again").args(["force", "mapping_changed"]))]
pub struct Arguments {
    /// Bucket, and what the keys begin with: s3://bucket/prefix
    place: Place,
    /// Only what was last modified since then: a time, or a span back from now such as 3h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Millis>,
    /// Convert everything again, whatever is settled
    #[arg(long)]
    force: bool,
    /// Convert again what was converted, or refused, by another mapping than today's
    #[arg(long)]
    mapping_changed: bool,
    /// Go on with this request, which converts no object twice [default: a new one]
    #[arg(long, value_name = "ID", requires = "again", value_parser = request_id)]
    request: Option<String>,
    /// Count, show the first keys, and announce nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, however many there are
    #[arg(long)]
    yes: bool,
    /// Events a second [default: as fast as Kafka takes them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// The numbers as one JSON object
    #[arg(long)]
    json: bool,
}

fn request_id(text: &str) -> Result<String, String> {
    let is_plain = text.chars().all(|c| c.is_ascii_graphic());
    if text.is_empty() || !is_plain || text.len() > MAX_REQUEST_BYTES {
        return Err(format!(
            "expected 1 to {MAX_REQUEST_BYTES} printable ASCII characters without spaces"
        ));
    }
    if text.starts_with(ALTERED_OUTPUT) {
        return Err(format!("{ALTERED_OUTPUT} begins the requests of the sweep"));
    }
    Ok(text.to_owned())
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let feeds = Feeds::compile(config)
        .map_err(|error| Failure::usage(anyhow!(error).context("compile the feeds")))?;
    arguments.place.check(config).map_err(Failure::usage)?;
    let folder = tempfile::Builder::new()
        .prefix("feedmill-backfill-")
        .tempdir()
        .context("make a temporary folder")
        .map_err(Failure::service)?;
    let asked = arguments.asked();
    let tally = Arc::new(Tally::default());
    let backfill = Backfill {
        config,
        arguments,
        asked: &asked,
        feeds: &feeds,
        tally: &tally,
        folder: folder.path(),
    };
    if let (Some(request), false) = (asked.request(), arguments.dry_run) {
        eprintln!("request {request}");
    }
    let began = Instant::now();
    let mut first = Vec::new();
    let mut end = End::Declined;
    let line = |elapsed| tally.line(elapsed);
    let ended = progress::watched(line, || {
        on_runtime(async {
            end = backfill.run(&mut first).await?;
            Ok(())
        })
    });
    if ended.is_err() && tally.get().announced > 0 {
        backfill.say_how_to_go_on();
    }
    ended?;
    match end {
        End::Done => backfill.report(began.elapsed(), &first),
        End::Declined => say("nothing was announced"),
    }
}

impl Arguments {
    fn asked(&self) -> Asked {
        let request = || {
            let given = self.request.clone();
            given.unwrap_or_else(|| Id::mint().to_string())
        };
        match (self.force, self.mapping_changed) {
            (true, _) => Asked::Everything { request: request() },
            (_, true) => Asked::MappingChanged { request: request() },
            _ => Asked::Unsettled,
        }
    }

    /// The command that goes on where this one was interrupted: the same moment, and the same request.
    fn resume(&self, asked: &Asked) -> String {
        let replaced = ["--since", "--request"];
        let mut words = vec!["feedmill".to_owned()];
        let mut given = std::env::args().skip(1);
        while let Some(word) = given.next() {
            match word.split_once('=') {
                None if replaced.contains(&word.as_str()) => drop(given.next()),
                Some((name, _)) if replaced.contains(&name) => {}
                _ => words.push(quoted(&word).into_owned()),
            }
        }
        if let Some(since) = self.since {
            words.extend(["--since".to_owned(), since.to_string()]);
        }
        if let Some(request) = asked.request() {
            words.extend(["--request".to_owned(), quoted(request).into_owned()]);
        }
        words.join(" ")
    }
}

/// A backfill under way.
struct Backfill<'a> {
    config: &'a Config,
    arguments: &'a Arguments,
    asked: &'a Asked,
    feeds: &'a Feeds,
    tally: &'a Arc<Tally>,
    /// For the copy of what is settled.
    folder: &'a Path,
}

/// How it ended.
enum End {
    Done,
    /// A person said no.
    Declined,
}

impl Backfill<'_> {
    /// Runs to its end, or until a signal.
    async fn run(&self, first: &mut Vec<String>) -> Result<End, Failure> {
        let signal =
            shutdown::first_signal().map_err(|error| Failure::bug("listen for signals", error))?;
        let cancel = CancellationToken::new();
        tokio::select! {
            ended = self.announce(&cancel, first) => ended,
            number = signal => {
                cancel.cancel();
                self.interrupted();
                // As shells have it.
                std::process::exit(128 + number)
            }
        }
    }

    async fn announce(
        &self,
        cancel: &CancellationToken,
        first: &mut Vec<String>,
    ) -> Result<End, Failure> {
        let mut walk = self.walk(cancel).await?;
        let mut may_send = self.arguments.yes;
        let mut held = Vec::new();
        while let Some(events) = walk.next_page().await? {
            if self.arguments.dry_run {
                let chosen = events.len() as u64;
                self.tally.change(|counts| counts.announced += chosen);
                let left = SHOWN - first.len();
                let urls = events.iter().take(left);
                first.extend(urls.map(|event| format!("s3://{}/{}", event.bucket, event.key)));
                continue;
            }
            held.extend(events);
            if held.len() > ASK_ABOVE && !may_send {
                may_send = self.ask().await?;
                if !may_send {
                    return Ok(End::Declined);
                }
            }
            if may_send {
                walk.send(std::mem::take(&mut held)).await?;
            }
        }
        walk.send(held).await?;
        Ok(End::Done)
    }

    async fn walk(&self, cancel: &CancellationToken) -> Result<Walk<'_>, Failure> {
        let Config { kafka, s3, .. } = self.config;
        let topics = Topics::with_prefix(&kafka.topic_prefix);
        let states = States::read(
            kafka,
            &topics.objects,
            self.folder,
            Arc::clone(self.tally),
            cancel.clone(),
        );
        let states = states.await.map_err(Failure::service)?;
        let storage = S3Storage {
            accounts: Arc::new(Live::new(Accounts::new(s3).await)),
            stall: Duration::from_millis(s3.read_timeout_ms),
        };
        Ok(Walk {
            place: &self.arguments.place,
            since: self.arguments.since,
            asked: self.asked,
            feeds: self.feeds,
            tally: self.tally,
            storage,
            states,
            kafka,
            publisher: None,
            pace: Pace::new(self.arguments.rate),
            next: Some(None),
        })
    }

    async fn ask(&self) -> Result<bool, Failure> {
        self.tally.leave_the_terminal(true);
        progress::clear();
        let question = format!(
            "announce more than {ASK_ABOVE} objects under {}?",
            self.arguments.place
        );
        let asked = tokio::task::spawn_blocking(move || {
            confirm(&question, "say --yes, or --dry-run to see them")
        });
        let answer = asked.await;
        self.tally.leave_the_terminal(false);
        answer.map_err(|panic| Failure::bug("ask", panic))?
    }

    fn interrupted(&self) {
        self.tally.leave_the_terminal(true);
        progress::clear();
        eprintln!(
            "interrupted; at least {} were announced",
            self.tally.get().announced
        );
        self.say_how_to_go_on();
        // Whoever copies what is settled may make a file once more, until it sees that it is over.
        for _ in 0..20 {
            if fs::remove_dir_all(self.folder).is_ok() || !self.folder.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn say_how_to_go_on(&self) {
        eprintln!(
            "this goes on, and does nothing twice:\n  {}",
            self.arguments.resume(self.asked)
        );
    }

    fn report(&self, elapsed: Duration, first: &[String]) -> Result<(), Failure> {
        let counts = self.tally.get();
        let report = Report {
            place: self.arguments.place.to_string(),
            chosen_by: self.asked.name(),
            request: self.asked.request().filter(|_| !self.arguments.dry_run),
            dry_run: self.arguments.dry_run,
            seconds: elapsed.as_secs_f64(),
            counts,
            first,
        };
        match self.arguments.json {
            true => say(serde_json::to_string(&report)
                .map_err(|error| Failure::bug("write the numbers as JSON", error))?)?,
            false => say(&report)?,
        }
        match counts.unreadable {
            0 => Ok(()),
            _ => Err(Failure::Findings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_printable_and_not_of_the_sweep() {
        assert_eq!(request_id("2026-11-nsx").as_deref(), Ok("2026-11-nsx"));
        let long = "x".repeat(MAX_REQUEST_BYTES + 1);
        for text in ["", "a b", "ü", "altered-output:7:e", &long] {
            assert!(request_id(text).is_err(), "{text:?}");
        }
    }
}
