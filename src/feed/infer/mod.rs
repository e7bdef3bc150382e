//! A feed's configuration from samples of its files.
//!
//! ```text
//! samples ─▶ container ─▶ encoding ─▶ walk ─▶ tree ─▶ records ─▶ draft ─▶ toml ─▶ text
//!            as convert has them      every path once  which list  fields  with comments
//! ```
//!
//! In: any number of files of one format. Out: the TOML of a feed that converts them. Promise: one pass, memory bounded by the number
//! of names and not by the files; what can't be decided is said in a comment and never guessed in silence.

mod draft;
mod names;
mod records;
#[cfg(test)]
mod tests;
mod text;
mod toml;
mod tree;
mod values;
mod walk;

use std::collections::BTreeSet;
use std::io::Read;

use records::Found;
use tree::{NodeId, Tree};
use walk::Namespaces;

use super::container::{Documents, Stream};
use super::encoding;
use super::limits::Limits;
use super::plan::{Plan, PlanError};
use super::reject::{ConvertError, Reason, Rejection};
use super::spec::{Format, Spec};

/// How often it is looked whether enough of a file has been read: in bytes of text, and no file is left before so many. A short list
/// at its beginning is then not taken for the records.
const LOOK_BYTES: u64 = 16 << 20;

/// The text that is read of a file, however few records there are in it.
const MAX_BYTES: u64 = 1 << 30;

/// What is known of the files beforehand, and how much of them is read.
#[derive(Clone, Debug)]
pub struct Options {
    pub format: Format,
    /// Of files that don't say.
    pub encoding: Option<String>,
    /// Records that are enough of one file, if it is longer than 16 MiB.
    pub records: u64,
}

/// What the feed is to be.
#[derive(Clone, Debug)]
pub struct Target {
    /// Unless said, the first file's, to be edited.
    pub name: Option<String>,
    /// Unless said, a folder of that name, to be edited.
    pub r#match: Option<String>,
    /// Records are converted whole, without `fields`.
    pub whole: bool,
}

/// What makes samples impossible to learn from.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error("read a sample as a feed")]
    Convert(#[from] ConvertError),
    #[error("learn one feed from files of several formats: {0} and {1}")]
    Formats(&'static str, &'static str),
}

/// What was learned from the samples so far.
pub struct Survey {
    plan: Plan,
    options: Options,
    tree: Tree,
    namespaces: Namespaces,
    /// Namespaces that the files don't agree on, and whose names are compared as they are written.
    has_forgotten: bool,
    format: Option<Format>,
    encodings: BTreeSet<&'static str>,
    csv: CsvSeen,
    /// Top-level values of JSON documents.
    json_values: u64,
    documents: u64,
    files: Vec<String>,
    /// Files of which only the beginning was read.
    begun: Vec<String>,
}

/// What was seen of the way the rows are written.
#[derive(Debug, Default)]
struct CsvSeen {
    /// Delimiter and quote.
    dialects: BTreeSet<(u8, Option<u8>)>,
    /// The names of the columns, as far as they can be asked for, of the first file.
    header: Option<Vec<String>>,
    /// The first of those that are not what its file says.
    renamed: Option<Vec<String>>,
    have_headers_differed: bool,
    is_spaced: bool,
    /// A number is the name of a column.
    has_odd_header: bool,
    ragged_rows: u64,
    first_ragged: Option<u64>,
}

/// Says when enough of a file has been read.
struct Gauge<'a> {
    text_bytes: &'a dyn Fn() -> u64,
    records: u64,
    next_look: u64,
    /// There are records enough, and the one in hand is the last.
    last: Option<NodeId>,
    is_over: bool,
}

impl Gauge<'_> {
    /// Whether the document is left behind `done`, which has just come to its end: a record is counted whole or not at all.
    fn is_enough(&mut self, tree: &Tree, done: NodeId) -> bool {
        let bytes = (self.text_bytes)();
        if bytes >= self.next_look && self.last.is_none() {
            self.next_look = bytes + LOOK_BYTES;
            let record = records::find(tree).map(|found| found.record);
            self.last = record.filter(|&record| tree.node(record).count >= self.records);
        }
        self.is_over = self.last == Some(done) || bytes >= MAX_BYTES;
        self.is_over
    }
}

impl Survey {
    /// An encoding that is not known is the only thing that can be wrong with the options.
    pub fn new(options: Options, limits: Limits) -> Result<Self, PlanError> {
        let spec = Spec {
            format: options.format,
            encoding: options.encoding.clone(),
            ..Spec::default()
        };
        Ok(Self {
            plan: Plan::compile(&spec, limits)?,
            options,
            tree: Tree::new(),
            namespaces: Namespaces::default(),
            has_forgotten: false,
            format: None,
            encodings: BTreeSet::new(),
            csv: CsvSeen::default(),
            json_values: 0,
            documents: 0,
            files: Vec::new(),
            begun: Vec::new(),
        })
    }

    /// Reads one sample, or as much of it as is needed.
    pub fn read(&mut self, name: &str, mut input: impl Read) -> Result<(), InferError> {
        let limits = self.plan.limits.clone();
        let mut documents = Documents::new(&mut input, &limits, self.plan.encoding);
        let documents_before = self.documents;
        while let Some(mut document) = documents.next()? {
            let text_bytes = || documents.text_bytes();
            let mut gauge = Gauge {
                text_bytes: &text_bytes,
                records: self.options.records,
                next_look: LOOK_BYTES,
                last: None,
                is_over: false,
            };
            let format = encoding::skip_byte_order_mark(&mut document)
                .and_then(|()| super::format_of(&mut document, &self.plan))
                .map_err(|error| document.name(error))?;
            self.take_format(format)?;
            self.encodings.insert(document.encoding().name());
            self.documents += 1;
            self.walk(format, &mut document, &limits, &mut gauge)
                .map_err(|error| document.name(error))?;
            if gauge.is_over {
                self.begun.push(name.to_owned());
                break;
            }
        }
        if self.documents == documents_before {
            let message = "there is no file in the zip";
            return Err(ConvertError::from(Rejection::because(Reason::EmptyFile, message)).into());
        }
        self.files.push(name.to_owned());
        Ok(())
    }

    /// All samples are of one format; JSON lines are JSON.
    fn take_format(&mut self, format: Format) -> Result<(), InferError> {
        let format = match format {
            Format::JsonLines => Format::Json,
            Format::Tsv => Format::Csv,
            Format::Auto => Format::Xml,
            format => format,
        };
        match self.format.replace(format) {
            Some(before) if before != format => {
                Err(InferError::Formats(label(before), label(format)))
            }
            _ => Ok(()),
        }
    }

    fn walk<'r>(
        &mut self,
        format: Format,
        document: &mut Stream<'r>,
        limits: &'r Limits,
        gauge: &mut Gauge<'_>,
    ) -> Result<(), ConvertError> {
        match format {
            Format::Json | Format::JsonLines => {
                self.json_values += walk::json(document, limits, &mut self.tree, gauge)?;
            }
            Format::Csv | Format::Tsv => {
                let given = &self.plan.csv;
                let seen = &mut self.csv;
                walk::csv(document, given, limits, &mut self.tree, seen, gauge)?;
            }
            Format::Xml | Format::Auto => {
                let namespaces = &mut self.namespaces;
                walk::xml(document, limits, &mut self.tree, namespaces, gauge)?;
            }
        }
        Ok(())
    }

    /// The feed as TOML, a `[[feeds]]` table with comments; empty before a sample has been read.
    pub fn write(mut self, target: &Target) -> String {
        self.forget_what_differs();
        match (self.find_records(), self.format) {
            (Some(found), Some(format)) => text::Text::new(&self, found, format).write(target),
            _ => String::new(),
        }
    }

    /// Where there is one JSON value after another, no path leads into them: each is a record.
    fn find_records(&self) -> Option<Found> {
        let mut found = records::find(&self.tree)?;
        if self.has_json_lines() {
            found.record = self.tree.path(found.record)[0];
            found.others.clear();
        }
        Some(found)
    }

    fn has_json_lines(&self) -> bool {
        self.json_values > self.documents
    }

    /// Where one name, written alike, is in several namespaces, or in one and in none, files differ in what their authors paid no
    /// attention to. Such names are compared as they are written.
    fn forget_what_differs(&mut self) {
        loop {
            let differing = self.namespaces.differing(&self.tree);
            if differing.is_empty() {
                return;
            }
            self.has_forgotten = true;
            // Elements that are one now have children that may differ in turn.
            self.tree.forget(&differing);
        }
    }
}

fn label(format: Format) -> &'static str {
    match format {
        Format::Auto | Format::Xml => "XML",
        Format::Json | Format::JsonLines => "JSON",
        Format::Csv | Format::Tsv => "CSV",
    }
}
