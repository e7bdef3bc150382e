//! Altered outputs, as the sweep asks for them to be made again: convert looks again before it does the work. And whose
//! outputs are not looked at: those of a version that can't be converted.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use convert_world::{
    Gate, ask, assert_converted, assert_outcome, assert_output, convert, mirrored, observe,
    open_letter, refuse, start, start_behind, state,
};
use feedmill::topics::{ALTERED_OUTPUT, Intent, Outcome, ResultRecord};
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World};

const KEY: &str = "products/a.xml";

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// Sends what a sweep would that saw an output with this ETag.
async fn ask_as_the_sweep(world: &World, before: &ResultRecord, seen: &str) -> ResultRecord {
    let generation = before.generation.expect("it is settled");
    let id = format!("{ALTERED_OUTPUT}{generation}:{seen}");
    ask(world, KEY, Intent::Reconvert, &id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_output_that_the_sweep_saw_is_made_again_once_and_only_if_it_is_still_altered() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("sweep-saw").create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let output = mirrored(KEY);
    let (etag, settled) = convert(&world, KEY, &version(1)).await;

    // It was altered when the sweep looked, and somebody mended it since: nothing is read.
    gate.forget();
    let mended = ask_as_the_sweep(&world, &settled, "mended").await;
    assert_outcome(&mended, Outcome::Duplicate);
    assert_eq!(mended.generation, settled.generation);
    assert_eq!(gate.methods(KEY), ["HEAD"]);

    let seen = world.put_output(&output, "altered").await;
    let restored = ask_as_the_sweep(&world, &settled, seen.as_str()).await;
    assert_converted(&restored, &etag);
    assert_output(&world, KEY, &version(1)).await;

    // The same request again is done with, even if the output was altered in the same way again.
    world.put_output(&output, "altered").await;
    gate.forget();
    let again = ask_as_the_sweep(&world, &settled, seen.as_str()).await;
    assert_outcome(&again, Outcome::Duplicate);
    assert!(gate.methods(KEY).is_empty());
    // The next sweep's request names the new generation.
    let next = ask_as_the_sweep(&world, &restored, seen.as_str()).await;
    assert_converted(&next, &etag);
    assert_output(&world, KEY, &version(1)).await;

    world.delete_output(&output).await;
    let taken = ask_as_the_sweep(&world, &next, "taken").await;
    assert_outcome(&taken, Outcome::Duplicate);
    let output = world.get_output(&output).await;
    assert!(output.is_none(), "a consumer took it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_bucket_now_takes_an_altered_outputs_place() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("sweep-newer").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (_, settled) = convert(&world, KEY, &version(1)).await;
    let newer = world.put(KEY, version(2).xml()).await;
    let seen = world.put_output(&mirrored(KEY), "altered").await;
    let restored = ask_as_the_sweep(&world, &settled, seen.as_str()).await;
    assert_converted(&restored, &newer);
    assert_output(&world, KEY, &version(2)).await;

    let seen = world.put_output(&mirrored(KEY), "altered").await;
    world.delete(KEY).await;
    let gone = ask_as_the_sweep(&world, &restored, seen.as_str()).await;
    assert_outcome(&gone, Outcome::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lettered_version_opens_no_second_letter_when_another_output_than_the_states_stands()
{
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("letter-once").create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (older, _) = convert(&world, KEY, &version(1)).await;
    let letter = refuse(&world, KEY, version(2).truncated_xml(), "malformed_xml").await;
    let dump = world.dump().await;
    let outputs = state(&world, &dump, KEY).expect("a state")["outputs"].clone();
    assert!(!outputs.as_array().expect("a list").is_empty(), "{outputs}");

    let altered = world.put_output(&mirrored(KEY), "altered").await;
    for (pin, outcome) in [
        (None, Outcome::Duplicate),
        (Some(&older), Outcome::Superseded),
    ] {
        let result = observe(&world, KEY, pin).await;
        assert_outcome(&result, outcome);
    }
    let asked = ask(&world, KEY, Intent::Reconvert, "altered-output:1:x").await;
    assert_outcome(&asked, Outcome::Duplicate);

    let dump = world.dump().await;
    let open = open_letter(&world, &dump, KEY).expect("an open letter");
    assert_eq!(open["id"], letter.as_str());
    let stands = world.get_output(&mirrored(KEY)).await.expect("an output");
    assert_eq!(stands.etag, altered, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_output_under_an_earlier_template_does_not_keep_the_new_one_from_being_written()
{
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("old-template").create().await;
    let worker = start(&world, WorkerOptions::default()).await;
    let (etag, _) = convert(&world, KEY, &version(1)).await;
    convert_world::stop(worker).await;
    world.put_output(&mirrored(KEY), "altered").await;
    let moved = WorkerOptions::default().env("FEEDMILL_OUTPUT__KEY", "moved/{key}.json");
    let _worker = start(&world, moved).await;
    assert_converted(&observe(&world, KEY, None).await, &etag);
    let output = format!("moved/{}", mirrored(KEY));
    convert_world::assert_output_at(&world, &output, &version(1)).await;
}
