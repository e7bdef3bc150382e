//! An object's story for people.

use std::fmt::Display;

use super::report::{Happening, Pending, Report, Waiting, What};
use crate::{
    cli::text::{elapsed, escaped},
    topics::{
        Cleanup, CleanupAction, CleanupOutcome, DeadLetter, Intent, Millis, ObjectEvent,
        ObjectState, Outcome, Output, ResultRecord, Status,
    },
};

/// Columns before the text of a happening: a mark, the time, the kind.
const INDENT: usize = 2 + 24 + 2 + 13 + 2;

pub fn tell(report: &Report<'_>) -> String {
    let mut lines = vec![format!(
        "s3://{}/{}",
        report.object.bucket, report.object.key
    )];
    match report.known {
        true => lines.extend(known(report)),
        false => lines.push("nothing is known of it".into()),
    }
    lines.extend(report.notes.iter().map(|note| format!("* {note}")));
    let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    lines.join("\n")
}

fn known(report: &Report<'_>) -> Vec<String> {
    let mut lines = vec![format!(
        "in partition {} of the topics; times are in UTC",
        report.partition
    )];
    for happening in &report.timeline {
        lines.extend(entry(happening));
    }
    if report.asked_event.is_some() {
        lines.push("> the event asked for".into());
    }
    lines.push(String::new());
    lines.extend(section("settled", settled(report.state)));
    lines.extend(section("dead letter", open(report)));
    lines.extend(section("pending", pending(report)));
    let feed = report.feed_now.unwrap_or("none");
    lines.extend(section("feed now", vec![feed.to_owned()]));
    lines
}

/// A heading, and its text beside it.
fn section(name: &str, text: Vec<String>) -> Vec<String> {
    let headings = [name].into_iter().chain(std::iter::repeat(""));
    let lines = headings.zip(text);
    lines
        .map(|(heading, text)| format!("{heading:11}  {text}"))
        .collect()
}

fn entry(happening: &Happening<'_>) -> Vec<String> {
    let (kind, text) = match &happening.what {
        What::Event { offset, event } => ("event", event_text(*offset, event)),
        What::Attempt {
            number,
            reason,
            message,
        } => (
            "failed",
            vec![format!("attempt {number}: {reason}: {message}")],
        ),
        What::Outcome { result, letter, .. } => {
            (result.outcome.name(), outcome_text(result, *letter))
        }
        What::Cleanup { cleanup } => ("clean-up", cleanup_text(cleanup)),
    };
    let mark = if happening.asked { ">" } else { " " };
    let mut lines = Vec::new();
    for (index, text) in text.into_iter().enumerate() {
        lines.push(match index {
            0 => format!("{mark} {:24}  {kind:13}  {text}", happening.at.to_string()),
            _ => format!("{:INDENT$}{text}", ""),
        });
    }
    lines
}

fn event_text(offset: i64, event: &ObjectEvent) -> Vec<String> {
    let asks = match event.intent {
        Intent::Observe => "observe",
        Intent::Reconvert => "reconvert",
        Intent::Replay => "replay",
        Intent::Discard => "discard",
    };
    let by = event.source_id.as_ref();
    let mut text = vec![joined([
        Some(match &event.intent_id {
            Some(id) => format!("{asks} {id}"),
            None => asks.to_owned(),
        }),
        Some(format!("from {}", event.source)),
        by.map(|id| format!("its id {id}")),
        (event.attempt > 0).then(|| format!("attempt {} of it", event.attempt + 1)),
    ])];
    text.push(joined([
        Some(match &event.etag {
            Some(etag) => format!("etag {etag}"),
            None => "no etag".to_owned(),
        }),
        event.size.map(|size| format!("{size} bytes")),
        named("version", &event.version_id),
        named("sequencer", &event.sequencer),
        event
            .event_time
            .map(|time| format!("at {time} by the server's clock")),
    ]));
    text.push(joined([
        Some(format!("event {} at offset {offset}", event.id)),
        named("not before", &event.not_before),
        named("first tried at offset", &event.first_attempt_offset),
    ]));
    text
}

fn outcome_text(result: &ResultRecord, letter: Option<&DeadLetter>) -> Vec<String> {
    let took = elapsed(result.received_at, result.finished_at);
    let mut text = vec![format!("{}, {took} after it was received", meaning(result))];
    if let Some(reason) = &result.reason {
        let message = result.message.as_deref().unwrap_or_default();
        text.push(format!("{reason}: {message}"));
    }
    if let Some(letter) = letter {
        text.extend(place(letter));
    }
    text.extend(result.outputs.iter().map(output_text));
    text.push(joined([
        named("feed", &result.feed),
        named("mapping", &result.mapping_hash),
        named("version", &result.version_id),
        Some(format!("worker {}", result.worker)),
    ]));
    text.push(joined([
        Some(format!(
            "event {} at offset {}",
            result.event_id, result.event_offset
        )),
        (result.attempt > 0).then(|| format!("attempt {}", result.attempt + 1)),
        match result.outcome {
            // It has the event's id.
            Outcome::DeadLettered => Some("opens a dead letter".to_owned()),
            _ => named("closes dead letter", &result.dead_letter_id),
        },
    ]));
    text
}

fn cleanup_text(cleanup: &Cleanup) -> Vec<String> {
    let target = cleanup.target.as_deref().unwrap_or_default();
    let mut text = vec![match (cleanup.action, cleanup.outcome) {
        (CleanupAction::Delete, CleanupOutcome::Done) => "the source was deleted".to_owned(),
        (CleanupAction::Move, CleanupOutcome::Done) => format!("the source was moved to {target}"),
        (CleanupAction::Tag, CleanupOutcome::Done) => format!("the source was tagged {target}"),
        (_, CleanupOutcome::Gone) => "the source was not there any more".to_owned(),
        (_, CleanupOutcome::Changed) => "a newer version was there, and left alone".to_owned(),
        (action, CleanupOutcome::Skipped) => {
            format!("the source stays, {} was not done", action.name())
        }
        (action, CleanupOutcome::Failed) => {
            format!(
                "{} failed; the next sweep hands it over again",
                action.name()
            )
        }
    }];
    if let Some(reason) = &cleanup.reason {
        let message = cleanup.message.as_deref().unwrap_or_default();
        text.push(format!("{reason}: {message}"));
    }
    text.push(joined([
        Some(format!("etag {}", cleanup.etag)),
        named("version", &cleanup.version_id),
        Some(format!("feed {}", cleanup.feed)),
        Some(format!("worker {}", cleanup.worker)),
    ]));
    text
}

/// What an outcome says, for whoever does not know the names by heart.
fn meaning(result: &ResultRecord) -> String {
    let settled = result
        .settled_etag
        .as_ref()
        .map_or_else(|| "no etag".to_owned(), |etag| format!("etag {etag}"));
    match result.outcome {
        Outcome::Converted => format!("{settled} is in the output bucket"),
        Outcome::DeadLettered => format!("could not be converted ({settled})"),
        Outcome::Duplicate => format!("this version was settled already ({settled})"),
        Outcome::Superseded => {
            format!("the bucket has a newer version, settled already ({settled})")
        }
        Outcome::Missing => "the object was not in the bucket".to_owned(),
        Outcome::Ignored => "no feed matched the key".to_owned(),
        Outcome::Discarded => "an operator closed its dead letter".to_owned(),
    }
}

fn place(letter: &DeadLetter) -> Vec<String> {
    let places = joined([
        named("record", &letter.record),
        named("line", &letter.line),
        named("column", &letter.column),
        named("byte", &letter.byte_offset),
        named("path", &letter.path),
    ]);
    let excerpt = letter.excerpt.as_ref();
    let places = (!places.is_empty()).then(|| format!("at {places}"));
    places
        .into_iter()
        .chain(excerpt.map(|excerpt| format!("there: {excerpt}")))
        .collect()
}

fn output_text(output: &Output) -> String {
    format!(
        "-> s3://{}/{}: {} records, {} bytes, etag {}",
        output.bucket, output.key, output.records, output.size, output.etag
    )
}

fn settled(state: Option<&ObjectState>) -> Vec<String> {
    let Some(state) = state else {
        return vec!["nothing".into()];
    };
    let status = match state.status {
        Some(Status::Converted) => "converted",
        Some(Status::DeadLettered) => "dead_lettered",
        Some(Status::Discarded) => "discarded",
        None => "no version yet",
    };
    let mut text = vec![joined([
        Some(status.to_owned()),
        named("etag", &state.etag),
        named("version", &state.version_id),
        Some(format!("since {}", state.settled_at)),
    ])];
    text.extend(state.outputs.iter().map(output_text));
    text.push(joined([
        named("feed", &state.feed),
        named("mapping", &state.mapping_hash),
        Some(format!("generation {}", state.generation)),
        named("last request", &state.last_request_id),
    ]));
    text
}

fn open(report: &Report<'_>) -> Vec<String> {
    let id = report.state.and_then(|state| state.dead_letter_id.as_ref());
    let Some(id) = id else {
        return vec!["none is open".into()];
    };
    match report.open_letter {
        None => vec![format!("open: {id}")],
        Some(letter) => [
            format!("open: {id}, attempts {}", letter.attempts),
            format!("{}: {}", letter.reason, letter.message),
        ]
        .into_iter()
        .chain(place(letter))
        .collect(),
    }
}

fn pending(report: &Report<'_>) -> Vec<String> {
    let committed = report
        .queue
        .committed
        .map_or_else(|| "nothing".to_owned(), |offset| format!("offset {offset}"));
    let line = |pending: &Pending| {
        let waits = elapsed(pending.received_at, Millis::now());
        joined([
            Some(format!(
                "event {} at offset {}",
                pending.event_id, pending.offset
            )),
            Some(format!("received {} ({waits} ago)", pending.received_at)),
            named("not before", &pending.not_before),
            Some(match pending.ahead {
                0 => "it is the next of its partition".to_owned(),
                ahead => format!("up to {ahead} before it in its partition"),
            }),
        ])
    };
    let waits = |waiting: &Waiting<'_>| {
        joined([
            Some(format!(
                "event {} waits in the retry topic {}",
                waiting.event_id, waiting.tier
            )),
            named("until", &waiting.not_before),
            Some(format!("{} attempts counted", waiting.attempts)),
            (waiting.last_failure)
                .map(|last| format!("{}: {}", last.reason, escaped(&last.message))),
        ])
    };
    let mut waiting: Vec<String> = report.waiting.iter().map(waits).collect();
    let mut text: Vec<String> = report.pending.iter().map(line).collect();
    if text.is_empty() && !waiting.is_empty() {
        return waiting;
    }
    text.append(&mut waiting);
    match text.is_empty() {
        true => vec!["nothing".into()],
        false => {
            text.push(format!(
                "partition {} of events is committed up to {committed}",
                report.partition
            ));
            text
        }
    }
}

fn named(name: &str, value: &Option<impl Display>) -> Option<String> {
    value.as_ref().map(|value| format!("{name} {value}"))
}

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}
