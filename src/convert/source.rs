//! The source object: read as it is now, or as the event says, with its body as a bounded, timed stream.

use std::{
    io::{self, Read},
    time::Duration,
};

use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::{Buf, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    failure::chain,
    object::{ETag, ObjectRef},
    s3::{Failure, S3Error},
};

/// Which version of an object's bytes was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub etag: ETag,
    pub version_id: Option<String>,
}

/// An object being read.
pub struct Source {
    pub version: Version,
    /// RFC 3339, in UTC.
    pub last_modified: Option<String>,
    pub body: Body,
}

/// What a GET found.
pub enum Fetched {
    There(Box<Source>),
    /// There is no such object, or only a delete marker.
    Gone,
}

/// Reads the version with this ETag; when another one is there now, that one: its ETag decides what is done with it.
pub async fn fetch(
    s3: &Client,
    object: &ObjectRef,
    pin: Option<&ETag>,
    stall: Duration,
) -> Result<Fetched, S3Error> {
    match get(s3, object, pin, stall).await {
        Err(error) if pin.is_some() && error.failure == Failure::PreconditionFailed => {
            get(s3, object, None, stall).await
        }
        other => other,
    }
}

async fn get(
    s3: &Client,
    object: &ObjectRef,
    pin: Option<&ETag>,
    stall: Duration,
) -> Result<Fetched, S3Error> {
    let request = s3
        .get_object()
        .bucket(object.bucket())
        .key(object.key())
        .set_if_match(pin.filter(|etag| etag.fits_a_header()).map(ETag::quoted));
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let error = S3Error::new("GetObject", &error);
            return match error.failure {
                Failure::NotFound => Ok(Fetched::Gone),
                _ => Err(error),
            };
        }
    };
    let etag = response
        .e_tag()
        .and_then(ETag::parse)
        .ok_or_else(|| S3Error::unavailable("GetObject", "the server sent no ETag"))?;
    let version_id = response
        .version_id()
        .filter(|id| *id != "null")
        .map(str::to_owned);
    let last_modified = response
        .last_modified()
        .and_then(|time| Timestamp::from_second(time.secs()).ok())
        .map(|time| time.to_string());
    let length = response
        .content_length()
        .and_then(|length| u64::try_from(length).ok());
    let body = Body::new(response.body, length, stall);
    let version = Version { etag, version_id };
    Ok(Fetched::There(Box::new(Source {
        version,
        last_modified,
        body,
    })))
}

/// A body: one chunk is held, and each is waited for at most `stall`.
pub struct Body {
    stream: ByteStream,
    chunk: Bytes,
    /// Bytes still to come, when the server said how many there are.
    missing: Option<u64>,
    stall: Duration,
    runtime: Handle,
}

impl Body {
    fn new(stream: ByteStream, length: Option<u64>, stall: Duration) -> Self {
        Self {
            stream,
            chunk: Bytes::new(),
            missing: length,
            stall,
            runtime: Handle::current(),
        }
    }

    /// Bytes still to come, when the server said how many there are.
    pub fn length(&self) -> Option<u64> {
        self.missing
    }

    /// Reads all of it; only for a body whose length is known to be small.
    pub async fn collect(mut self) -> io::Result<Bytes> {
        let mut bytes = BytesMut::new();
        while self.next_chunk().await? {
            bytes.extend_from_slice(&self.chunk);
        }
        Ok(bytes.freeze())
    }

    /// Waits for the next chunk; false at the end.
    async fn next_chunk(&mut self) -> io::Result<bool> {
        match timeout(self.stall, self.stream.next()).await {
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no byte of the body in {} ms", self.stall.as_millis()),
            )),
            Ok(Some(Ok(chunk))) => {
                self.missing = self
                    .missing
                    .map(|missing| missing.saturating_sub(chunk.len() as u64));
                self.chunk = chunk;
                Ok(true)
            }
            Ok(Some(Err(error))) => Err(io::Error::other(chain(&error))),
            // A body that ends early must not pass for a shorter file.
            Ok(None) => match self.missing {
                Some(missing) if missing > 0 => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the body ended {missing} bytes early"),
                )),
                _ => Ok(false),
            },
        }
    }
}

impl Read for Body {
    /// Must be called on a thread that may block.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if !self.runtime.clone().block_on(self.next_chunk())? {
                return Ok(0);
            }
        }
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
