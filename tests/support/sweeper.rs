//! A sweeper in the test's own process, beside those of the world's workers.

use std::sync::Arc;
use std::time::Duration;

use feedmill::config::{self, Config, load};
use feedmill::intake::publish::Publisher;
use feedmill::kafka::StateFolder;
use feedmill::live::Live;
use feedmill::sweep::{KafkaLedger, S3Storage, Sweeper};
use feedmill::telemetry::metrics::Metrics;
use feedmill::topics::Topics;
use tokio_util::sync::CancellationToken;

use crate::support::World;

/// One with a state folder of this name.
pub async fn sweeper(world: &World, name: &str) -> Sweeper<S3Storage, KafkaLedger> {
    let config = config_of(world);
    let shutdown = CancellationToken::new();
    let metrics = Metrics::new();
    let accounts = feedmill::s3::Accounts::new(&config.s3).await;
    let (folder, intake, stop) = (
        world.folder().join(name),
        metrics.intake.clone(),
        shutdown.clone(),
    );
    let ledger = tokio::task::spawn_blocking(move || {
        let topics = Topics::with_prefix(&config.kafka.topic_prefix);
        let publisher = Publisher::connect(&config.kafka, &topics, intake).unwrap();
        let folder = Arc::new(StateFolder::claim(&folder).unwrap());
        KafkaLedger::open(&config.kafka, &topics, publisher, folder, stop).unwrap()
    });
    Sweeper {
        storage: Arc::new(S3Storage {
            accounts: Arc::new(Live::new(accounts)),
            stall: Duration::from_secs(30),
        }),
        ledger: Arc::new(ledger.await.unwrap()),
        metrics: metrics.sweep,
        shutdown,
    }
}

/// What the world's workers are configured with.
pub fn config_of(world: &World) -> Config {
    let file = world.folder().join("feedmill.toml");
    load(config::Sources::of_process(Some(file), None))
        .unwrap()
        .config
}
