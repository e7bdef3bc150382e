//! What an audit asks of S3 beyond what a sweep does, and how long it goes on asking.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::{
    backoff::jittered,
    convert::output,
    object::{ETag, ObjectRef},
    s3::{Failure, S3Error},
    sweep::{S3Storage, Storage},
};

/// Pause after a failure, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The S3 servers, as far as an audit needs them.
pub trait Shelves: Storage {
    /// Whether the object says of itself that it was made from this source; `None` when it is not there.
    fn is_made_from(
        &self,
        output: &ObjectRef,
        source: &ObjectRef,
    ) -> impl Future<Output = Result<Option<bool>, S3Error>> + Send;

    /// Lower-case hexadecimal SHA-256 of the bytes of this version; the length of each chunk is told when it is read.
    fn sha256(
        &self,
        output: &ObjectRef,
        etag: &ETag,
        read: impl Fn(usize) + Send + Sync,
    ) -> impl Future<Output = Result<String, S3Error>> + Send;
}

impl Shelves for S3Storage {
    async fn is_made_from(
        &self,
        output: &ObjectRef,
        source: &ObjectRef,
    ) -> Result<Option<bool>, S3Error> {
        let accounts = self.accounts.current();
        let s3 = accounts.of(output.bucket());
        let standing = output::head(s3, output.bucket(), output.key()).await?;
        Ok(standing.map(|standing| standing.is_made_from(source)))
    }

    async fn sha256(
        &self,
        output: &ObjectRef,
        etag: &ETag,
        read: impl Fn(usize) + Send + Sync,
    ) -> Result<String, S3Error> {
        let accounts = self.accounts.current();
        let s3 = accounts.of(output.bucket());
        output::hash(s3, output.bucket(), output.key(), etag, self.stall, read).await
    }
}

/// Asks again, with growing pauses, while the answer is one that may pass, for so long.
pub async fn patiently<T, F: Future<Output = Result<T, S3Error>>>(
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T, S3Error> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match ask().await {
            Err(error)
                if error.failure == Failure::Unavailable && began.elapsed() + pause < patience =>
            {
                tracing::debug!(%error, "asked again");
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}
