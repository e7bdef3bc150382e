//! The caller's bytes, decompressed and within bounds, for a parser to read.
//!
//! In: any reader. Out: [`Stream`], a `BufRead` that undoes gzip (several members, told by their magic bytes), counts, and refuses to
//! go on when the file or a single piece of it is too large. Promise: an error of the caller's reader comes out as
//! [`ConvertError::Read`], damaged gzip as a rejection, whatever lies in between.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::limits::{Limits, RATIO_FLOOR_BYTES};
use super::reject::{ConvertError, Place, Reason, Rejection};

const BUFFER_BYTES: usize = 128 << 10;

/// Magic bytes of containers that are recognised and not read, so that the rejection can name them.
const OTHER_CONTAINERS: [(&[u8], &str); 4] = [
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zX", "xz"),
    (b"PK\x03\x04", "zip"),
];
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const MAGIC_BYTES: u64 = 4;

/// The caller's reader, its bytes counted and its errors marked as its own.
struct Counted<'r> {
    input: &'r mut dyn Read,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.input.read(buffer) {
                Ok(bytes) => {
                    self.bytes += bytes as u64;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConvertError::Read(error).into_carrier()),
            }
        }
    }
}

/// The input with its first bytes, which had to be looked at, put back in front.
type Input<'r> = Chain<Cursor<Vec<u8>>, Counted<'r>>;

enum Container<'r> {
    Plain(Input<'r>),
    Gzip(Box<MultiGzDecoder<BufReader<Input<'r>>>>),
}

impl<'r> Container<'r> {
    fn open(input: &'r mut dyn Read) -> Result<Self, ConvertError> {
        let mut input = Counted { input, bytes: 0 };
        let mut magic = Vec::new();
        (&mut input)
            .take(MAGIC_BYTES)
            .read_to_end(&mut magic)
            .map_err(ConvertError::from_carrier)?;
        let is_gzip = magic.starts_with(GZIP_MAGIC);
        let input = Cursor::new(magic).chain(input);
        Ok(if is_gzip {
            let input = BufReader::with_capacity(BUFFER_BYTES, input);
            Self::Gzip(Box::new(MultiGzDecoder::new(input)))
        } else {
            Self::Plain(input)
        })
    }

    fn input_bytes(&self) -> u64 {
        let input = match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
        };
        input.get_ref().1.bytes
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ConvertError> {
        match self {
            Self::Plain(input) => input.read(buffer).map_err(ConvertError::from_carrier),
            Self::Gzip(decoder) => decoder.read(buffer).map_err(|error| {
                // The decoder's own errors carry nothing of ours: they are about the bytes.
                error.downcast().unwrap_or_else(|error| {
                    Rejection::because(Reason::CorruptGzip, format!("damaged or cut gzip: {error}"))
                        .into()
                })
            }),
        }
    }
}

/// The decoded bytes of one file.
pub struct Stream<'r> {
    container: Container<'r>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    decoded_bytes: u64,
    /// How many more bytes may be taken until [`Self::allow`] is called again.
    allowance: usize,
    limits: &'r Limits,
    mark: Mark,
    /// A place for which lines have been counted, and where in the buffer it is. Never after the mark while that is in the buffer.
    counted: Place,
    counted_to: usize,
}

/// The place that [`Stream::mark`] marked.
enum Mark {
    /// Index into the buffer.
    Buffered(usize),
    /// The buffer has moved on since.
    Counted(Place),
}

impl<'r> Stream<'r> {
    pub fn open(input: &'r mut dyn Read, limits: &'r Limits) -> Result<Self, ConvertError> {
        let mut stream = Self {
            container: Container::open(input)?,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            decoded_bytes: 0,
            allowance: limits.record_bytes,
            limits,
            mark: Mark::Buffered(0),
            counted: Place::START,
            counted_to: 0,
        };
        stream.refuse_other_containers()?;
        Ok(stream)
    }

    pub fn input_bytes(&self) -> u64 {
        self.container.input_bytes()
    }

    pub fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// Remembers where the next byte is, for a rejection perhaps. Costs nothing: lines are counted when somebody asks, or
    /// when the buffer moves on, a buffer at a time.
    #[inline]
    pub fn mark(&mut self) {
        self.mark = Mark::Buffered(self.start);
    }

    /// Where the mark is.
    pub fn marked(&mut self) -> Place {
        match self.mark {
            Mark::Buffered(index) => self.count_to(index),
            Mark::Counted(place) => place,
        }
    }

    fn count_to(&mut self, index: usize) -> Place {
        self.counted.advance(&self.buffer[self.counted_to..index]);
        self.counted_to = index;
        self.counted
    }

    /// Permits one more record, or one more piece of markup outside records, to be read. A parser that holds what it reads can
    /// thereby never hold more than `record_bytes`.
    pub fn allow(&mut self) {
        self.allowance = self.limits.record_bytes;
    }

    /// What is at hand without reading on.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next bytes, at least `wanted` of them unless the file ends before, without taking them.
    pub fn peek(&mut self, wanted: usize) -> Result<&[u8], ConvertError> {
        debug_assert!(wanted <= BUFFER_BYTES);
        if self.start + wanted > BUFFER_BYTES {
            self.discard_taken();
        }
        while self.end - self.start < wanted && self.read_more()? > 0 {}
        Ok(self.buffered())
    }

    fn refuse_other_containers(&mut self) -> Result<(), ConvertError> {
        let is_gzip = matches!(self.container, Container::Gzip(_));
        let head = self.peek(MAGIC_BYTES as usize)?;
        let other = OTHER_CONTAINERS
            .iter()
            .find(|(magic, _)| head.starts_with(magic));
        let name = match other {
            Some((_, name)) => name,
            None if is_gzip && head.starts_with(GZIP_MAGIC) => "gzip inside gzip",
            None => return Ok(()),
        };
        Err(Rejection::because(
            Reason::UnknownFormat,
            format!("the container is not supported: {name}"),
        )
        .into())
    }

    /// Appends what one read gives to the buffer; 0 at the end of the file.
    fn read_more(&mut self) -> Result<usize, ConvertError> {
        let bytes = self.container.read(&mut self.buffer[self.end..])?;
        self.end += bytes;
        self.decoded_bytes += bytes as u64;
        self.check_size()?;
        Ok(bytes)
    }

    fn check_size(&self) -> Result<(), Box<Rejection>> {
        let limits = self.limits;
        if self.decoded_bytes > limits.file_bytes {
            return Err(Rejection::because(
                Reason::FileTooLarge,
                format!("the file has more than {} bytes", limits.file_bytes),
            ));
        }
        let fair = self
            .input_bytes()
            .saturating_mul(limits.decompression_ratio)
            .max(RATIO_FLOOR_BYTES);
        if matches!(self.container, Container::Gzip(_)) && self.decoded_bytes > fair {
            return Err(Rejection::because(
                Reason::DecompressionRatio,
                format!(
                    "each compressed byte gives more than {} bytes",
                    limits.decompression_ratio
                ),
            ));
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<(), ConvertError> {
        self.discard_taken();
        self.read_more().map(drop)
    }

    /// Moves what has not been taken to the beginning of the buffer.
    fn discard_taken(&mut self) {
        if let Mark::Buffered(index) = self.mark {
            self.mark = Mark::Counted(self.count_to(index));
        }
        self.count_to(self.start);
        self.counted_to = 0;
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

impl BufRead for Stream<'_> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill().map_err(ConvertError::into_carrier)?;
        }
        let available = self.end - self.start;
        if self.allowance == 0 && available > 0 {
            return Err(ConvertError::from(too_large(self.limits)).into_carrier());
        }
        Ok(&self.buffer[self.start..self.start + available.min(self.allowance)])
    }

    #[inline]
    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.allowance -= bytes;
    }
}

/// A record that passes `record_bytes`, in whichever form.
pub fn too_large(limits: &Limits) -> Box<Rejection> {
    Rejection::because(
        Reason::RecordTooLarge,
        format!(
            "a record, or a piece of markup, has more than {} bytes",
            limits.record_bytes
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(mut input: impl Read, limits: &Limits) -> Result<Vec<u8>, ConvertError> {
        let mut stream = Stream::open(&mut input, limits)?;
        let mut decoded = Vec::new();
        loop {
            stream.allow();
            let chunk = stream.fill_buf().map_err(ConvertError::from_carrier)?;
            if chunk.is_empty() {
                return Ok(decoded);
            }
            decoded.extend_from_slice(chunk);
            let bytes = chunk.len();
            stream.consume(bytes);
        }
    }

    fn reason(input: impl Read, limits: &Limits) -> Reason {
        match decode(input, limits) {
            Err(ConvertError::Rejected(rejection)) => rejection.reason,
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn several_gzip_members_are_one_stream() {
        let input = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decode(&*input, &Limits::default()).unwrap(), b"one two");
    }

    #[test]
    fn damaged_or_cut_gzip_is_a_rejection_wherever_it_is_cut() {
        let whole = gzip(&b"a longer text, a longer text, another text".repeat(20));
        for cut in 2..whole.len() {
            assert_eq!(
                reason(&whole[..cut], &Limits::default()),
                Reason::CorruptGzip,
                "cut at {cut}"
            );
        }
        let trailing = [whole, b"junk".to_vec()].concat();
        assert_eq!(reason(&*trailing, &Limits::default()), Reason::CorruptGzip);
    }

    #[test]
    fn an_error_of_the_callers_reader_is_never_a_rejection_even_below_gzip() {
        struct Broken<'a>(&'a [u8]);
        impl Read for Broken<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => Ok(bytes),
                }
            }
        }
        let whole = gzip(&b"some text".repeat(20));
        for cut in 0..whole.len() {
            let result = decode(Broken(&whole[..cut]), &Limits::default());
            assert!(
                matches!(result, Err(ConvertError::Read(_))),
                "cut at {cut}: {result:?}"
            );
        }
    }

    #[test]
    fn a_file_over_the_limit_and_a_bomb_have_their_own_reasons() {
        let limits = Limits {
            file_bytes: 9,
            ..Limits::default()
        };
        assert_eq!(decode(&b"123456789"[..], &limits).unwrap().len(), 9);
        assert_eq!(reason(&b"1234567890"[..], &limits), Reason::FileTooLarge);
        let bomb = gzip(&vec![b' '; 2 * RATIO_FLOOR_BYTES as usize]);
        assert_eq!(
            reason(&*bomb, &Limits::default()),
            Reason::DecompressionRatio
        );
    }

    #[test]
    fn containers_that_are_not_read_are_named() {
        assert_eq!(
            reason(&b"PK\x03\x04rest"[..], &Limits::default()),
            Reason::UnknownFormat
        );
        assert_eq!(
            reason(&*gzip(&gzip(b"x")), &Limits::default()),
            Reason::UnknownFormat
        );
    }

    #[test]
    fn no_more_than_the_allowance_can_be_read_at_once() {
        let limits = Limits {
            record_bytes: 10,
            ..Limits::default()
        };
        let mut endless = io::repeat(b'x');
        let mut stream = Stream::open(&mut endless, &limits).unwrap();
        stream.peek(100).unwrap();
        assert_eq!(stream.fill_buf().unwrap().len(), 10);
        stream.consume(10);
        let error = ConvertError::from_carrier(stream.fill_buf().unwrap_err());
        assert!(matches!(error, ConvertError::Rejected(r) if r.reason == Reason::RecordTooLarge));
        stream.allow();
        assert_eq!(stream.fill_buf().unwrap().len(), 10);
    }
}
