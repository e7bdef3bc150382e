//! Which encoding a document is in, and UTF-8 out of any of them. What can't be decoded is refused by name, never guessed at and
//! never repaired.
//!
//! A byte order mark counts most; then the pattern of UTF-16 without one, and an XML declaration; then what the feed says; else it is UTF-8.
//! Labels mean what the Encoding Standard says (<https://encoding.spec.whatwg.org/#names-and-labels>), so `ISO-8859-1` is
//! windows-1252: what is sent under either name is the same in practice. But a byte that a single-byte encoding has no character for,
//! which the standard reads as a control character (U+0080 to U+009F), is refused: it means that the file is in another one.

use std::io::{self, BufRead, Cursor, Read};

use encoding_rs::{
    Decoder, DecoderResult, Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, X_USER_DEFINED,
};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::container::Stream;
use super::reject::{ConvertError, Reason, Rejection};

const UTF_8_BOM: &[u8] = b"\xef\xbb\xbf";

/// The encoding that a label stands for; `None` for those that are not known, or not safe to read.
pub fn from_label(label: &str) -> Option<&'static Encoding> {
    let label = label.trim();
    // The standard reads it as windows-1252, as if 128 bytes were not undefined in it. UTF-8 has the same 128 others.
    if ["ascii", "us-ascii"].contains(&&*label.to_ascii_lowercase()) {
        return Some(UTF_8);
    }
    Encoding::for_label(label.as_bytes())
        .filter(|encoding| ![REPLACEMENT, X_USER_DEFINED].contains(encoding))
}

/// The text that begins with `head` and goes on with `rest`, in UTF-8, and what it was in. UTF-8 itself is passed on as it is.
/// A byte order mark stays there, as U+FEFF.
pub fn decode<'r>(
    head: Vec<u8>,
    rest: impl Read + 'r,
    otherwise: Option<&'static Encoding>,
) -> Result<(Box<dyn Read + 'r>, &'static Encoding), ConvertError> {
    let encoding = detect(&head, otherwise)?;
    let bytes = Cursor::new(head).chain(rest);
    let text: Box<dyn Read + 'r> = match encoding == UTF_8 {
        true => Box::new(bytes),
        false => Box::new(Transcoder::new(bytes, encoding)),
    };
    Ok((text, encoding))
}

/// Takes the byte order mark.
pub fn skip_byte_order_mark(stream: &mut Stream<'_>) -> Result<(), ConvertError> {
    if stream.peek(UTF_8_BOM.len())?.starts_with(UTF_8_BOM) {
        stream.consume(UTF_8_BOM.len());
    }
    Ok(())
}

fn detect(
    head: &[u8],
    otherwise: Option<&'static Encoding>,
) -> Result<&'static Encoding, Box<Rejection>> {
    // No text has a NUL in it, so among the first characters of one it is a half, or more, of an ASCII character in UTF-16 or UTF-32.
    match head {
        [0, 0, 0xfe, 0xff, ..] | [0xff, 0xfe, 0, 0, ..] => Err(unsupported("UTF-32")),
        [0, 0, 0, 1..0x80, ..] | [1..0x80, 0, 0, 0, ..] => Err(unsupported("UTF-32")),
        _ if let Some((encoding, _)) = Encoding::for_bom(head) => Ok(encoding),
        [0, 1..0x80, ..] => Ok(UTF_16BE),
        [1..0x80, 0, ..] => Ok(UTF_16LE),
        _ => match declared(head) {
            Some(label) => from_declaration(&label),
            None => Ok(otherwise.unwrap_or(UTF_8)),
        },
    }
}

fn from_declaration(label: &str) -> Result<&'static Encoding, Box<Rejection>> {
    let encoding = from_label(label).ok_or_else(|| unsupported(label))?;
    if [UTF_16BE, UTF_16LE].contains(&encoding) {
        let message = "declared as UTF-16, which a declaration of single bytes can't be";
        let rejection = Rejection::because(Reason::InvalidEncoding, message);
        return Err(rejection.with_excerpt(label.as_bytes()));
    }
    Ok(encoding)
}

/// The label in the XML declaration that the text begins with. The parser takes one only if it lies within the head.
fn declared(head: &[u8]) -> Option<String> {
    let declaration = head.trim_ascii_start();
    if !declaration.starts_with(b"<?xml") {
        return None;
    }
    let end = declaration.windows(2).position(|two| two == b"?>")? + 2;
    let declaration = std::str::from_utf8(&declaration[..end]).ok()?;
    match Reader::from_str(declaration).read_event() {
        Ok(Event::Decl(declaration)) => {
            let label = declaration.encoding()?.ok()?;
            Some(label.into_owned())
        }
        _ => None,
    }
}

fn unsupported(label: &str) -> Box<Rejection> {
    let message = format!("the encoding {label:?} is not read");
    Rejection::because(Reason::UnsupportedEncoding, message)
}

const BUFFER_BYTES: usize = 32 << 10;

/// A reader of UTF-8 out of bytes in another encoding.
struct Transcoder<R> {
    input: R,
    decoder: Decoder,
    raw: Box<[u8]>,
    /// What of `raw` is to be decoded.
    raw_start: usize,
    raw_end: usize,
    at_end: bool,
    text: Box<[u8]>,
    /// What of `text` is to be handed out.
    text_start: usize,
    text_end: usize,
    /// Bytes decoded.
    offset: u64,
    /// What follows the text in hand.
    refused: Option<Box<Rejection>>,
}

impl<R: Read> Transcoder<R> {
    fn new(input: R, encoding: &'static Encoding) -> Self {
        Self {
            input,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: vec![0; BUFFER_BYTES].into_boxed_slice(),
            raw_start: 0,
            raw_end: 0,
            at_end: false,
            text: vec![0; 2 * BUFFER_BYTES].into_boxed_slice(),
            text_start: 0,
            text_end: 0,
            offset: 0,
            refused: None,
        }
    }

    /// Decodes until there is some text, or no more.
    fn refill(&mut self) -> io::Result<()> {
        (self.text_start, self.text_end) = (0, 0);
        while self.text_end == 0 {
            if let Some(rejection) = self.refused.take() {
                return Err(ConvertError::from(rejection).into_carrier());
            }
            if self.raw_start == self.raw_end {
                if self.at_end {
                    return Ok(());
                }
                self.raw_start = 0;
                self.raw_end = self.input.read(&mut self.raw)?;
                self.at_end = self.raw_end == 0;
            }
            self.decode();
        }
        Ok(())
    }

    fn decode(&mut self) {
        let raw = &self.raw[self.raw_start..self.raw_end];
        let (result, taken, given) =
            self.decoder
                .decode_to_utf8_without_replacement(raw, &mut self.text, self.at_end);
        self.raw_start += taken;
        self.text_end = given;
        if let Some(at) = self.find_control() {
            // One byte, one character.
            let before = String::from_utf8_lossy(&self.text[..at]).chars().count();
            self.text_end = at;
            self.refused = Some(self.invalid(self.offset + before as u64));
        } else if let DecoderResult::Malformed(length, beyond) = result {
            let end = self.offset + taken as u64 - u64::from(beyond);
            self.refused = Some(self.invalid(end.saturating_sub(u64::from(length))));
        }
        self.offset += taken as u64;
    }

    /// Where a control character stands that a single-byte encoding gives for a byte without a character.
    fn find_control(&self) -> Option<usize> {
        if !self.decoder.encoding().is_single_byte() {
            return None;
        }
        self.text[..self.text_end]
            .windows(2)
            .position(|two| matches!(two, [0xc2, 0x80..=0x9f]))
    }

    fn invalid(&self, offset: u64) -> Box<Rejection> {
        let name = self.decoder.encoding().name();
        let message = format!("not {name}, at byte {offset} of the file as it was sent");
        Rejection::because(Reason::InvalidEncoding, message)
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.text_start == self.text_end {
            self.refill()?;
        }
        let bytes = (&self.text[self.text_start..self.text_end]).read(buffer)?;
        self.text_start += bytes;
        Ok(bytes)
    }
}
