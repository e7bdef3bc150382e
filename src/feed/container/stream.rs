//! The text of one document, in a buffer, for a parser to read.

use std::io::{self, BufRead, Read};
use std::rc::Rc;

use encoding_rs::Encoding;

use super::layer::{Layer, Meter};
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Place, Reason, Rejection};

const BUFFER_BYTES: usize = 128 << 10;

/// The text of one document: UTF-8, unless the parser finds that it is not.
pub struct Stream<'r> {
    source: Layer<'r>,
    encoding: &'static Encoding,
    meter: Rc<Meter<'r>>,
    /// The entry of a zip that it is.
    entry: Option<Rc<str>>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
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
    pub(super) fn new(
        (source, encoding): (Layer<'r>, &'static Encoding),
        meter: Rc<Meter<'r>>,
        entry: Option<Rc<str>>,
        limits: &'r Limits,
    ) -> Self {
        Self {
            source,
            encoding,
            meter,
            entry,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            allowance: limits.record_bytes,
            limits,
            mark: Mark::Buffered(0),
            counted: Place::START,
            counted_to: 0,
        }
    }

    /// The first document of `input`.
    #[cfg(test)]
    pub fn open(input: &'r mut dyn Read, limits: &'r Limits) -> Result<Self, ConvertError> {
        let first = super::Documents::new(input, limits, None).next()?;
        Ok(first.expect("only a zip can be without documents"))
    }

    /// The entry of a zip that it is.
    pub fn entry(&self) -> Option<Rc<str>> {
        self.entry.clone()
    }

    /// What the text was in before it was made UTF-8.
    pub fn encoding(&self) -> &'static Encoding {
        self.encoding
    }

    /// Says in which entry of a zip the file is refused.
    pub fn name(&self, error: ConvertError) -> ConvertError {
        super::name(error, self.entry.as_deref())
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

    /// Appends what one read gives to the buffer; 0 at the end of the document.
    fn read_more(&mut self) -> Result<usize, ConvertError> {
        let bytes = self
            .source
            .read(&mut self.buffer[self.end..])
            .map_err(|error| self.locate(ConvertError::from_carrier(error)))?;
        self.end += bytes;
        self.meter.add_text(bytes)?;
        Ok(bytes)
    }

    /// What is wrong with the source is wrong right after what it gave.
    fn locate(&self, error: ConvertError) -> ConvertError {
        error.complete(|rejection| {
            let mut place = self.counted;
            place.advance(&self.buffer[self.counted_to..self.end]);
            rejection.place(place);
        })
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

/// A text that passes `text_bytes`.
pub fn check_text(bytes: usize, limits: &Limits) -> Result<(), Box<Rejection>> {
    if bytes > limits.text_bytes {
        let message = format!("a text has more than {} bytes", limits.text_bytes);
        return Err(Rejection::because(Reason::TextTooLong, message));
    }
    Ok(())
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
