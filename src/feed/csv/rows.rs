//! Rows of cells, one at a time, in buffers that are used again.

use std::io::BufRead;
use std::ops::Range;

use csv_core::{ReadRecordResult, Reader};
use simdutf8::compat::from_utf8;

use super::dialect::Dialect;
use crate::feed::container::{Stream, check_text, too_large};
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Place, Reason, Rejection, excerpt};

pub struct Rows<'s, 'r> {
    stream: &'s mut Stream<'r>,
    limits: &'r Limits,
    dialect: Dialect,
    reader: Reader,
    /// The cells of the row in hand, one after another.
    text: Vec<u8>,
    text_len: usize,
    /// Where in the text each cell ends.
    ends: Vec<usize>,
    cells: usize,
    /// The bytes that the row in hand has in the stream if it is still there, and nowhere else: all of a line without quotes.
    line: Option<usize>,
    /// Whether there was a row before. The parser has to see the first one: it passes over a byte order mark.
    has_read: bool,
}

impl<'s, 'r> Rows<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, dialect: Dialect, limits: &'r Limits) -> Self {
        Self {
            stream,
            limits,
            dialect,
            reader: dialect.reader(),
            text: vec![0; 4 << 10],
            text_len: 0,
            ends: vec![0; 64],
            cells: 0,
            line: None,
            has_read: false,
        }
    }

    /// Passes over bytes that are no row.
    pub fn skip(&mut self, mut bytes: usize) -> Result<(), ConvertError> {
        while bytes > 0 {
            self.stream.allow();
            let chunk = self.stream.fill_buf().map_err(ConvertError::from_carrier)?;
            let skipped = chunk.len().min(bytes);
            self.stream.consume(skipped);
            bytes -= skipped;
        }
        Ok(())
    }

    /// Reads the next row; whether there was one.
    pub fn next(&mut self) -> Result<bool, ConvertError> {
        (self.text_len, self.cells) = (0, 0);
        self.stream.consume(self.line.take().unwrap_or(0));
        if !self.skip_to_row()? {
            return Ok(false);
        }
        self.stream.mark();
        self.stream.allow();
        if self.has_read && self.split_line()? {
            return Ok(true);
        }
        self.has_read = true;
        loop {
            let chunk = self.stream.fill_buf().map_err(ConvertError::from_carrier)?;
            let is_over = chunk.is_empty();
            // The parser takes a file that ends inside quotes for one that closed them. A line end tells: there it is text.
            let input = if is_over { b"\n" } else { chunk };
            let (result, taken, written, ended) = self.reader.read_record(
                input,
                &mut self.text[self.text_len..],
                &mut self.ends[self.cells..],
            );
            if is_over && written > 0 {
                return Err(Rejection::because(
                    Reason::MalformedCsv,
                    "the file ends inside quotes that this row opens",
                )
                .into());
            }
            self.stream.consume(if is_over { 0 } else { taken });
            self.text_len += written;
            self.cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                // Never more than was read, which the stream bounds.
                ReadRecordResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                ReadRecordResult::OutputEndsFull => self.more_cells()?,
                ReadRecordResult::Record => {
                    self.check_cells()?;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Makes a row of the next line as it stands, which is far faster than the parser; if all of it is at hand and has no quotes.
    fn split_line(&mut self) -> Result<bool, ConvertError> {
        let chunk = self.stream.fill_buf().map_err(ConvertError::from_carrier)?;
        let end = match self.dialect.quote {
            Some(quote) => memchr::memchr3(b'\n', b'\r', quote, chunk),
            None => memchr::memchr2(b'\n', b'\r', chunk),
        };
        let Some(end) = end.filter(|&end| Some(chunk[end]) != self.dialect.quote) else {
            return Ok(false);
        };
        let Some(delimiters) = find_all(self.dialect.delimiter, &chunk[..end], &mut self.ends)
        else {
            return Ok(false);
        };
        self.ends[delimiters] = end;
        (self.line, self.cells) = (Some(end), delimiters + 1);
        Ok(true)
    }

    /// Where the row in hand begins.
    pub fn place(&mut self) -> Place {
        self.stream.marked()
    }

    /// How many cells the row in hand has.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// The row in hand.
    pub fn row(&self) -> Result<Row<'_>, Box<Rejection>> {
        let (bytes, between) = self.bytes();
        match from_utf8(bytes) {
            Ok(text) => Ok(Row {
                text,
                ends: &self.ends[..self.cells],
                between,
            }),
            Err(error) => Err(not_utf8(&bytes[error.valid_up_to()..])),
        }
    }

    /// The cells of the row in hand, and how many bytes lie between two of them.
    fn bytes(&self) -> (&[u8], usize) {
        match self.line {
            Some(len) => (&self.stream.buffered()[..len], 1),
            None => (&self.text[..self.text_len], 0),
        }
    }

    /// The beginning of the row in hand, for a rejection; without its quotes.
    pub fn excerpt(&self) -> Option<String> {
        if let (line, 1) = self.bytes() {
            return excerpt(line);
        }
        // As the line would be if it were short of quotes: which of the two ways it was read by must not be seen.
        let ends = &self.ends[..self.cells];
        let last = ends.last().copied().unwrap_or(0);
        let rest = (self.text_len > last).then_some(self.text_len);
        let mut line = Vec::new();
        let mut start = 0;
        for (cell, end) in ends.iter().copied().chain(rest).enumerate() {
            if cell > 0 {
                line.push(self.dialect.delimiter);
            }
            line.extend_from_slice(&self.text[start..end]);
            start = end;
            if line.len() > 1_000 {
                break;
            }
        }
        excerpt(&line)
    }

    /// Passes over empty lines and comments. The parser would do so, too, but then nobody could say where the row begins.
    fn skip_to_row(&mut self) -> Result<bool, ConvertError> {
        let mut is_in_comment = false;
        loop {
            self.stream.allow();
            let chunk = self.stream.fill_buf().map_err(ConvertError::from_carrier)?;
            let Some(&first) = chunk.first() else {
                return Ok(false);
            };
            let is_line_end = matches!(first, b'\n' | b'\r');
            is_in_comment = !is_line_end && (is_in_comment || Some(first) == self.dialect.comment);
            if !is_line_end && !is_in_comment {
                return Ok(true);
            }
            let skipped = match is_in_comment {
                true => memchr::memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len()),
                false => 1,
            };
            self.stream.consume(skipped);
        }
    }

    fn check_cells(&self) -> Result<(), Box<Rejection>> {
        if self.text_len <= self.limits.text_bytes {
            return Ok(());
        }
        let ends = &self.ends[..self.cells];
        let starts = [0].iter().chain(ends);
        let longest = starts.zip(ends).map(|(start, end)| end - start).max();
        check_text(longest.unwrap_or(0), self.limits)
    }

    /// Room for the ends of cells is charged against the record's limit, too: an empty cell is one byte in the file.
    fn more_cells(&mut self) -> Result<(), Box<Rejection>> {
        if self.cells * size_of::<usize>() > self.limits.record_bytes {
            return Err(too_large(self.limits));
        }
        self.ends.resize(2 * self.ends.len(), 0);
        Ok(())
    }
}

/// The cells of a row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    text: &'a str,
    ends: &'a [usize],
    /// Bytes between two cells.
    between: usize,
}

impl<'a> Row<'a> {
    /// All cells, one after another, with or without what is between them.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The cell of a column that the row has.
    #[inline]
    pub fn cell(&self, column: usize) -> Result<&'a str, Box<Rejection>> {
        let start = match column {
            0 => 0,
            _ => self.ends[column - 1] + self.between,
        };
        // Two halves of a character in two cells look like one in between.
        self.text
            .get(start..self.ends[column])
            .ok_or_else(|| not_utf8(&self.text.as_bytes()[start..self.ends[column]]))
    }

    /// Where in the row's text a piece of it is.
    #[inline]
    pub fn range(&self, piece: &str) -> Range<usize> {
        let start = piece.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + piece.len()
    }
}

/// Puts where `byte` stands in `line` into `found`; how often it does, or `None` when there might not be room for all and one more.
///
/// By words, and without a branch for up to two of it in one: most cells are too short for anything that has to be started anew for
/// each of them, and their lengths can't be predicted.
fn find_all(byte: u8, line: &[u8], found: &mut [usize]) -> Option<usize> {
    let mut count = 0;
    let (words, rest) = line.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let room = found.get_mut(count..count + 9)?;
        let mut hits = bytes_equal(*word, byte);
        let mut hit = 0;
        while hit < 2 || hits != 0 {
            room[hit] = 8 * index + hits.trailing_zeros() as usize / 8;
            count += usize::from(hits != 0);
            hits &= hits.wrapping_sub(1);
            hit += 1;
        }
    }
    for (index, _) in rest.iter().enumerate().filter(|&(_, other)| *other == byte) {
        *found.get_mut(count)? = line.len() - rest.len() + index;
        count += 1;
    }
    (count < found.len()).then_some(count)
}

/// The highest bit of each byte of the word that equals `byte`, the first byte being the lowest (Warren, Hacker's Delight, 6-1).
#[inline]
fn bytes_equal(word: [u8; 8], byte: u8) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const LOW: u64 = ONES * 0x7f;
    let differences = u64::from_le_bytes(word) ^ (ONES * u64::from(byte));
    !(((differences & LOW) + LOW) | differences | LOW)
}

fn not_utf8(bytes: &[u8]) -> Box<Rejection> {
    Rejection::because(Reason::InvalidEncoding, "a cell is not UTF-8").with_excerpt(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delimiter_of_a_line_is_found_if_there_is_room() {
        // All lines of ten characters out of two that differ in one bit, the lowest or the highest.
        for (byte, other) in [(b',', b'-'), (b',', b',' | 0x80), (1, 0), (0, 1)] {
            for bits in 0..1 << 10 {
                let line: Vec<u8> = (0..10)
                    .map(|bit| if bits >> bit & 1 == 1 { byte } else { other })
                    .collect();
                let expected: Vec<usize> = (0..10).filter(|bit| bits >> bit & 1 == 1).collect();
                let mut found = [0; 11];
                assert_eq!(find_all(byte, &line, &mut found), Some(expected.len()));
                assert_eq!(found[..expected.len()], expected);
            }
        }
        assert_eq!(find_all(b',', b",,", &mut [0; 3]), Some(2));
        assert_eq!(find_all(b',', b",,", &mut [0; 2]), None);
        assert_eq!(find_all(b',', b",,", &mut [0; 1]), None);
        assert_eq!(find_all(b',', &[b','; 64], &mut [0; 64]), None);
        assert_eq!(find_all(b',', &[b','; 64], &mut [0; 65]), Some(64));
    }
}
