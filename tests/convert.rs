//! The convert stage on the real servers: every way an event can end, and what holds of the output whatever is lost,
//! repeated, late, reordered or killed.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::Duration;

use convert_world::{
    Bucket, Gate, PATIENCE, ask, assert_converted, assert_healthy, assert_outcome, assert_output,
    assert_output_at, assert_refused, convert, crash_after_output, drop_bytes, mirrored, observe,
    only_output, open_letter, padded, refuse, start, start_behind, state, stop,
};
use feedmill::object::ETag;
use feedmill::topics::{Intent, ObjectEvent, Outcome, ResultRecord, Status};
use futures::future::join_all;
use serde_json::json;
use sha2::{Digest, Sha256};
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World, wait_until};

/// How long an absent object may still appear.
const MISSING_GRACE: Duration = Duration::from_secs(5);

const KEY: &str = "products/a.xml";

/// The smallest part of a multipart upload that S3 allows.
const PART_BYTES: usize = 5 * 1024 * 1024;

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

// Outcomes

#[tokio::test(flavor = "multi_thread")]
async fn every_event_ends_in_the_outcome_of_its_case() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("outcomes").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;

    let (first, converted) = convert(&world, KEY, &version(1)).await;
    assert_eq!(converted.status, Some(Status::Converted));
    assert_eq!(converted.generation, Some(converted.event_offset));
    assert_eq!(only_output(&converted).key, mirrored(KEY));
    assert_eq!(only_output(&converted).records, 3);
    assert_output(&world, KEY, &version(1)).await;

    let duplicate = observe(&world, KEY, Some(&first)).await;
    assert_outcome(&duplicate, Outcome::Duplicate);
    assert_eq!(duplicate.generation, converted.generation);

    let (second, _) = convert(&world, KEY, &version(2)).await;
    let superseded = observe(&world, KEY, Some(&first)).await;
    assert_outcome(&superseded, Outcome::Superseded);
    assert_eq!(superseded.settled_etag.as_ref(), Some(&second));

    let broken = "products/broken.xml";
    let letter = refuse(&world, broken, version(1).truncated_xml(), "malformed_xml").await;
    assert!(world.get_output(&mirrored(broken)).await.is_none());

    let discarded = ask(&world, broken, Intent::Discard, &letter).await;
    assert_outcome(&discarded, Outcome::Discarded);
    assert_eq!(discarded.status, Some(Status::Discarded));

    let (_, ignored) = drop_bytes(&world, "elsewhere/a.xml", version(1).xml()).await;
    assert_outcome(&ignored, Outcome::Ignored);
    assert_eq!((ignored.feed, ignored.generation), (None, None));
    assert!(world.get_output("elsewhere/a.xml.json").await.is_none());

    let missing = observe(&world, "products/never-there.xml", None).await;
    assert_outcome(&missing, Outcome::Missing);

    let seen: BTreeSet<_> = world.results().iter().map(|r| r.outcome.name()).collect();
    assert_eq!(seen, Outcome::ALL.map(Outcome::name).into(), "all of them");
    // The checker knows no discarded sources.
    world.delete(broken).await;
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_object_gets_five_seconds_to_appear_and_what_is_known_of_it_goes_after_them() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("missing").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let (late, gone, broken) = ("products/late.xml", KEY, "products/broken.xml");
    let (gone_tag, _) = convert(&world, gone, &version(1)).await;
    refuse(&world, broken, version(1).truncated_xml(), "malformed_xml").await;
    world.delete(gone).await;
    world.delete(broken).await;

    let appears = async {
        let event = world.announce(late, None).await;
        wait_until("a look for the absent object", PATIENCE, async || {
            (!gate.requests(late).is_empty()).then_some(())
        })
        .await;
        let etag = world.put(late, version(1).xml()).await;
        assert_converted(&world.wait_for_result(event, PATIENCE).await, &etag);
    };
    // An ETag that is not the settled one, or the settled one would answer for the bucket.
    let other = ETag::parse("0123456789abcdef0123456789abcdef").unwrap();
    let ((), gone_result, broken_result) = tokio::join!(
        appears,
        observe(&world, gone, Some(&other)),
        observe(&world, broken, None)
    );
    for missing in [&gone_result, &broken_result] {
        assert_outcome(missing, Outcome::Missing);
        let waited = missing.finished_at.0 - missing.received_at.0;
        assert!(
            waited >= MISSING_GRACE.as_millis() as i64,
            "missing after {waited} ms"
        );
        assert_eq!((missing.generation, missing.status), (None, None));
    }
    assert_output(&world, gone, &version(1)).await;
    let dump = world.dump().await;
    for key in [gone, broken] {
        assert_eq!(state(&world, &dump, key), None, "{key} is forgotten");
        assert_eq!(open_letter(&world, &dump, key), None, "{key} has no letter");
    }

    // What is forgotten is new when it comes back.
    let (back_tag, _) = convert(&world, gone, &version(1)).await;
    assert_eq!(back_tag, gone_tag);
    let both = Some(version(1).json());
    assert_healthy(&world, &[(late, both.clone()), (gone, both)]).await;
}

// The version that is there decides

#[tokio::test(flavor = "multi_thread")]
async fn a_return_to_earlier_bytes_is_converted_and_late_notifications_change_nothing() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("aba").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (a, _) = convert(&world, KEY, &version(1)).await;
    let (b, of_b) = convert(&world, KEY, &version(2)).await;
    assert_output(&world, KEY, &version(2)).await;
    let (again, of_a) = convert(&world, KEY, &version(1)).await;
    assert_eq!(again, a, "the third upload has the first one's ETag");
    assert!(of_a.generation > of_b.generation);

    let late = observe(&world, KEY, Some(&b)).await;
    assert_outcome(&late, Outcome::Superseded);
    assert_eq!(late.settled_etag.as_ref(), Some(&a));
    assert_outcome(&observe(&world, KEY, Some(&a)).await, Outcome::Duplicate);

    // B's notification overtakes nothing either when A's third upload was never announced.
    let other = "products/other.xml";
    let (a, _) = convert(&world, other, &version(1)).await;
    let b = world.put(other, version(2).xml()).await;
    world.put(other, version(1).xml()).await;
    let late = observe(&world, other, Some(&b)).await;
    assert_outcome(&late, Outcome::Superseded);
    assert_eq!(late.settled_etag.as_ref(), Some(&a));

    let expected = Some(version(1).json());
    assert_healthy(&world, &[(KEY, expected.clone()), (other, expected)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_convert_once_and_the_settled_version_costs_no_request() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("repeated").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;

    let etag = world.put(KEY, version(1).xml()).await;
    let at_once = announce_times(&world, KEY, Some(&etag), 5).await;
    assert_eq!(
        outcomes(&at_once),
        [
            "converted",
            "duplicate",
            "duplicate",
            "duplicate",
            "duplicate"
        ]
    );
    assert_eq!(gate.methods(KEY), ["GET", "PUT"], "the usual file");

    let later = observe(&world, KEY, Some(&etag)).await;
    assert_outcome(&later, Outcome::Duplicate);
    assert_eq!(gate.methods(KEY), ["GET", "PUT"], "the state knows it");

    assert_healthy(&world, &[(KEY, Some(version(1).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_run_one_after_the_other_and_what_is_there_decides_without_an_etag() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("no-etag").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;

    let first = world.put(KEY, version(1).xml()).await;
    let at_once = announce_times(&world, KEY, None, 3).await;
    assert_eq!(outcomes(&at_once), ["converted", "duplicate", "duplicate"]);
    assert!(
        at_once
            .iter()
            .all(|r| r.settled_etag.as_ref() == Some(&first))
    );
    assert_eq!(
        gate.methods(KEY),
        ["GET", "PUT", "GET", "HEAD", "GET", "HEAD"],
        "one event at a time, each looking at what is there, and at the output before it calls itself a duplicate"
    );

    let second = world.put(KEY, version(2).xml()).await;
    gate.forget();
    let replaced = observe(&world, KEY, None).await;
    assert_converted(&replaced, &second);
    assert_eq!(
        gate.methods(KEY),
        ["GET", "PUT"],
        "a replaced file costs no more"
    );
    assert_eq!(replaced.etag, None, "the event's own");

    // The event of the first version comes after all, together with one that names the second.
    let (late, named) = tokio::join!(
        observe(&world, KEY, Some(&first)),
        observe(&world, KEY, Some(&second))
    );
    assert_outcome(&late, Outcome::Superseded);
    assert_outcome(&named, Outcome::Duplicate);
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_replaced_while_it_is_read_ends_as_its_last_bytes_and_never_as_a_mixture() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("swap").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    // More than the buffers between the server and the worker hold, records at both ends.
    const FILE_BYTES: usize = 24 * 1024 * 1024;
    let (before, after) = (version(1).records(3), version(2).records(5));

    let swap_while_read = async |key: &str, go_on: fn(&Gate)| {
        gate.hold_bodies(key, 1024 * 1024);
        let old = world.put(key, padded(&before, FILE_BYTES)).await;
        let read = world.announce(key, Some(old.as_str())).await;
        let held = tokio::time::timeout(PATIENCE, gate.held());
        held.await.expect("the worker reads");
        let new = world.put(key, padded(&after, FILE_BYTES)).await;
        let replaced = world.announce(key, Some(new.as_str())).await;
        go_on(&gate);
        let read = world.wait_for_result(read, PATIENCE).await;
        let replaced = world.wait_for_result(replaced, PATIENCE).await;
        assert_outcome(&read, Outcome::Converted);
        assert_eq!(replaced.settled_etag.as_ref(), Some(&new));
        // Whether the old bytes can be read to their end is the server's affair.
        match read.settled_etag == Some(old) {
            true => assert_eq!((records(&read), replaced.outcome), (3, Outcome::Converted)),
            false => assert_eq!((records(&read), replaced.outcome), (5, Outcome::Duplicate)),
        }
        read.settled_etag == Some(new)
    };
    swap_while_read(KEY, Gate::release).await;
    // A body that breaks off is no shorter file: what is read again is what is there now.
    let broken_off = "products/broken-off.xml";
    assert!(swap_while_read(broken_off, Gate::cut).await);

    let expected = Some(after.json());
    assert_healthy(&world, &[(KEY, expected.clone()), (broken_off, expected)]).await;
}

// Intents

#[tokio::test(flavor = "multi_thread")]
async fn a_reconvert_runs_once_per_request_id() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("reconvert").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (etag, first) = convert(&world, KEY, &version(1)).await;

    let asked = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_converted(&asked, &etag);
    assert!(asked.generation > first.generation, "settled anew");
    assert_eq!(only_output(&asked).sha256, only_output(&first).sha256);
    let again = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_outcome(&again, Outcome::Duplicate);
    // An ordinary event in between does not make the request forgotten.
    let (etag, _) = convert(&world, KEY, &version(2)).await;
    let again = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_outcome(&again, Outcome::Duplicate);
    let another = ask(&world, KEY, Intent::Reconvert, "request-2").await;
    assert_converted(&another, &etag);
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_discards_count_while_their_letter_is_open_and_are_ordinary_events_after() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("letters").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let output = mirrored(KEY);

    // A replay that fails again leaves a letter of its own in place of the one it answers.
    world.put_output(&output, "somebody's").await;
    let first = refuse(&world, KEY, version(1).xml(), "output_collision").await;
    let failed = ask(&world, KEY, Intent::Replay, &first).await;
    assert_refused(&failed, "output_collision");
    let second = failed.dead_letter_id.clone().expect("a letter");
    assert_ne!(second, first);
    let dump = world.dump().await;
    let letter = open_letter(&world, &dump, KEY).expect("an open letter");
    assert_eq!(
        (&letter["id"], &letter["replays"]),
        (&json!(second), &json!(1))
    );

    // The first letter is closed: replaying it is an ordinary event about a version that is settled.
    world.delete_output(&output).await;
    let closed = ask(&world, KEY, Intent::Replay, &first).await;
    assert_outcome(&closed, Outcome::Duplicate);
    assert!(world.get_output(&output).await.is_none());

    let replayed = ask(&world, KEY, Intent::Replay, &second).await;
    assert_outcome(&replayed, Outcome::Converted);
    assert_output(&world, KEY, &version(1)).await;
    assert_eq!(open_letter(&world, &world.dump().await, KEY), None);
    for intent in [Intent::Replay, Intent::Discard] {
        let after = ask(&world, KEY, intent, &second).await;
        assert_outcome(&after, Outcome::Duplicate);
    }

    // A discard settles what could not be converted; what comes after it is converted.
    let letter = refuse(&world, KEY, version(2).truncated_xml(), "malformed_xml").await;
    let discarded = ask(&world, KEY, Intent::Discard, &letter).await;
    assert_outcome(&discarded, Outcome::Discarded);
    let dump = world.dump().await;
    assert_eq!(open_letter(&world, &dump, KEY), None);
    let settled = state(&world, &dump, KEY).expect("a state");
    assert_eq!(settled["status"], json!("discarded"));
    assert_eq!(
        settled["outputs"][0]["key"],
        json!(output),
        "the output of version 1 still stands"
    );
    let again = ask(&world, KEY, Intent::Discard, &letter).await;
    assert_outcome(&again, Outcome::Duplicate);
    // A closed letter's discard about bytes that nobody has seen converts them.
    let unseen = world.put(KEY, version(3).xml()).await;
    let ordinary = ask(&world, KEY, Intent::Discard, &letter).await;
    assert_converted(&ordinary, &unseen);
    assert_healthy(&world, &[(KEY, Some(version(3).json()))]).await;
}

// Outputs that are not as the state says

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_not_ours_is_never_overwritten() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[output]\npart_bytes = {PART_BYTES}");
    let world = stack.world("collision").settings(&settings).create().await;
    let worker = start(&world, WorkerOptions::default()).await;

    let foreign = "products/foreign.xml";
    world.put_output(&mirrored(foreign), "somebody's").await;
    refuse(&world, foreign, version(1).xml(), "output_collision").await;

    // The condition holds for uploads in parts as well.
    let large = "products/large.xml";
    let file = large_file(1);
    world.put_output(&mirrored(large), "somebody's").await;
    refuse(&world, large, file.xml(), "output_collision").await;
    for key in [foreign, large] {
        let stored = world.get_output(&mirrored(key)).await.expect("it is there");
        assert_eq!(stored.bytes, b"somebody's", "{key}");
    }

    // Under another template, another source has its output here.
    convert(&world, KEY, &version(1)).await;
    stop(worker).await;
    let options = WorkerOptions::default().env("FEEDMILL_OUTPUT__KEY", "{key}");
    let _worker = start(&world, options).await;
    let neighbour = mirrored(KEY);
    refuse(&world, &neighbour, version(2).xml(), "output_collision").await;
    assert_output(&world, KEY, &version(1)).await;

    let refused = [foreign, large, &neighbour].map(|key| (key, None));
    let all = [&refused[..], &[(KEY, Some(version(1).json()))]].concat();
    assert_healthy(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_output_is_made_again_when_an_event_looks_and_an_absent_one_is_left_alone() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("altered").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let output = mirrored(KEY);
    let (old, _) = convert(&world, KEY, &version(1)).await;
    let (etag, _) = convert(&world, KEY, &version(2)).await;

    for pin in [None, Some(&old)] {
        world.put_output(&output, "altered").await;
        assert_converted(&observe(&world, KEY, pin).await, &etag);
        assert_output(&world, KEY, &version(2)).await;
    }

    world.delete_output(&output).await;
    for (pin, outcome) in [
        (None, Outcome::Duplicate),
        (Some(&old), Outcome::Superseded),
    ] {
        assert_outcome(&observe(&world, KEY, pin).await, outcome);
        assert!(
            world.get_output(&output).await.is_none(),
            "a consumer took it"
        );
    }
    let asked = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_converted(&asked, &etag);
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_conditional_writes_files_are_converted_replaced_and_healed_and_no_write_has_a_condition()
 {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[output]\nconditional_writes = false";
    let world = stack.world("unfenced").settings(settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let worker = start_behind(&world, &gate).await;
    assert!(
        worker.log().contains("conditional_writes is off"),
        "it warns"
    );
    let (old, _) = convert(&world, KEY, &version(1)).await;
    let (etag, _) = convert(&world, KEY, &version(2)).await;
    for pin in [None, Some(&old)] {
        world.put_output(&mirrored(KEY), "altered").await;
        assert_converted(&observe(&world, KEY, pin).await, &etag);
    }
    let writes = gate.requests(&mirrored(KEY));
    let writes: Vec<_> = writes.iter().filter(|r| r.method == "PUT").collect();
    assert_eq!(writes.len(), 4);
    // A server without them may refuse a request that has one.
    for write in writes {
        assert!(!write.is_conditional(), "{write:#?}");
    }
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

// Workers that die

#[tokio::test(flavor = "multi_thread")]
async fn the_lost_write_of_a_killed_worker_is_found_and_counts() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("lost-write").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let etag = world.put(KEY, version(1).xml()).await;
    let event = world.announce(KEY, Some(etag.as_str())).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    assert_output(&world, KEY, &version(1)).await;
    let outputs = Bucket::named(&stack, &world.origin.output_bucket);
    let written_at = outputs.written_at(&mirrored(KEY)).await;

    let _worker = start_behind(&world, &gate).await;
    let result = world.wait_for_result(event, PATIENCE).await;
    assert_converted(&result, &etag);
    let methods = gate.methods(KEY);
    assert_eq!(
        methods,
        ["GET", "PUT", "HEAD"],
        "no second try of the refused PUT"
    );
    assert_eq!(outputs.written_at(&mirrored(KEY)).await, written_at);
    let stored = world.get_output(&mirrored(KEY)).await.expect("an output");
    assert_eq!(only_output(&result).etag, stored.etag);
    assert_healthy(&world, &[(KEY, Some(version(1).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_wrote_does_not_outlive_the_bucket_going_back() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("killed-aba").create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let (a, _) = convert(&world, KEY, &version(1)).await;
    stop(worker).await;

    // B's event is not committed; that of the third upload is lost.
    let b = world.put(KEY, version(2).xml()).await;
    let of_b = world.announce(KEY, Some(b.as_str())).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    assert_output(&world, KEY, &version(2)).await;
    world.put(KEY, version(1).xml()).await;

    let _worker = start(&world, WorkerOptions::default()).await;
    let of_b = world.wait_for_result(of_b, PATIENCE).await;
    assert_converted(&of_b, &a);
    assert_output(&world, KEY, &version(1)).await;
    assert_outcome(&observe(&world, KEY, Some(&a)).await, Outcome::Duplicate);
    assert_healthy(&world, &[(KEY, Some(version(1).json()))]).await;
}

// Layout `versioned`

#[tokio::test(flavor = "multi_thread")]
async fn layout_versioned_keeps_an_output_for_every_conversion_and_a_killed_workers_counts() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = "[output]\nlayout = \"versioned\"";
    let world = stack.world("versioned").settings(settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let a = world.put(KEY, version(1).xml()).await;
    let of_a = world.announce(KEY, Some(a.as_str())).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    let first_output = format!("{}/{a}-{of_a}.json", mirrored(KEY));
    assert_output_at(&world, &first_output, &version(1)).await;

    let _worker = start_behind(&world, &gate).await;
    let first = world.wait_for_result(of_a, PATIENCE).await;
    assert_converted(&first, &a);
    assert_eq!(
        gate.methods(KEY),
        ["GET", "PUT", "HEAD"],
        "the earlier attempt is taken"
    );
    let stored = world.get_output(&first_output).await.expect("an output");
    let output = only_output(&first);
    assert_eq!((&output.key, &output.etag), (&first_output, &stored.etag));
    assert_eq!(output.sha256, hex(&Sha256::digest(&stored.bytes)));
    assert_eq!(output.size, stored.bytes.len() as i64);

    let (b, second) = convert(&world, KEY, &version(2)).await;
    let third = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_converted(&third, &b);
    let keys = [&first, &second, &third].map(|result| only_output(result).key.clone());
    assert_eq!(
        BTreeSet::from(keys.clone()).len(),
        3,
        "never overwritten: {keys:?}"
    );
    for (key, number) in keys.iter().zip([1, 2, 2]) {
        assert_output_at(&world, key, &version(number)).await;
    }
    // Nobody else writes these keys, so nothing looks whether they are altered.
    gate.forget();
    assert_outcome(&observe(&world, KEY, None).await, Outcome::Duplicate);
    assert_outcome(&observe(&world, KEY, Some(&a)).await, Outcome::Superseded);
    assert_eq!(
        gate.methods(KEY),
        ["GET", "GET", "GET"],
        "the second is refused by its ETag"
    );
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_layout_versioned_a_result_tells_of_the_bytes_that_are_there_whichever_mapping_made_them()
 {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[output]\nlayout = \"versioned\"\npart_bytes = {PART_BYTES}");
    let world = stack
        .world("versioned-mapping")
        .settings(&settings)
        .create()
        .await;
    // In one piece, and in parts, which carry no hash.
    for (key, file) in [(KEY, version(1)), ("products/large.xml", large_file(1))] {
        let etag = world.put(key, file.xml()).await;
        let event = world.announce(key, Some(etag.as_str())).await;
        crash_after_output(&world, WorkerOptions::default()).await;
        let output_key = format!("{}/{etag}-{event}.json", mirrored(key));
        let written = world.get_output(&output_key).await.expect("an output");

        edit_config(&world, |config| {
            config.replace("name = \"name\"", "title = \"name\"")
        });
        let worker = start(&world, WorkerOptions::default()).await;
        let result = world.wait_for_result(event, PATIENCE).await;
        let stored = world.get_output(&output_key).await.expect("an output");
        assert!(
            stored.bytes == written.bytes,
            "{output_key} was overwritten"
        );
        assert_whole(&world, &result).await;
        stop(worker).await;
        edit_config(&world, |config| {
            config.replace("title = \"name\"", "name = \"name\"")
        });
    }
}

// Large outputs, and the bytes themselves

/// Converts to more than two parts.
fn large_file(number: u32) -> ProductFile {
    const RECORD_BYTES: usize = 1024 * 1024;
    let title = "x".repeat(RECORD_BYTES);
    ProductFile::new(title, number).records(2 * PART_BYTES / RECORD_BYTES + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_in_parts_are_whole_replaced_and_come_through_a_crash() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[output]\npart_bytes = {PART_BYTES}");
    let world = stack.world("parts").settings(&settings).create().await;
    let etag = world.put(KEY, large_file(1).xml()).await;
    let event = world.announce(KEY, Some(etag.as_str())).await;
    crash_after_output(&world, WorkerOptions::default()).await;
    assert_output(&world, KEY, &large_file(1)).await;

    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let first = world.wait_for_result(event, PATIENCE).await;
    assert_converted(&first, &etag);
    assert_whole(&world, &first).await;

    gate.forget();
    let (etag, second) = convert(&world, KEY, &large_file(2)).await;
    assert_whole(&world, &second).await;
    let parts = gate.requests("partNumber=");
    assert_eq!(parts.len(), 3, "{parts:#?}");

    world.put_output(&mirrored(KEY), "altered").await;
    let healed = observe(&world, KEY, None).await;
    assert_converted(&healed, &etag);
    assert_whole(&world, &healed).await;
    // And back to an output in one piece.
    let (_, small) = convert(&world, KEY, &version(3)).await;
    assert_whole(&world, &small).await;
    assert_healthy(&world, &[(KEY, Some(version(3).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_file_and_one_in_another_encoding_become_the_same_output_as_the_plain_one() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("packed").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let file = version(1);
    let text = String::from_utf8(file.xml()).expect("UTF-8");
    let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin1 = text.replace("UTF-8", "ISO-8859-1");
    let latin1: Vec<u8> = latin1
        .chars()
        .map(|c| u8::try_from(c).expect("Latin-1"))
        .collect();
    let files = [
        ("plain.xml", file.xml()),
        ("utf-16.xml", utf16),
        ("latin-1.zip", zip_of_one(&latin1)),
        ("zst.xml", zstd::encode_all(&*latin1, 1).expect("zstd")),
    ];
    for (name, bytes) in files {
        let key = format!("products/{name}");
        let (etag, result) = drop_bytes(&world, &key, bytes).await;
        assert_converted(&result, &etag);
        assert_output(&world, &key, &file).await;
    }
}

fn zip_of_one(bytes: &[u8]) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    let (mut entry, config) = archive.new_file("feed.xml").start().expect("a zip");
    let mut writer = config.wrap(&mut entry);
    writer.write_all(bytes).expect("a zip");
    let (_, descriptor) = writer.finish().expect("a zip");
    entry.finish(descriptor).expect("a zip");
    archive.finish().expect("a zip")
}

/// The Result says of the output what is true of its bytes.
async fn assert_whole(world: &World, result: &ResultRecord) {
    let output = only_output(result);
    let stored = world.get_output(&output.key).await.expect("an output");
    assert_eq!(output.etag, stored.etag);
    assert_eq!(
        output.size,
        stored.bytes.len() as i64,
        "size of {}",
        output.key
    );
    let sha256 = hex(&Sha256::digest(&stored.bytes));
    assert_eq!(output.sha256, sha256, "hash of {}", output.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_make_the_same_bytes_of_the_same_file() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("[output]\npart_bytes = {PART_BYTES}");
    let world = stack.world("bytes").settings(&settings).create().await;
    let mut files: Vec<_> = (1..6).map(version).collect();
    files.push(large_file(1));
    let keys: Vec<_> = (0..files.len())
        .map(|n| format!("products/{n}.xml"))
        .collect();

    let worker = start(&world, WorkerOptions::default().state_dir("one")).await;
    let first = join_all(
        keys.iter()
            .zip(&files)
            .map(|(key, file)| async { convert(&world, key, file).await.1 }),
    )
    .await;
    stop(worker).await;
    let _worker = start(&world, WorkerOptions::default().state_dir("two")).await;
    let asked = keys
        .iter()
        .map(|key| ask(&world, key, Intent::Reconvert, "again"));
    let second = join_all(asked).await;

    for (first, second) in first.iter().zip(&second) {
        assert_outcome(second, Outcome::Converted);
        assert_ne!(first.worker, second.worker);
        let (first, second) = (only_output(first), only_output(second));
        assert_eq!(
            (&first.sha256, first.size),
            (&second.sha256, second.size),
            "{}",
            first.key
        );
    }
    let expected = keys.iter().zip(&files);
    let expected: Vec<_> = expected
        .map(|(key, file)| (key.as_str(), Some(file.json())))
        .collect();
    assert_healthy(&world, &expected).await;
}

// A configuration that changes between two starts

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_feed_that_is_gone_are_ignored_and_their_letters_can_still_be_discarded() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("feed-gone").create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let broken = "products/broken.xml";
    let (etag, converted) = convert(&world, KEY, &version(1)).await;
    let letter = refuse(&world, broken, version(1).truncated_xml(), "malformed_xml").await;
    stop(worker).await;

    edit_config(&world, |config| config.replace("/products/**", "/other/**"));
    let worker = start(&world, WorkerOptions::default()).await;
    for pin in [Some(&etag), None] {
        assert_outcome(&observe(&world, KEY, pin).await, Outcome::Ignored);
    }
    let (_, ignored) = drop_bytes(&world, KEY, version(2).xml()).await;
    assert_outcome(&ignored, Outcome::Ignored);
    let replayed = ask(&world, broken, Intent::Replay, &letter).await;
    assert_outcome(&replayed, Outcome::Ignored);
    assert_output(&world, KEY, &version(1)).await;
    let dump = world.dump().await;
    let settled = state(&world, &dump, KEY).expect("what was settled stays");
    assert_eq!(settled["generation"], json!(converted.event_offset));
    let open = open_letter(&world, &dump, broken).expect("the letter stays open");
    assert_eq!(open["id"], json!(letter));
    let discarded = ask(&world, broken, Intent::Discard, &letter).await;
    assert_outcome(&discarded, Outcome::Discarded);
    stop(worker).await;

    // The feed is back: what changed meanwhile is converted as soon as it is announced.
    edit_config(&world, |config| config.replace("/other/**", "/products/**"));
    let _worker = start(&world, WorkerOptions::default()).await;
    assert_outcome(&observe(&world, KEY, None).await, Outcome::Converted);
    world.delete(broken).await;
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_template_holds_from_the_next_conversion_on_and_the_state_follows_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("template").create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let (etag, before) = convert(&world, KEY, &version(1)).await;
    stop(worker).await;

    let options = WorkerOptions::default().env("FEEDMILL_OUTPUT__KEY", "{feed}/{key}.json");
    let _worker = start(&world, options).await;
    // What is settled is not done again for it.
    for pin in [Some(&etag), None] {
        assert_outcome(&observe(&world, KEY, pin).await, Outcome::Duplicate);
    }
    let new_key = format!("products/{}", mirrored(KEY));
    assert!(world.get_output(&new_key).await.is_none());
    let moved = ask(&world, KEY, Intent::Reconvert, "request-1").await;
    assert_converted(&moved, &etag);
    assert_eq!(only_output(&moved).key, new_key);
    assert_ne!(
        moved.mapping_hash, before.mapping_hash,
        "the key is part of it"
    );
    assert_output_at(&world, &new_key, &version(1)).await;
    // The old output is no longer looked after, and not removed: somebody may still read it.
    assert_output(&world, KEY, &version(1)).await;
    convert(&world, KEY, &version(2)).await;
    assert_output_at(&world, &new_key, &version(2)).await;
    assert_output(&world, KEY, &version(1)).await;
    assert_healthy(&world, &[(KEY, Some(version(2).json()))]).await;
}

// Helpers

/// Announces the same thing several times at once; the Results in the order of the events.
async fn announce_times(
    world: &World,
    key: &str,
    etag: Option<&ETag>,
    times: usize,
) -> Vec<ResultRecord> {
    let events: Vec<ObjectEvent> = (0..times)
        .map(|_| world.event(key, etag.map(ETag::as_str)))
        .collect();
    join_all(events.iter().map(|event| world.send(event))).await;
    let results = events
        .iter()
        .map(|event| world.wait_for_result(event.id, PATIENCE));
    let mut results = join_all(results).await;
    results.sort_by_key(|result| result.event_offset);
    results
}

fn records(result: &ResultRecord) -> i64 {
    only_output(result).records
}

fn outcomes(results: &[ResultRecord]) -> Vec<&'static str> {
    results.iter().map(|result| result.outcome.name()).collect()
}

fn edit_config(world: &World, edit: impl FnOnce(&str) -> String) {
    let path = world.folder().join("feedmill.toml");
    let before = fs::read_to_string(&path).expect("the world's configuration");
    let after = edit(&before);
    assert_ne!(before, after, "nothing was edited");
    fs::write(path, after).expect("a writable folder");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
