//! Runs the conversion engine between an S3 body and an upload.
//!
//! The engine is plain blocking code. A small file is read whole and converted on the spot; any other is converted on a
//! thread of its own, which reads the body chunk by chunk and hands the output over in parts. At most three parts are
//! held: one being filled, one handed over, one on its way.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    mem,
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    output::{Upload, WriteError},
    source::Body,
    state::hex,
};
use crate::{
    failure::chain,
    feed::{self, ConvertError, Plan, Rejection, Summary},
    s3::S3Error,
    spool::Spool,
};

/// A converted file whose last part is not written yet.
pub struct Converted<'a> {
    pub upload: Upload<'a>,
    pub last: Bytes,
    /// Lower-case hexadecimal, of the whole output.
    pub sha256: String,
    pub summary: Summary,
    /// The report of rejected records, if there are any.
    pub rejected: Option<File>,
}

/// Why there is no converted file.
#[derive(Debug)]
pub enum Unconverted {
    /// The file's own fault.
    Rejected(Box<Rejection>),
    /// The output has more parts than S3 allows.
    TooManyParts,
    /// Reading the source failed; may pass.
    Unread(S3Error),
    /// Writing the output failed; may pass.
    Unwritten(S3Error),
}

/// Source up to this size, in bytes, is read whole first.
const SMALL: u64 = 256 * 1024;

/// Output of a small source up to this size, in bytes, is made right here: a millisecond or two of an async worker's
/// time, which is less than handing the file to a thread and back.
const SMALL_OUTPUT: usize = 1024 * 1024;

/// Converts a body; parts of a large output are uploaded on the way, and none of them is visible yet.
pub async fn convert<'a>(
    plan: Arc<Plan>,
    source: feed::Source,
    body: Body,
    upload: Upload<'a>,
    part_bytes: usize,
) -> Result<Converted<'a>, Unconverted> {
    if body.length().is_none_or(|length| length > SMALL) {
        return stream(plan, source, body, upload, part_bytes).await;
    }
    let bytes = body.collect().await.map_err(read_failed)?;
    if feed::is_packed(&bytes) || plan.runs_jq() {
        // What it takes to decompress can't be told from its size; and a jq program takes the time that it takes.
        return stream(plan, source, bytes.reader(), upload, part_bytes).await;
    }
    let mut writer = Whole::new(part_bytes.min(SMALL_OUTPUT));
    let mut spool = Spool::default();
    match feed::convert_reporting(&plan, &source, &bytes[..], &mut writer, Some(&mut spool)) {
        Ok(summary) => {
            let (last, sha256) = writer.finish();
            Ok(Converted {
                upload,
                last,
                sha256,
                summary,
                rejected: spool.into_file().map_err(spool_failed)?,
            })
        }
        Err(ConvertError::Rejected(rejection)) => Err(Unconverted::Rejected(rejection)),
        // More output than fits, from few bytes: as a stream then.
        Err(ConvertError::Write(_)) => {
            stream(plan, source, bytes.reader(), upload, part_bytes).await
        }
        Err(ConvertError::Read(error)) => Err(read_failed(error)),
    }
}

/// Runs the engine on a thread of its own, and uploads the parts it hands over.
async fn stream<'a>(
    plan: Arc<Plan>,
    source: feed::Source,
    input: impl Read + Send + 'static,
    mut upload: Upload<'a>,
    part_bytes: usize,
) -> Result<Converted<'a>, Unconverted> {
    let (sender, mut parts) = mpsc::channel(1);
    let engine = spawn_blocking(move || {
        let mut writer = Parts {
            part: Whole::with_room(part_bytes),
            sender,
        };
        let mut spool = Spool::default();
        let summary =
            feed::convert_reporting(&plan, &source, input, &mut writer, Some(&mut spool))?;
        let (last, sha256) = writer.part.finish();
        let rejected = spool.into_file().map_err(ConvertError::Write)?;
        Ok((summary, last, sha256, rejected))
    });
    let mut refused = None;
    while let Some(part) = parts.recv().await {
        if let Err(error) = upload.part(part).await {
            // Dropping the receiver ends the engine at its next part.
            refused = Some(error);
            break;
        }
    }
    drop(parts);
    let result = match engine.await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ConvertError::Read(io::Error::other(
                "the process is ending",
            ))),
        },
    };
    let unconverted = match (refused, result) {
        (None, Ok((summary, last, sha256, rejected))) => {
            return Ok(Converted {
                upload,
                last,
                sha256,
                summary,
                rejected,
            });
        }
        (Some(WriteError::Failed(error)), _) => Unconverted::Unwritten(error),
        (Some(WriteError::TooManyParts), _) => Unconverted::TooManyParts,
        (Some(WriteError::Unexpected), _) => {
            Unconverted::Unwritten(S3Error::unavailable("UploadPart", "the upload is gone"))
        }
        (None, Err(ConvertError::Rejected(rejection))) => Unconverted::Rejected(rejection),
        (None, Err(ConvertError::Read(error))) => read_failed(error),
        (None, Err(ConvertError::Write(error))) => spool_failed(error),
    };
    upload.abort().await;
    Err(unconverted)
}

fn read_failed(error: io::Error) -> Unconverted {
    // A zip is kept on disk while it is read.
    if matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    ) {
        return spool_failed(error);
    }
    Unconverted::Unread(S3Error::unavailable("GetObject", chain(&error)))
}

fn spool_failed(error: io::Error) -> Unconverted {
    Unconverted::Unwritten(S3Error::disk("UploadPart", chain(&error)))
}

/// Output in memory, hashed, and full at a size.
struct Whole {
    bytes: BytesMut,
    most: usize,
    hash: Sha256,
}

impl Whole {
    fn new(most: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            most,
            hash: Sha256::new(),
        }
    }

    /// With all its room at once: a buffer that grows is copied, for a moment there twice, and leaves gaps behind in the allocator.
    fn with_room(most: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(most),
            ..Self::new(most)
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= self.most
    }

    fn finish(self) -> (Bytes, String) {
        (self.bytes.freeze(), hex(&self.hash.finalize()))
    }
}

impl Write for Whole {
    /// Zero when full, which `write_all` reports as an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.most - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Output handed over in parts. A full part is sent only when more follows, so that the last one is never empty.
struct Parts {
    part: Whole,
    sender: mpsc::Sender<Bytes>,
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.is_full() {
            let full = mem::take(&mut self.part.bytes).freeze();
            let sent = self.sender.blocking_send(full);
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.part.bytes = BytesMut::with_capacity(self.part.most);
        }
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_full_parts_and_the_last_one_is_never_empty() {
        let (sender, mut parts) = mpsc::channel(8);
        let mut writer = Parts {
            part: Whole::new(4),
            sender,
        };
        writer.write_all(b"0123456789ab").unwrap();
        let (last, sha256) = writer.part.finish();
        assert_eq!(parts.blocking_recv().as_deref(), Some(&b"0123"[..]));
        assert_eq!(parts.blocking_recv().as_deref(), Some(&b"4567"[..]));
        assert_eq!(&last[..], b"89ab");
        assert_eq!(sha256, hex(&Sha256::digest(b"0123456789ab")));
    }

    #[test]
    fn output_in_memory_is_bounded() {
        let mut writer = Whole::new(4);
        assert!(writer.write_all(b"01234").is_err());
        assert_eq!(&writer.finish().0[..], b"0123");
    }

    #[test]
    fn an_upload_that_was_given_up_ends_the_engine() {
        let (sender, parts) = mpsc::channel(1);
        drop(parts);
        let mut writer = Parts {
            part: Whole::new(4),
            sender,
        };
        let error = writer.write_all(b"0123456789").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
