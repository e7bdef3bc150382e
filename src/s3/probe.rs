//! What must hold of the S3 server before the first file: the buckets are there, and conditional writes are honoured.
//!
//! The fence on outputs is as good as the server's `If-Match` and `If-None-Match`. A server that ignores them answers
//! 200 to everything, so the only way to know is to try with conditions that must fail.

use aws_sdk_s3::{Client, primitives::ByteStream};
use uuid::Uuid;

use super::{Failure, S3Error, options};
use crate::config::Output;

/// What is wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("reach the bucket {bucket}: {source}; {advice}")]
    Bucket {
        bucket: String,
        source: S3Error,
        advice: &'static str,
    },
    #[error("write to the bucket {bucket}: {source}; {advice}")]
    Write {
        bucket: String,
        source: S3Error,
        advice: &'static str,
    },
    #[error(
        "fence outputs in the bucket {bucket}: its server ignored {condition} on a PUT; use a server with conditional writes, or set output.conditional_writes = false and accept that a stalled worker may overwrite a newer output"
    )]
    Unfenced {
        bucket: String,
        condition: &'static str,
    },
}

fn advice(failure: Failure) -> &'static str {
    match failure {
        Failure::NotFound | Failure::NoSuchBucket => {
            "make the bucket, or correct its name in the configuration"
        }
        Failure::Denied => {
            "check its credentials (s3.buckets, s3.credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) and the bucket's policy"
        }
        Failure::OptionRefused => "correct these settings, or have the server allow them",
        _ => {
            "check s3.endpoint and s3.region, or the bucket's own under s3.buckets, and that the server is running"
        }
    }
}

/// Whether the bucket is there and may be read.
pub async fn bucket(s3: &Client, bucket: &str) -> Result<(), ProbeError> {
    match s3.list_objects_v2().bucket(bucket).max_keys(1).send().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let source = S3Error::new("ListObjectsV2", &error);
            let advice = advice(source.failure);
            Err(ProbeError::Bucket {
                bucket: bucket.to_owned(),
                source,
                advice,
            })
        }
    }
}

/// Whether PUTs whose condition does not hold are refused, on a scratch key that is deleted again. It is written as
/// outputs are: a policy may demand their encryption, and an option that the server refuses is found out here.
pub async fn conditional_writes(s3: &Client, output: &Output) -> Result<(), ProbeError> {
    let bucket = &output.bucket;
    let key = format!(".feedmill-probe/{}", Uuid::new_v4());
    let verdict = try_conditions(s3, output, &key).await;
    // Best effort: a scratch object of a few bytes does no harm.
    let _ = s3.delete_object().bucket(bucket).key(&key).send().await;
    verdict
}

async fn try_conditions(s3: &Client, output: &Output, key: &str) -> Result<(), ProbeError> {
    let bucket = &output.bucket;
    let put = || {
        let request = s3.put_object().bucket(bucket).key(key);
        options::put(request, output).body(ByteStream::from_static(b"probe"))
    };
    let unfenced = |condition| ProbeError::Unfenced {
        bucket: bucket.clone(),
        condition,
    };
    let failed = |source: S3Error| {
        let advice = advice(source.failure);
        ProbeError::Write {
            bucket: bucket.to_owned(),
            source,
            advice,
        }
    };
    put()
        .if_none_match("*")
        .send()
        .await
        .map_err(|error| failed(S3Error::new("PutObject", &error)))?;
    let refused = |error: S3Error| match error.failure {
        Failure::PreconditionFailed | Failure::Conflict | Failure::NotFound => Ok(()),
        _ => Err(failed(error)),
    };
    match put().if_none_match("*").send().await {
        Ok(_) => return Err(unfenced("If-None-Match: *")),
        Err(error) => refused(S3Error::new("PutObject", &error))?,
    }
    match put()
        .if_match("\"00000000000000000000000000000000\"")
        .send()
        .await
    {
        Ok(_) => Err(unfenced("If-Match")),
        Err(error) => refused(S3Error::new("PutObject", &error)),
    }
}
