//! Character data as the XML specification wants it read: line ends, references, and nothing that is not a character.

use std::borrow::Cow;

use quick_xml::escape::resolve_predefined_entity;

use crate::feed::reject::{Reason, Rejection};

/// What U+FFFE and U+FFFF begin with in UTF-8, as do some four thousand characters before them.
const LAST_OF_PLANE: u8 = 0xef;

/// Text or CDATA with its line ends normalised (XML 1.0, section 2.11) and without characters XML does not have (section 2.2).
#[inline]
pub fn clean(raw: &str) -> Result<Cow<'_, str>, Box<Rejection>> {
    let is_plain =
        |byte: u8| (byte >= b' ' || byte == b'\n' || byte == b'\t') && byte != LAST_OF_PLANE;
    // Folded rather than searched, so that it runs at the speed of memory.
    if raw.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return Ok(Cow::Borrowed(raw));
    }
    match raw.chars().find(|&c| !is_xml_char(c)) {
        Some(c) => Err(illegal(c).with_excerpt(raw.as_bytes())),
        None if !raw.contains('\r') => Ok(Cow::Borrowed(raw)),
        None => Ok(Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"))),
    }
}

/// What `&name;` stands for: one of the five predefined entities or a character, and nothing else.
pub fn reference(name: &str) -> Result<Cow<'static, str>, Box<Rejection>> {
    match name.strip_prefix('#') {
        Some(number) => character(number).map(|c| Cow::Owned(c.to_string())),
        None => resolve_predefined_entity(name)
            .map(Cow::Borrowed)
            .ok_or_else(|| {
                Rejection::because(
                    Reason::EntityNotAllowed,
                    "only the five entities that XML predefines are resolved",
                )
                .with_excerpt(format!("&{name};").as_bytes())
            }),
    }
}

fn character(number: &str) -> Result<char, Box<Rejection>> {
    let (digits, radix) = number
        .strip_prefix('x')
        .map_or((number, 10), |hex| (hex, 16));
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    is_number
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
        .and_then(char::from_u32)
        .filter(|&c| is_xml_char(c))
        .ok_or_else(|| {
            Rejection::because(
                Reason::MalformedXml,
                "a reference to a character that XML does not have",
            )
            .with_excerpt(format!("&#{number};").as_bytes())
        })
}

/// An attribute's value, normalised as CDATA (XML 1.0, section 3.3.3): each white space is a space, references are resolved.
pub fn attribute_value(raw: &str) -> Result<Cow<'_, str>, Box<Rejection>> {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'&' && byte != LAST_OF_PLANE;
    if raw.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return Ok(Cow::Borrowed(raw));
    }
    let clean = clean(raw)?;
    let mut value = String::with_capacity(clean.len());
    let mut rest = &*clean;
    while let Some(at) = rest.find(['&', '\t', '\n']) {
        value.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if rest.as_bytes()[at] == b'&' {
            let (name, after) = after.split_once(';').ok_or_else(|| {
                Rejection::because(Reason::MalformedXml, "`&` without `;` in an attribute")
                    .with_excerpt(&rest.as_bytes()[at..])
            })?;
            value.push_str(&reference(name)?);
            after
        } else {
            value.push(' ');
            after
        };
    }
    value.push_str(rest);
    Ok(Cow::Owned(value))
}

pub fn is_blank(text: &str) -> bool {
    text.bytes().all(is_space)
}

#[inline]
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Production 4 of the specification, but for what it leaves out beyond ASCII.
#[inline]
pub fn is_name_start(byte: u8) -> bool {
    is_name_byte(byte) && !matches!(byte, b'0'..=b'9' | b'-' | b'.')
}

#[inline]
pub fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[usize::from(byte)]
}

const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 0x80
            || (byte as u8).is_ascii_alphanumeric()
            || matches!(byte as u8, b'_' | b':' | b'-' | b'.');
        byte += 1;
    }
    table
};

fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

fn illegal(c: char) -> Box<Rejection> {
    Rejection::because(
        Reason::MalformedXml,
        format!("the character U+{:04X} is not allowed in XML", u32::from(c)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_one_newline_and_control_characters_are_refused() {
        assert_eq!(clean("a\r\nb\rc\n\td").unwrap(), "a\nb\nc\n\td");
        for text in [
            "\0",
            "a\u{1}",
            "\u{b}",
            "\u{fffe}",
            "a\u{ffff}",
            "\r\u{ffff}",
        ] {
            assert_eq!(clean(text).unwrap_err().reason, Reason::MalformedXml);
            let in_attribute = attribute_value(text).unwrap_err();
            assert_eq!(in_attribute.reason, Reason::MalformedXml);
        }
        for text in ["\u{fffd}", "\u{feff}", "\u{ff0c}", "\u{f000}", "\u{1ffff}"] {
            assert_eq!(clean(text).unwrap(), text);
            assert_eq!(attribute_value(text).unwrap(), text);
        }
    }

    #[test]
    fn references_are_resolved_or_refused_by_name() {
        assert_eq!(reference("amp").unwrap(), "&");
        assert_eq!(reference("#xe6").unwrap(), "æ");
        assert_eq!(reference("#128512").unwrap(), "😀");
        for bad in [
            "#0",
            "#1",
            "#xD800",
            "#x110000",
            "#",
            "#x",
            "#+65",
            "#99999999999",
            "#xFFFF",
            "#X41",
        ] {
            assert_eq!(
                reference(bad).unwrap_err().reason,
                Reason::MalformedXml,
                "{bad}"
            );
        }
        for entity in ["nbsp", "", "AMP", "lol9"] {
            assert_eq!(
                reference(entity).unwrap_err().reason,
                Reason::EntityNotAllowed,
                "{entity}"
            );
        }
    }

    #[test]
    fn attribute_values_are_normalised() {
        assert_eq!(
            attribute_value("a&amp;b\tc\r\nd&#10;e &lt;").unwrap(),
            "a&b c d\ne <"
        );
        assert_eq!(
            attribute_value("a & b").unwrap_err().reason,
            Reason::MalformedXml
        );
        assert_eq!(
            attribute_value("&x;").unwrap_err().reason,
            Reason::EntityNotAllowed
        );
    }

    #[test]
    fn names_are_told_from_what_only_looks_like_one() {
        let is_name = |name: &str| {
            name.bytes().next().is_some_and(is_name_start) && name.bytes().all(is_name_byte)
        };
        for good in ["a", "_1", "g:id", "UDX.UGE.LEVEL", "søk-ord"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1a", "a<b", "a/", "a\"", "-a", "a=b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
