//! A temporary file for what has to be read from its end.

use std::io::{self, Read, Write};

use rawzip::{FileReader, ReaderAt};

use super::layer::{BUFFER_BYTES, Layer};
use crate::feed::reject::{ConvertError, Reason, Rejection};

/// A file in the system's folder for temporary ones (`TMPDIR`). It has no name, and is gone with the process, however that ends.
pub struct Spool {
    file: FileReader,
    bytes: u64,
}

impl Spool {
    /// Takes all of `input`.
    pub fn fill(input: Layer<'_>, most: u64) -> Result<Self, ConvertError> {
        let mut file = tempfile::tempfile().map_err(failed)?;
        let mut input = input.take(most.saturating_add(1));
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut total = 0;
        loop {
            let bytes = input
                .read(&mut buffer)
                .map_err(ConvertError::from_carrier)?;
            if bytes == 0 {
                let file = FileReader::from(file);
                return Ok(Self { file, bytes: total });
            }
            total += bytes as u64;
            if total > most {
                let message = format!("a zip has more than {most} bytes (`spool_bytes`)");
                return Err(Rejection::because(Reason::FileTooLarge, message).into());
            }
            file.write_all(&buffer[..bytes]).map_err(failed)?;
        }
    }

    pub fn len(&self) -> u64 {
        self.bytes
    }
}

impl ReaderAt for Spool {
    /// Nothing comes from behind the end, wherever that is: an offset in a zip may be any number, and the system refuses some of them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.bytes {
            return Ok(0);
        }
        self.file
            .read_at(buffer, offset)
            .map_err(|error| failed(error).into_carrier())
    }
}

/// The temporary file is nobody's fault in the zip.
fn failed(error: io::Error) -> ConvertError {
    let message = format!("the temporary file for a zip: {error}");
    ConvertError::Read(io::Error::new(error.kind(), message))
}
