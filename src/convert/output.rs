//! The fenced write: an output appears only where it is expected to, whoever else is writing.
//!
//! The first try expects what the state names: `If-Match` of its output's ETag, `If-None-Match: *` when it names none, so
//! that the usual file costs one GET and one PUT. What a refusal means is found out by a HEAD: see [`Standing`].

use std::{collections::HashMap, time::Duration};

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::state::hex;
use crate::{
    config,
    failure::chain,
    object::{ETag, ObjectRef},
    s3::{Failure, S3Error, options},
};

/// What must stand at the output's key for a write to go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Nothing,
    Output(ETag),
    /// No condition: the server has no conditional writes, and the operator has accepted that.
    Whatever,
}

impl Expected {
    fn if_match(&self) -> Option<String> {
        match self {
            Self::Output(etag) => Some(etag.quoted()),
            Self::Nothing | Self::Whatever => None,
        }
    }

    fn if_none_match(&self) -> Option<String> {
        matches!(self, Self::Nothing).then(|| "*".to_owned())
    }
}

/// Where an output goes, and what it says of itself in its metadata.
#[derive(Debug, Clone)]
pub struct Target {
    pub bucket: String,
    pub key: String,
    pub content_type: String,
    pub content_encoding: Option<&'static str>,
    pub origin: Origin,
}

/// Which source, in which version, by which mapping: kept as metadata of the output, so that a writer whose answer was
/// lost recognises its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Hash of the source's `bucket/key`: the key itself may be too long for metadata, or not ASCII.
    pub source: String,
    pub source_etag: String,
    pub mapping: String,
    /// The trace of the event it was made for: for people, and no part of whose output it is.
    pub trace_parent: Option<String>,
}

const SOURCE: &str = "feedmill-source";
const SOURCE_ETAG: &str = "feedmill-source-etag";
const MAPPING: &str = "feedmill-mapping";
const SHA256: &str = "feedmill-sha256";
const TRACE_PARENT: &str = "feedmill-traceparent";

impl Origin {
    pub fn new(
        source: &ObjectRef,
        source_etag: &ETag,
        mapping: &str,
        trace_parent: Option<&str>,
    ) -> Self {
        Self {
            source: source_name(source),
            source_etag: source_etag.as_str().to_owned(),
            mapping: mapping.to_owned(),
            trace_parent: trace_parent.map(str::to_owned),
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let pairs = [
            (SOURCE, Some(&self.source)),
            (SOURCE_ETAG, Some(&self.source_etag)),
            (MAPPING, Some(&self.mapping)),
            (TRACE_PARENT, self.trace_parent.as_ref()),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }
}

/// The name of a source in metadata: 32 hexadecimal digits of the SHA-256 of `bucket/key`.
fn source_name(source: &ObjectRef) -> String {
    hex(&Sha256::digest(source.message_key())[..16])
}

/// What stands at an output's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    metadata: HashMap<String, String>,
}

/// What a HEAD after a refused write says.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Our own write whose answer was lost, or the same bytes by a predecessor.
    Ours(ETag),
    /// Another source's output, or somebody else's object.
    Foreign,
    /// An output of this source from another version or mapping, or one that was altered: start over, expecting this.
    Other(ETag),
}

impl Standing {
    /// Whether it says of itself that it was made from this source.
    pub fn is_made_from(&self, source: &ObjectRef) -> bool {
        self.metadata
            .get(SOURCE)
            .is_some_and(|name| *name == source_name(source))
    }

    /// What this object is to a writer of `origin` with bytes of this hash and size; `named` when the state names this key
    /// as an output of the source, so that an object without our metadata is that output, altered.
    pub fn meaning(&self, origin: &Origin, sha256: &str, size: u64, named: bool) -> Meaning {
        let says = |name: &str, value: &str| self.metadata.get(name).is_some_and(|is| is == value);
        if !says(SOURCE, &origin.source) {
            return match named && !self.metadata.contains_key(SOURCE) {
                true => Meaning::Other(self.etag.clone()),
                false => Meaning::Foreign,
            };
        }
        // An output written in parts says no hash: it was not known when the upload began. The same version by the same
        // mapping gives the same bytes.
        let same_bytes = match self.metadata.get(SHA256) {
            Some(is) => is == sha256,
            None => self.size == size,
        };
        match says(SOURCE_ETAG, &origin.source_etag) && says(MAPPING, &origin.mapping) && same_bytes
        {
            true => Meaning::Ours(self.etag.clone()),
            false => Meaning::Other(self.etag.clone()),
        }
    }
}

/// Looks at what stands at a key.
pub async fn head(s3: &Client, bucket: &str, key: &str) -> Result<Option<Standing>, S3Error> {
    match s3.head_object().bucket(bucket).key(key).send().await {
        Ok(response) => {
            let etag = response
                .e_tag()
                .and_then(ETag::parse)
                .ok_or_else(|| S3Error::unavailable("HeadObject", "the server sent no ETag"))?;
            let size = response
                .content_length()
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or(0);
            let metadata = response.metadata().cloned().unwrap_or_default();
            Ok(Some(Standing {
                etag,
                size,
                metadata,
            }))
        }
        Err(error) => {
            let error = S3Error::new("HeadObject", &error);
            match error.failure {
                Failure::NotFound => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Reads an output to hash its bytes; each chunk is waited for at most `stall`, and its length told.
pub async fn hash(
    s3: &Client,
    bucket: &str,
    key: &str,
    etag: &ETag,
    stall: Duration,
    read: impl Fn(usize),
) -> Result<String, S3Error> {
    let request = s3.get_object().bucket(bucket).key(key);
    let response = request.if_match(etag.quoted()).send().await;
    let mut body = response
        .map_err(|error| S3Error::new("GetObject", &error))?
        .body;
    let mut hash = Sha256::new();
    let failed =
        |error: &(dyn std::error::Error + 'static)| S3Error::unavailable("GetObject", chain(error));
    while let Some(chunk) = timeout(stall, body.next())
        .await
        .map_err(|late| failed(&late))?
    {
        let chunk = chunk.map_err(|error| failed(&error))?;
        read(chunk.len());
        hash.update(chunk);
    }
    Ok(hex(&hash.finalize()))
}

/// Why a write did not go through.
#[derive(Debug)]
pub enum WriteError {
    /// What stands there is not what was expected (412; 404 for an absent one; or the upload was aborted by somebody).
    Unexpected,
    /// The output has more parts than S3 allows.
    TooManyParts,
    /// May pass; whether it was written after all is not known.
    Failed(S3Error),
}

impl From<S3Error> for WriteError {
    fn from(error: S3Error) -> Self {
        match error.failure {
            Failure::PreconditionFailed | Failure::NotFound | Failure::NoSuchUpload => {
                Self::Unexpected
            }
            _ => Self::Failed(error),
        }
    }
}

/// S3 counts the parts of an upload from 1 to this.
const MAX_PARTS: i32 = 10_000;

/// An output on its way: small ones in one PUT, large ones in parts.
pub struct Upload<'a> {
    s3: &'a Client,
    target: &'a Target,
    options: &'a config::Output,
    parts: Option<Parts>,
}

struct Parts {
    upload_id: String,
    done: Vec<CompletedPart>,
}

impl<'a> Upload<'a> {
    pub fn new(s3: &'a Client, target: &'a Target, options: &'a config::Output) -> Self {
        Self {
            s3,
            target,
            options,
            parts: None,
        }
    }

    /// Sends a part of which more follow.
    pub async fn part(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        let target = self.target;
        let mut parts = match self.parts.take() {
            Some(parts) => parts,
            None => self.begin().await?,
        };
        let number = i32::try_from(parts.done.len() + 1).unwrap_or(i32::MAX);
        if number > MAX_PARTS {
            self.parts = Some(parts);
            return Err(WriteError::TooManyParts);
        }
        let sent = self
            .s3
            .upload_part()
            .bucket(&target.bucket)
            .key(&target.key)
            .upload_id(&parts.upload_id)
            .part_number(number)
            .body(ByteStream::from(bytes))
            .send()
            .await;
        let result = match sent {
            Ok(response) => {
                let part = CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(response.e_tag)
                    .build();
                parts.done.push(part);
                Ok(())
            }
            Err(error) => Err(S3Error::new("UploadPart", &error).into()),
        };
        self.parts = Some(parts);
        result
    }

    async fn begin(&self) -> Result<Parts, WriteError> {
        let target = self.target;
        let request = self
            .s3
            .create_multipart_upload()
            .bucket(&target.bucket)
            .key(&target.key)
            .content_type(&target.content_type)
            .set_content_encoding(target.content_encoding.map(str::to_owned))
            .set_metadata(Some(target.origin.metadata()));
        let response = options::multipart(request, self.options)
            .send()
            .await
            .map_err(|error| S3Error::new("CreateMultipartUpload", &error))?;
        let upload_id = response.upload_id.ok_or_else(|| {
            S3Error::unavailable("CreateMultipartUpload", "the server sent no upload id")
        })?;
        Ok(Parts {
            upload_id,
            done: Vec::new(),
        })
    }

    /// Sends what is left and makes the output visible, if what stands there is as expected.
    pub async fn finish(
        mut self,
        last: Bytes,
        sha256: &str,
        expected: &Expected,
    ) -> Result<ETag, WriteError> {
        if self.parts.is_none() {
            return self.put(last, sha256, expected).await;
        }
        let sent = match last.is_empty() {
            true => Ok(()),
            false => self.part(last).await,
        };
        let result = match sent {
            Ok(()) => self.complete(expected).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.abort().await;
        }
        result
    }

    async fn put(
        &self,
        bytes: Bytes,
        sha256: &str,
        expected: &Expected,
    ) -> Result<ETag, WriteError> {
        let target = self.target;
        let mut metadata = target.origin.metadata();
        metadata.insert(SHA256.to_owned(), sha256.to_owned());
        let request = self
            .s3
            .put_object()
            .bucket(&target.bucket)
            .key(&target.key)
            .content_type(&target.content_type)
            .set_content_encoding(target.content_encoding.map(str::to_owned))
            .set_metadata(Some(metadata))
            .set_if_match(expected.if_match())
            .set_if_none_match(expected.if_none_match())
            .body(ByteStream::from(bytes));
        let response = options::put(request, self.options)
            .send()
            .await
            .map_err(|error| S3Error::new("PutObject", &error))?;
        etag_of(response.e_tag(), "PutObject")
    }

    async fn complete(&mut self, expected: &Expected) -> Result<ETag, WriteError> {
        let target = self.target;
        let Some(parts) = &self.parts else {
            return Err(WriteError::Unexpected);
        };
        let upload = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.done.clone()))
            .build();
        let response = self
            .s3
            .complete_multipart_upload()
            .bucket(&target.bucket)
            .key(&target.key)
            .upload_id(&parts.upload_id)
            .multipart_upload(upload)
            .set_if_match(expected.if_match())
            .set_if_none_match(expected.if_none_match())
            .send()
            .await
            .map_err(|error| S3Error::new("CompleteMultipartUpload", &error))?;
        etag_of(response.e_tag(), "CompleteMultipartUpload")
    }

    /// Gives a started upload up. Best effort: what stays behind is invisible, and a bucket's lifecycle rule for
    /// incomplete uploads removes it.
    pub async fn abort(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        let request = self
            .s3
            .abort_multipart_upload()
            .bucket(&self.target.bucket)
            .key(&self.target.key)
            .upload_id(parts.upload_id);
        if let Err(error) = request.send().await {
            tracing::debug!(error = %S3Error::new("AbortMultipartUpload", &error), "an upload stays behind");
        }
    }
}

fn etag_of(etag: Option<&str>, operation: &'static str) -> Result<ETag, WriteError> {
    etag.and_then(ETag::parse).ok_or_else(|| {
        WriteError::Failed(S3Error::unavailable(operation, "the server sent no ETag"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let source = ObjectRef::try_new("feeds", "a.xml").unwrap();
        Origin::new(&source, &ETag::parse("E1").unwrap(), "m1", None)
    }

    fn standing(origin: &Origin, sha256: &str) -> Standing {
        let mut metadata = origin.metadata();
        metadata.insert(SHA256.into(), sha256.into());
        Standing {
            etag: ETag::parse("out").unwrap(),
            size: 9,
            metadata,
        }
    }

    #[test]
    fn our_own_lost_answer_is_recognised() {
        let meaning = standing(&origin(), "aa").meaning(&origin(), "aa", 9, false);
        assert_eq!(meaning, Meaning::Ours(ETag::parse("out").unwrap()));
    }

    #[test]
    fn an_output_of_another_version_mapping_or_bytes_is_started_over() {
        let other_version = Origin {
            source_etag: "E0".into(),
            ..origin()
        };
        let other_mapping = Origin {
            mapping: "m0".into(),
            ..origin()
        };
        for (origin_there, sha256) in [
            (other_version, "aa"),
            (other_mapping, "aa"),
            (origin(), "bb"),
        ] {
            let meaning = standing(&origin_there, sha256).meaning(&origin(), "aa", 9, false);
            assert_eq!(meaning, Meaning::Other(ETag::parse("out").unwrap()));
        }
    }

    #[test]
    fn an_output_in_parts_is_recognised_by_version_mapping_and_size() {
        let in_parts = |size| Standing {
            etag: ETag::parse("out-2").unwrap(),
            size,
            metadata: origin().metadata(),
        };
        let etag = ETag::parse("out-2").unwrap();
        assert_eq!(
            in_parts(9).meaning(&origin(), "aa", 9, false),
            Meaning::Ours(etag.clone())
        );
        assert_eq!(
            in_parts(8).meaning(&origin(), "aa", 9, false),
            Meaning::Other(etag)
        );
    }

    #[test]
    fn another_sources_output_is_foreign_even_where_the_state_names_the_key() {
        let other = Origin {
            source: "0".repeat(32),
            ..origin()
        };
        for named in [false, true] {
            assert_eq!(
                standing(&other, "aa").meaning(&origin(), "aa", 9, named),
                Meaning::Foreign
            );
        }
    }

    #[test]
    fn an_object_without_our_metadata_is_ours_altered_only_where_the_state_names_it() {
        let bare = Standing {
            etag: ETag::parse("out").unwrap(),
            size: 9,
            metadata: HashMap::new(),
        };
        assert_eq!(bare.meaning(&origin(), "aa", 9, false), Meaning::Foreign);
        assert_eq!(
            bare.meaning(&origin(), "aa", 9, true),
            Meaning::Other(ETag::parse("out").unwrap())
        );
    }
}
