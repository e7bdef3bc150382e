//! The checker: did a run keep every promise?
//!
//! In: a [`Dump`] of topics, group and buckets, taken at rest, and what the test knows to be right. Out: every broken
//! promise. It is written apart from feedmill, from the documented contracts alone: nothing of feedmill's code is used
//! here, so that a mistake there cannot hide itself.
//!
//! * R0 every record but an event can be read by its schema
//! * R1 exactly one Result per event id, on the event's partition number, with the event's partition and offset
//! * R2 `objects`, folded, is what the Results amount to; its records and the dead letters lie on the partition of their
//!   key; each Result says which state it leaves
//! * R3 each output is the JSON expected of the final bytes, with the ETag and hash settled for it; none is stray
//! * R4 every object that a feed matches is settled with its present ETag, as expected
//! * R5 a dead letter is open if and only if the state names it
//! * R6 nothing is left to do, and the commits say so
//! * R7 no transaction is open
//! * R8 a key's conversions follow one another in generation order
//! * R9 each outcome was decided on the state that the outcomes before it had left
//! * R10 each wait in a retry topic is followed by one return to `events`, and no event returns that did not wait
//!
//! R3 and R4 are judged by the fold of the Results, so that a table that differs from it is one violation and not four.

mod fold;
mod model;
pub mod murmur2;
mod values;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use fold::{Settled, describe, fold};
pub use model::{Commit, Content, Dump, Expectations, Log, Record, Source, StoredOutput, Topic};
use values::{EventResult, Outcome, Output, Placed, Records, Status, last_per_key};
pub use violation::{Place, Violation};

/// Marks the metadata of a commit; the set of offsets finished ahead of it follows.
const METADATA_TAG: &str = "fm1:";

/// Everything that is wrong with a run, in the order of the rules.
pub fn check(dump: &Dump, expected: &Expectations) -> Vec<Violation> {
    let records = Records::read(dump);
    let (settled, of_table) = check_table(dump, &records);
    [
        records.unreadable.clone(),
        check_results(dump, &records),
        of_table,
        check_outputs(dump, expected, &settled),
        stray_outputs(dump, expected, &records),
        check_sources(dump, expected, &settled),
        check_letters(dump, &records),
        check_commits(dump),
        open_transactions(dump),
        falling_generations(&records.results),
        check_returns(dump, &records),
    ]
    .concat()
}

fn partitions(dump: &Dump, topic: Topic) -> i32 {
    let count = dump.logs.iter().filter(|log| log.topic == topic).count();
    i32::try_from(count).expect("Kafka counts partitions in an i32")
}

// R1

fn check_results(dump: &Dump, records: &Records) -> Vec<Violation> {
    let events = event_places(records, partitions(dump, Topic::Events));
    let mut results: BTreeMap<&str, Vec<(Place, &EventResult)>> = BTreeMap::new();
    for record in &records.results {
        if let Some(result) = &record.value {
            let of_event = results.entry(&result.event_id).or_default();
            of_event.push((record.at, result));
        }
    }
    let mut found = Vec::new();
    for (id, stands) in &events {
        match results.get(id).map_or(&[][..], Vec::as_slice) {
            [] => found.push(Violation::LostResult {
                id: (*id).into(),
                at: stands[0],
            }),
            [(at, result)] => found.extend(misplaced(*at, result, stands)),
            several => found.push(Violation::RepeatedResult {
                id: (*id).into(),
                at: several.iter().map(|(at, _)| *at).collect(),
            }),
        }
    }
    let strangers = results.iter().filter(|(id, _)| !events.contains_key(*id));
    for (at, result) in strangers.flat_map(|(_, results)| results) {
        if !has_expired(dump, result) {
            found.push(Violation::UnknownEvent {
                id: result.event_id.clone(),
                at: *at,
            });
        }
    }
    found
}

/// Where each event lies: on the partition of its key; elsewhere only while it was not moved there.
fn event_places(records: &Records, partitions: i32) -> BTreeMap<&str, Vec<Place>> {
    let mut places: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for record in &records.events {
        let Some(event) = &record.value else { continue };
        let belongs = murmur2::partition_of(&record.key, partitions);
        let of_id = places.entry(&event.id).or_default();
        let at_home = of_id.iter().any(|place| place.partition == belongs);
        match record.at.partition == belongs {
            true if !at_home => *of_id = vec![record.at],
            false if at_home => {}
            _ => of_id.push(record.at),
        }
    }
    places
}

fn misplaced(at: Place, result: &EventResult, stands: &[Place]) -> Option<Violation> {
    let said = Place {
        partition: result.event_partition,
        offset: result.event_offset,
    };
    let is_right = at.partition == said.partition && stands.contains(&said);
    (!is_right).then(|| Violation::MisplacedResult {
        id: result.event_id.clone(),
        at,
        said,
        stands: stands.to_vec(),
    })
}

/// Whether retention has taken the event since.
fn has_expired(dump: &Dump, result: &EventResult) -> bool {
    dump.logs.iter().any(|log| {
        log.topic == Topic::Events
            && log.partition == result.event_partition
            && result.event_offset < log.start
    })
}

// R2 and R9

/// Compares the table with the fold of the Results, and returns the fold.
fn check_table(dump: &Dump, records: &Records) -> (BTreeMap<String, Settled>, Vec<Violation>) {
    let mut found = wrong_partitions(dump, Topic::Objects, &records.states);
    let states = last_per_key(&records.states);
    let results = results_by_key(&records.results);
    let keys: BTreeSet<&str> = states.keys().chain(results.keys()).copied().collect();
    let mut table = BTreeMap::new();
    for key in keys {
        let of_key = results.get(key).map_or(&[][..], Vec::as_slice);
        let folded = fold(key, of_key, &mut found);
        let state = states.get(key).map(|state| Settled::from(*state));
        if state != folded {
            found.push(Violation::StateDiffers {
                key: key.into(),
                state: describe(state.as_ref()),
                fold: describe(folded.as_ref()),
            });
        }
        table.extend(folded.map(|settled| (key.to_owned(), settled)));
    }
    (table, found)
}

/// The Results of each key by the offsets of their events. A second Result of one event is R1's finding and left out.
fn results_by_key(records: &[Placed<EventResult>]) -> BTreeMap<&str, Vec<&EventResult>> {
    let mut by_key: BTreeMap<&str, Vec<&EventResult>> = BTreeMap::new();
    for record in records {
        if let Some(result) = &record.value {
            by_key.entry(&record.key).or_default().push(result);
        }
    }
    for results in by_key.values_mut() {
        results.sort_by_key(|result| result.event_offset);
        results.dedup_by(|again, first| again.event_id == first.event_id);
    }
    by_key
}

fn wrong_partitions<T>(dump: &Dump, topic: Topic, records: &[Placed<T>]) -> Vec<Violation> {
    let partitions = partitions(dump, topic);
    let mut found = Vec::new();
    for record in records {
        let belongs = murmur2::partition_of(&record.key, partitions);
        if record.at.partition != belongs {
            found.push(Violation::WrongPartition {
                topic,
                key: record.key.clone(),
                at: record.at,
                belongs,
            });
        }
    }
    found
}

// R3

fn check_outputs(
    dump: &Dump,
    expected: &Expectations,
    settled: &BTreeMap<String, Settled>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let stored: BTreeMap<&str, &StoredOutput> = dump
        .outputs
        .iter()
        .map(|output| (output.key.as_str(), output))
        .collect();
    for (key, json) in &expected.sources {
        let Some(settled) = settled.get(&message_key(dump, key)) else {
            continue;
        };
        if settled.status != Some(Status::Converted) {
            continue;
        }
        if settled.outputs.is_empty() {
            found.push(Violation::WrongOutput {
                key: key.clone(),
                output: expected.output_key.replace("{key}", key),
                what: "converted, but no output is named".into(),
            });
        }
        for output in &settled.outputs {
            let what = match stored.get(output.key.as_str()) {
                None => Some("not in the bucket".into()),
                Some(stored) => differs(stored, output, json.as_ref()),
            };
            found.extend(what.map(|what| Violation::WrongOutput {
                key: key.clone(),
                output: output.key.clone(),
                what,
            }));
        }
    }
    found
}

/// The first thing that is wrong with an output.
fn differs(
    stored: &StoredOutput,
    settled: &Output,
    json: Option<&serde_json::Value>,
) -> Option<String> {
    if json.is_some() && stored.json.as_ref() != json {
        return Some(match &stored.json {
            Some(_) => "not the conversion of the source's final bytes".into(),
            None => "not JSON".into(),
        });
    }
    if stored.etag != settled.etag {
        return Some(format!("ETag {}, settled {}", stored.etag, settled.etag));
    }
    if stored.sha256 != settled.sha256 {
        return Some(format!(
            "hash {}, settled {}",
            stored.sha256, settled.sha256
        ));
    }
    None
}

/// Outputs of objects that were never settled. One that a killed worker left behind has a source that was settled since,
/// or whose loss was, and so it is none.
fn stray_outputs(dump: &Dump, expected: &Expectations, records: &Records) -> Vec<Violation> {
    let mut accounted = BTreeSet::new();
    let bucket = format!("{}/", dump.input_bucket);
    for record in &records.results {
        let Some(result) = &record.value else {
            continue;
        };
        if matches!(result.outcome, Outcome::Ignored) {
            continue;
        }
        accounted.extend(result.outputs.iter().map(|output| output.key.clone()));
        let key = record.key.strip_prefix(&bucket);
        accounted.extend(key.map(|key| expected.output_key.replace("{key}", key)));
    }
    // A report of rejected records goes with its output.
    let is_accounted = |key: &str| {
        let output = key.strip_suffix(".rejected.jsonl").unwrap_or(key);
        accounted.contains(key) || accounted.contains(output)
    };
    dump.outputs
        .iter()
        .filter(|output| !is_accounted(&output.key))
        .map(|output| Violation::UnaccountedOutput {
            output: output.key.clone(),
        })
        .collect()
}

fn message_key(dump: &Dump, key: &str) -> String {
    format!("{}/{key}", dump.input_bucket)
}

// R4

fn check_sources(
    dump: &Dump,
    expected: &Expectations,
    settled: &BTreeMap<String, Settled>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in &dump.sources {
        let settled = settled.get(&message_key(dump, &source.key));
        match expected.sources.get(&source.key) {
            Some(json) if !is_settled(settled, source, json.is_some()) => {
                found.push(Violation::NotSettled {
                    key: source.key.clone(),
                    etag: source.etag.clone(),
                    settled: describe(settled),
                });
            }
            None if settled.is_some() => found.push(Violation::SettledUnasked {
                key: source.key.clone(),
                settled: describe(settled),
            }),
            _ => {}
        }
    }
    let listed: BTreeSet<&str> = dump.sources.iter().map(|s| s.key.as_str()).collect();
    let gone = expected
        .sources
        .keys()
        .filter(|key| !listed.contains(key.as_str()));
    found.extend(gone.map(|key| Violation::SourceGone { key: key.clone() }));
    found
}

fn is_settled(settled: Option<&Settled>, source: &Source, convertible: bool) -> bool {
    let status = match convertible {
        true => Status::Converted,
        false => Status::DeadLettered,
    };
    settled.is_some_and(|settled| {
        settled.etag.as_ref() == Some(&source.etag) && settled.status == Some(status)
    })
}

// R5

fn check_letters(dump: &Dump, records: &Records) -> Vec<Violation> {
    let mut found = wrong_partitions(dump, Topic::DeadLetters, &records.letters);
    let letters = last_per_key(&records.letters);
    let states = last_per_key(&records.states);
    let keys: BTreeSet<&str> = letters.keys().chain(states.keys()).copied().collect();
    for key in keys {
        let open = letters.get(key).map(|letter| letter.id.clone());
        let named = states
            .get(key)
            .and_then(|state| state.dead_letter_id.clone());
        if open != named {
            found.push(Violation::LetterDiffers {
                key: key.into(),
                open,
                named,
            });
        }
    }
    found
}

// R6

fn check_commits(dump: &Dump) -> Vec<Violation> {
    let mut found = Vec::new();
    for log in dump.logs.iter().filter(|log| log.topic == Topic::Events) {
        let partition = log.partition;
        let commit = dump.commits.iter().find(|c| c.partition == partition);
        let in_partition = |r: &&Record| r.topic == Topic::Events && r.partition == partition;
        let last = dump
            .records
            .iter()
            .filter(in_partition)
            .map(|r| r.offset)
            .max();
        let committed = commit.map(|commit| commit.next_offset);
        match last {
            Some(last) if committed.is_none_or(|next| next <= last) => found.push(Violation::Lag {
                partition,
                last,
                committed,
            }),
            _ => found.extend(commit.and_then(wrong_metadata)),
        }
    }
    found
}

/// Of a partition without lag: the set of offsets finished ahead must be empty (base64 of zero bits is all `A`).
fn wrong_metadata(commit: &Commit) -> Option<Violation> {
    let (partition, metadata) = (commit.partition, commit.metadata.clone());
    match commit.metadata.strip_prefix(METADATA_TAG) {
        None => Some(Violation::UntaggedCommit {
            partition,
            metadata,
        }),
        Some(set) if set.bytes().any(|byte| byte != b'A') => Some(Violation::FinishedSetLeft {
            partition,
            metadata,
        }),
        Some(_) => None,
    }
}

// R7

fn open_transactions(dump: &Dump) -> Vec<Violation> {
    let open = |log: &&Log| log.committed_end != log.uncommitted_end;
    dump.logs
        .iter()
        .filter(open)
        .map(|log| Violation::OpenTransaction {
            topic: log.topic,
            partition: log.partition,
            committed_end: log.committed_end,
            uncommitted_end: log.uncommitted_end,
        })
        .collect()
}

// R8

fn falling_generations(results: &[Placed<EventResult>]) -> Vec<Violation> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut found = Vec::new();
    for record in results {
        let Some(result) = &record.value else {
            continue;
        };
        let (Outcome::Converted, Some(generation)) = (result.outcome, result.generation) else {
            continue;
        };
        match last.insert(&record.key, generation) {
            Some(before) if before > generation => found.push(Violation::GenerationFalls {
                key: record.key.clone(),
                at: record.at,
                generation,
                before,
            }),
            _ => {}
        }
    }
    found
}

// R10

fn check_returns(dump: &Dump, records: &Records) -> Vec<Violation> {
    let partitions = partitions(dump, Topic::Events);
    let mut counts: BTreeMap<(&str, i64), (usize, usize)> = BTreeMap::new();
    for event in records.waits.iter().filter_map(|wait| wait.value.as_ref()) {
        let until = event.not_before.unwrap_or_default();
        counts.entry((&event.id, until)).or_default().0 += 1;
    }
    for record in &records.events {
        let Some(event) = &record.value else { continue };
        // One that lay elsewhere was moved home, which is no second return.
        let is_home = record.at.partition == murmur2::partition_of(&record.key, partitions);
        if let (Some(until), true) = (event.not_before, is_home) {
            counts.entry((&event.id, until)).or_default().1 += 1;
        }
    }
    let differing = counts
        .into_iter()
        .filter(|(_, (waited, returned))| waited != returned);
    differing
        .map(|((id, until), (waited, returned))| Violation::Unreturned {
            id: id.to_owned(),
            until,
            waited,
            returned,
        })
        .collect()
}
