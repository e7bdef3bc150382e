//! Readers on top of each other, from the caller's bytes to those of a document, and the one account of what they give.
//!
//! Promise: an error of the caller's reader comes out as [`ConvertError::Read`], damaged data as a rejection that names the
//! container, whatever lies in between; and no layer gives more than the limits allow to all of them together.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Error as XzError, Stream as XzStream};
use zstd::stream::read::Decoder as ZstdDecoder;

use super::ahead::{Ahead, CHUNK_BYTES, Chunks};
use super::bzip2::Bzip2;
use crate::feed::limits::{Limits, RATIO_FLOOR_BYTES};
use crate::feed::progress::Progress;
use crate::feed::reject::{ConvertError, Reason, Rejection};

/// Any of the readers; its errors carry a [`ConvertError`].
pub type Layer<'r> = Box<dyn Read + 'r>;

pub const BUFFER_BYTES: usize = 128 << 10;

/// The least and the most that zstd's limit on the window can be, as powers of two (`ZSTD_WINDOWLOG_MIN` and `_MAX` of zstd.h).
const ZSTD_WINDOW_LOG: (u32, u32) = (10, 31);

/// What has been taken from the caller, and what all layers and documents made of it.
pub struct Meter<'r> {
    input: Cell<u64>,
    unpacked: Cell<u64>,
    text: Cell<u64>,
    limits: &'r Limits,
    progress: Cell<Option<&'r Progress>>,
}

impl<'r> Meter<'r> {
    pub fn new(limits: &'r Limits) -> Self {
        Self {
            input: Cell::new(0),
            unpacked: Cell::new(0),
            text: Cell::new(0),
            limits,
            progress: Cell::new(None),
        }
    }

    /// Says in `progress` what is counted here.
    pub fn tell(&self, progress: &'r Progress) {
        self.progress.set(Some(progress));
    }

    pub fn input_bytes(&self) -> u64 {
        self.input.get()
    }

    pub fn text_bytes(&self) -> u64 {
        self.text.get()
    }

    /// Counts what the caller gives.
    fn add_input(&self, bytes: usize) {
        self.input.update(|input| input + bytes as u64);
        if let Some(progress) = self.progress.get() {
            progress.input_bytes.set(self.input.get());
        }
    }

    /// Counts what a parser gets.
    pub fn add_text(&self, bytes: usize) -> Result<(), Box<Rejection>> {
        self.text.update(|text| text + bytes as u64);
        if let Some(progress) = self.progress.get() {
            progress.decoded_bytes.set(self.text.get());
        }
        self.check_size(self.text.get())
    }

    /// Counts what a decompressor gives.
    fn add_unpacked(&self, bytes: usize) -> Result<(), Box<Rejection>> {
        self.unpacked.update(|unpacked| unpacked + bytes as u64);
        self.check_size(self.unpacked.get())?;
        let ratio = self.limits.decompression_ratio;
        let fair = self.input.get().saturating_mul(ratio);
        if self.unpacked.get() > fair.max(RATIO_FLOOR_BYTES) {
            return Err(Rejection::because(
                Reason::DecompressionRatio,
                format!("each compressed byte gives more than {ratio} bytes"),
            ));
        }
        Ok(())
    }

    fn check_size(&self, bytes: u64) -> Result<(), Box<Rejection>> {
        if bytes > self.limits.file_bytes {
            return Err(Rejection::because(
                Reason::FileTooLarge,
                format!("the file has more than {} bytes", self.limits.file_bytes),
            ));
        }
        Ok(())
    }
}

/// The caller's reader, its bytes counted and its errors marked as its own.
pub struct Counted<'r> {
    pub input: &'r mut dyn Read,
    pub meter: Rc<Meter<'r>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.input.read(buffer) {
                Ok(bytes) => {
                    self.meter.add_input(bytes);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConvertError::Read(error).into_carrier()),
            }
        }
    }
}

/// What is compressed as one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// Undoes it; `ahead` of the reader, on a thread of its own, if that is asked for and there is more than a little of it.
    pub fn decoder<'r>(
        self,
        input: Layer<'r>,
        ahead: bool,
        meter: &Rc<Meter<'r>>,
    ) -> io::Result<Layer<'r>> {
        let memory = meter.limits.decompressor_bytes;
        let decoder: Layer<'r> = match ahead {
            true => self.decode_ahead(Chunks::new(input), memory)?,
            false => {
                let (input, meter) = (
                    BufReader::with_capacity(BUFFER_BYTES, input),
                    Rc::clone(meter),
                );
                self.decode(input, move |_| meter.input_bytes(), memory)?
            }
        };
        let meter = Rc::clone(meter);
        Ok(Box::new(Unpacked::new(decoder, self.corrupt(), meter)))
    }

    fn decode_ahead<'r>(self, mut input: Chunks<'r>, memory: u64) -> io::Result<Layer<'r>> {
        let first = input.next(Vec::new())?;
        if first.len() < CHUNK_BYTES {
            let rest = BufReader::with_capacity(BUFFER_BYTES, input);
            return self.decode(Cursor::new(first).chain(rest), own_bytes, memory);
        }
        let decoder = move |compressed| self.decode(compressed, own_bytes, memory);
        Ok(Box::new(Ahead::start(first, input, decoder)?))
    }

    /// Each of them takes several members, streams or frames for one; what else follows is damage. `callers_bytes` tells how many bytes of the
    /// caller's input have been used, given how many of its own the decoder has used.
    fn decode<'r>(
        self,
        input: impl BufRead + 'r,
        callers_bytes: impl Fn(u64) -> u64 + 'r,
        memory: u64,
    ) -> io::Result<Layer<'r>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(Bzip2::new(input, callers_bytes)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(input)?;
                let window_log = memory.max(1).ilog2();
                decoder.window_log_max(window_log.clamp(ZSTD_WINDOW_LOG.0, ZSTD_WINDOW_LOG.1))?;
                Box::new(decoder)
            }
            Self::Xz => {
                let stream = XzStream::new_stream_decoder(memory, CONCATENATED)?;
                Box::new(XzDecoder::new_stream(input, stream))
            }
        })
    }

    fn corrupt(self) -> Reason {
        match self {
            Self::Gzip => Reason::CorruptGzip,
            Self::Zstd => Reason::CorruptZstd,
            Self::Bzip2 => Reason::CorruptBzip2,
            Self::Xz => Reason::CorruptXz,
        }
    }
}

/// Only the outermost container is decompressed ahead of the reader: its bytes are the caller's.
fn own_bytes(bytes: u64) -> u64 {
    bytes
}

/// What a decompressor gives, counted, and its errors named.
pub struct Unpacked<'r, D> {
    decoder: D,
    corrupt: Reason,
    meter: Rc<Meter<'r>>,
}

impl<'r, D: Read> Unpacked<'r, D> {
    pub fn new(decoder: D, corrupt: Reason, meter: Rc<Meter<'r>>) -> Self {
        Self {
            decoder,
            corrupt,
            meter,
        }
    }

    /// The decoder's own errors carry nothing of ours: they are about the bytes.
    fn refuse(&self, error: io::Error) -> ConvertError {
        let error = match error.downcast() {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        if wants_too_much_memory(&error) {
            let most = self.meter.limits.decompressor_bytes;
            let message = format!("decompression takes more than {most} bytes of memory");
            return Rejection::because(Reason::DecompressorMemory, message).into();
        }
        Rejection::because(self.corrupt, format!("damaged or cut: {error}")).into()
    }
}

impl<D: Read> Read for Unpacked<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self
            .decoder
            .read(buffer)
            .map_err(|error| self.refuse(error).into_carrier())?;
        self.meter
            .add_unpacked(bytes)
            .map_err(|rejection| ConvertError::from(rejection).into_carrier())?;
        Ok(bytes)
    }
}

/// Both decide it by the header, before they allocate. zstd gives its errors as text alone.
fn wants_too_much_memory(error: &io::Error) -> bool {
    let xz = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(xz, Some(XzError::MemLimit)) || error.to_string().contains("too much memory")
}
