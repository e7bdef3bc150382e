//! Records out of an XML document.
//!
//! The record path is walked along the parse: an element is on the path if its parent is and its name is the next one. What is beside the
//! path is passed over without being looked at; what is inside a record goes to a [`Mapping`], one event at a time.

mod attributes;
mod events;
mod text;
mod tokens;
mod whole;

pub use events::{Element, Events, Token, attributes, check_length};
use tokens::Piece;
pub use whole::Whole;

use quick_xml::events::BytesStart;

use super::container::Stream;
use super::limits::Limits;
use super::names::{Namespaces, Scopes};
use super::record_path::{PathSet, Paths};
use super::reject::{ConvertError, Place, Reason, Rejection};
use super::write::{Record, Records};

/// What is made of the events of one record.
pub trait Mapping {
    /// Forgets the record before.
    fn begin(&mut self);
    /// The record's own element comes first.
    fn start(&mut self, element: Element<'_>) -> Result<(), ConvertError>;
    fn text(&mut self, text: &str) -> Result<(), ConvertError>;
    fn end(&mut self);
    /// The path of a rejection is relative to the record here.
    fn write(&self, record: &mut Record<'_>) -> Result<(), ConvertError>;
    /// Names of the open elements inside the record, as far as they were looked at, for a rejection.
    fn open_path(&self) -> String;
}

/// Where the records of a document are.
#[derive(Clone, Copy)]
pub struct Source<'p> {
    /// Their paths from the root.
    pub record: &'p Paths,
    /// Whether a document without any record is refused.
    pub must_match: bool,
    pub namespaces: &'p Namespaces,
    pub limits: &'p Limits,
}

/// Converts the document in `stream`, record by record.
pub fn convert<'p>(
    source: Source<'p>,
    mapping: &mut impl Mapping,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mut events = Events::new(stream, source.limits);
    let mut walk = Walk::new(source, mapping, records);
    loop {
        let was_in_record = walk.is_in_record();
        if !was_in_record {
            events.allow();
        }
        let step = events.advance().and_then(|piece| {
            // A record without content begins and ends in one step.
            if piece == Piece::Empty && !was_in_record {
                walk.record_place = Some(events.place());
            }
            events.token(piece).and_then(|token| walk.step(token))
        });
        match step {
            Ok(true) if walk.is_in_record() && !was_in_record => {
                walk.record_place = Some(events.place())
            }
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => walk.leave_out(events.locate(walk.describe(error)))?,
        }
    }
}

struct Walk<'a, 'p, 'w, M> {
    source: Source<'p>,
    mapping: &'a mut M,
    records: &'a mut Records<'w>,
    scopes: Scopes<'p>,
    /// Open elements.
    depth: usize,
    /// The names of those, counted from the root, that are on a record path, and the paths that they are on.
    on_path: Vec<(String, PathSet)>,
    /// The record paths that led to a record.
    used: PathSet,
    /// How deep the record in hand is; 0 outside records.
    record_depth: usize,
    /// Whether the record in hand is complete: only then can it be left out.
    is_complete: bool,
    /// Where the record in hand begins, once its first event is done with.
    record_place: Option<Place>,
}

impl<'a, 'p, 'w, M: Mapping> Walk<'a, 'p, 'w, M> {
    fn new(source: Source<'p>, mapping: &'a mut M, records: &'a mut Records<'w>) -> Self {
        Self {
            scopes: Scopes::new(source.namespaces),
            source,
            mapping,
            records,
            depth: 0,
            on_path: Vec::new(),
            used: PathSet::NONE,
            record_depth: 0,
            is_complete: false,
            record_place: None,
        }
    }

    #[inline]
    fn is_in_record(&self) -> bool {
        self.record_depth > 0
    }

    /// Whether there is more to come.
    fn step(&mut self, token: Token<'_>) -> Result<bool, ConvertError> {
        match token {
            Token::Start { tag, is_empty } => {
                self.start(&tag)?;
                if is_empty {
                    self.end()?;
                }
            }
            Token::End => self.end()?,
            Token::Text(text) if self.is_in_record() => self.mapping.text(text)?,
            Token::Text(_) | Token::Nothing => {}
            Token::Eof => return self.finish().map(|()| false),
        }
        Ok(true)
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), ConvertError> {
        let parents = self.depth;
        self.depth += 1;
        if self.scopes.matter() {
            self.declare_namespaces(tag)?;
        }
        let element = Element {
            tag,
            scopes: &self.scopes,
            limits: self.source.limits,
        };
        if self.record_depth > 0 {
            return self.mapping.start(element);
        }
        if self.on_path.len() < parents {
            return Ok(());
        }
        let paths = self.source.record;
        let parents_paths = self.on_path.last().map_or(paths.all(), |(_, set)| *set);
        let here = paths.follow(parents_paths, parents, |test| element.is(test));
        if !here.is_empty() {
            self.on_path.push((element.name().to_owned(), here));
            let ending = paths.ending(here, self.depth);
            if !ending.is_empty() {
                self.used = self.used.with(ending);
                self.record_depth = self.depth;
                self.mapping.begin();
                self.mapping.start(element)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ConvertError> {
        if self.record_depth > 0 {
            self.mapping.end();
            if self.depth == self.record_depth {
                self.is_complete = true;
                self.write()?;
                self.is_complete = false;
                self.record_depth = 0;
            }
        }
        self.close();
        Ok(())
    }

    fn close(&mut self) {
        if self.on_path.len() == self.depth {
            self.on_path.pop();
        }
        self.scopes.leave(self.depth);
        self.depth -= 1;
    }

    /// Goes on after the record that ends here, if it is the record that is rejected and not the file.
    fn leave_out(&mut self, error: ConvertError) -> Result<(), ConvertError> {
        if !std::mem::take(&mut self.is_complete) {
            return Err(error);
        }
        self.records.reject(error)?;
        self.record_depth = 0;
        self.close();
        Ok(())
    }

    fn write(&mut self) -> Result<(), ConvertError> {
        if let Some(place) = self.record_place {
            self.records.at(place);
        }
        self.records
            .add(|record| self.mapping.write(record))
            .map_err(|error| match self.record_place {
                Some(place) => error.complete(|rejection| rejection.place(place)),
                None => error,
            })
    }

    fn finish(&mut self) -> Result<(), ConvertError> {
        if self.source.must_match {
            if self.used.is_empty() {
                let message = "no element is on the record path";
                return Err(Rejection::because(Reason::NoRecords, message).into());
            }
            let paths = self.source.record;
            let unused = paths.all().without(self.used);
            self.records.warnings.unused(paths.names(unused));
        }
        Ok(())
    }

    /// Takes the `xmlns` attributes of an element (Namespaces in XML 1.0, section 3).
    fn declare_namespaces(&mut self, tag: &BytesStart<'_>) -> Result<(), Box<Rejection>> {
        if !tag.attributes_raw().contains("xmlns") {
            return Ok(());
        }
        for attribute in attributes(tag, self.source.limits) {
            let (name, uri) = attribute?;
            if name == "xmlns" {
                self.scopes.declare(self.depth, "", &uri);
            } else if let Some(prefix) = name.strip_prefix("xmlns:") {
                self.scopes.declare(self.depth, prefix, &uri);
            }
        }
        let most = self.source.limits.attributes;
        if self.scopes.len() > most {
            let message = format!("more than {most} namespace declarations are in force");
            return Err(Rejection::because(Reason::TooManyAttributes, message));
        }
        Ok(())
    }

    /// Adds the record and the path to a rejection.
    fn describe(&self, error: ConvertError) -> ConvertError {
        error.complete(|rejection| {
            let names: Vec<_> = self.on_path.iter().map(|(name, _)| &**name).collect();
            let mut path = names.join("/");
            if self.is_in_record() {
                rejection.record = Some(self.records.count() + 1);
                let inside = rejection
                    .path
                    .take()
                    .unwrap_or_else(|| self.mapping.open_path());
                path = [path, inside].join("/");
            }
            let path = path.trim_end_matches('/');
            rejection.path = (!path.is_empty()).then(|| path.to_owned());
        })
    }
}

fn malformed(message: &str) -> Box<Rejection> {
    Rejection::because(Reason::MalformedXml, message)
}
