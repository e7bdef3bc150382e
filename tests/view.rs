//! The view of a compacted topic, and the election of one process, on a real broker.

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use feedmill::{
    config::Kafka,
    convert::state::{self, Settled},
    kafka::{leader::Leader, view::View},
    topics::Outcome,
};
use support::checker::Topic;
use support::files::ProductFile;
use support::{Stack, WorkerOptions, World, wait_until};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

fn kafka(world: &World) -> Kafka {
    Kafka {
        brokers: world.origin.brokers.split(',').map(str::to_owned).collect(),
        session_timeout_secs: 6,
        ..Kafka::default()
    }
}

/// Opens the view, or the one that was left in the folder, and says how many records it had to read.
async fn opened(world: &World) -> (View, usize) {
    let (kafka, group) = (kafka(world), world.origin.group.clone());
    let (topic, folder) = (world.topic(Topic::Objects), world.folder().join("view"));
    tokio::task::spawn_blocking(move || {
        let view = View::open(&kafka, &group, &topic, &folder, state::fold).unwrap();
        let read = view.catch_up(&CancellationToken::new()).unwrap();
        (view, read)
    })
    .await
    .unwrap()
}

fn settled(world: &World, view: &View, key: &str) -> Option<Settled> {
    let message_key = format!("{}/{key}", world.origin.input_bucket);
    let bytes = view.get(message_key.as_bytes()).unwrap()?;
    Some(Settled::read(&bytes, key).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_knows_what_is_committed_and_reads_only_the_rest_when_opened_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("view").create().await;
    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(PATIENCE).await;
    let products = ProductFile::new("a", 1).xml();
    for n in 0..10 {
        let key = format!("products/{n}.xml");
        let etag = world.put(&key, products.clone()).await;
        let event = world.announce(&key, Some(etag.as_str())).await;
        let result = world.wait_for_result(event, PATIENCE).await;
        assert_eq!(result.outcome, Outcome::Converted);
    }
    let (view, read) = opened(&world).await;
    assert_eq!(read, 10);
    let view = older_records_are_read_in_any_steps(view).await;
    for n in 0..10 {
        let state = settled(&world, &view, &format!("products/{n}.xml")).unwrap();
        assert_eq!(state.outputs.len(), 1);
    }
    assert_eq!(settled(&world, &view, "products/never.xml"), None);
    let events = world.topic(Topic::Events);
    let passed = tokio::task::spawn_blocking(move || {
        let passed = view.committed_offsets(&events, &CancellationToken::new());
        drop(view);
        passed.unwrap()
    })
    .await
    .unwrap();
    assert_eq!(passed.iter().sum::<i64>(), 10, "{passed:?}");

    world.delete("products/3.xml").await;
    let event = world.announce("products/3.xml", None).await;
    assert_eq!(
        world.wait_for_result(event, PATIENCE).await.outcome,
        Outcome::Missing
    );
    let (view, read) = opened(&world).await;
    assert_eq!(read, 1, "only the tombstone is new");
    assert_eq!(settled(&world, &view, "products/3.xml"), None);
    assert!(settled(&world, &view, "products/4.xml").is_some());
}

/// Of the topic that the view is of: ten keys, once each, whether it is read in one go or record by record.
async fn older_records_are_read_in_any_steps(view: View) -> View {
    let read = move || {
        for step in [1, 3, 100] {
            let keys = keys_before(&view, i64::MAX, step);
            let different: BTreeSet<_> = keys.iter().collect();
            assert_eq!((keys.len(), different.len()), (10, 10), "step {step}");
        }
        assert_eq!(keys_before(&view, 1, 3).len(), 0, "all are younger");
        view
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// The keys of records that were written before a time, read so many at a time.
fn keys_before(view: &View, before_ms: i64, step: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for partition in 0..view.partitions() {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut read = 0;
            let cancel = CancellationToken::new();
            let older = view.read_older(partition, from, before_ms, &cancel, |key, _| {
                keys.push(key.to_vec());
                read += 1;
                Ok(match read < step {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            });
            next = older.unwrap();
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_leads_and_another_follows_when_it_goes() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("leader").create().await;
    let topic = format!("{}.rejected-notifications", world.origin.topic_prefix);
    let group = format!("{}.sweep", world.origin.topic_prefix);
    let join = || {
        let ends = CancellationToken::new();
        let leader = Leader::join(&kafka(&world), &group, &topic, ends.clone()).unwrap();
        (leader, ends)
    };
    let (mut first, first_ends) = join();
    tokio::time::timeout(PATIENCE, first.elected())
        .await
        .unwrap();
    let (mut second, _second_ends) = join();
    // The second has joined when the group has rebalanced: the first stays, being there already.
    let at_once = tokio::time::timeout(Duration::from_secs(3), second.elected()).await;
    assert!(at_once.is_err() && first.leads());
    first_ends.cancel();
    tokio::time::timeout(PATIENCE, second.elected())
        .await
        .unwrap();
    wait_until("the first to step back", PATIENCE, async || {
        (!first.leads()).then_some(())
    })
    .await;
    assert!(second.leads());
}
