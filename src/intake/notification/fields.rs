//! Fields of a message: by JSON pointer, and only when they are of a kind that can be used.

use serde_json::Value;

use crate::object::ETag;

/// Longest ETag, version id, sequencer or source id that is kept; S3's own limit on a version id.
const MAX_LABEL_BYTES: usize = 1024;

/// Longest piece of a message that is repeated in a reason, a log line or an answer.
const MAX_EXCERPT_CHARS: usize = 80;

/// The text at a JSON pointer, unless it is empty.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// The text at a JSON pointer as something to keep beside an object.
pub(super) fn label(value: &Value, pointer: &str) -> Option<String> {
    text(value, pointer).and_then(usable_label)
}

fn usable_label(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_LABEL_BYTES).then(|| text.to_owned())
}

/// A version id; the version of an object that was never versioned is spelled `null`.
pub(super) fn usable_version_id(text: &str) -> Option<String> {
    usable_label(text).filter(|id| id != "null")
}

/// An ETag that can be sent back in an HTTP header as it is (RFC 9110, section 8.8.3).
pub(super) fn usable_etag(text: &str) -> Option<ETag> {
    ETag::parse(text).filter(|etag| {
        let tag = etag.as_str();
        tag.len() <= MAX_LABEL_BYTES && tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
    })
}

/// The non-negative integer at a JSON pointer; Ceph's documentation shows sizes as strings.
pub(super) fn unsigned(value: &Value, pointer: &str) -> Option<u64> {
    match value.pointer(pointer)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn beginning_of(body: &[u8]) -> String {
    let longest_in_utf8 = MAX_EXCERPT_CHARS * 4;
    excerpt(&String::from_utf8_lossy(
        &body[..body.len().min(longest_in_utf8)],
    ))
}

/// The first printable characters of a text that came from outside.
pub(super) fn excerpt(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_EXCERPT_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unusable_descriptions_are_left_out() {
        assert_eq!(usable_etag("\"abc-2\""), ETag::parse("abc-2"));
        for etag in ["", "\"\"", "a b", "a\nb", "a\"b", "ü"] {
            assert_eq!(usable_etag(etag), None, "{etag:?}");
        }
        assert_eq!(usable_etag(&"e".repeat(1025)), None);
        assert_eq!(usable_version_id("null"), None);
        assert_eq!(usable_version_id(&"v".repeat(1025)), None);
        assert_eq!(usable_version_id("v1"), Some("v1".to_owned()));
        let sizes = json!({"n": 7, "s": "7", "negative": -1, "fraction": 1.5, "word": "x"});
        assert_eq!(unsigned(&sizes, "/n"), Some(7));
        assert_eq!(unsigned(&sizes, "/s"), Some(7));
        for pointer in ["/negative", "/fraction", "/word", "/absent"] {
            assert_eq!(unsigned(&sizes, pointer), None, "{pointer}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_printable_whatever_the_message() {
        let mut body = "ü\u{1b}[2J".repeat(100_000).into_bytes();
        body.push(0xff);
        let begins = beginning_of(&body);
        assert_eq!(begins.chars().count(), MAX_EXCERPT_CHARS);
        assert!(!begins.contains(char::is_control));
        assert_eq!(beginning_of(b"\xff"), "\u{fffd}");
    }
}
