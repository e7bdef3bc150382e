//! What is done to one source, on S3 alone.
//!
//! In: the object, the version that was settled, and its outputs. Out: an [`End`], or an error that may pass. Everything
//! here may be done again, by anybody: what was done is found done.
//!
//! Promises: a source goes only when it has the settled ETag and each output stands as it was written. What is uploaded
//! meanwhile is never deleted, because the DELETE names the ETag; with `unsafe_delete` it may be.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    config::timeout::TimeoutConfig,
    operation::head_object::HeadObjectOutput,
    types::{CompletedMultipartUpload, CompletedPart, MetadataDirective, Tag as S3Tag, Tagging},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::warn;

use super::rules::Rule;
use crate::{
    config::{After, Place, Tag},
    convert::state::Settled,
    faults::{self, Fault},
    object::{ETag, MAX_KEY_BYTES, ObjectRef},
    s3::{Accounts, Failure, S3Error},
};

/// Longest time of one copy: the server moves the bytes before it answers.
const COPY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What is not percent-encoded in the name of a copy's source.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// How large copies are made, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct CopySizes {
    /// The largest object that is copied in one request.
    pub whole: i64,
    /// Each part of a larger one.
    pub part: i64,
}

impl Default for CopySizes {
    /// S3's bounds are 5 GiB for one copy and 10,000 parts for 5 TiB.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
    fn default() -> Self {
        Self {
            whole: 5 * 1024 * 1024 * 1024,
            part: 1024 * 1024 * 1024,
        }
    }
}

/// One source to clean up.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub s3: &'a Accounts,
    pub object: &'a ObjectRef,
    /// Converted, with its ETag.
    pub settled: &'a Settled,
    pub etag: &'a ETag,
    pub rule: &'a Rule,
    pub copy_sizes: CopySizes,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Where the source is now, or the tag it has.
    Done(Option<String>),
    Gone,
    Changed,
    Skipped {
        reason: &'static str,
        message: String,
    },
}

impl Task<'_> {
    /// Does what the feed asks for. An error may pass, unless [`is_lasting`] says otherwise.
    pub async fn run(&self) -> Result<End, S3Error> {
        let Some(source) = self.head(self.object.bucket(), self.object.key()).await? else {
            return self.gone().await;
        };
        if !self.is_settled(&source) {
            return Ok(End::Changed);
        }
        match &self.rule.after {
            // Not asked for; nothing happens.
            After::Keep => Ok(End::Skipped {
                reason: "kept",
                message: "the feed keeps its sources".into(),
            }),
            After::Tag(tag) => self.tag(tag, source.version_id()).await,
            After::Delete => match self.missing_output().await? {
                Some(skipped) => Ok(skipped),
                None => self.delete(None).await,
            },
            After::Move(place) => match self.missing_output().await? {
                Some(skipped) => Ok(skipped),
                None => self.move_to(place, &source).await,
            },
        }
    }

    /// The source is not there: somebody deleted it, or we moved it and died before we could say so.
    async fn gone(&self) -> Result<End, S3Error> {
        if let After::Move(place) = &self.rule.after {
            let target = self.target_key(place);
            let moved = self.head(&place.bucket, &target).await?;
            if moved.is_some_and(|moved| self.is_settled(&moved)) {
                return Ok(End::Done(Some(url(&place.bucket, &target))));
            }
        }
        Ok(End::Gone)
    }

    /// Why a source must stay: an output that is not there as it was written.
    async fn missing_output(&self) -> Result<Option<End>, S3Error> {
        if self.settled.outputs.is_empty() {
            return Ok(Some(skipped(
                "no_output",
                "the state names no output".into(),
            )));
        }
        for output in &self.settled.outputs {
            let name = url(&output.bucket, &output.key);
            let Some(found) = self.head(&output.bucket, &output.key).await? else {
                return Ok(Some(skipped(
                    "output_absent",
                    format!("{name} is not there"),
                )));
            };
            if etag(&found).as_ref() != Some(&output.etag) {
                let message = format!("{name} is not as it was written");
                return Ok(Some(skipped("output_altered", message)));
            }
        }
        Ok(None)
    }

    async fn delete(&self, moved_to: Option<String>) -> Result<End, S3Error> {
        let (bucket, key) = (self.object.bucket(), self.object.key());
        let mut request = self.s3.of(bucket).delete_object().bucket(bucket).key(key);
        match self.rule.unsafe_delete {
            false => request = request.if_match(self.etag.quoted()),
            // The last look; what is uploaded from here on is lost.
            true => match self.head(bucket, key).await? {
                Some(now) if self.is_settled(&now) => {}
                Some(_) => return Ok(End::Changed),
                None => return Ok(End::Gone),
            },
        }
        if let Err(error) = request.send().await {
            return self.look_again(S3Error::new("DeleteObject", &error)).await;
        }
        faults::crash_at(Fault::CrashAfterClean);
        Ok(End::Done(moved_to))
    }

    /// A condition did not hold, or the source was not found: it is gone, or it is another one. Servers answer the same to both.
    async fn look_again(&self, error: S3Error) -> Result<End, S3Error> {
        if !matches!(
            error.failure,
            Failure::PreconditionFailed | Failure::NotFound | Failure::Conflict
        ) {
            return Err(error);
        }
        match self.head(self.object.bucket(), self.object.key()).await? {
            None => Ok(End::Gone),
            Some(now) if !self.is_settled(&now) => Ok(End::Changed),
            Some(_) => Err(error),
        }
    }

    async fn move_to(&self, place: &Place, source: &HeadObjectOutput) -> Result<End, S3Error> {
        let target = self.target_key(place);
        if target.len() > MAX_KEY_BYTES {
            let message = format!("its key there would have {} bytes", target.len());
            return Ok(skipped("target_key_too_long", message));
        }
        let to = self.s3.of(&place.bucket);
        let size = source.content_length().unwrap_or_default();
        let copied = match size <= self.copy_sizes.whole {
            true => self.copy_whole(to, &place.bucket, &target).await,
            false => {
                self.copy_parts(to, &place.bucket, &target, source, size)
                    .await
            }
        };
        let copied = match copied {
            Ok(copied) => copied,
            Err(error) if error.failure == Failure::NoSuchBucket => return Err(error),
            Err(error) => return self.look_again(error).await,
        };
        let standing = self.head(&place.bucket, &target).await?;
        let is_whole = standing.is_some_and(|standing| {
            standing.content_length() == Some(size) && etag(&standing) == copied
        });
        if !is_whole {
            let message = "the copy does not stand as it was answered; the source stays";
            return Err(S3Error::unavailable("CopyObject", message));
        }
        faults::crash_at(Fault::CrashAfterCopy);
        self.delete(Some(url(&place.bucket, &target))).await
    }

    /// The ETag of the copy. Metadata and tags go along.
    async fn copy_whole(
        &self,
        to: &Client,
        bucket: &str,
        key: &str,
    ) -> Result<Option<ETag>, S3Error> {
        let request = to.copy_object().bucket(bucket).key(key);
        let request = request
            .copy_source(self.copy_source())
            .copy_source_if_match(self.etag.quoted())
            .metadata_directive(MetadataDirective::Copy);
        let answer = request.customize().config_override(patient()).send().await;
        let answer = answer.map_err(|error| S3Error::new("CopyObject", &error))?;
        let result = answer.copy_object_result();
        Ok(result
            .and_then(|result| result.e_tag())
            .and_then(ETag::parse))
    }

    /// The same in parts, of a version that stays the same from the first to the last. Metadata goes along, tags do not.
    async fn copy_parts(
        &self,
        to: &Client,
        bucket: &str,
        key: &str,
        source: &HeadObjectOutput,
        size: i64,
    ) -> Result<Option<ETag>, S3Error> {
        let begun = to
            .create_multipart_upload()
            .bucket(bucket)
            .key(key)
            .set_content_type(source.content_type().map(str::to_owned))
            .set_content_encoding(source.content_encoding().map(str::to_owned))
            .set_content_language(source.content_language().map(str::to_owned))
            .set_content_disposition(source.content_disposition().map(str::to_owned))
            .set_cache_control(source.cache_control().map(str::to_owned))
            .set_metadata(source.metadata().cloned());
        let begun = begun.send().await;
        let begun = begun.map_err(|error| S3Error::new("CreateMultipartUpload", &error))?;
        let Some(upload) = begun.upload_id() else {
            let message = "the upload has no id";
            return Err(S3Error::unavailable("CreateMultipartUpload", message));
        };
        let copied = self.all_parts(to, bucket, key, upload, size).await;
        if copied.is_err() {
            let abort = to.abort_multipart_upload().bucket(bucket).key(key);
            if let Err(error) = abort.upload_id(upload).send().await {
                let error = S3Error::new("AbortMultipartUpload", &error);
                warn!(bucket, key, %error, "parts of a copy are left; the bucket's lifecycle may remove them");
            }
        }
        copied
    }

    async fn all_parts(
        &self,
        to: &Client,
        bucket: &str,
        key: &str,
        upload: &str,
        size: i64,
    ) -> Result<Option<ETag>, S3Error> {
        let mut parts = Vec::new();
        let step = usize::try_from(self.copy_sizes.part)
            .unwrap_or(usize::MAX)
            .max(1);
        for (number, first) in (1..).zip((0..size).step_by(step)) {
            let last = (first + self.copy_sizes.part).min(size) - 1;
            let request = to.upload_part_copy().bucket(bucket).key(key);
            let request = request
                .upload_id(upload)
                .part_number(number)
                .copy_source(self.copy_source())
                .copy_source_if_match(self.etag.quoted())
                .copy_source_range(format!("bytes={first}-{last}"));
            let answer = request.customize().config_override(patient()).send().await;
            let answer = answer.map_err(|error| S3Error::new("UploadPartCopy", &error))?;
            let etag = answer.copy_part_result().and_then(|part| part.e_tag());
            let part = CompletedPart::builder().part_number(number);
            parts.push(part.set_e_tag(etag.map(str::to_owned)).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let request = to.complete_multipart_upload().bucket(bucket).key(key);
        let request = request.upload_id(upload).multipart_upload(parts.build());
        let answer = request.customize().config_override(patient()).send().await;
        let answer = answer.map_err(|error| S3Error::new("CompleteMultipartUpload", &error))?;
        Ok(answer.e_tag().and_then(ETag::parse))
    }

    /// Puts one tag beside those the object has. Without version ids a newer upload can slip in between; it is told by the
    /// last look, and loses the tag again.
    async fn tag(&self, tag: &Tag, version: Option<&str>) -> Result<End, S3Error> {
        let done = || End::Done(Some(tag.to_string()));
        let mut tags = match self.tags(version).await {
            Ok(tags) => tags,
            Err(error) => return self.look_again(error).await,
        };
        let is_ours = |other: &S3Tag| other.key() == tag.name;
        if tags
            .iter()
            .any(|other| is_ours(other) && other.value() == tag.value)
        {
            return Ok(done());
        }
        tags.retain(|other| !is_ours(other));
        tags.push(s3_tag(&tag.name, &tag.value)?);
        if let Err(error) = self.put_tags(tags, version).await {
            return self.look_again(error).await;
        }
        faults::crash_at(Fault::CrashAfterClean);
        if version.is_some() {
            return Ok(done());
        }
        match self.head(self.object.bucket(), self.object.key()).await? {
            Some(now) if self.is_settled(&now) => Ok(done()),
            None => Ok(End::Gone),
            Some(_) => {
                let mut tags = self.tags(None).await?;
                tags.retain(|other| !is_ours(other));
                self.put_tags(tags, None).await?;
                Ok(End::Changed)
            }
        }
    }

    async fn tags(&self, version: Option<&str>) -> Result<Vec<S3Tag>, S3Error> {
        let (bucket, key) = (self.object.bucket(), self.object.key());
        let request = self.s3.of(bucket).get_object_tagging();
        let request = request.bucket(bucket).key(key);
        let answer = request
            .set_version_id(version.map(str::to_owned))
            .send()
            .await;
        let answer = answer.map_err(|error| S3Error::new("GetObjectTagging", &error))?;
        Ok(answer.tag_set)
    }

    async fn put_tags(&self, tags: Vec<S3Tag>, version: Option<&str>) -> Result<(), S3Error> {
        let (bucket, key) = (self.object.bucket(), self.object.key());
        let tags = Tagging::builder().set_tag_set(Some(tags)).build();
        let tags = tags.map_err(|error| S3Error::unavailable("PutObjectTagging", error))?;
        let request = self.s3.of(bucket).put_object_tagging();
        let request = request.bucket(bucket).key(key).tagging(tags);
        let answer = request
            .set_version_id(version.map(str::to_owned))
            .send()
            .await;
        answer
            .map(drop)
            .map_err(|error| S3Error::new("PutObjectTagging", &error))
    }

    /// The object as it is now; `None` when it is not there.
    async fn head(&self, bucket: &str, key: &str) -> Result<Option<HeadObjectOutput>, S3Error> {
        let request = self.s3.of(bucket).head_object().bucket(bucket).key(key);
        match request.send().await {
            Ok(head) => Ok(Some(head)),
            Err(error) => match S3Error::new("HeadObject", &error) {
                error if error.failure == Failure::NotFound => {
                    self.must_be_there(bucket).await.map(|()| None)
                }
                error => Err(error),
            },
        }
    }

    /// A HEAD has no body: an object that is not there, and one whose bucket is not there, look alike.
    async fn must_be_there(&self, bucket: &str) -> Result<(), S3Error> {
        let looked = self.s3.of(bucket).head_bucket().bucket(bucket).send().await;
        let looked = looked.map(drop);
        looked.map_err(|error| match S3Error::new("HeadBucket", &error) {
            error if error.failure == Failure::NotFound => S3Error {
                failure: Failure::NoSuchBucket,
                ..error
            },
            error => error,
        })
    }

    fn is_settled(&self, head: &HeadObjectOutput) -> bool {
        etag(head).as_ref() == Some(self.etag)
    }

    fn target_key(&self, place: &Place) -> String {
        format!("{}{}", place.prefix, self.object.key())
    }

    fn copy_source(&self) -> String {
        let name = self.object.message_key();
        utf8_percent_encode(&name, COPY_SOURCE).to_string()
    }
}

/// Whether trying again in a moment is of no use.
pub fn is_lasting(error: &S3Error) -> bool {
    matches!(
        error.failure,
        Failure::Denied
            | Failure::NoSuchBucket
            | Failure::Refused
            | Failure::OptionRefused
            | Failure::Archived
    ) || error.message.starts_with("HTTP 501")
}

fn skipped(reason: &'static str, message: String) -> End {
    End::Skipped { reason, message }
}

fn etag(head: &HeadObjectOutput) -> Option<ETag> {
    head.e_tag().and_then(ETag::parse)
}

fn s3_tag(name: &str, value: &str) -> Result<S3Tag, S3Error> {
    let tag = S3Tag::builder().key(name).value(value).build();
    tag.map_err(|error| S3Error::unavailable("PutObjectTagging", error))
}

fn url(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

/// For requests that the server answers when it has moved the bytes.
fn patient() -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .read_timeout(COPY_TIMEOUT)
        .operation_attempt_timeout(COPY_TIMEOUT)
        .build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts)
}
