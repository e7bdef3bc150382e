//! Kafka that is there and does not answer, seen from the webhook.

mod support;

#[path = "support/secure_kafka.rs"]
mod secure_kafka;
#[path = "support/tls.rs"]
mod tls;

use std::time::Duration;

use secure_kafka::SecureKafka;
use serde_json::{Value, json};
use support::checker::Expectations;
use support::files::ProductFile;
use support::{Stack, WorkerOptions, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_claims_nothing_while_kafka_does_not_answer_and_a_repetition_is_enough() {
    let (Some(stack), Some(broker)) = (Stack::from_env(), SecureKafka::shared()) else {
        return;
    };
    let stack = Stack {
        brokers: broker.plaintext(),
        ..stack
    };
    let settings = "[kafka]\nrequest_timeout_secs = 3";
    let world = stack.world("away").settings(settings).create().await;
    let mut worker = world.worker(WorkerOptions::default());
    worker.ready(PATIENCE).await;
    let mut expected = Expectations::default();
    let mut records: Vec<Value> = Vec::new();
    for number in 0..5 {
        let key = format!("products/{number}.xml");
        let file = ProductFile::new(&key, 1);
        world.put(&key, file.xml()).await;
        expected.sources.insert(key.clone(), Some(file.json()));
        let bucket = &world.origin.input_bucket;
        records.push(json!({"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}));
    }
    let notification = json!({ "Records": records });

    broker.pause();
    let (status, body) = worker.notify(&notification).await;
    assert_eq!(status, 503, "{body}");
    assert!(!body.contains("event_id"), "{body}");
    broker.go_on();
    // As an S3 server does with what was not acknowledged.
    wait_until("the webhook to take it", PATIENCE, async || {
        let (status, _) = worker.notify(&notification).await;
        (status == 202).then_some(())
    })
    .await;
    assert!(world.settles_within(PATIENCE).await);
    for key in expected.sources.keys() {
        assert!(world.get_output(&format!("{key}.json")).await.is_some());
    }
    world.assert_healthy(&expected).await;
}
