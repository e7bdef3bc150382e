//! The output's bytes, compressed or not, and counted.
//!
//! The same bytes give the same compressed bytes: gzip without a name and a time, zstd in one frame, both at the level that is usual for them.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::spec::Compression;

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

pub enum Encoder<'w> {
    Plain(Counted<'w>),
    Gzip(GzEncoder<Counted<'w>>),
    Zstd(zstd::Encoder<'static, Counted<'w>>),
}

/// The caller's output, its bytes counted.
pub struct Counted<'w> {
    output: &'w mut dyn Write,
    bytes: u64,
}

impl<'w> Encoder<'w> {
    pub fn new(output: &'w mut dyn Write, compression: Option<Compression>) -> io::Result<Self> {
        let counted = Counted { output, bytes: 0 };
        Ok(match compression {
            None => Self::Plain(counted),
            Some(Compression::Gzip) => {
                Self::Gzip(GzEncoder::new(counted, flate2::Compression::default()))
            }
            Some(Compression::Zstd) => Self::Zstd(zstd::Encoder::new(counted, ZSTD_LEVEL)?),
        })
    }

    /// Bytes that the caller's output has got.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Plain(counted) => counted.bytes,
            Self::Gzip(encoder) => encoder.get_ref().bytes,
            Self::Zstd(encoder) => encoder.get_ref().bytes,
        }
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(counted) => counted.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the output. Nothing can be written afterwards.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(counted) => counted.flush(),
            Self::Gzip(encoder) => {
                encoder.try_finish()?;
                encoder.get_mut().flush()
            }
            Self::Zstd(encoder) => {
                encoder.do_finish()?;
                encoder.get_mut().flush()
            }
        }
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
