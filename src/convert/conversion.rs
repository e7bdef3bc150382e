//! Runs the conversion engine between an S3 body and an upload.
//!
//! The engine is plain blocking code; it runs on a thread of its own, reads the body chunk by chunk, and hands the output
//! over in parts. At most three parts are held: one being filled, one handed over, one on its way.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    output::{Upload, WriteError},
    source::Body,
    state::hex,
};
use crate::{
    feed::{self, ConvertError, Plan, Rejection, Summary},
    s3::{S3Error, error::chain},
};

/// A converted file whose last part is not written yet.
pub struct Converted<'a> {
    pub upload: Upload<'a>,
    pub last: Bytes,
    /// Lower-case hexadecimal, of the whole output.
    pub sha256: String,
    pub summary: Summary,
}

/// Why there is no converted file.
#[derive(Debug)]
pub enum Unconverted {
    /// The file's own fault.
    Rejected(Box<Rejection>),
    /// May pass.
    Failed(S3Error),
}

/// Converts a body; parts of a large output are uploaded on the way, and none of them is visible yet.
pub async fn convert<'a>(
    plan: Arc<Plan>,
    body: Body,
    mut upload: Upload<'a>,
    part_bytes: usize,
) -> Result<Converted<'a>, Unconverted> {
    let (sender, mut parts) = mpsc::channel(1);
    let engine = spawn_blocking(move || {
        let mut writer = PartWriter {
            part: BytesMut::new(),
            part_bytes,
            sender,
            hash: Sha256::new(),
        };
        let summary = feed::convert(&plan, body, &mut writer)?;
        Ok((summary, writer.part.freeze(), hex(&writer.hash.finalize())))
    });
    let mut failed = None;
    while let Some(part) = parts.recv().await {
        if let Err(error) = upload.part(part).await {
            // Dropping the receiver ends the engine at its next part.
            failed = Some(error);
            break;
        }
    }
    drop(parts);
    let result = match engine.await {
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        Ok(result) => result,
    };
    let unconverted = match (result, failed) {
        (Ok((summary, last, sha256)), None) => {
            return Ok(Converted {
                upload,
                last,
                sha256,
                summary,
            });
        }
        (_, Some(WriteError::Failed(error))) => Unconverted::Failed(error),
        (_, Some(WriteError::Unexpected)) => {
            Unconverted::Failed(S3Error::unavailable("UploadPart", "the upload is gone"))
        }
        (Err(ConvertError::Rejected(rejection)), None) => Unconverted::Rejected(rejection),
        (Err(ConvertError::Read(error)), None) => {
            Unconverted::Failed(S3Error::unavailable("GetObject", chain(&error)))
        }
        (Err(ConvertError::Write(error)), None) => {
            Unconverted::Failed(S3Error::unavailable("UploadPart", chain(&error)))
        }
    };
    upload.abort().await;
    Err(unconverted)
}

/// Collects output into parts and hashes it.
struct PartWriter {
    part: BytesMut,
    part_bytes: usize,
    sender: mpsc::Sender<Bytes>,
    hash: Sha256,
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full part is sent only when more follows, so that the last one is never empty.
        if self.part.len() >= self.part_bytes {
            let full = self.part.split().freeze();
            self.sender
                .blocking_send(full)
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        let count = bytes.len().min(self.part_bytes - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
