//! The stage before states in memory that come late, and servers that are never asked.

use std::{collections::VecDeque, sync::Mutex};

use super::*;
use crate::{
    kafka::Slots,
    telemetry::metrics::Metrics,
    topics::{Id, Intent},
};

/// States, in the order in which they are seen; the last one stays.
struct Late(Mutex<VecDeque<Option<Settled>>>);

impl Late {
    fn seen(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Objects for Late {
    async fn settled(&self, _: &ObjectRef) -> Result<Option<Settled>, String> {
        let mut states = self.0.lock().unwrap();
        match states.len() {
            1 => Ok(states[0].clone()),
            _ => Ok(states.pop_front().unwrap()),
        }
    }
}

fn settled(generation: i64, status: Status) -> Option<Settled> {
    Some(Settled {
        etag: ETag::parse("A"),
        status: Some(status),
        generation,
        ..Settled::default()
    })
}

fn result(generation: i64, outcome: Outcome) -> ResultRecord {
    ResultRecord {
        event_id: Id::mint(),
        outcome,
        reason: None,
        message: None,
        bucket: "in".into(),
        key: "a.xml".into(),
        etag: ETag::parse("A"),
        settled_etag: ETag::parse("A"),
        version_id: None,
        feed: Some("f".into()),
        mapping_hash: None,
        outputs: Vec::new(),
        generation: Some(generation),
        status: Some(Status::Converted),
        dead_letter_id: None,
        intent: Intent::Observe,
        intent_id: None,
        attempt: 0,
        event_partition: 0,
        event_offset: generation,
        event_time: None,
        received_at: Millis(0),
        finished_at: Millis(0),
        worker: "w".into(),
        trace_parent: None,
        rejected: 0,
        rejections: Vec::new(),
        rejected_output: None,
    }
}

/// A feed that deletes, on a server that does not exist.
async fn stage(states: impl IntoIterator<Item = Option<Settled>>) -> Arc<CleanUp<Late>> {
    let config: Config = toml::from_str(
        "
        s3 = { endpoint = 'http://127.0.0.1:1', max_attempts = 1, credentials = { anonymous = true } }
        retry = { in_place = '50ms' }
        feeds = [{ name = 'f', match = 's3://in/**', after = 'delete' }, { name = 'k', match = 's3://kept/**' }]
        ",
    )
    .unwrap();
    let rules = Rules::new(&config, &Default::default()).unwrap();
    let accounts = Accounts::new(&config.s3).await;
    Arc::new(CleanUp::new(
        &config,
        Late(Mutex::new(states.into_iter().collect())),
        Arc::new(Live::new(rules)),
        Arc::new(Live::new(accounts)),
        &Topics::with_prefix("t"),
        "w".into(),
        Metrics::new().cleanup,
    ))
}

const AT: Position = Position {
    partition: 0,
    offset: 1,
};

async fn cleanup(
    stage: &Arc<CleanUp<Late>>,
    result: ResultRecord,
    before: Option<Cleaned>,
) -> Option<Cleanup> {
    let mut slot = Slots::new(1, WEIGHT).take(WEIGHT).await;
    let finished = Arc::clone(stage)
        .process(Arc::new(result), AT, before.map(Arc::new), &mut slot)
        .await;
    let record = finished.records.into_iter().next()?;
    assert_eq!(&*record.topic, "t.cleanups");
    Some(decode(&record.value?).unwrap())
}

#[test]
fn it_acts_only_on_the_state_that_the_result_tells_of() {
    let told = result(7, Outcome::Converted);
    let judged = |state: Option<Settled>| verdict(&told, state.as_ref());
    assert_eq!(judged(settled(7, Status::Converted)), Verdict::Act);
    assert_eq!(judged(settled(8, Status::Converted)), Verdict::Pass);
    assert_eq!(judged(settled(6, Status::Converted)), Verdict::Wait);
    assert_eq!(judged(None), Verdict::Wait);
    assert_eq!(judged(settled(7, Status::DeadLettered)), Verdict::Pass);
    let wanted = settled(7, Status::Converted).map(|settled| Settled {
        dead_letter_id: Some("open".into()),
        ..settled
    });
    assert_eq!(judged(wanted), Verdict::Pass, "for a replay");
    let no_version = Settled {
        etag: None,
        ..settled(7, Status::Converted).unwrap()
    };
    assert_eq!(judged(Some(no_version)), Verdict::Pass);
}

#[tokio::test]
async fn a_state_that_is_older_than_the_result_is_waited_for() {
    let old = || settled(6, Status::Converted);
    let stage = stage([old(), None, old(), settled(7, Status::Converted)]).await;
    let failed = cleanup(&stage, result(7, Outcome::Duplicate), None)
        .await
        .unwrap();
    assert_eq!(stage.objects.seen(), 1, "it did not wait");
    // It came as far as the server, which is not there.
    assert_eq!(
        (failed.outcome, failed.reason.as_deref()),
        (CleanupOutcome::Failed, Some("s3_unavailable"))
    );
}

#[tokio::test]
async fn a_state_that_never_comes_is_left_to_the_next_sweep_and_one_that_is_gone_is_nobodys() {
    let behind = stage([settled(6, Status::Converted)]).await;
    let failed = cleanup(&behind, result(7, Outcome::Converted), None)
        .await
        .unwrap();
    assert_eq!(
        (failed.outcome, failed.reason.as_deref()),
        (CleanupOutcome::Failed, Some("state_behind"))
    );
    let gone = stage([None]).await;
    assert_eq!(
        cleanup(&gone, result(7, Outcome::Converted), None).await,
        None
    );
}

#[tokio::test]
async fn a_newer_state_has_a_result_of_its_own() {
    let stage = stage([settled(9, Status::Converted)]).await;
    assert_eq!(
        cleanup(&stage, result(7, Outcome::Converted), None).await,
        None
    );
}

#[tokio::test]
async fn what_asks_for_nothing_is_answered_as_it_is_read() {
    let stage = stage([None]).await;
    let read = |result: ResultRecord| {
        stage.decode(&RawRecord {
            position: AT,
            timestamp: None,
            key: format!("{}/{}", result.bucket, result.key).into_bytes(),
            value: Some(encode(&result)),
        })
    };
    assert!(matches!(
        read(result(7, Outcome::Converted)),
        Decoded::Event { .. }
    ));
    assert!(matches!(
        read(result(7, Outcome::Duplicate)),
        Decoded::Event { .. }
    ));
    let refused = ResultRecord {
        status: Some(Status::DeadLettered),
        ..result(7, Outcome::DeadLettered)
    };
    assert!(matches!(read(refused), Decoded::Answer(_)));
    let kept = ResultRecord {
        bucket: "kept".into(),
        ..result(7, Outcome::Converted)
    };
    assert!(matches!(read(kept), Decoded::Answer(_)));
}

#[tokio::test]
async fn what_was_done_is_not_done_twice_and_is_forgotten_with_its_object() {
    let stage = stage([settled(7, Status::Converted)]).await;
    let told = result(7, Outcome::Converted);
    let rules = stage.rules.current();
    let object = ObjectRef::try_new("in", "a.xml").unwrap();
    let ended = Ended::from(End::Done(None));
    let finished = stage.answer(&told, rules.of(&object).unwrap(), None, ended);
    let value = finished.records[0].value.as_deref();
    let bytes = stage.fold(value).unwrap().unwrap();
    let before = stage.read_state(&told, &bytes).unwrap();
    assert_eq!(cleanup(&stage, told, Some(before.clone())).await, None);

    let mut slot = Slots::new(1, WEIGHT).take(WEIGHT).await;
    let missing = Arc::new(result(8, Outcome::Missing));
    let before = Some(Arc::new(before));
    let finished = Arc::clone(&stage).process(missing, AT, before, &mut slot);
    assert_eq!(finished.await.records[0].value, None);
}
