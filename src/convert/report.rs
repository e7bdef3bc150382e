//! The report of rejected records: beside an output, and there before the output is.
//!
//! Nothing is expected of what stands at its key: the report says in its metadata which version of the source it is about. A later
//! version without rejected records leaves it where it is.

use std::fs::File;

use aws_sdk_s3::Client;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{
    answer::Refusal,
    output::{Expected, Target, Upload, WriteError},
    settle::TOO_MANY_PARTS,
    state::hex,
};
use crate::{
    config::{Output, template::REJECTED_SUFFIX},
    failure::chain,
    object::MAX_KEY_BYTES,
    s3::S3Error,
    topics::RejectedOutput,
};

/// Why there is no report.
pub enum Unreported {
    /// There never can be.
    Refused(Box<Refusal>),
    /// May pass.
    Failed(S3Error),
}

impl From<Box<Refusal>> for Unreported {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::Refused(refusal)
    }
}

/// Puts what was rejected, if anything was, beside `output`.
pub async fn put(
    s3: &Client,
    options: &Output,
    rejected: Option<File>,
    output: &Target,
) -> Result<Option<RejectedOutput>, Unreported> {
    let Some(file) = rejected else {
        return Ok(None);
    };
    let target = Target {
        key: format!("{}{REJECTED_SUFFIX}", output.key),
        content_type: "application/x-ndjson".into(),
        content_encoding: None,
        ..output.clone()
    };
    check_key(&target.key)?;
    let mut upload = Upload::new(s3, &target, options);
    let written = match send(&mut upload, file, options.part_bytes).await {
        Ok((last, sha256)) => upload.finish(last, &sha256, &Expected::Whatever).await,
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    };
    match written {
        Ok(_) => Ok(Some(RejectedOutput {
            bucket: target.bucket,
            key: target.key,
        })),
        Err(WriteError::TooManyParts) => {
            let refusal = Refusal::new("output_too_large", TOO_MANY_PARTS);
            Err(Unreported::Refused(Box::new(refusal)))
        }
        Err(WriteError::Failed(error)) => Err(Unreported::Failed(error)),
        Err(WriteError::Unexpected) => Err(Unreported::Failed(S3Error::unavailable(
            "PutObject",
            "the report of rejected records was not taken",
        ))),
    }
}

/// A key that S3 takes.
pub fn check_key(key: &str) -> Result<(), Box<Refusal>> {
    if key.len() <= MAX_KEY_BYTES {
        return Ok(());
    }
    let message = format!(
        "the output's key would have {} bytes, S3 allows {MAX_KEY_BYTES}",
        key.len()
    );
    Err(Box::new(Refusal::new("output_key_too_long", message)))
}

/// Sends a file but for its last part; that part, and the hash of the whole.
async fn send(
    upload: &mut Upload<'_>,
    file: File,
    part_bytes: u64,
) -> Result<(Bytes, String), WriteError> {
    let failed = |error| WriteError::Failed(S3Error::disk("UploadPart", chain(&error)));
    let mut file = tokio::fs::File::from_std(file);
    let mut left = file.metadata().await.map_err(failed)?.len();
    let mut hash = Sha256::new();
    loop {
        let mut part = Vec::new();
        let mut chunk = (&mut file).take(part_bytes);
        let count = chunk.read_to_end(&mut part).await.map_err(failed)? as u64;
        hash.update(&part);
        left = left.saturating_sub(count);
        if left == 0 || count == 0 {
            return Ok((part.into(), hex(&hash.finalize())));
        }
        upload.part(part.into()).await?;
    }
}
