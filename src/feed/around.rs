//! What stands around a place that a rejection names: the text is read anew, up to there.

use std::io::{BufRead, Read};

use super::container::{Documents, Stream};
use super::plan::Plan;
use super::reject::ConvertError;

/// The text before and after a place, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    pub before: Vec<u8>,
    pub after: Vec<u8>,
}

/// Reads `input` up to a place, given as a [`Rejection`](super::Rejection) gives it: a byte offset into the text, and the path, which names
/// the entry of a zip. At most `context` bytes of each side; `None` when there is no such entry.
pub fn text_around(
    plan: &Plan,
    mut input: impl Read,
    path: Option<&str>,
    byte_offset: u64,
    context: usize,
) -> Result<Option<Around>, ConvertError> {
    let mut documents = Documents::new(&mut input, &plan.limits, plan.encoding);
    while let Some(mut document) = documents.next()? {
        let entry = document.entry();
        if entry.is_none_or(|entry| is_in(&entry, path)) {
            return Ok(Some(around(&mut document, byte_offset, context)));
        }
        while take(&mut document, usize::MAX, |_| ()).map_err(ConvertError::from_carrier)? > 0 {}
    }
    Ok(None)
}

fn is_in(entry: &str, path: Option<&str>) -> bool {
    let rest = path
        .and_then(|path| path.strip_prefix("zip entry "))
        .and_then(|path| path.strip_prefix(entry));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

/// Damage ends the text: that is often the place itself.
fn around(document: &mut Stream<'_>, byte_offset: u64, context: usize) -> Around {
    let mut around = Around::default();
    let mut left = byte_offset.saturating_sub(context as u64);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match take(document, most, |_| ()) {
            Ok(taken @ 1..) => left -= taken as u64,
            _ => return around,
        }
    }
    let before = usize::try_from(byte_offset).map_or(context, |offset| offset.min(context));
    around.before = next(document, before);
    around.after = next(document, context);
    around
}

/// The next bytes of the text, fewer at its end.
fn next(document: &mut Stream<'_>, bytes: usize) -> Vec<u8> {
    let mut next = Vec::new();
    while next.len() < bytes {
        let most = bytes - next.len();
        match take(document, most, |text| next.extend_from_slice(text)) {
            Ok(1..) => {}
            _ => break,
        }
    }
    next
}

/// Takes what is at hand, at most `most` bytes of it; how many those are.
fn take(
    document: &mut Stream<'_>,
    most: usize,
    mut with: impl FnMut(&[u8]),
) -> std::io::Result<usize> {
    document.allow();
    let text = document.fill_buf()?;
    let bytes = text.len().min(most);
    with(&text[..bytes]);
    document.consume(bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::tests::packing::{ZipEntry, gzip, zip};
    use crate::feed::{Limits, spec::Spec};

    fn read(input: &[u8], path: Option<&str>, place: u64) -> Option<(String, String)> {
        let plan = Plan::compile(&Spec::default(), Limits::default()).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let around = text_around(&plan, input, path, place, 4).unwrap();
        around.map(|around| (text(around.before), text(around.after)))
    }

    fn sides(before: &str, after: &str) -> Option<(String, String)> {
        Some((before.to_owned(), after.to_owned()))
    }

    #[test]
    fn a_place_is_found_in_the_text_whatever_it_is_packed_in() {
        let text = b"<items><item/></items>";
        assert_eq!(read(text, None, 7), sides("ems>", "<ite"));
        assert_eq!(read(&gzip(text), None, 7), sides("ems>", "<ite"));
        assert_eq!(read(text, None, 0), sides("", "<ite"));
        assert_eq!(read(text, None, 22), sides("ems>", ""));
        assert_eq!(read(text, None, 1_000), sides("", ""));
        let long = "x".repeat(1 << 20) + "!y";
        assert_eq!(read(long.as_bytes(), None, 1 << 20), sides("xxxx", "!y"));
    }

    #[test]
    fn the_path_says_which_entry_of_a_zip_is_meant() {
        let packed = zip(&[
            ZipEntry::new("a", b"<a>1</a>"),
            ZipEntry::new("a b", b"<b>2</b>"),
        ]);
        assert_eq!(
            read(&packed, Some("zip entry a b: b"), 3),
            sides("<b>", "2</b")
        );
        assert_eq!(read(&packed, Some("zip entry a"), 3), sides("<a>", "1</a"));
        assert_eq!(read(&packed, Some("zip entry c"), 3), None);
    }

    #[test]
    fn damage_ends_what_is_shown() {
        let mut cut = gzip(&"abcdefgh".repeat(100_000).into_bytes());
        cut.truncate(cut.len() / 2);
        let (before, after) = read(&cut, None, 799_000).unwrap();
        assert_eq!((before.as_str(), after.as_str()), ("", ""));
    }
}
