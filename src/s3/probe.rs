//! What must hold of the S3 server before the first file: the buckets are there, and conditional writes are honoured.
//!
//! The fence on outputs is as good as the server's `If-Match` and `If-None-Match`. A server that ignores them answers
//! 200 to everything, so the only way to know is to try with conditions that must fail.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    operation::put_object::builders::PutObjectFluentBuilder,
    primitives::ByteStream,
};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use uuid::Uuid;

use super::{Failure, S3Error, options};
use crate::config::Output;

/// What is wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("reach the bucket {bucket}: {source}; {}", Cause::of(source).advice())]
    Bucket { bucket: String, source: S3Error },
    #[error("write to the bucket {bucket}: {source}; {}", Cause::of(source).advice())]
    Write { bucket: String, source: S3Error },
    #[error(
        "fence outputs in the bucket {bucket}: its server ignored {condition} on a PUT; use a server with conditional writes, or set output.conditional_writes = false and accept that a stalled worker may overwrite a newer output"
    )]
    Unfenced {
        bucket: String,
        condition: &'static str,
    },
}

/// Why sources can't be deleted safely, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DeleteProbeError {
    #[error(
        "try a conditional DELETE in the bucket {bucket}, with a scratch object under {PREFIX}: {source}; {}; or set after = \"keep\" for the feeds of this bucket, or unsafe_delete = true and accept that an upload in the moment of the deletion can be lost",
        deletion_advice(source)
    )]
    Untried { bucket: String, source: S3Error },
    #[error(
        "delete sources in the bucket {0}: its server ignored If-Match on a DELETE, so that a newer upload could be deleted; set after = \"keep\" for the feeds of this bucket, or unsafe_delete = true and accept that"
    )]
    Ignored(String),
}

/// Of no object.
const OTHER_ETAG: &str = "\"00000000000000000000000000000000\"";

/// What scratch objects' keys begin with. No feed takes them.
pub const PREFIX: &str = ".feedmill-probe/";

fn deletion_advice(error: &S3Error) -> &'static str {
    match Cause::of(error) {
        Cause::Denied => {
            "clean-up needs leave to put and to delete objects there; a bucket that is read-only for feedmill can't be cleaned up by it"
        }
        cause => cause.advice(),
    }
}

/// What stands between feedmill and a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    NoBucket,
    /// The server does not know the key, or the secret is another.
    Credentials,
    /// The credentials are known and may not do this.
    Denied,
    /// The server does not store outputs the way the configuration asks.
    Options,
    Region,
    Clock,
    /// The name of the server, or of the bucket before it, stands for no address.
    HostName,
    /// No answer, or none that feedmill understands.
    Unreachable,
}

impl Cause {
    pub fn of(error: &S3Error) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| error.message.contains(word));
        if says(&["RequestTimeTooSkewed"]) {
            return Self::Clock;
        }
        if says(&[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "HTTP 301",
        ]) {
            return Self::Region;
        }
        if says(&[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "no credentials",
        ]) {
            return Self::Credentials;
        }
        match error.failure {
            Failure::NotFound | Failure::NoSuchBucket => Self::NoBucket,
            Failure::Denied => Self::Denied,
            Failure::OptionRefused => Self::Options,
            _ if says(&["dns error", "lookup address"]) => Self::HostName,
            _ => Self::Unreachable,
        }
    }

    pub fn advice(self) -> &'static str {
        match self {
            Self::NoBucket => "make the bucket, or correct its name in the configuration",
            Self::Credentials | Self::Denied => {
                "check its credentials (s3.buckets, s3.credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) and the bucket's policy"
            }
            Self::Options => "correct these settings, or have the server allow them",
            Self::Region => {
                "set s3.region (or AWS_REGION) to the bucket's region, and leave s3.endpoint out on AWS"
            }
            Self::Clock => {
                "set this machine's clock right, for example by chrony or systemd-timesyncd"
            }
            Self::HostName => {
                "check s3.endpoint; set s3.path_style = true when the server takes the bucket in the path only"
            }
            Self::Unreachable => {
                "check s3.endpoint and s3.region, or the bucket's own under s3.buckets, and that the server is running"
            }
        }
    }
}

/// Whether the bucket is there and may be read.
pub async fn bucket(s3: &Client, bucket: &str) -> Result<(), ProbeError> {
    let listed = list(s3, bucket, "", 1, &ServerClock::default()).await;
    listed.map(drop).map_err(|source| ProbeError::Bucket {
        bucket: bucket.to_owned(),
        source,
    })
}

/// An object of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    pub key: String,
    pub bytes: i64,
}

/// One page of the objects whose keys begin with `prefix`; `clock` learns the server's time, also from a refusal.
pub async fn list(
    s3: &Client,
    bucket: &str,
    prefix: &str,
    max_keys: i32,
    clock: &ServerClock,
) -> Result<Vec<Listed>, S3Error> {
    let request = s3.list_objects_v2().bucket(bucket).max_keys(max_keys);
    let request = request.set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()));
    let page = request.customize().interceptor(clock.clone()).send().await;
    let page = page.map_err(|error| S3Error::new("ListObjectsV2", &error))?;
    Ok(page
        .contents()
        .iter()
        .filter_map(|object| {
            Some(Listed {
                key: object.key()?.to_owned(),
                bytes: object.size().unwrap_or(0),
            })
        })
        .collect())
}

/// Reads the first byte of an object; `NotFound` when it is not there but may be asked for.
pub async fn read_a_byte(s3: &Client, bucket: &str, key: &str) -> Result<(), S3Error> {
    let request = s3.get_object().bucket(bucket).key(key).range("bytes=0-0");
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(S3Error::new("GetObject", &error)),
    }
}

/// What a server's clock shows beside ours, from the `Date` of its latest answer.
#[derive(Debug, Clone, Default)]
pub struct ServerClock(Arc<Mutex<Option<SignedDuration>>>);

impl ServerClock {
    #[cfg(test)]
    pub fn at(ahead: SignedDuration) -> Self {
        Self(Arc::new(Mutex::new(Some(ahead))))
    }

    /// How far the server's clock is ahead of ours, give or take a second; `None` when no answer had a date.
    pub fn ahead(&self) -> Option<SignedDuration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) {
            let ahead = date.timestamp().duration_since(Timestamp::now());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok(())
    }
}

/// Whether PUTs whose condition does not hold are refused, on a scratch key that is deleted again.
pub async fn conditional_writes(s3: &Client, output: &Output) -> Result<(), ProbeError> {
    let mut scratch = Scratch::new(s3, output);
    let verdict = scratch.try_conditions().await;
    // Best effort: a scratch object of a few bytes does no harm.
    let _ = scratch.remove().await;
    verdict
}

/// Whether a DELETE whose condition does not hold is refused and leaves the object, on a scratch key that is deleted again.
pub async fn conditional_deletes(s3: &Client, bucket: &str) -> Result<(), DeleteProbeError> {
    let output = Output {
        bucket: bucket.to_owned(),
        ..Output::default()
    };
    let mut scratch = Scratch::new(s3, &output);
    let verdict = scratch.try_conditional_delete().await;
    // Best effort, as above.
    let _ = scratch.remove().await;
    verdict
}

/// A scratch object. Whoever wrote it calls [`Scratch::remove`]. It is written as outputs are: a policy may demand their
/// encryption, and an option that the server refuses is found out here.
pub struct Scratch {
    s3: Client,
    output: Output,
    key: String,
    /// In a bucket with versioning every PUT makes one, and only naming it deletes it.
    versions: Vec<String>,
}

impl Scratch {
    pub fn new(s3: &Client, output: &Output) -> Self {
        Self {
            s3: s3.clone(),
            output: output.clone(),
            key: format!("{PREFIX}{}", Uuid::new_v4()),
            versions: Vec::new(),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Writes it, and tries writes whose conditions do not hold.
    pub async fn try_conditions(&mut self) -> Result<(), ProbeError> {
        self.put(|put| put.if_none_match("*"))
            .await
            .map_err(|source| self.failed(source))?;
        self.must_refuse("If-None-Match: *", |put| put.if_none_match("*"))
            .await?;
        self.must_refuse("If-Match", |put| put.if_match(OTHER_ETAG))
            .await
    }

    /// Writes it, and tries to delete it on a condition that does not hold.
    pub async fn try_conditional_delete(&mut self) -> Result<(), DeleteProbeError> {
        let bucket = self.output.bucket.clone();
        let untried = |source| DeleteProbeError::Untried {
            bucket: bucket.clone(),
            source,
        };
        self.put(|put| put).await.map_err(untried)?;
        let request = self.s3.delete_object().bucket(&bucket).key(&self.key);
        let deleted = request.if_match(OTHER_ETAG).send().await;
        match deleted.map_err(|error| S3Error::new("DeleteObject", &error)) {
            Ok(_) => return Err(DeleteProbeError::Ignored(bucket)),
            Err(error) if error.failure != Failure::PreconditionFailed => {
                return Err(untried(error));
            }
            Err(_) => {}
        }
        match self.read().await {
            Ok(()) => Ok(()),
            Err(error) if error.failure == Failure::NotFound => {
                Err(DeleteProbeError::Ignored(bucket))
            }
            Err(error) => Err(untried(error)),
        }
    }

    /// Writes it without a condition.
    pub async fn write(&mut self) -> Result<(), ProbeError> {
        self.put(|put| put)
            .await
            .map_err(|source| self.failed(source))
    }

    /// Reads it back.
    pub async fn read(&self) -> Result<(), S3Error> {
        read_a_byte(&self.s3, &self.output.bucket, &self.key).await
    }

    /// Deletes it with all its versions. Deleting what is not there is no failure.
    pub async fn remove(&self) -> Result<(), S3Error> {
        let delete = |version: Option<String>| async {
            let request = self
                .s3
                .delete_object()
                .bucket(&self.output.bucket)
                .key(&self.key);
            let deleted = request.set_version_id(version).send().await;
            deleted
                .map(drop)
                .map_err(|error| S3Error::new("DeleteObject", &error))
        };
        if self.versions.is_empty() {
            return delete(None).await;
        }
        for version in &self.versions {
            if let Err(error) = delete(Some(version.clone())).await {
                // At least no reader sees it then.
                let _ = delete(None).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn put(
        &mut self,
        condition: impl FnOnce(PutObjectFluentBuilder) -> PutObjectFluentBuilder,
    ) -> Result<(), S3Error> {
        let put = self.s3.put_object().bucket(&self.output.bucket);
        let put = options::put(put.key(&self.key), &self.output);
        let put = put.body(ByteStream::from_static(b"probe"));
        let answer = condition(put)
            .send()
            .await
            .map_err(|error| S3Error::new("PutObject", &error))?;
        self.versions
            .extend(answer.version_id.filter(|id| id != "null"));
        Ok(())
    }

    async fn must_refuse(
        &mut self,
        condition: &'static str,
        apply: impl FnOnce(PutObjectFluentBuilder) -> PutObjectFluentBuilder,
    ) -> Result<(), ProbeError> {
        match self.put(apply).await {
            Ok(()) => Err(ProbeError::Unfenced {
                bucket: self.output.bucket.clone(),
                condition,
            }),
            Err(error) => match error.failure {
                Failure::PreconditionFailed | Failure::Conflict | Failure::NotFound => Ok(()),
                _ => Err(self.failed(error)),
            },
        }
    }

    fn failed(&self, source: S3Error) -> ProbeError {
        ProbeError::Write {
            bucket: self.output.bucket.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(failure: Failure, message: &str) -> Cause {
        Cause::of(&S3Error {
            operation: "ListObjectsV2",
            failure,
            message: message.into(),
        })
    }

    #[test]
    fn a_refusal_is_told_by_what_the_server_calls_it() {
        let denied = |code: &str| cause(Failure::Denied, &format!("HTTP 403 {code} no"));
        assert_eq!(denied("AccessDenied"), Cause::Denied);
        assert_eq!(denied("SignatureDoesNotMatch"), Cause::Credentials);
        assert_eq!(denied("RequestTimeTooSkewed"), Cause::Clock);
        let other = |message| cause(Failure::Unavailable, message);
        assert_eq!(
            other("HTTP 400 AuthorizationHeaderMalformed the region"),
            Cause::Region
        );
        assert_eq!(other("HTTP 301 PermanentRedirect"), Cause::Region);
        assert_eq!(
            other("dispatch failure: dns error: no such host"),
            Cause::HostName
        );
        assert_eq!(other("HTTP 503 SlowDown"), Cause::Unreachable);
        assert_eq!(cause(Failure::NoSuchBucket, "HTTP 404"), Cause::NoBucket);
    }
}
