//! Records to the caller's output: separators, buffering, counting.
//!
//! A record is put together in memory, at most `record_bytes` of it, and reaches the output only when it is complete.
//! Compact JSON, one record per line in both formats, the same bytes for the same records.

use std::io::Write;

use super::container::too_large;
use super::limits::Limits;
use super::reject::ConvertError;
use super::spec::OutputFormat;
use super::warnings::Warnings;

/// Complete records are kept back until they are this many bytes.
const FLUSH_BYTES: usize = 64 << 10;

pub struct Records<'w> {
    output: &'w mut dyn Write,
    format: OutputFormat,
    limits: &'w Limits,
    pending: Vec<u8>,
    records: u64,
    output_bytes: u64,
    pub warnings: Warnings,
}

impl<'w> Records<'w> {
    pub fn new(output: &'w mut dyn Write, format: OutputFormat, limits: &'w Limits) -> Self {
        Self {
            output,
            format,
            limits,
            pending: Vec::with_capacity(2 * FLUSH_BYTES),
            records: 0,
            output_bytes: 0,
            warnings: Warnings::default(),
        }
    }

    /// Complete records.
    pub fn count(&self) -> u64 {
        self.records
    }

    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Adds the record that `write` puts together.
    pub fn add(
        &mut self,
        write: impl FnOnce(&mut Record<'_>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let separator: &[u8] = match self.format {
            OutputFormat::Array if self.records == 0 => b"[\n",
            OutputFormat::Array => b",\n",
            OutputFormat::Lines => b"",
        };
        self.pending.extend_from_slice(separator);
        write(&mut Record {
            max_len: self.pending.len() + self.limits.record_bytes,
            limits: self.limits,
            json: &mut self.pending,
            number: self.records + 1,
            warnings: &mut self.warnings,
        })?;
        if self.format == OutputFormat::Lines {
            self.pending.push(b'\n');
        }
        self.records += 1;
        if self.pending.len() >= FLUSH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Ends the output. Nothing can be added afterwards.
    pub fn finish(&mut self) -> Result<(), ConvertError> {
        let end: &[u8] = match self.format {
            OutputFormat::Array if self.records == 0 => b"[\n]\n",
            OutputFormat::Array => b"\n]\n",
            OutputFormat::Lines => b"",
        };
        self.pending.extend_from_slice(end);
        self.flush()?;
        self.output.flush().map_err(ConvertError::Write)
    }

    fn flush(&mut self) -> Result<(), ConvertError> {
        self.output
            .write_all(&self.pending)
            .map_err(ConvertError::Write)?;
        self.output_bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// The JSON of one record, growing to at most `record_bytes`.
pub struct Record<'a> {
    json: &'a mut Vec<u8>,
    max_len: usize,
    limits: &'a Limits,
    number: u64,
    warnings: &'a mut Warnings,
}

impl Record<'_> {
    /// Elements are made an array because there are several of this path from the record.
    pub fn warn_repeated<'n>(&mut self, names: impl DoubleEndedIterator<Item = &'n str> + Clone) {
        self.warnings.repeated(names, self.number);
    }

    /// JSON as it stands.
    #[inline]
    pub fn raw(&mut self, json: &str) -> Result<(), ConvertError> {
        self.json.extend_from_slice(json.as_bytes());
        self.check()
    }

    pub fn number(&mut self, number: u32) -> Result<(), ConvertError> {
        write!(self.json, "{number}").map_err(ConvertError::Write)?;
        self.check()
    }

    /// Text as a JSON string.
    #[inline]
    pub fn string(&mut self, text: &str) -> Result<(), ConvertError> {
        self.json.push(b'"');
        self.string_part(text)?;
        self.raw("\"")
    }

    /// A piece of a JSON string whose quotes the caller writes.
    pub fn string_part(&mut self, text: &str) -> Result<(), ConvertError> {
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        // Most text needs no escape.
        if is_plain_text(text.as_bytes()) {
            self.json.extend_from_slice(text.as_bytes());
            return self.check();
        }
        for piece in text.as_bytes().split_inclusive(|&byte| !is_plain(byte)) {
            match piece.split_last() {
                Some((&last, plain)) if !is_plain(last) => {
                    self.json.extend_from_slice(plain);
                    self.escape(last);
                }
                _ => self.json.extend_from_slice(piece),
            }
        }
        self.check()
    }

    /// The escapes serde_json writes, too (RFC 8259, section 7).
    fn escape(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                self.json.extend_from_slice(b"\\u00");
                self.json.extend_from_slice(&digits);
                return;
            }
        };
        self.json.extend_from_slice(&[b'\\', short]);
    }

    #[inline]
    fn check(&self) -> Result<(), ConvertError> {
        if self.json.len() > self.max_len {
            return Err(too_large(self.limits).into());
        }
        Ok(())
    }
}

/// Whether a JSON string can hold the text as it is. By words of eight bytes, as most texts are short.
fn is_plain_text(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let last = match text.last_chunk::<8>() {
        // Looked at twice in part, so that nothing is left.
        Some(last) => word_is_plain(*last),
        None => rest.iter().fold(true, |plain, byte| {
            plain & !matches!(byte, ..b' ' | b'"' | b'\\')
        }),
    };
    words
        .iter()
        .fold(last, |plain, word| plain & word_is_plain(*word))
}

/// The tests for a byte below `n` and for a zero byte in a word (Anderson, Bit Twiddling Hacks).
#[inline]
fn word_is_plain(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(word);
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let quote = has_zero(word ^ (ONES * b'"' as u64));
    let backslash = has_zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word & HIGH;
    quote | backslash | control == 0
}

/// `text` as a JSON string of its own.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::reject::Reason;

    fn written(format: OutputFormat, records: &[&str]) -> String {
        let (mut output, limits) = (Vec::new(), Limits::default());
        let mut writer = Records::new(&mut output, format, &limits);
        for text in records {
            writer.add(|record| record.string(text)).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(writer.output_bytes(), output.len() as u64);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn both_formats_have_one_record_per_line() {
        assert_eq!(
            written(OutputFormat::Array, &["a", "b"]),
            "[\n\"a\",\n\"b\"\n]\n"
        );
        assert_eq!(written(OutputFormat::Array, &[]), "[\n]\n");
        assert_eq!(written(OutputFormat::Lines, &["a", "b"]), "\"a\"\n\"b\"\n");
        assert_eq!(written(OutputFormat::Lines, &[]), "");
    }

    #[test]
    fn strings_are_escaped_as_serde_json_does_it() {
        let text: String = (0..0x80u8)
            .map(char::from)
            .chain("é\u{2028}😀".chars())
            .collect();
        assert_eq!(
            written(OutputFormat::Lines, &[&text]),
            json_string(&text) + "\n"
        );
    }

    #[test]
    fn a_byte_that_needs_an_escape_is_found_wherever_it_stands() {
        for length in 0..40 {
            let plain = vec![0xff; length];
            assert!(is_plain_text(&plain));
            for (at, byte) in (0..length).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut text = plain.clone();
                text[at] = byte;
                let is_plain = byte >= b' ' && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain_text(&text), is_plain, "{byte} at {at} of {length}");
            }
        }
    }

    #[test]
    fn a_record_cannot_outgrow_its_limit() {
        let limits = Limits {
            record_bytes: 4,
            ..Limits::default()
        };
        let mut output = Vec::new();
        let mut writer = Records::new(&mut output, OutputFormat::Array, &limits);
        writer.add(|record| record.string("ab")).unwrap();
        let error = writer.add(|record| record.string("abc")).unwrap_err();
        assert!(matches!(error, ConvertError::Rejected(r) if r.reason == Reason::RecordTooLarge));
    }
}
