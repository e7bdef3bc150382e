//! What is settled for an object, as new as it was when it was asked for.
//!
//! A result and its state are committed together, and still a reader may see the one before the other: each partition has
//! its own marker. So the partition of `objects` is read up to its end after the result was seen. Whoever asks while
//! another reads is answered by one reading for all.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::{
    config::Kafka,
    convert::state::{self, Settled},
    failure::chain,
    kafka::{StateFolder, partitioner::partition_of, reader::ReadError, view::View},
    object::ObjectRef,
    topics::Topics,
};

/// The table of states, as far as the clean-up needs it.
pub trait Objects: Send + Sync + 'static {
    /// What is settled for the object, no older than this call. An error may pass.
    fn settled(
        &self,
        object: &ObjectRef,
    ) -> impl Future<Output = Result<Option<Settled>, String>> + Send;
}

/// The real one.
pub struct KafkaObjects(Arc<Mutex<LocalCopy>>);

struct LocalCopy {
    view: View,
    /// When the last reading of each partition began.
    read_at: Vec<Option<Instant>>,
    /// Locked as long as anything works in it.
    _folder: Arc<StateFolder>,
}

impl KafkaObjects {
    /// Opens what an earlier run left in the folder. Blocks.
    pub fn open(
        kafka: &Kafka,
        topics: &Topics,
        folder: Arc<StateFolder>,
    ) -> Result<Self, ReadError> {
        let group = format!("{}.{}", kafka.group, super::STAGE);
        let path = folder.store_path(&format!("{}.objects", super::STAGE));
        let view = View::open(kafka, &group, &topics.objects, &path, state::fold)?;
        let partitions = usize::try_from(view.partitions()).unwrap_or_default();
        Ok(Self(Arc::new(Mutex::new(LocalCopy {
            view,
            read_at: vec![None; partitions],
            _folder: folder,
        }))))
    }
}

impl Objects for KafkaObjects {
    async fn settled(&self, object: &ObjectRef) -> Result<Option<Settled>, String> {
        let (copy, object, asked_at) = (Arc::clone(&self.0), object.clone(), Instant::now());
        let looked = tokio::task::spawn_blocking(move || {
            let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            copy.settled(&object, asked_at)
        });
        looked.await.map_err(|panic| panic.to_string())?
    }
}

impl LocalCopy {
    fn settled(
        &mut self,
        object: &ObjectRef,
        asked_at: Instant,
    ) -> Result<Option<Settled>, String> {
        let key = object.message_key();
        let partition = partition_of(key.as_bytes(), self.view.partitions());
        self.renew(partition, asked_at)
            .map_err(|error| chain(&error))?;
        let bytes = self
            .view
            .get(key.as_bytes())
            .map_err(|error| chain(&error))?;
        bytes
            .map(|bytes| Settled::read(&bytes, object.key()))
            .transpose()
            .map_err(|damage| format!("{damage}; stop this worker and delete its state folder"))
    }

    fn renew(&mut self, partition: i32, asked_at: Instant) -> Result<(), ReadError> {
        let index = usize::try_from(partition).unwrap_or_default();
        let read_at = self.read_at.get(index).copied().flatten();
        if read_at.is_some_and(|read_at| read_at >= asked_at) {
            return Ok(());
        }
        let began = Instant::now();
        // Never cut short: what is in flight at a shutdown is finished, and each request has its own time limit.
        let never = CancellationToken::new();
        self.view.catch_up_partition(partition, &never)?;
        if let Some(read_at) = self.read_at.get_mut(index) {
            *read_at = Some(began);
        }
        Ok(())
    }
}
