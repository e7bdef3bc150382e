//! Which encoding a file is in. Everything is read as UTF-8; what is not UTF-8 is refused by name, never guessed at and never repaired.

use std::io::BufRead;

use super::container::Stream;
use super::reject::{ConvertError, Reason, Rejection};

const UTF_8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Takes the byte order mark of UTF-8 and refuses every other one, and UTF-16 and UTF-32 without one: neither XML nor JSON
/// can have a NUL among its first two bytes otherwise (XML 1.0, appendix F; RFC 4627, section 3).
pub fn skip_byte_order_mark(stream: &mut Stream<'_>) -> Result<(), ConvertError> {
    let head = stream.peek(UTF_8_BOM.len())?;
    let is_wide = matches!(
        head,
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, ..] | [_, 0, ..]
    );
    if is_wide {
        return Err(unsupported("UTF-16 or UTF-32").into());
    }
    if head.starts_with(UTF_8_BOM) {
        stream.consume(UTF_8_BOM.len());
    }
    Ok(())
}

/// What an XML declaration's encoding means for the bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    Utf8,
    /// An encoding that agrees with UTF-8 as long as only ASCII is used, which is what many files that declare one do.
    AsciiOnly,
}

impl Declared {
    /// Understands the labels of the Encoding Standard's single-byte encodings by their families.
    pub fn from_label(label: &str) -> Result<Self, Box<Rejection>> {
        let label = label.to_ascii_lowercase();
        let is_family = |family: &&str| label.starts_with(family);
        match &*label {
            "utf-8" | "utf8" => Ok(Self::Utf8),
            "us-ascii" | "ascii" | "latin1" => Ok(Self::AsciiOnly),
            _ if ["iso-8859-", "iso8859-", "windows-125", "cp125"]
                .iter()
                .any(is_family) =>
            {
                Ok(Self::AsciiOnly)
            }
            _ => Err(unsupported(&label)),
        }
    }
}

pub fn unsupported(encoding: &str) -> Box<Rejection> {
    Rejection::because(Reason::UnsupportedEncoding, "only UTF-8 is read so far")
        .with_excerpt(encoding.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::limits::Limits;

    fn after_mark(mut bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
        let limits = Limits::default();
        let mut stream = Stream::open(&mut bytes, &limits)?;
        skip_byte_order_mark(&mut stream)?;
        Ok(stream.peek(100)?.to_vec())
    }

    #[test]
    fn the_mark_of_utf_8_is_skipped_and_all_others_are_refused() {
        assert_eq!(after_mark(b"\xef\xbb\xbf<a/>").unwrap(), b"<a/>");
        assert_eq!(after_mark(b"<").unwrap(), b"<");
        for wide in [
            &b"\xff\xfe<\0"[..],
            b"\xfe\xff\0<",
            b"\0<\0a",
            b"<\0a\0",
            b"\0\0\xfe\xff",
        ] {
            assert!(matches!(
                after_mark(wide),
                Err(ConvertError::Rejected(r)) if r.reason == Reason::UnsupportedEncoding
            ));
        }
    }

    #[test]
    fn labels_of_ascii_supersets_are_told_from_the_rest() {
        assert_eq!(Declared::from_label("UTF-8").unwrap(), Declared::Utf8);
        assert_eq!(
            Declared::from_label("ISO-8859-15").unwrap(),
            Declared::AsciiOnly
        );
        assert_eq!(
            Declared::from_label("Windows-1251").unwrap(),
            Declared::AsciiOnly
        );
        assert!(Declared::from_label("utf-16").is_err());
        assert!(Declared::from_label("shift_jis").is_err());
    }
}
