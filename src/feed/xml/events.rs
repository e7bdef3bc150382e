//! Well-formed XML, event by event.
//!
//! In: the pieces of the document. Out: elements and text, references resolved, CDATA and text alike; comments, processing instructions and
//! the DOCTYPE with its internal subset are passed over and nothing is ever fetched. Promise: one root, nothing around it, everything
//! closed, and limits on depth, names and attributes; whether a file is well-formed does not depend on what is asked of it. Only the
//! attributes of elements nobody asked for go unread.

use std::borrow::Cow;

use quick_xml::events::{BytesDecl, BytesStart};

use super::attributes::Attributes;
use super::tokens::{Piece, Tokens};
use super::{malformed, text};
use crate::feed::container::{HEAD_BYTES, Stream, check_text};
use crate::feed::limits::Limits;
use crate::feed::names::{NameTest, Namespace, Scopes};
use crate::feed::reject::{ConvertError, Place, Reason, Rejection, excerpt};

pub enum Token<'e> {
    Start {
        tag: BytesStart<'e>,
        is_empty: bool,
    },
    End,
    Text(&'e str),
    /// Something without content: a comment, the declaration, white space around the root.
    Nothing,
    Eof,
}

pub struct Events<'s, 'r> {
    tokens: Tokens<'s, 'r>,
    limits: &'r Limits,
    /// Names of the open elements, one after the other, and where each begins. An empty element is never open.
    names: String,
    open: Vec<usize>,
    has_root: bool,
    is_declared: bool,
    /// Text that does not stand in the document as it is meant.
    scratch: String,
    /// Bytes of the text in hand so far, which may be in several pieces.
    text_bytes: usize,
}

impl<'s, 'r> Events<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, limits: &'r Limits) -> Self {
        Self {
            tokens: Tokens::new(stream, limits),
            limits,
            names: String::new(),
            open: Vec::new(),
            has_root: false,
            is_declared: false,
            scratch: String::new(),
            text_bytes: 0,
        }
    }

    /// Where the event in hand begins.
    pub fn place(&mut self) -> Place {
        self.tokens.place()
    }

    /// See [`Tokens::allow`].
    pub fn allow(&mut self) {
        self.tokens.allow();
    }

    /// Goes on to the next piece of the document, which is an event or wrong.
    #[inline]
    pub fn advance(&mut self) -> Result<Piece, ConvertError> {
        let name = self.open.last().map_or("", |&start| &self.names[start..]);
        self.tokens.next(name)
    }

    /// What the piece in hand means where it stands.
    #[inline]
    pub fn token(&mut self, piece: Piece) -> Result<Token<'_>, ConvertError> {
        let is_outside = self.open.is_empty();
        match piece {
            Piece::Start => self.open(false),
            Piece::Empty => self.open(true),
            Piece::End => self.close().map(|()| Token::End),
            Piece::Text if is_outside => between(self.tokens.str()),
            Piece::Text => self.text("", ""),
            Piece::CData | Piece::Reference if is_outside => Err(outside_root().into()),
            Piece::CData => self.text("<![CDATA[", "]]>"),
            Piece::Reference => {
                let name = inside(self.tokens.str(), "&", ";");
                self.scratch.clear();
                self.scratch.push_str(&text::reference(name)?);
                self.text_bytes += self.scratch.len();
                check_text(self.text_bytes, self.limits)?;
                Ok(Token::Text(&self.scratch))
            }
            Piece::Declaration => self.declare(),
            Piece::DocType if self.has_root => {
                Err(malformed("a DOCTYPE after the root element begins").into())
            }
            Piece::DocType | Piece::Nothing => Ok(Token::Nothing),
            Piece::Eof => self.end(),
        }
    }

    /// Says where a rejection happened, as far as nobody has yet, and shows the event in hand.
    pub fn locate(&mut self, error: ConvertError) -> ConvertError {
        error.complete(|rejection| {
            rejection.place(self.place());
            if rejection.excerpt.is_none() {
                rejection.excerpt = excerpt(self.tokens.excerpt());
            }
        })
    }

    #[inline]
    fn open(&mut self, is_empty: bool) -> Result<Token<'_>, ConvertError> {
        let depth = self.open.len();
        if depth == 0 && self.has_root {
            return Err(malformed("a second root element").into());
        }
        if depth == self.limits.depth {
            let message = format!("elements are nested more than {} deep", self.limits.depth);
            return Err(Rejection::because(Reason::TooDeep, message).into());
        }
        self.has_root = true;
        self.text_bytes = 0;
        let content = inside(self.tokens.str(), "<", if is_empty { "/>" } else { ">" });
        let name_len = self.tokens.name_len();
        let (name, attributes) = content.split_at(name_len);
        check_length(name, self.limits)?;
        if !attributes.is_empty() && memchr::memchr(b'<', attributes.as_bytes()).is_some() {
            return Err(malformed("`<` inside a tag").into());
        }
        if !is_empty {
            self.open.push(self.names.len());
            self.names.push_str(name);
        }
        let tag = BytesStart::from_content(content, name_len);
        Ok(Token::Start { tag, is_empty })
    }

    #[inline]
    fn text(&mut self, before: &str, after: &str) -> Result<Token<'_>, ConvertError> {
        let raw = inside(self.tokens.str(), before, after);
        let text = match text::clean(raw)? {
            Cow::Borrowed(clean) => clean,
            Cow::Owned(clean) => {
                self.scratch = clean;
                &self.scratch
            }
        };
        self.text_bytes += text.len();
        check_text(self.text_bytes, self.limits)?;
        Ok(Token::Text(text))
    }

    #[inline]
    fn close(&mut self) -> Result<(), ConvertError> {
        self.text_bytes = 0;
        let name = inside(self.tokens.str(), "</", ">");
        let Some(start) = self.open.pop() else {
            return Err(malformed("an end tag without its start").into());
        };
        let opened = &self.names[start..];
        if name != opened && name.trim_end_matches([' ', '\t', '\n', '\r']) != opened {
            let message = format!("the end tag of `{opened}` is missing");
            return Err(malformed(&message).into());
        }
        self.names.truncate(start);
        Ok(())
    }

    fn declare(&mut self) -> Result<Token<'static>, ConvertError> {
        if self.has_root || self.is_declared {
            return Err(malformed("an XML declaration that is not at the beginning").into());
        }
        self.is_declared = true;
        // What it says of the encoding has been heeded already, or would never be.
        let end = self.tokens.place().offset + self.tokens.str().len() as u64;
        if end > HEAD_BYTES as u64 {
            let message =
                format!("the XML declaration does not end in the first {HEAD_BYTES} bytes");
            return Err(malformed(&message).into());
        }
        let content = inside(self.tokens.str(), "<?", "?>");
        let declaration = BytesDecl::from_start(BytesStart::from_content(content, "xml".len()));
        if let Some(Err(error)) = declaration.encoding() {
            return Err(malformed(&error.to_string()).into());
        }
        Ok(Token::Nothing)
    }

    fn end(&self) -> Result<Token<'static>, ConvertError> {
        if !self.open.is_empty() {
            let message = format!("the file ends with {} elements open", self.open.len());
            return Err(malformed(&message).into());
        }
        if !self.has_root {
            return Err(malformed("the file has no root element").into());
        }
        Ok(Token::Eof)
    }
}

/// A piece without its delimiters.
#[inline]
fn inside<'e>(piece: &'e str, before: &str, after: &str) -> &'e str {
    &piece[before.len()..piece.len() - after.len()]
}

/// An opening tag, and what is needed to tell what its names mean.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    pub tag: &'a BytesStart<'a>,
    pub scopes: &'a Scopes<'a>,
    pub limits: &'a Limits,
}

impl<'a> Element<'a> {
    pub fn name(&self) -> &'a str {
        self.tag.name().0
    }

    /// What the prefix of the name stands for.
    #[inline]
    pub fn namespace(&self) -> Namespace {
        self.scopes.of_element(self.name())
    }

    pub fn is(&self, test: &NameTest) -> bool {
        test.matches(self.name(), self.namespace())
    }

    pub fn attributes(&self) -> Attributes<'a> {
        attributes(self.tag, self.limits)
    }
}

pub fn attributes<'a>(tag: &'a BytesStart<'a>, limits: &'a Limits) -> Attributes<'a> {
    Attributes::new(tag.attributes_raw(), limits)
}

fn between(text: &str) -> Result<Token<'static>, ConvertError> {
    if text::is_blank(text) {
        Ok(Token::Nothing)
    } else {
        Err(outside_root().into())
    }
}

pub fn check_length(name: &str, limits: &Limits) -> Result<(), Box<Rejection>> {
    if name.len() > limits.name_bytes {
        let message = format!("a name has more than {} bytes", limits.name_bytes);
        return Err(Rejection::because(Reason::NameTooLong, message).with_excerpt(name.as_bytes()));
    }
    Ok(())
}

fn outside_root() -> Box<Rejection> {
    malformed("text outside the root element")
}
