//! `feedmill explain`: what happened to this file?
//!
//! In: an object, or the id of one of its events. Out: its story, read from the topics: [`gather`] reads, [`report`]
//! concludes, [`tell`] writes it for people. The object's records all lie in one partition of each topic; the id of an
//! event has the time in it, by which [`find`] knows where to look for the object.

mod find;
mod gather;
mod report;
mod story;
mod tell;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{
    reader::{ReadError, Reader},
    say,
};
use crate::{
    config::Config,
    failure::Failure,
    kafka::admin::Admin,
    object::ObjectRef,
    topics::{Id, Topics},
};
use report::Report;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feedmill explain s3://partner-files/nsx/today.xml
  feedmill explain 019313c2-7d1e-7000-8000-3f1b2c4d5e6f      the story of that event's object
  feedmill explain s3://partner-files/nsx/today.xml --json | jq .state

The key is taken literally: nothing in it is percent-decoded. Times are in UTC; with --json they are milliseconds since
1970, and records have the fields of schemas/*.avsc. Of an object with very many events the newest 1,000 are told.

Exit code 4 when nothing is known of the object or the event, or when a dead letter of the object is open; a file whose
refusal was mended since is exit code 0.")]
pub struct Arguments {
    /// The object, s3://bucket/key, or the id of one of its events
    #[arg(value_name = "s3://BUCKET/KEY | EVENT_ID", value_parser = target)]
    target: Target,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Whose story is asked for.
#[derive(Debug, Clone)]
enum Target {
    Object(ObjectRef),
    Event(Id),
}

fn target(text: &str) -> Result<Target, String> {
    if text.starts_with("s3://") {
        let object = ObjectRef::from_url(text).map_err(|error| error.to_string())?;
        return Ok(Target::Object(object));
    }
    let id = text.parse().map(|id| Target::Event(Id(id)));
    id.map_err(|_| "expected s3://bucket/key, or the id of an event (a UUID)".to_owned())
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    // Says clearly when Kafka can't be reached.
    drop(Admin::connect(&config.kafka).map_err(Failure::service)?);
    let reader = Reader::connect(&config.kafka).map_err(Failure::service)?;
    let topics = Topics::with_prefix(&config.kafka.topic_prefix);
    let (object, asked) = match &arguments.target {
        Target::Object(object) => (object.clone(), None),
        Target::Event(id) => match find::object_of(&reader, &topics, *id).map_err(failed)? {
            Some(object) => (object, Some(*id)),
            None => return unknown_event(*id, arguments.json),
        },
    };
    let story = gather::story(config, &reader, &topics, object, asked).map_err(failed)?;
    let report = Report::of(&story);
    match arguments.json {
        true => say(serde_json::to_string(&report)
            .map_err(|error| Failure::bug("write the story as JSON", error))?)?,
        false => say(tell::tell(&report))?,
    }
    match report.has_findings() {
        true => Err(Failure::Findings),
        false => Ok(()),
    }
}

fn failed(error: ReadError) -> Failure {
    Failure::service(anyhow!(error))
}

fn unknown_event(id: Id, json: bool) -> Result<(), Failure> {
    let note = "no event and no result that is kept has this id: both are kept for a time (7 and 30 days unless the topics say otherwise); \
         see that the id is whole, and that the configuration names the right brokers and kafka.topic_prefix";
    match json {
        true => say(json!({ "object": null, "asked_event": id, "known": false, "notes": [note] }))?,
        false => say(format_args!("event {id} is unknown: {note}"))?,
    }
    Err(Failure::Findings)
}
