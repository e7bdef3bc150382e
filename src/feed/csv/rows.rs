//! Rows of cells, one at a time, in buffers that are used again.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader};

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
        }
    }

    /// Reads the next row; whether there was one.
    pub fn next(&mut self) -> Result<bool, ConvertError> {
        (self.text_len, self.cells) = (0, 0);
        if !self.skip_to_row()? {
            return Ok(false);
        }
        self.stream.mark();
        self.stream.allow();
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
        match std::str::from_utf8(&self.text[..self.text_len]) {
            Ok(text) => Ok(Row {
                text,
                ends: &self.ends[..self.cells],
            }),
            Err(error) => Err(not_utf8(&self.text[error.valid_up_to()..self.text_len])),
        }
    }

    /// The beginning of the row in hand, for a rejection; without its quotes.
    pub fn excerpt(&self) -> Option<String> {
        let mut line = Vec::new();
        let mut start = 0;
        for &end in self.ends[..self.cells].iter().chain([&self.text_len]) {
            line.extend_from_slice(&self.text[start..end]);
            if end < self.text_len {
                line.push(self.dialect.delimiter);
            }
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
}

impl<'a> Row<'a> {
    /// The cell of a column that the row has.
    #[inline]
    pub fn cell(&self, column: usize) -> Result<&'a str, Box<Rejection>> {
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        // Two halves of a character in two cells look like one in between.
        self.text
            .get(start..self.ends[column])
            .ok_or_else(|| not_utf8(&self.text.as_bytes()[start..self.ends[column]]))
    }
}

fn not_utf8(bytes: &[u8]) -> Box<Rejection> {
    Rejection::because(Reason::InvalidEncoding, "a cell is not UTF-8").with_excerpt(bytes)
}
