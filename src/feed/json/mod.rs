//! Records out of JSON: a document with an array of them somewhere, or one value after another.
//!
//! Arrays are what repeated elements are in XML: on the way to the records, and on the paths of `fields`, an array stands for each of
//! its elements. A document that was cut is always noticed; of JSON lines cut between two lines nobody can tell.

mod scan;

pub use scan::Scanner;
use scan::{Skip, malformed};

use super::container::Stream;
use super::fields::{Capture, Content, StepId};
use super::limits::Limits;
use super::names::{NameTest, Namespace};
use super::record_path::{PathSet, Paths};
use super::reject::{ConvertError, Reason, Rejection, excerpt};
use super::write::Records;
use super::xml::Mapping as _;

/// What becomes of a record.
pub enum Mapping<'p> {
    Whole,
    Fields(Capture<'p>),
}

/// Where the records are.
#[derive(Clone, Copy)]
pub enum Source<'p> {
    /// In one document, at the end of these paths of keys.
    Document(&'p Paths),
    Lines,
}

/// Converts what is in `stream`, record by record.
pub fn convert<'p>(
    source: Source<'p>,
    mapping: Mapping<'p>,
    limits: &'p Limits,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mut scanner = Scanner::new(stream, limits);
    let mut walk = Walk {
        source,
        mapping,
        records,
        used: PathSet::NONE,
        on_path: Vec::new(),
        is_in_record: false,
    };
    walk.run(&mut scanner)
        .map_err(|error| walk.locate(error, &mut scanner))
}

struct Walk<'a, 'p, 'w> {
    source: Source<'p>,
    mapping: Mapping<'p>,
    records: &'a mut Records<'w>,
    /// The record paths that led anywhere; what is there may be an empty array.
    used: PathSet,
    /// The keys that lead to where the walk is.
    on_path: Vec<String>,
    is_in_record: bool,
}

impl Walk<'_, '_, '_> {
    fn run(&mut self, scanner: &mut Scanner<'_, '_>) -> Result<(), ConvertError> {
        match self.source {
            Source::Document(paths) => {
                self.document(paths, paths.all(), scanner)?;
                self.end_of_document(paths, scanner)
            }
            Source::Lines => {
                while scanner.next()?.is_some() {
                    self.record(scanner)?;
                }
                Ok(())
            }
        }
    }

    /// Takes the next value, which `set` of the paths lead to.
    fn document(
        &mut self,
        paths: &Paths,
        set: PathSet,
        scanner: &mut Scanner<'_, '_>,
    ) -> Result<(), ConvertError> {
        let depth = self.on_path.len();
        let ending = paths.ending(set, depth);
        self.used = self.used.with(ending);
        match scanner.peek()? {
            b'[' if ending.is_empty() => {
                scanner.array(|scanner| self.document(paths, set, scanner))
            }
            b'[' => scanner.array(|scanner| self.record(scanner)),
            _ if !ending.is_empty() => self.record(scanner),
            b'{' => scanner.object(|scanner, key| {
                let follows = |test: &NameTest| test.matches(key, Namespace::Undeclared);
                let set = paths.follow(set, depth, follows);
                if set.is_empty() {
                    return scanner.value(&mut Skip);
                }
                self.on_path.push(key.to_owned());
                self.document(paths, set, scanner)?;
                self.on_path.pop();
                Ok(())
            }),
            _ => scanner.value(&mut Skip),
        }
    }

    fn end_of_document(
        &mut self,
        paths: &Paths,
        scanner: &mut Scanner<'_, '_>,
    ) -> Result<(), ConvertError> {
        if scanner.next()?.is_some() {
            let message = "something follows the document; for one value after another the format is `json_lines`";
            return Err(malformed(message).into());
        }
        if self.used.is_empty() {
            return Err(
                Rejection::because(Reason::NoRecords, "the record path leads nowhere").into(),
            );
        }
        let unused = paths.all().without(self.used);
        self.records.warnings.unused(paths.names(unused));
        Ok(())
    }

    fn record(&mut self, scanner: &mut Scanner<'_, '_>) -> Result<(), ConvertError> {
        scanner.peek()?;
        scanner.begin_record();
        self.is_in_record = true;
        if self.records.wants_places() {
            self.records.at(scanner.place());
        }
        let added = match &mut self.mapping {
            Mapping::Whole => self.records.add(|record| scanner.value(record)),
            Mapping::Fields(capture) => {
                let place = scanner.place();
                read_fields(capture, scanner).and_then(|()| {
                    self.records
                        .add(|record| capture.write_record(record))
                        .map_err(|error| error.complete(|rejection| rejection.place(place)))
                })
            }
        };
        if let Err(error) = added {
            let error = self.locate(error, scanner);
            self.is_in_record = false;
            self.records.reject(error)?;
        }
        self.is_in_record = false;
        scanner.end_record();
        Ok(())
    }

    /// Says where a rejection happened, as far as nobody has yet.
    fn locate(&self, error: ConvertError, scanner: &mut Scanner<'_, '_>) -> ConvertError {
        error.complete(|rejection| {
            let mut path = self.on_path.clone();
            if self.is_in_record {
                rejection.record = Some(self.records.count() + 1);
                path.extend(rejection.path.take());
                rejection.path = (!path.is_empty()).then(|| path.join("/"));
            }
            if rejection.byte_offset.is_none() && rejection.excerpt.is_none() {
                rejection.excerpt = excerpt(scanner.upcoming());
            }
            rejection.place(scanner.place());
        })
    }
}

fn read_fields(
    capture: &mut Capture<'_>,
    scanner: &mut Scanner<'_, '_>,
) -> Result<(), ConvertError> {
    let mut refused = None;
    if scanner.peek()? != b'{' {
        let rejection = Rejection::because(Reason::InvalidValue, "the record is not an object");
        refuse(rejection, &mut refused, scanner)?;
    } else {
        capture.reset();
        match capture.find_key("") {
            Some(record) => read_value(record, false, capture, scanner, &mut refused)?,
            None => scanner.value(&mut Skip)?,
        }
    }
    refused.map_or(Ok(()), |rejection| Err(rejection.into()))
}

/// Passes over a value that rejects its record. The record is read to its end all the same: the next one begins there.
fn refuse(
    mut rejection: Box<Rejection>,
    refused: &mut Option<Box<Rejection>>,
    scanner: &mut Scanner<'_, '_>,
) -> Result<(), ConvertError> {
    rejection.place(scanner.place());
    rejection.excerpt = excerpt(scanner.upcoming());
    refused.get_or_insert(rejection);
    scanner.value(&mut Skip)
}

/// Takes the next value for `step`.
fn read_value(
    step: StepId,
    is_element: bool,
    capture: &mut Capture<'_>,
    scanner: &mut Scanner<'_, '_>,
    refused: &mut Option<Box<Rejection>>,
) -> Result<(), ConvertError> {
    match scanner.peek()? {
        b'[' => scanner.array(|scanner| read_value(step, true, capture, scanner, refused)),
        b'{' => read_object(step, capture, scanner, refused),
        // A null is a missing value; as an element of an array it still has its place there.
        b'n' if is_element => {
            capture.enter(step)?;
            scanner.value(&mut Skip)?;
            capture.leave(Content::Nothing);
            Ok(())
        }
        b'n' => scanner.value(&mut Skip),
        b'"' => {
            capture.enter(step)?;
            scanner.string(capture.text_mut())?;
            capture.leave(Content::Text);
            Ok(())
        }
        _ => {
            capture.enter(step)?;
            scanner.literal(capture.text_mut())?;
            capture.leave(Content::Literal);
            Ok(())
        }
    }
}

fn read_object(
    step: StepId,
    capture: &mut Capture<'_>,
    scanner: &mut Scanner<'_, '_>,
    refused: &mut Option<Box<Rejection>>,
) -> Result<(), ConvertError> {
    capture.enter(step)?;
    if capture.wants_value() {
        let message = "an object stands where one value is wanted";
        let rejection = Rejection::because(Reason::InvalidValue, message);
        refuse(rejection.with_path(capture.open_path()), refused, scanner)?;
    } else {
        scanner.object(|scanner, key| match capture.find_key(key) {
            Some(child) => read_value(child, false, capture, scanner, refused),
            None => scanner.value(&mut Skip),
        })?;
    }
    capture.leave(Content::Nothing);
    Ok(())
}
