//! What a document is made of, piece by piece: tags, text, references, and what is passed over.
//!
//! In: the decoded stream. Out: one [`Piece`] after another as a part of a window over the stream, so that nothing is copied or checked
//! for UTF-8 twice. Promise: pieces are those quick-xml gives (a property test holds them together), and tags have names that are
//! names.

use memchr::{memchr, memchr2, memchr3};

use super::malformed;
use super::text::{is_name_byte, is_name_start, is_space};
use crate::feed::container::Stream;
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Place, Reason, Rejection};
use crate::feed::window::Window;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Start,
    /// `<name/>`
    Empty,
    /// `</name>`, the name not compared yet.
    End,
    Text,
    CData,
    /// `&name;`
    Reference,
    /// `<?xml ...?>`
    Declaration,
    DocType,
    /// A comment or a processing instruction.
    Nothing,
    Eof,
}

/// What the window begins with. Plain numbers, for they stay in registers: this is looked at for every piece.
struct Found {
    kind: Kind,
    len: usize,
    /// Of a tag that opens an element.
    name_len: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Piece(Piece),
    /// The window ends inside a piece.
    Incomplete,
    Malformed,
}

impl Found {
    const INCOMPLETE: Self = Self {
        kind: Kind::Incomplete,
        len: 0,
        name_len: 0,
    };
    const MALFORMED: Self = Self {
        kind: Kind::Malformed,
        ..Self::INCOMPLETE
    };

    #[inline]
    fn piece(piece: Piece, len: usize) -> Self {
        Self {
            kind: Kind::Piece(piece),
            len,
            name_len: 0,
        }
    }
}

pub struct Tokens<'s, 'r> {
    /// Begins with the piece in hand.
    window: Window<'s, 'r>,
    len: usize,
    name_len: usize,
}

impl<'s, 'r> Tokens<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, limits: &'r Limits) -> Self {
        Self {
            window: Window::new(stream, limits, Reason::MalformedXml),
            len: 0,
            name_len: 0,
        }
    }

    /// Where the piece in hand begins.
    pub fn place(&mut self) -> Place {
        self.window.place()
    }

    /// What follows may be one record, or one piece outside records, and has `record_bytes`.
    #[inline]
    pub fn allow(&mut self) {
        self.window.allow_after(self.len);
    }

    /// The piece in hand.
    #[inline]
    pub fn str(&self) -> &str {
        &self.window.rest()[..self.len]
    }

    /// How many bytes of the tag in hand are the element's name.
    #[inline]
    pub fn name_len(&self) -> usize {
        self.name_len
    }

    /// The piece in hand, or the beginning of what is none, for a rejection.
    pub fn excerpt(&mut self) -> &[u8] {
        match self.len {
            0 => self.window.upcoming().as_bytes(),
            _ => self.str().as_bytes(),
        }
    }

    /// Goes on to the next piece. `name` is that of the innermost open element, whose end is a likely one.
    #[inline]
    pub fn next(&mut self, name: &str) -> Result<Piece, ConvertError> {
        self.window.pass(self.len);
        self.len = 0;
        loop {
            let found = find(self.window.rest(), name);
            match found.kind {
                Kind::Piece(piece) => {
                    self.window.check(found.len)?;
                    self.len = found.len;
                    self.name_len = found.name_len;
                    return Ok(piece);
                }
                Kind::Malformed => return Err(why(self.window.rest()).into()),
                Kind::Incomplete if self.window.is_over() => return self.last(),
                Kind::Incomplete => self.window.read_on()?,
            }
        }
    }

    /// What the end of the file makes of the rest of the window.
    #[cold]
    fn last(&mut self) -> Result<Piece, ConvertError> {
        let rest = self.window.rest();
        match rest.as_bytes().first() {
            None => Ok(Piece::Eof),
            Some(b'<' | b'&') => Err(malformed("the file ends inside markup").into()),
            Some(_) => {
                self.window.check(rest.len())?;
                self.len = rest.len();
                Ok(Piece::Text)
            }
        }
    }
}

/// The piece at the beginning of `rest`.
#[inline]
fn find(rest: &str, name: &str) -> Found {
    let bytes = rest.as_bytes();
    match bytes {
        [] => Found::INCOMPLETE,
        [b'<', b'/', after @ ..] => find_end(after, name.as_bytes()),
        [b'<', b'!' | b'?', ..] => find_special(bytes),
        [b'<', after @ ..] => find_start(after),
        [b'&', after @ ..] => match memchr3(b';', b'&', b'<', after) {
            Some(at) if after[at] == b';' => Found::piece(Piece::Reference, at + 2),
            Some(_) => Found::MALFORMED,
            None => Found::INCOMPLETE,
        },
        _ => match memchr2(b'<', b'&', bytes) {
            Some(len) => Found::piece(Piece::Text, len),
            None => Found::INCOMPLETE,
        },
    }
}

#[inline]
fn find_end(after: &[u8], name: &[u8]) -> Found {
    if let Some(b'>') = after.get(name.len())
        && after.starts_with(name)
    {
        return Found::piece(Piece::End, name.len() + 3);
    }
    match memchr(b'>', after) {
        Some(at) => Found::piece(Piece::End, at + 3),
        None => Found::INCOMPLETE,
    }
}

#[inline]
fn find_start(after: &[u8]) -> Found {
    let Some(name_len) = after.iter().position(|&byte| !is_name_byte(byte)) else {
        return Found::INCOMPLETE;
    };
    let end = match after[name_len] {
        b'>' => Some(name_len),
        b'/' => match after.get(name_len + 1) {
            Some(b'>') => Some(name_len + 1),
            Some(_) => return Found::MALFORMED,
            None => None,
        },
        byte if is_space(byte) => end_of_tag(after, name_len),
        _ => return Found::MALFORMED,
    };
    if !is_name_start(after[0]) {
        return Found::MALFORMED;
    }
    match end {
        None => Found::INCOMPLETE,
        Some(end) => {
            let piece = match after[end - 1] {
                b'/' => Piece::Empty,
                _ => Piece::Start,
            };
            Found {
                name_len,
                ..Found::piece(piece, end + 2)
            }
        }
    }
}

/// What is wrong with a piece that is none.
#[cold]
fn why(rest: &str) -> Box<Rejection> {
    malformed(match rest.as_bytes() {
        [b'&', ..] => "`&` without `;`",
        [b'<', b'!' | b'?', ..] => {
            "neither a comment, nor CDATA, nor a DOCTYPE, nor a processing instruction"
        }
        _ => "not a name",
    })
}

/// The first `>` outside quotes.
fn end_of_tag(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr3(b'>', b'"', b'\'', &bytes[at..])?;
        if bytes[at] == b'>' {
            return Some(at);
        }
        at += memchr(bytes[at], &bytes[at + 1..])? + 2;
    }
}

#[cold]
fn find_special(bytes: &[u8]) -> Found {
    const DECLARATION: &[u8] = b"<?xml";
    const DOCTYPE: &[u8] = b"<!DOCTYPE";
    let begins = |with: &[u8]| bytes.starts_with(with);
    if begins(b"<?") {
        return match find_bytes(&bytes[1..], b"?>") {
            None => Found::INCOMPLETE,
            Some(0) => Found::MALFORMED,
            Some(at) => {
                let is_declaration = begins(DECLARATION) && (is_space(bytes[5]) || at == 4);
                let piece = if is_declaration {
                    Piece::Declaration
                } else {
                    Piece::Nothing
                };
                Found::piece(piece, at + 3)
            }
        };
    }
    if begins(b"<!--") {
        return until(bytes, 4, b"-->", Piece::Nothing);
    }
    if begins(b"<![CDATA[") {
        return until(bytes, 9, b"]]>", Piece::CData);
    }
    let head = &bytes[..bytes.len().min(DOCTYPE.len())];
    if head.len() == DOCTYPE.len() && head.eq_ignore_ascii_case(DOCTYPE) {
        return match end_of_doctype(bytes) {
            None => Found::INCOMPLETE,
            Some(end) if bytes[9..end].iter().all(|&byte| is_space(byte)) => Found::MALFORMED,
            Some(end) => Found::piece(Piece::DocType, end + 1),
        };
    }
    let may_become =
        |whole: &[u8]| head.eq_ignore_ascii_case(&whole[..head.len().min(whole.len())]);
    if head.len() < DOCTYPE.len()
        && [b"<!--", &b"<![CDATA["[..], DOCTYPE]
            .into_iter()
            .any(may_become)
    {
        return Found::INCOMPLETE;
    }
    Found::MALFORMED
}

fn until(bytes: &[u8], from: usize, end: &[u8], piece: Piece) -> Found {
    match find_bytes(&bytes[from..], end) {
        Some(at) => Found::piece(piece, from + at + end.len()),
        None => Found::INCOMPLETE,
    }
}

/// Where `wanted` is, by its rarest byte at the end: what is looked for are the ends of markup.
fn find_bytes(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let before = wanted.len() - 1;
    memchr::memchr_iter(wanted[before], bytes)
        .find(|&at| at >= before && bytes[at - before..].starts_with(wanted))
        .map(|at| at - before)
}

/// The `>` that ends a DOCTYPE, its internal subset passed over: declarations with their quotes, comments and processing instructions.
fn end_of_doctype(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    let mut is_inside = false;
    loop {
        at += bytes[at..]
            .iter()
            .position(|byte| matches!(byte, b'\'' | b'"' | b'[' | b']' | b'<' | b'>'))?;
        let rest = &bytes[at..];
        at += match rest[0] {
            quote @ (b'\'' | b'"') if !is_inside => memchr(quote, &rest[1..])? + 2,
            b'<' if is_inside && rest.starts_with(b"<!--") => find_bytes(&rest[4..], b"-->")? + 7,
            b'<' if is_inside && rest.starts_with(b"<?") => find_bytes(&rest[2..], b"?>")? + 4,
            // It may yet turn out to be a comment.
            b'<' if is_inside && b"<!--".starts_with(rest) => return None,
            b'<' if is_inside => end_of_tag(rest, 0)? + 1,
            b'>' if !is_inside => return Some(at),
            b']' if is_inside => return Some(at + memchr(b'>', rest)?),
            bracket => {
                is_inside |= bracket == b'[';
                1
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;
    use quick_xml::events::Event;

    use super::*;

    fn is_name(name: &str) -> bool {
        name.bytes().next().is_some_and(is_name_start) && name.bytes().all(is_name_byte)
    }

    /// What a reader gives, at most `step` bytes at a time.
    struct Steps<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Steps<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(self.step);
            self.bytes.read(&mut buffer[..end])
        }
    }

    /// The pieces with their text, the last one an error perhaps.
    fn pieces(xml: &[u8], step: usize) -> Vec<Result<(Piece, String), Reason>> {
        let limits = Limits::default();
        let mut input = Steps { bytes: xml, step };
        let mut stream = Stream::open(&mut input, &limits).unwrap();
        let mut tokens = Tokens::new(&mut stream, &limits);
        let mut pieces = Vec::new();
        loop {
            tokens.allow();
            match tokens.next("a") {
                Ok(Piece::Eof) => return pieces,
                Ok(Piece::End) if !is_name(end_name(tokens.str())) => {
                    pieces.push(Err(Reason::MalformedXml));
                    return pieces;
                }
                Ok(piece) => pieces.push(Ok((piece, tokens.str().to_owned()))),
                Err(ConvertError::Rejected(rejection)) => {
                    pieces.push(Err(rejection.reason));
                    return pieces;
                }
                Err(error) => panic!("memory can be read: {error}"),
            }
        }
    }

    /// What quick-xml makes of the same, its events written as they stand in the document.
    fn expected(xml: &[u8]) -> Vec<Option<(&'static str, String)>> {
        let mut reader = quick_xml::Reader::from_reader(xml);
        reader.config_mut().check_end_names = false;
        reader.config_mut().allow_unmatched_ends = true;
        let (mut events, mut raw) = (Vec::new(), Vec::new());
        loop {
            raw.clear();
            let event = match reader.read_event_into(&mut raw) {
                Ok(Event::Eof) => return events,
                Ok(Event::Start(tag)) if !is_name(tag.name().0) => None,
                Ok(Event::Empty(tag)) if !is_name(tag.name().0) => None,
                // It can close nothing, so it does not matter where it ends.
                Ok(Event::End(tag)) if !is_name(tag.name().0) => None,
                Ok(Event::Start(tag)) => Some(("start", format!("<{}>", &*tag))),
                Ok(Event::Empty(tag)) => Some(("empty", format!("<{}/>", &*tag))),
                Ok(Event::End(tag)) => Some(("end", format!("</{}>", &*tag))),
                Ok(Event::Text(text)) => Some(("text", text.to_string())),
                Ok(Event::CData(text)) => Some(("cdata", format!("<![CDATA[{}]]>", &*text))),
                Ok(Event::GeneralRef(name)) => Some(("reference", format!("&{};", &*name))),
                Ok(Event::Decl(content)) => Some(("declaration", format!("<?{}?>", &*content))),
                Ok(Event::PI(content)) => Some(("nothing", format!("<?{}?>", &*content))),
                Ok(Event::Comment(text)) => Some(("nothing", format!("<!--{}-->", &*text))),
                Ok(Event::DocType(_)) => Some(("doctype", String::new())),
                Err(_) => None,
            };
            let is_error = event.is_none();
            events.push(event);
            if is_error {
                return events;
            }
        }
    }

    fn end_name(tag: &str) -> &str {
        tag[2..tag.len() - 1].trim_end_matches([' ', '\t', '\n', '\r'])
    }

    /// A piece as [`expected`] writes it. quick-xml cuts white space out of end tags and DOCTYPEs.
    fn as_expected(piece: &Piece, text: &str) -> (&'static str, String) {
        let kind = match piece {
            Piece::Start => "start",
            Piece::Empty => "empty",
            Piece::End => return ("end", format!("</{}>", end_name(text))),
            Piece::Text => "text",
            Piece::CData => "cdata",
            Piece::Reference => "reference",
            Piece::Declaration => "declaration",
            Piece::DocType => return ("doctype", String::new()),
            Piece::Nothing => "nothing",
            Piece::Eof => "eof",
        };
        (kind, text.to_owned())
    }

    #[test]
    fn what_is_not_utf_8_is_told_from_what_was_cut() {
        assert_eq!(
            pieces(b"<a>\xff</a>", 9).pop(),
            Some(Err(Reason::InvalidEncoding))
        );
        assert_eq!(pieces(b"<a>\xc3", 9).pop(), Some(Err(Reason::MalformedXml)));
        let whole = pieces("<a>æ😀</a>".as_bytes(), 1);
        assert_eq!(whole[1], Ok((Piece::Text, "æ😀".into())));
    }

    #[test]
    fn a_huge_piece_is_found_in_linear_time() {
        for body in ["x", "<", "]]", "\"", "æ"] {
            let xml = format!("<![CDATA[{}]]>", body.repeat((10 << 20) / body.len()));
            assert_eq!(pieces(xml.as_bytes(), 1 << 10).len(), 1, "{body}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn the_pieces_are_those_of_quick_xml_however_the_bytes_arrive(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<", ">", "<a>", "</a>", "</a >", "<a x='1'>", "<b y=\"'>\"/>", "<b", "</", "<!--", "-->", "--", "<![CDATA[", "]]>", "]]",
                "<!doctype x SYSTEM '>'>", "<!DOCTYPE a [ <!ENTITY x ']>'> <!-- ]> ' --> <?p ]> ' ?> %pe; <!ELEMENT a (b)> ]>", "<!ENTITY x '>'>", "<?", "?>", "<?xml ",
                "<?xml?>", "<?x", "?", "&", ";", "&amp;", "&#", "x", "'", "\"", "=", " ", "\n", "/", "!", "-", "é", "😀", "1",
            ]), 0..24),
            step in 1..40usize,
        ) {
            let xml = parts.concat();
            let found = pieces(xml.as_bytes(), step);
            let expected = expected(xml.as_bytes());
            prop_assert_eq!(found.len(), expected.len(), "{:?} {:?}", found, expected);
            for (found, expected) in found.iter().zip(&expected) {
                match (found, expected) {
                    (Ok((piece, text)), Some(expected)) => prop_assert_eq!(&as_expected(piece, text), expected),
                    (Err(_), None) => {}
                    _ => prop_assert!(false, "{:?} {:?}", found, expected),
                }
            }
        }
    }
}
