//! The checker's own tests: a healthy run passes, and each kind of fault is caught, by its own rule and by no other.
//! A checker that never failed is not evidence.

#[path = "support/checker/mod.rs"]
mod checker;
#[path = "support/synthetic.rs"]
mod synthetic;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use checker::{Content, Dump, Log, Record, Topic, check, murmur2};
use serde_json::{Value, json};
use synthetic::Run;

#[test]
fn the_partitioner_agrees_with_the_java_client() {
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2::hash(key.as_bytes()), hash, "{key}");
    }
}

#[test]
fn a_healthy_run_passes() {
    assert_eq!(Run::healthy().check(), []);
}

#[test]
fn a_dump_reads_back_as_it_was_written() {
    let dump = Run::healthy().dump;
    let mut lines = Vec::new();
    dump.write(&mut lines).unwrap();
    assert_eq!(Dump::read(lines.as_slice()).unwrap(), dump);
}

#[test]
fn a_record_that_nobody_can_read_is_caught() {
    let mut run = Run::healthy();
    let garbage = Content::Unreadable("no marker".into());
    run.append(Topic::Objects, 0, "in/a.xml", garbage);
    run.is_caught_by("R0");
}

#[test]
fn a_lost_result_is_caught() {
    let mut run = Run::healthy();
    let duplicate = run.last(Topic::Results, "a.xml");
    run.dump.records.remove(duplicate);
    run.is_caught_by("R1");
}

#[test]
fn a_second_result_of_an_event_is_caught() {
    let mut run = Run::healthy();
    let mut again = run.value(run.last(Topic::Results, "mended.xml")).clone();
    again["outcome"] = json!("duplicate");
    run.write(Topic::Results, "mended.xml", again);
    run.is_caught_by("R1");
}

/// A run in which an event waited in a retry topic and came back.
fn with_a_wait() -> Run {
    let mut run = Run::healthy();
    let mut waited = run.value(run.last(Topic::Events, "notes.txt")).clone();
    waited["not_before"] = json!(1_000);
    run.write(Topic::Retries, "notes.txt", waited.clone());
    let result = run.last(Topic::Results, "notes.txt");
    let mut result = run.dump.records.remove(result);
    run.write(Topic::Events, "notes.txt", waited);
    let back = run.last(Topic::Events, "notes.txt");
    let offset = run.dump.records[back].offset;
    if let Content::Value(value) = &mut result.content {
        value["event_offset"] = json!(offset);
    }
    run.dump.records.push(result);
    for commit in &mut run.dump.commits {
        commit.next_offset = commit.next_offset.max(offset + 1);
    }
    run
}

#[test]
fn an_event_that_waited_and_came_back_is_healthy() {
    let found = with_a_wait().check();
    assert!(
        found.iter().all(|violation| violation.rule() != "R10"),
        "{found:?}"
    );
}

#[test]
fn an_event_that_waited_and_never_came_back_or_twice_is_caught() {
    let mut run = with_a_wait();
    let back = run.last(Topic::Events, "notes.txt");
    let record = run.dump.records.remove(back);
    assert!(
        run.check()
            .iter()
            .any(|violation| violation.rule() == "R10")
    );
    run.dump.records.push(record.clone());
    run.dump.records.push(Record {
        offset: record.offset + 1,
        ..record
    });
    assert!(
        run.check()
            .iter()
            .any(|violation| violation.rule() == "R10")
    );
}

#[test]
fn a_result_of_an_event_that_was_never_announced_is_caught() {
    let mut run = Run::healthy();
    let mut stranger = run.value(run.last(Topic::Results, "notes.txt")).clone();
    stranger["event_id"] = json!("nobody's");
    run.write(Topic::Results, "notes.txt", stranger);
    run.is_caught_by("R1");
}

#[test]
fn the_result_of_an_event_that_retention_took_is_no_stranger() {
    let mut run = Run::healthy();
    let event = run.last(Topic::Events, "notes.txt");
    let Record {
        partition, offset, ..
    } = run.dump.records.remove(event);
    let is_it = |log: &&mut Log| log.topic == Topic::Events && log.partition == partition;
    run.dump.logs.iter_mut().find(is_it).unwrap().start = offset + 1;
    assert_eq!(run.check(), []);
}

#[test]
fn a_result_with_the_wrong_offset_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Results, "notes.txt");
    run.value(index)["event_offset"] = json!(99);
    run.is_caught_by("R1");
}

#[test]
fn a_result_on_another_partition_than_its_event_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Results, "notes.txt");
    run.dump.records[index].partition = run.foreign_partition("notes.txt");
    run.is_caught_by("R1");
}

#[test]
fn a_state_without_the_last_transaction_is_caught() {
    let mut run = Run::healthy();
    let last = run.last(Topic::Objects, "b.xml");
    run.dump.records.remove(last);
    run.is_caught_by("R2");
}

#[test]
fn a_state_that_outlives_its_object_is_caught() {
    let mut run = Run::healthy();
    let tombstone = run.last(Topic::Objects, "gone.xml");
    run.dump.records.remove(tombstone);
    run.is_caught_by("R2");
}

#[test]
fn a_state_with_another_output_than_its_result_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Objects, "a.xml");
    run.value(index)["outputs"][0]["etag"] = json!("other");
    run.is_caught_by("R2");
}

#[test]
fn a_state_on_the_wrong_partition_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Objects, "a.xml");
    run.dump.records[index].partition = run.foreign_partition("a.xml");
    run.is_caught_by("R2");
}

#[test]
fn a_result_that_leaves_an_old_generation_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Results, "a.xml");
    run.value(index)["generation"] = json!(97);
    run.is_caught_by("R2");
}

#[test]
fn an_output_of_old_bytes_is_caught() {
    let mut run = Run::healthy();
    let output = run.output("b.xml.json");
    output.json = Some(json!([{"from": "b2"}]));
    output.etag = "etag of b2".into();
    output.sha256 = "hash of b2".into();
    run.is_caught_by("R3");
}

#[test]
fn an_output_that_is_not_the_conversion_of_its_source_is_caught() {
    let mut run = Run::healthy();
    run.output("a.xml.json").json = Some(json!([]));
    run.is_caught_by("R3");
}

#[test]
fn a_state_that_forgets_the_output_of_a_file_that_was_spoilt_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Objects, "spoilt.xml");
    run.value(index)["outputs"] = json!([]);
    run.is_caught_by("R2");
}

#[test]
fn an_output_written_again_behind_the_state_is_caught_by_its_etag() {
    let mut run = Run::healthy();
    run.output("b.xml.json").etag = "another upload".into();
    run.is_caught_by("R3");
}

#[test]
fn an_output_with_another_hash_is_caught() {
    let mut run = Run::healthy();
    run.output("b.xml.json").sha256 = "other".into();
    run.is_caught_by("R3");
}

#[test]
fn a_lost_output_is_caught() {
    let mut run = Run::healthy();
    run.dump.outputs.retain(|output| output.key != "a.xml.json");
    run.is_caught_by("R3");
}

#[test]
fn an_output_of_an_object_that_was_never_settled_is_caught() {
    let mut run = Run::healthy();
    run.put_output("notes.txt", "n1");
    run.is_caught_by("R3");
}

#[test]
fn an_object_that_was_replaced_and_not_converted_again_is_caught() {
    let mut run = Run::healthy();
    run.put_source("a.xml", "a2");
    run.is_caught_by("R4");
}

#[test]
fn an_object_that_was_never_settled_is_caught() {
    let mut run = Run::healthy();
    run.put_source("new.xml", "n");
    run.expected.sources.insert("new.xml".into(), None);
    run.is_caught_by("R4");
}

#[test]
fn a_broken_file_that_was_converted_is_caught() {
    let mut run = Run::healthy();
    run.expected.sources.insert("a.xml".into(), None);
    run.is_caught_by("R4");
}

#[test]
fn a_good_file_that_was_dead_lettered_is_caught() {
    let mut run = Run::healthy();
    run.expected
        .sources
        .insert("broken.xml".into(), Some(json!([])));
    run.is_caught_by("R4");
}

#[test]
fn a_settled_object_that_no_feed_matches_is_caught() {
    let mut run = Run::healthy();
    run.expected.sources.remove("a.xml");
    run.is_caught_by("R4");
}

#[test]
fn a_source_that_the_test_expects_and_the_bucket_lacks_is_caught() {
    let mut run = Run::healthy();
    run.dump.sources.retain(|source| source.key != "a.xml");
    run.is_caught_by("R4");
}

#[test]
fn an_open_letter_that_no_state_names_is_caught() {
    let mut run = Run::healthy();
    run.write(Topic::DeadLetters, "a.xml", json!({"id": "forgotten"}));
    run.is_caught_by("R5");
}

#[test]
fn a_closed_letter_that_the_state_still_names_is_caught() {
    let mut run = Run::healthy();
    run.write(Topic::DeadLetters, "broken.xml", Value::Null);
    run.is_caught_by("R5");
}

#[test]
fn a_letter_that_replaced_the_named_one_is_caught() {
    let mut run = Run::healthy();
    run.write(Topic::DeadLetters, "broken.xml", json!({"id": "later"}));
    run.is_caught_by("R5");
}

#[test]
fn a_letter_on_the_wrong_partition_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::DeadLetters, "broken.xml");
    run.dump.records[index].partition = run.foreign_partition("broken.xml");
    run.is_caught_by("R2");
}

#[test]
fn an_event_on_the_wrong_partition_that_was_never_moved_is_caught() {
    let mut run = Run::healthy();
    let event = run.last(Topic::Events, "notes.txt");
    run.dump.records[event].partition = run.foreign_partition("notes.txt");
    run.is_caught_by("R1");
}

#[test]
fn lag_is_caught() {
    let mut run = Run::healthy();
    let partition = run.partition("a.xml");
    let commit = run
        .dump
        .commits
        .iter_mut()
        .find(|c| c.partition == partition);
    commit.unwrap().next_offset -= 2;
    run.is_caught_by("R6");
}

#[test]
fn a_partition_that_was_never_committed_is_caught() {
    let mut run = Run::healthy();
    let partition = run.partition("a.xml");
    run.dump
        .commits
        .retain(|commit| commit.partition != partition);
    run.is_caught_by("R6");
}

#[test]
fn a_commit_by_somebody_else_is_caught() {
    let mut run = Run::healthy();
    run.dump.commits[0].metadata = String::new();
    run.is_caught_by("R6");
}

#[test]
fn offsets_marked_as_finished_beyond_the_end_are_caught() {
    let mut run = Run::healthy();
    run.dump.commits[0].metadata = "fm1:Ag".into();
    run.is_caught_by("R6");
}

#[test]
fn a_transaction_left_open_is_caught() {
    let mut run = Run::healthy();
    run.dump.logs[7].uncommitted_end += 1;
    run.is_caught_by("R7");
}

#[test]
fn conversions_out_of_order_are_caught() {
    let mut run = Run::healthy();
    let of_key = |r: &&mut Record| r.topic == Topic::Results && r.key == "in/b.xml";
    let mut results = run.dump.records.iter_mut().filter(of_key);
    let [b1, b2] = [results.next().unwrap(), results.next().unwrap()];
    std::mem::swap(&mut b1.content, &mut b2.content);
    run.is_caught_by("R8");
}

#[test]
fn a_settled_version_that_was_converted_again_is_caught() {
    let mut run = Run::healthy();
    run.converted("a.xml", "a1");
    run.settle_logs();
    run.is_caught_by("R9");
}

#[test]
fn a_duplicate_of_a_version_that_is_not_settled_is_caught() {
    let mut run = Run::healthy();
    let index = run.last(Topic::Results, "a.xml");
    let result = run.value(index);
    result["settled_etag"] = json!("a0");
    result["etag"] = json!("a0");
    run.is_caught_by("R9");
}

#[test]
fn a_version_converted_again_on_request_is_no_violation() {
    let mut run = Run::healthy();
    run.converted("a.xml", "a1");
    let index = run.last(Topic::Results, "a.xml");
    run.value(index)["intent"] = json!("reconvert");
    run.settle_logs();
    assert_eq!(run.check(), []);
}

/// Checks a kept run again: `FEEDMILL_CHECK_RUN` names the folder that a failed test printed.
#[test]
fn a_kept_run_is_checked_again() {
    let Some(folder) = std::env::var_os("FEEDMILL_CHECK_RUN").map(PathBuf::from) else {
        eprintln!("skipped: FEEDMILL_CHECK_RUN names no kept run");
        return;
    };
    let open = |name| BufReader::new(File::open(folder.join(name)).unwrap());
    let dump = Dump::read(open("dump.jsonl")).unwrap();
    let expected = serde_json::from_reader(open("expected.json")).unwrap();
    let found = check(&dump, &expected);
    for violation in &found {
        eprintln!("{}: {violation}", violation.rule());
    }
    assert!(found.is_empty(), "{} violations", found.len());
}
