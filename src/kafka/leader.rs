//! One process of an installation at a time, by ordinary group membership: whoever holds the single partition of a topic
//! leads. Kafka does the electing; nothing is consumed.
//!
//! A leader that stalls is replaced after the session timeout and learns of it when it goes on, so that two may lead for
//! a moment: only work that does no harm when done twice may hang on it.

use std::{sync::Arc, thread, time::Duration};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    RuntimeError,
    rebalance::{self, GroupChange, GroupContext},
    settings,
};
use crate::config::Kafka;

/// How often the group's events are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Our part in an election that goes on until the shutdown.
#[derive(Clone)]
pub struct Leader {
    leads: watch::Receiver<bool>,
}

impl Leader {
    /// Joins the group; `topic` has one partition.
    pub fn join(
        kafka: &Kafka,
        group: &str,
        topic: &str,
        shutdown: CancellationToken,
    ) -> Result<Self, RuntimeError> {
        let consumer: BaseConsumer<GroupContext> = settings::create(
            &settings::group_consumer(kafka, group),
            GroupContext::default(),
        )
        .map_err(RuntimeError::Client)?;
        consumer.subscribe(&[topic]).map_err(RuntimeError::Client)?;
        let (sender, leads) = watch::channel(false);
        let group: Arc<str> = group.into();
        thread::Builder::new()
            .name("leader".into())
            .spawn(move || {
                while !shutdown.is_cancelled() && !sender.is_closed() {
                    round(&consumer, &sender, &group);
                }
                sender.send_replace(false);
                rebalance::leave(&consumer);
            })
            .map_err(RuntimeError::Thread)?;
        Ok(Self { leads })
    }

    /// Resolves once this process leads; never after the end.
    pub async fn elected(&mut self) {
        if self.leads.wait_for(|leads| *leads).await.is_err() {
            std::future::pending().await
        }
    }

    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }
}

fn round(consumer: &BaseConsumer<GroupContext>, sender: &watch::Sender<bool>, group: &str) {
    if let Some(Err(error)) = consumer.poll(TICK) {
        debug!(group, %error, "waiting for the group");
    }
    for change in consumer.context().take_changes() {
        let nothing = TopicPartitionList::new();
        let answered = match change {
            GroupChange::Assigned(partitions) => {
                if !partitions.is_empty() {
                    info!(group, "this process leads");
                    sender.send_replace(true);
                }
                // Nothing is assigned to the fetcher: the partition is only a token.
                consumer.incremental_assign(&nothing)
            }
            GroupChange::Revoked(partitions) | GroupChange::Lost(partitions) => {
                if !partitions.is_empty() {
                    info!(group, "this process leads no longer");
                    sender.send_replace(false);
                }
                consumer.incremental_unassign(&nothing)
            }
            GroupChange::Failed(what) => {
                warn!(group, what, "the group protocol failed");
                KafkaResult::Ok(())
            }
        };
        if let Err(error) = answered {
            warn!(group, %error, "answer the group");
        }
    }
}
