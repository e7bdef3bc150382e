//! Well-formed XML, event by event.
//!
//! In: the decoded stream. Out: elements and text, references resolved, CDATA and text alike; comments, processing instructions and
//! the DOCTYPE with its internal subset are passed over and nothing is ever fetched. Promise: what quick-xml leaves to its caller is
//! checked here (one root, nothing around it, everything closed, names, characters, depth), so that whether a file is
//! well-formed does not depend on what is asked of it. Only the attributes of elements nobody asked for go unread.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use quick_xml::encoding::EncodingError;
use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::reader::Reader;

use super::text;
use crate::feed::container::{HEAD_BYTES, Stream};
use crate::feed::limits::Limits;
use crate::feed::names::{NameTest, Scopes};
use crate::feed::reject::{ConvertError, Place, Reason, Rejection, excerpt};

pub enum Token<'e> {
    Start {
        tag: &'e BytesStart<'e>,
        is_empty: bool,
    },
    End,
    Text(Cow<'e, str>),
    /// Something without content: a comment, the declaration, white space around the root.
    Nothing,
    Eof,
}

pub struct Events<'s, 'r> {
    reader: Reader<&'s mut Stream<'r>>,
    limits: &'r Limits,
    /// Elements open after the event in hand; an empty element counts until the next event.
    depth: usize,
    has_root: bool,
    is_declared: bool,
}

impl<'s, 'r> Events<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, limits: &'r Limits) -> Self {
        Self {
            reader: Reader::from_reader(stream),
            limits,
            depth: 0,
            has_root: false,
            is_declared: false,
        }
    }

    /// Where the event in hand begins.
    pub fn place(&mut self) -> Place {
        self.reader.get_mut().marked()
    }

    /// See [`Stream::allow`].
    pub fn allow(&mut self) {
        self.reader.get_mut().allow();
    }

    /// Reads on, the bytes of the event going to `raw`. The event is not checked yet.
    #[inline]
    pub fn read<'b>(&mut self, raw: &'b mut Vec<u8>) -> quick_xml::Result<Event<'b>> {
        raw.clear();
        self.reader.get_mut().mark();
        self.reader.read_event_into(raw)
    }

    /// What an event means where it stands.
    #[inline]
    pub fn check<'e>(&mut self, event: &'e Event<'e>) -> Result<Token<'e>, ConvertError> {
        match event {
            Event::Start(tag) => {
                self.open(tag)?;
                self.depth += 1;
                Ok(Token::Start {
                    tag,
                    is_empty: false,
                })
            }
            Event::Empty(tag) => {
                self.open(tag)?;
                Ok(Token::Start {
                    tag,
                    is_empty: true,
                })
            }
            Event::End(_) => {
                self.depth -= 1;
                Ok(Token::End)
            }
            Event::Text(text) if self.depth == 0 => between(text),
            Event::Text(text) => Ok(Token::Text(text::clean(text)?)),
            Event::CData(_) | Event::GeneralRef(_) if self.depth == 0 => Err(outside_root().into()),
            Event::CData(text) => Ok(Token::Text(text::clean(text)?)),
            Event::GeneralRef(name) => Ok(Token::Text(text::reference(name)?)),
            Event::Decl(declaration) => self.declare(declaration),
            Event::DocType(_) if self.has_root => {
                Err(malformed("a DOCTYPE after the root element begins").into())
            }
            Event::DocType(_) | Event::Comment(_) | Event::PI(_) => Ok(Token::Nothing),
            Event::Eof => self.end(),
        }
    }

    /// Says where a rejection happened, as far as nobody has yet, and shows the event in hand.
    pub fn locate(&mut self, error: ConvertError, raw: &[u8]) -> ConvertError {
        error.complete(|rejection| {
            rejection.place(self.place());
            if rejection.excerpt.is_none() {
                rejection.excerpt = excerpt(raw);
            }
        })
    }

    /// What an error of the parser stands for.
    #[cold]
    pub fn refuse(&mut self, error: quick_xml::Error) -> ConvertError {
        match error {
            quick_xml::Error::Io(error) => match Arc::try_unwrap(error) {
                Ok(error) => ConvertError::from_carrier(error),
                Err(shared) => ConvertError::Read(io::Error::new(shared.kind(), shared)),
            },
            quick_xml::Error::Encoding(error) => {
                self.refuse_bytes(&error).unwrap_or_else(|failure| failure)
            }
            error => malformed(&error.to_string()).into(),
        }
    }

    /// Bytes that are not UTF-8 are half a character in a file that was cut.
    fn refuse_bytes(&mut self, error: &EncodingError) -> Result<ConvertError, ConvertError> {
        let rejection = if self.reader.get_mut().peek(1)?.is_empty() {
            malformed("the file ends inside a character")
        } else {
            Rejection::because(Reason::InvalidEncoding, error.to_string())
        };
        Ok(rejection.into())
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), Box<Rejection>> {
        if self.depth == 0 && self.has_root {
            return Err(malformed("a second root element"));
        }
        if self.depth == self.limits.depth {
            let message = format!("elements are nested more than {} deep", self.limits.depth);
            return Err(Rejection::because(Reason::TooDeep, message));
        }
        self.has_root = true;
        check_name(tag.name().0, self.limits)?;
        if tag.attributes_raw().contains('<') {
            return Err(malformed("`<` inside a tag"));
        }
        Ok(())
    }

    fn declare(&mut self, declaration: &BytesDecl<'_>) -> Result<Token<'static>, ConvertError> {
        if self.has_root || self.is_declared {
            return Err(malformed("an XML declaration that is not at the beginning").into());
        }
        self.is_declared = true;
        // What it says of the encoding has been heeded already, or would never be.
        let end = self.place().offset + declaration.len() as u64 + "<??>".len() as u64;
        if end > HEAD_BYTES as u64 {
            let message =
                format!("the XML declaration does not end in the first {HEAD_BYTES} bytes");
            return Err(malformed(&message).into());
        }
        if let Some(Err(error)) = declaration.encoding() {
            return Err(malformed(&error.to_string()).into());
        }
        Ok(Token::Nothing)
    }

    fn end(&self) -> Result<Token<'static>, ConvertError> {
        if self.depth > 0 {
            let message = format!("the file ends with {} elements open", self.depth);
            return Err(malformed(&message).into());
        }
        if !self.has_root {
            return Err(malformed("the file has no root element").into());
        }
        Ok(Token::Eof)
    }
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

    #[inline]
    pub fn is(&self, test: &NameTest) -> bool {
        test.matches(self.name(), self.scopes.of_element(self.name()))
    }

    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<(&'a str, Cow<'a, str>), Box<Rejection>>> {
        attributes(self.tag, self.limits)
    }
}

/// Name and value, in the order of the document; a repeated name is malformed.
pub fn attributes<'a>(
    tag: &'a BytesStart<'a>,
    limits: &'a Limits,
) -> impl Iterator<Item = Result<(&'a str, Cow<'a, str>), Box<Rejection>>> {
    tag.attributes().enumerate().map(|(index, attribute)| {
        let attribute = attribute.map_err(|error| malformed(&error.to_string()))?;
        if index == limits.attributes {
            let message = format!("an element has more than {} attributes", limits.attributes);
            return Err(Rejection::because(Reason::TooManyAttributes, message));
        }
        check_name(attribute.key.0, limits)?;
        Ok((attribute.key.0, text::attribute_value(attribute.value)?))
    })
}

fn between(text: &str) -> Result<Token<'static>, ConvertError> {
    if text::is_blank(text) {
        Ok(Token::Nothing)
    } else {
        Err(outside_root().into())
    }
}

fn check_name(name: &str, limits: &Limits) -> Result<(), Box<Rejection>> {
    if name.len() > limits.name_bytes {
        let message = format!("a name has more than {} bytes", limits.name_bytes);
        return Err(Rejection::because(Reason::NameTooLong, message).with_excerpt(name.as_bytes()));
    }
    if !text::is_name(name) {
        return Err(malformed("not a name").with_excerpt(name.as_bytes()));
    }
    Ok(())
}

fn malformed(message: &str) -> Box<Rejection> {
    Rejection::because(Reason::MalformedXml, message)
}

fn outside_root() -> Box<Rejection> {
    malformed("text outside the root element")
}
