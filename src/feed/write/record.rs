//! The JSON of one record, put together piece by piece.

use std::io::Write;

use crate::feed::container::too_large;
use crate::feed::limits::Limits;
use crate::feed::reject::ConvertError;
use crate::feed::warnings::Warnings;

/// The JSON of one record, growing to at most `record_bytes`.
pub struct Record<'a> {
    json: &'a mut Vec<u8>,
    max_len: usize,
    limits: &'a Limits,
    warnings: Option<(&'a mut Warnings, u64)>,
}

impl<'a> Record<'a> {
    /// A record at the end of `json`.
    pub fn new(json: &'a mut Vec<u8>, limits: &'a Limits) -> Self {
        Self {
            max_len: json.len() + limits.record_bytes,
            json,
            limits,
            warnings: None,
        }
    }

    /// The record of this number in the file, and where its warnings go.
    pub(super) fn warning(self, warnings: &'a mut Warnings, number: u64) -> Self {
        Self {
            warnings: Some((warnings, number)),
            ..self
        }
    }

    /// Elements are made an array because there are several of this path from the record.
    pub fn warn_repeated<'n>(&mut self, names: impl DoubleEndedIterator<Item = &'n str> + Clone) {
        if let Some((warnings, number)) = &mut self.warnings {
            warnings.repeated(names, *number);
        }
    }

    /// Where it ends so far.
    pub fn end(&self) -> usize {
        self.json.len()
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
        self.json.reserve(text.len() + 2);
        self.json.push(b'"');
        self.string_part(text)?;
        self.raw("\"")
    }

    /// A piece of a JSON string whose quotes the caller writes.
    #[inline]
    pub fn string_part(&mut self, text: &str) -> Result<(), ConvertError> {
        // Most text needs no escape.
        match is_plain_text(text.as_bytes()) {
            true => self.json.extend_from_slice(text.as_bytes()),
            false => self.escaped(text),
        }
        self.check()
    }

    /// Apart, so that what most text needs stays small.
    #[inline(never)]
    fn escaped(&mut self, text: &str) {
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        for piece in text.as_bytes().split_inclusive(|&byte| !is_plain(byte)) {
            match piece.split_last() {
                Some((&last, plain)) if !is_plain(last) => {
                    self.json.extend_from_slice(plain);
                    self.escape(last);
                }
                _ => self.json.extend_from_slice(piece),
            }
        }
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

    #[test]
    fn strings_are_escaped_as_serde_json_does_it() {
        let text: String = (0..0x80u8)
            .map(char::from)
            .chain("é\u{2028}😀".chars())
            .collect();
        let (mut json, limits) = (Vec::new(), Limits::default());
        Record::new(&mut json, &limits).string(&text).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), json_string(&text));
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
}
