//! A window over the decoded stream: text, known to be UTF-8, for a parser that wants to look ahead and to borrow what it finds.
//!
//! In: the decoded stream. Out: [`Window::rest`], as much of it as has been read; the parser passes over what it is done with and asks for
//! more where a piece does not end. Promise: every byte is checked for UTF-8 once; no more is held than a record may have,
//! and a buffer; the place of the first byte of the rest is known.

use std::io::BufRead;

use simdutf8::compat::from_utf8;

use super::container::{Stream, too_large};
use super::limits::Limits;
use super::reject::{ConvertError, EXCERPT_BYTES, Place, Reason, Rejection};

/// No character of UTF-8 has more bytes.
const CHARACTER_BYTES: usize = 4;

pub struct Window<'s, 'r> {
    stream: &'s mut Stream<'r>,
    limits: &'r Limits,
    /// What a file is that ends inside a character.
    malformed: Reason,
    text: String,
    /// The rest begins here.
    start: usize,
    /// Bytes of the stream before the window.
    passed: u64,
    /// Where in the stream the record in hand, or the piece outside records, begins.
    allowed_from: u64,
    /// A place for which lines have been counted, and where in the window it is.
    counted: Place,
    counted_to: usize,
    is_over: bool,
    /// Why the stream ended, until what came before it has been used up.
    failure: Option<ConvertError>,
}

impl<'s, 'r> Window<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, limits: &'r Limits, malformed: Reason) -> Self {
        stream.mark();
        Self {
            counted: stream.marked(),
            stream,
            limits,
            malformed,
            text: String::new(),
            start: 0,
            passed: 0,
            allowed_from: 0,
            counted_to: 0,
            is_over: false,
            failure: None,
        }
    }

    /// What has been read and not been passed over.
    #[inline]
    pub fn rest(&self) -> &str {
        &self.text[self.start..]
    }

    /// Whether the rest is the end of the file.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Where the rest begins.
    pub fn place(&mut self) -> Place {
        self.count_to(self.start);
        self.counted
    }

    /// What follows the next `len` bytes may be one record, or one piece outside records, and has `record_bytes`.
    #[inline]
    pub fn allow_after(&mut self, len: usize) {
        self.allowed_from = self.passed + (self.start + len) as u64;
    }

    /// Whether a piece that is the next `len` bytes is still within `record_bytes`.
    #[inline]
    pub fn check(&self, len: usize) -> Result<(), ConvertError> {
        let end = self.passed + (self.start + len) as u64;
        if end - self.allowed_from > self.limits.record_bytes as u64 {
            return Err(too_large(self.limits).into());
        }
        Ok(())
    }

    /// Is done with the next `len` bytes.
    #[inline]
    pub fn pass(&mut self, len: usize) {
        self.start += len;
    }

    /// Reads on until the rest has doubled, or the file is over: whoever looks at the rest again each time looks at every byte
    /// a bounded number of times. An error comes only when nothing stands before it any more, however the bytes arrive.
    #[cold]
    pub fn read_on(&mut self) -> Result<(), ConvertError> {
        let len = self.rest().len();
        self.check(len)?;
        self.fill((2 * len).min(len + self.limits.record_bytes).max(1))
    }

    /// What comes next, as much of it as an excerpt has: the same however the bytes arrive.
    #[cold]
    pub fn upcoming(&mut self) -> &str {
        while self.failure.is_none() && !self.is_over && self.rest().len() < EXCERPT_BYTES {
            if let Err(error) = self.fill(EXCERPT_BYTES) {
                // Whoever reads on after this meets it.
                self.failure = Some(error);
            }
        }
        self.rest()
    }

    /// Reads until the rest has `wanted` bytes, or the file is over, or an error follows what the rest has.
    fn fill(&mut self, wanted: usize) -> Result<(), ConvertError> {
        let len = self.rest().len();
        self.count_to(self.start);
        self.text.drain(..self.start);
        self.passed += self.start as u64;
        (self.start, self.counted_to) = (0, 0);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        while !self.is_over && self.text.len() < wanted {
            self.stream.allow();
            let has_grown = self.text.len() > len;
            if let Err(error) = self.stream.peek(CHARACTER_BYTES) {
                // What may stand before it is fewer bytes than were wanted; half a character among them is nothing.
                if !self.stream.buffered().is_empty() {
                    let _ = self.take_text();
                }
                if self.text.len() == len {
                    return Err(error);
                }
                self.failure = Some(error);
                break;
            }
            match self.take_text() {
                Ok(()) => {}
                Err(rejection) if !has_grown => return Err(rejection.into()),
                // It will be met again.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Takes what is text of the stream's buffer.
    fn take_text(&mut self) -> Result<(), Box<Rejection>> {
        let buffered = self.stream.buffered();
        let chunk = &buffered[..buffered.len().min(self.limits.record_bytes)];
        let text = match from_utf8(chunk) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > 0 => {
                from_utf8(&chunk[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) if error.error_len().is_none() && chunk.len() < buffered.len() => {
                return Err(too_large(self.limits));
            }
            Err(error) => {
                let (reason, message) = match error.error_len() {
                    Some(_) => (Reason::InvalidEncoding, "the text is not UTF-8"),
                    None => (self.malformed, "the file ends inside a character"),
                };
                let head = &chunk[..chunk.len().min(CHARACTER_BYTES)];
                let shown = [self.text.as_bytes(), head].concat();
                return Err(Rejection::because(reason, message).with_excerpt(&shown));
            }
        };
        let taken = text.len();
        self.text.push_str(text);
        self.is_over = taken == 0;
        self.stream.consume(taken);
        Ok(())
    }

    fn count_to(&mut self, index: usize) {
        self.counted
            .advance(&self.text.as_bytes()[self.counted_to..index]);
        self.counted_to = index;
    }
}
