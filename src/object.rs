//! What a notification names and a stage works on: an object in a bucket, and the tag of one version of its bytes.
//!
//! Both are parsed once, at the edge, and passed as types from there on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// S3's own limit on the length of an object key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// S3's limit on a bucket name is 63 bytes; other servers accept the older 255.
pub const MAX_BUCKET_BYTES: usize = 255;

/// The name of an object: bucket and key, both non-empty and within S3's limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    bucket: String,
    key: String,
}

/// Why a bucket and a key do not name an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectRefError {
    #[error("the bucket name is empty")]
    EmptyBucket,
    #[error("the bucket name {0:?} contains a slash")]
    SlashInBucket(String),
    #[error("the bucket name has {0} bytes, more than {MAX_BUCKET_BYTES}")]
    LongBucket(usize),
    #[error("the object key is empty")]
    EmptyKey,
    #[error("the object key has {0} bytes, more than {MAX_KEY_BYTES}")]
    LongKey(usize),
    #[error("{0:?} is not of the form s3://bucket/key")]
    NotAUrl(String),
}

impl ObjectRef {
    /// Checks the two names against S3's limits; a slash in the bucket is refused because `bucket/key` must read back unambiguously.
    pub fn try_new(
        bucket: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Self, ObjectRefError> {
        let (bucket, key) = (bucket.into(), key.into());
        match () {
            () if bucket.is_empty() => Err(ObjectRefError::EmptyBucket),
            () if bucket.contains('/') => Err(ObjectRefError::SlashInBucket(bucket)),
            () if bucket.len() > MAX_BUCKET_BYTES => Err(ObjectRefError::LongBucket(bucket.len())),
            () if key.is_empty() => Err(ObjectRefError::EmptyKey),
            () if key.len() > MAX_KEY_BYTES => Err(ObjectRefError::LongKey(key.len())),
            () => Ok(Self { bucket, key }),
        }
    }

    /// Reads `s3://bucket/key`; the key is taken literally, nothing in it is percent-decoded.
    pub fn from_url(url: &str) -> Result<Self, ObjectRefError> {
        let (bucket, key) = url
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| ObjectRefError::NotAUrl(url.to_owned()))?;
        Self::try_new(bucket, key)
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key of this object's records on every topic: `bucket/key`.
    pub fn message_key(&self) -> String {
        format!("{}/{}", self.bucket, self.key)
    }

    /// The object whose records have this key; `None` when it is no object's.
    pub fn from_message_key(key: &[u8]) -> Option<Self> {
        let (bucket, key) = str::from_utf8(key).ok()?.split_once('/')?;
        Self::try_new(bucket, key).ok()
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// An entity tag, unquoted. Opaque: only equality means anything (an MD5 only for some uploads on some servers).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ETag(String);

impl ETag {
    /// Takes the tag as any server writes it: quoted or not, weak or not. `None` when nothing is left.
    pub fn parse(raw: &str) -> Option<Self> {
        let tag = raw.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        (!tag.is_empty()).then(|| Self(tag.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be sent as it is (RFC 9110, section 8.8.3); one that cannot names no version that a server has.
    pub fn fits_a_header(&self) -> bool {
        self.0.len() <= MAX_KEY_BYTES
            && self
                .0
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    }

    /// The tag as HTTP headers carry it, in quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_reads_back_from_its_url_with_slashes_and_odd_characters_in_the_key() {
        let object = ObjectRef::try_new("feeds", "a/b c+d%20/ü\n.xml").unwrap();
        assert_eq!(ObjectRef::from_url(&object.to_string()).unwrap(), object);
        assert_eq!(object.message_key(), "feeds/a/b c+d%20/ü\n.xml");
        let message_key = object.message_key();
        assert_eq!(
            ObjectRef::from_message_key(message_key.as_bytes()),
            Some(object)
        );
        assert_eq!(ObjectRef::from_message_key(b"\xff/k"), None);
    }

    #[test]
    fn names_outside_the_limits_of_s3_are_refused() {
        assert_eq!(
            ObjectRef::try_new("", "k"),
            Err(ObjectRefError::EmptyBucket)
        );
        assert_eq!(ObjectRef::try_new("b", ""), Err(ObjectRefError::EmptyKey));
        assert!(ObjectRef::try_new("b", "k".repeat(1024)).is_ok());
        assert_eq!(
            ObjectRef::try_new("b", "k".repeat(1025)),
            Err(ObjectRefError::LongKey(1025))
        );
        assert!(ObjectRef::try_new("a/b", "k").is_err());
    }

    #[test]
    fn etags_of_all_servers_compare_equal_whatever_their_quotes() {
        let bare = ETag::parse("f019ee9a-2").unwrap();
        assert_eq!(ETag::parse("\"f019ee9a-2\""), Some(bare.clone()));
        assert_eq!(ETag::parse("W/\"f019ee9a-2\""), Some(bare));
        assert_eq!(ETag::parse("\"\""), None);
    }
}
