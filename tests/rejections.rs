//! Records that are left out, on the real servers: what the output, the report beside it and the Result say of them.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use convert_world::{
    PATIENCE, assert_converted, assert_refused, drop_bytes, mirrored, only_output, output_json,
    start,
};
use feedmill::topics::RejectedOutput;
use serde_json::{Value, json};
use support::checker::Expectations;
use support::{Stack, WorkerOptions, World};

const FEED: &str = r#"
    [[feeds]]
    name = "shop"
    match = "s3://{input}/shop/**"
    max_rejected = 25

    [feeds.fields]
    id = { path = "@id", required = true }
    stock = { path = "stock", type = "integer" }
"#;

fn item(number: usize, stock: &str) -> String {
    format!("<item id='{number}'><stock>{stock}</stock></item>\n")
}

/// A file of `good` records behind as many bad ones.
fn file(bad: usize, good: usize) -> String {
    let bad = (1..=bad).map(|number| item(number, "many"));
    let good = (1..=good).map(|number| item(1_000 + number, "7"));
    format!("<items>\n{}</items>", bad.chain(good).collect::<String>())
}

/// The lines of a report.
async fn report(world: &World, key: &str) -> Vec<Value> {
    let stored = world.get_output(key).await.expect("the report is there");
    assert_eq!(stored.content_type.as_deref(), Some("application/x-ndjson"));
    let text = String::from_utf8(stored.bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_records_are_in_the_report_and_the_first_of_them_in_the_result() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("rejected").settings(FEED).create().await;
    let _worker = start(&world, WorkerOptions::default()).await;

    let key = "shop/a.xml";
    let (etag, result) = drop_bytes(&world, key, file(25, 2)).await;
    assert_converted(&result, &etag);
    assert_eq!(only_output(&result).records, 2);
    assert_eq!((result.rejected, result.rejections.len()), (25, 20));
    let second = &result.rejections[1];
    assert_eq!((second.record, second.line), (Some(2), Some(3)));
    assert_eq!(second.reason, "invalid_value");
    assert_eq!(second.path.as_deref(), Some("items/item/stock"));
    assert_eq!(second.excerpt.as_deref(), Some("many"));
    let beside = format!("{}.rejected.jsonl", mirrored(key));
    assert_eq!(
        result.rejected_output,
        Some(RejectedOutput {
            bucket: world.origin.output_bucket.clone(),
            key: beside.clone(),
        })
    );
    let output = output_json(&world, &mirrored(key)).await;
    assert_eq!(
        output,
        json!([{"id": "1001", "stock": 7}, {"id": "1002", "stock": 7}])
    );
    let lines = report(&world, &beside).await;
    assert_eq!(lines.len(), 25);
    assert_eq!(
        (&lines[24]["record"], &lines[24]["line"]),
        (&json!(25), &json!(26))
    );
    let metadata = world.get_output(&beside).await.unwrap().metadata;
    assert_eq!(metadata["feedmill-source-etag"], etag.as_str());

    // A later version without any leaves the report of the one before: it says whose it is.
    let (etag, result) = drop_bytes(&world, key, file(0, 1)).await;
    assert_converted(&result, &etag);
    assert_eq!((result.rejected, result.rejected_output), (0, None));
    let metadata = world.get_output(&beside).await.unwrap().metadata;
    assert_ne!(metadata["feedmill-source-etag"], etag.as_str());

    let many = "shop/many.xml";
    let (_, refused) = drop_bytes(&world, many, file(26, 100)).await;
    assert_refused(&refused, "too_many_rejections");
    assert_eq!((refused.rejected, refused.rejections.len()), (26, 20));
    assert_eq!(refused.rejected_output, None);
    assert!(world.get_output(&mirrored(many)).await.is_none());
    assert!(
        world
            .get_output(&format!("{}.rejected.jsonl", mirrored(many)))
            .await
            .is_none()
    );

    assert!(world.settles_within(PATIENCE).await, "events are left");
    let sources = [
        (key.to_owned(), Some(json!([{"id": "1001", "stock": 7}]))),
        (many.to_owned(), None),
    ];
    let expected = Expectations {
        sources: sources.into_iter().collect(),
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_report_beside_a_large_output_goes_up_in_parts() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = FEED.replace("max_rejected = 25", "max_rejected = '60%'");
    let settings = format!("output.part_bytes = 5242880\n{settings}");
    let world = stack
        .world("rejected-large")
        .settings(&settings)
        .create()
        .await;
    let _worker = start(&world, WorkerOptions::default()).await;

    let key = "shop/large.xml";
    // By turns: a file most of whose first thousand records are bad would be given up.
    let both = (1..=40_000).map(|number| item(2 * number - 1, "7") + &item(2 * number, "many"));
    let both = format!("<items>\n{}</items>", both.collect::<String>());
    let (etag, result) = drop_bytes(&world, key, both).await;
    assert_converted(&result, &etag);
    assert_eq!(
        (only_output(&result).records, result.rejected),
        (40_000, 40_000)
    );
    let lines = report(&world, &result.rejected_output.unwrap().key).await;
    assert_eq!(lines.len(), 40_000);
    assert_eq!(lines[39_999]["record"], 80_000);
}

/// In a native function of jq nothing can be stopped; half a minute of it is for ever here.
const PROGRAMS: &str = r##"
    convert.limits.jq_timeout = "300ms"

    [[feeds]]
    name = "jq"
    match = "s3://{input}/jq/**"
    jq = '''
      if ."@loop" then def f: f; f
      elif ."@hang" then "ab" * 10000000 | test("^[ab]*([ab]?){100}[^ab]$")
      else {id: ."@id", of: $source.key} end
    '''
"##;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_end_costs_its_file_and_the_worker_goes_on() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("jq").settings(PROGRAMS).create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;

    let (_, refused) = drop_bytes(&world, "jq/loop.xml", "<r><i loop='1'/></r>").await;
    assert_refused(&refused, "mapping_timeout");
    let (_, refused) = drop_bytes(&world, "jq/hang.xml", "<r><i hang='1'/></r>").await;
    assert_refused(&refused, "mapping_timeout");
    let (etag, result) = drop_bytes(&world, "jq/good.xml", "<r><i id='1'/></r>").await;
    assert_converted(&result, &etag);
    let output = output_json(&world, &mirrored("jq/good.xml")).await;
    assert_eq!(output, json!([{"id": "1", "of": "jq/good.xml"}]));
    assert!(worker.is_running());

    // Four threads that can't be ended are enough: the process ends in order, and another one goes on.
    for number in 2..=4 {
        let key = format!("jq/hang-{number}.xml");
        let (_, refused) = drop_bytes(&world, &key, format!("<r><i hang='{number}'/></r>")).await;
        assert_refused(&refused, "mapping_timeout");
    }
    let status = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(3));
    assert!(worker.log().contains("jq programs hang"));
    let _worker = start(&world, WorkerOptions::default()).await;
    let (etag, result) = drop_bytes(&world, "jq/later.xml", "<r><i id='2'/></r>").await;
    assert_converted(&result, &etag);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_output_says_so() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = FEED.replace(
        "max_rejected = 25",
        "max_rejected = 1\noutput_compress = \"gzip\"",
    );
    let world = stack.world("compress").settings(&settings).create().await;
    let _worker = start(&world, WorkerOptions::default()).await;
    let (etag, result) = drop_bytes(&world, "shop/a.xml", file(1, 1)).await;
    assert_converted(&result, &etag);
    let stored = world.get_output(&mirrored("shop/a.xml")).await.unwrap();
    assert_eq!(stored.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(stored.bytes[..2], [0x1f, 0x8b]);
    assert_eq!(only_output(&result).size, stored.bytes.len() as i64);
    let beside = world
        .get_output(&result.rejected_output.unwrap().key)
        .await
        .unwrap();
    assert_eq!(beside.content_encoding, None);
}
