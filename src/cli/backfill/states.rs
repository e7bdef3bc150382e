//! A copy of what is settled, for as long as the command runs.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::tally::Tally;
use crate::{
    cli::reader::Reader,
    config::Kafka,
    convert::state::{self, Settled},
    kafka::view::View,
    object::ObjectRef,
};

/// How old the copy may be when a page is looked at. Older, and what was settled meanwhile is announced once more: each a
/// duplicate, for nothing.
const MAX_AGE: Duration = Duration::from_secs(30);

/// The copy.
pub struct States {
    view: Arc<View>,
    tally: Arc<Tally>,
    seen_at: Instant,
    /// Ends a reading that goes on behind our back.
    cancel: CancellationToken,
}

impl States {
    /// Reads the whole topic into `folder`.
    pub async fn read(
        kafka: &Kafka,
        topic: &str,
        folder: &Path,
        tally: Arc<Tally>,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        // The library wants a group's name, although nobody joins one.
        let group = format!("{}.reader", kafka.group);
        let (kafka, topic, folder) = (kafka.clone(), topic.to_owned(), folder.to_owned());
        let open = move || -> anyhow::Result<View> {
            // Says clearly when Kafka can't be reached, or the topic is not there.
            Reader::connect(&kafka)?.partition_count(&topic)?;
            Ok(View::open(&kafka, &group, &topic, &folder, state::fold)?)
        };
        let view = spawn_blocking(open).await?;
        let view = view.context("read what is settled")?;
        let mut states = Self {
            view: Arc::new(view),
            tally,
            seen_at: Instant::now(),
            cancel,
        };
        states.catch_up().await?;
        states.tally.change(|counts| counts.reading = None);
        Ok(states)
    }

    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let seen_at = Instant::now();
        let (view, tally, cancel) = (
            Arc::clone(&self.view),
            Arc::clone(&self.tally),
            self.cancel.clone(),
        );
        let reading = spawn_blocking(move || {
            let partitions = view.partitions();
            view.catch_up_telling(&cancel, |partition| tally.state_read(partition, partitions))
        });
        reading.await?.context("read what is settled")?;
        self.seen_at = seen_at;
        Ok(())
    }

    /// What is settled for each of these objects, not long ago.
    pub async fn of(&mut self, objects: Vec<ObjectRef>) -> anyhow::Result<Vec<Option<Settled>>> {
        if self.seen_at.elapsed() > MAX_AGE {
            self.catch_up().await?;
        }
        let view = Arc::clone(&self.view);
        let look = move || {
            objects
                .iter()
                .map(|object| settled(&view, object))
                .collect()
        };
        spawn_blocking(look).await?
    }
}

fn settled(view: &View, object: &ObjectRef) -> anyhow::Result<Option<Settled>> {
    let bytes = view.get(object.message_key().as_bytes());
    let Some(bytes) = bytes.context("look up what is settled")? else {
        return Ok(None);
    };
    let settled = Settled::read(&bytes, object.key());
    settled
        .map(Some)
        .map_err(|reason| anyhow!("read what is settled for {object}: {reason}"))
}
