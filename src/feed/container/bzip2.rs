//! The streams of a bzip2 file, which are one.
//!
//! Each stream costs its decoder a table of up to 3.6 MB, set to zero, though it may be 14 bytes and hold nothing: a megabyte of those would take four
//! seconds. So a file with more than a few streams may not have too short ones.

use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;

use crate::feed::reject::{ConvertError, Reason, Rejection};

/// What may be short. They take some 50 ms.
const FEW: u64 = 1_000;

/// Bytes of the caller's input that each stream of a file with more must have on average. Those of pbzip2 have some 100,000.
const STREAM_BYTES: u64 = 1_000;

pub struct Bzip2<R, C> {
    /// There is always one between two reads.
    decoder: Option<BzDecoder<R>>,
    streams: u64,
    /// Bytes that the streams before this one had.
    taken: u64,
    /// How many bytes of the caller's input those are.
    callers_bytes: C,
}

impl<R: BufRead, C: Fn(u64) -> u64> Bzip2<R, C> {
    pub fn new(input: R, callers_bytes: C) -> Self {
        Self {
            decoder: Some(BzDecoder::new(input)),
            streams: 1,
            taken: 0,
            callers_bytes,
        }
    }

    fn count_stream(&mut self) -> Result<(), Box<Rejection>> {
        self.streams += 1;
        let bytes = (self.callers_bytes)(self.taken);
        if self.streams > FEW && self.streams * STREAM_BYTES > bytes {
            let message = format!(
                "{} bzip2 streams of under {STREAM_BYTES} bytes",
                self.streams
            );
            return Err(Rejection::because(Reason::DecompressionRatio, message));
        }
        Ok(())
    }
}

impl<R: BufRead, C: Fn(u64) -> u64> Read for Bzip2<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let bytes = decoder.read(buffer)?;
            if bytes > 0 || buffer.is_empty() || decoder.get_mut().fill_buf()?.is_empty() {
                return Ok(bytes);
            }
            self.taken += decoder.total_in();
            self.count_stream()
                .map_err(|rejection| ConvertError::from(rejection).into_carrier())?;
            let input = self.decoder.take().map(BzDecoder::into_inner);
            self.decoder = input.map(BzDecoder::new);
        }
        Ok(0)
    }
}
