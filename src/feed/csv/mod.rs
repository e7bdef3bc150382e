//! Records out of CSV: a row each, its cells named by the columns.
//!
//! Quotes, line ends and escapes are csv-core's; what it leaves to its caller is here: the dialect where the feed does not say it, the
//! header, rows of another length, and quotes that never close. A file cut between two rows can't be told from a shorter one.

mod dialect;
mod rows;

pub use dialect::{DialectError, GivenDialect, Head};
pub use rows::Rows;

use std::collections::HashSet;
use std::ops::Range;

use super::container::{Stream, too_large};
use super::fields::{Capture, Content, StepId};
use super::limits::Limits;
use super::reject::{ConvertError, Reason, Rejection};
use super::write::{Records, json_string};

/// How much of a file is looked at for its dialect.
const SNIFF_BYTES: usize = 64 << 10;

/// What a column takes beside its name: the name and the key as strings, and the set that finds repeated names.
const COLUMN_BYTES: usize = 128;

/// The beginning of a file, for [`GivenDialect::fits`].
pub fn head<'a>(stream: &'a mut Stream<'_>) -> Result<Head<'a>, ConvertError> {
    let bytes = stream.peek(SNIFF_BYTES + 1)?;
    Ok(Head {
        // Never what happens to be there: the same file has the same dialect however it arrives.
        bytes: &bytes[..bytes.len().min(SNIFF_BYTES)],
        is_whole: bytes.len() <= SNIFF_BYTES,
    })
}

/// The rows in `stream`, in the dialect that is given, or found.
pub fn rows<'s, 'r>(
    given: &GivenDialect,
    limits: &'r Limits,
    stream: &'s mut Stream<'r>,
) -> Result<Rows<'s, 'r>, ConvertError> {
    let head = head(stream)?;
    let sep_line = head.sep_line();
    let dialect = given.complete(head).map_err(|mut rejection| {
        stream.mark();
        rejection.place(stream.marked());
        rejection
    })?;
    let mut rows = Rows::new(stream, dialect, limits);
    if let Some(line) = sep_line {
        rows.skip(line.bytes)?;
    }
    Ok(rows)
}

/// Converts what is in `stream`, row by row; whole without a capture.
pub fn convert<'p>(
    given: &GivenDialect,
    capture: Option<Capture<'p>>,
    limits: &'p Limits,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mut rows = rows(given, limits, stream)?;
    let columns = header(given, limits, &mut rows)
        .and_then(|names| Ok((Columns::new(&names, capture, limits)?, names.len())))
        .map_err(|error| locate(error, None, &mut rows));
    let (mut columns, count) = columns?;
    loop {
        let step = match rows.next() {
            Ok(true) => {
                if records.wants_places() {
                    records.at(rows.place());
                }
                record(&mut columns, count, given.trim, &rows, records)
            }
            Ok(false) => return Ok(()),
            Err(error) => Err(error),
        };
        // Whatever is wrong with a row, the next one can be read, unless it is the reading that failed.
        if let Err(error) = step {
            records.reject(locate(error, Some(records.count() + 1), &mut rows))?;
        }
    }
}

/// What becomes of the columns.
enum Columns<'p> {
    /// The JSON before each cell, the quotes around cells included.
    Whole(Vec<String>),
    /// The columns asked for and the way to each in the mapping.
    Fields {
        capture: Capture<'p>,
        asked: Vec<(usize, Vec<StepId>)>,
    },
}

impl<'p> Columns<'p> {
    fn new(
        names: &[String],
        capture: Option<Capture<'p>>,
        limits: &Limits,
    ) -> Result<Self, Box<Rejection>> {
        let Some(mut capture) = capture else {
            return keys(names, limits).map(Self::Whole);
        };
        capture.reset();
        let Some(record) = capture.find_key("") else {
            return Ok(Self::Whole(Vec::new()));
        };
        capture.enter(record)?;
        if capture.wants_value() {
            let message = "a row stands where one value is wanted; `.` is not a column";
            return Err(Rejection::because(Reason::InvalidValue, message));
        }
        let mut asked = Vec::new();
        for (column, name) in names.iter().enumerate() {
            if let Some(steps) = steps_to(name, &mut capture)? {
                asked.push((column, steps));
            }
        }
        if asked.is_empty() && capture.find(|_| true).is_some() {
            return Err(Rejection::because(
                Reason::UnknownColumns,
                "none of the columns is one that `fields` asks for",
            ));
        }
        Ok(Self::Fields { capture, asked })
    }
}

/// What stands before each cell in a record. All of it is in every record, so it may not have more bytes than one.
fn keys(names: &[String], limits: &Limits) -> Result<Vec<String>, Box<Rejection>> {
    let mut keys = Vec::with_capacity(names.len());
    let mut bytes = 0;
    for (index, name) in names.iter().enumerate() {
        let before = if index == 0 { "{" } else { "\"," };
        let key = format!("{before}{}:\"", json_string(name));
        bytes += key.len();
        if bytes > limits.record_bytes {
            return Err(too_large(limits));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The steps of a path that reads as the column's name, slashes included.
fn steps_to(name: &str, capture: &mut Capture<'_>) -> Result<Option<Vec<StepId>>, Box<Rejection>> {
    let mut steps = Vec::new();
    let mut is_found = true;
    for part in name.split('/') {
        let Some(step) = capture.find_key(part) else {
            is_found = false;
            break;
        };
        capture.enter(step)?;
        steps.push(step);
    }
    for _ in &steps {
        capture.leave(Content::Nothing);
    }
    Ok(is_found.then_some(steps))
}

/// The names of the columns.
fn header(
    given: &GivenDialect,
    limits: &Limits,
    rows: &mut Rows<'_, '_>,
) -> Result<Vec<String>, ConvertError> {
    if !given.has_header {
        return Ok(given.columns.clone());
    }
    if !rows.next()? {
        let message = "there is no row that could name the columns";
        return Err(Rejection::because(Reason::EmptyFile, message).into());
    }
    if !given.columns.is_empty() {
        check_length(rows, given.columns.len())?;
        return Ok(given.columns.clone());
    }
    let row = rows.row()?;
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for column in 0..rows.cells() {
        let name = row.cell(column)?;
        let name = if given.trim { name.trim() } else { name };
        check_name(name, column, limits)?;
        if (column + 1) * COLUMN_BYTES > limits.record_bytes {
            return Err(too_large(limits).into());
        }
        if !seen.insert(name) {
            let message =
                format!("two columns have the name {name:?}; `csv.columns` can tell them apart");
            return Err(Rejection::because(Reason::DuplicateColumn, message).into());
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn check_name(name: &str, column: usize, limits: &Limits) -> Result<(), Box<Rejection>> {
    if name.is_empty() {
        let message = format!(
            "column {} has no name; `csv.columns` can give it one",
            column + 1
        );
        return Err(Rejection::because(Reason::UnnamedColumn, message));
    }
    if name.len() > limits.name_bytes {
        let message = format!(
            "the name of a column has more than {} bytes",
            limits.name_bytes
        );
        return Err(Rejection::because(Reason::NameTooLong, message).with_excerpt(name.as_bytes()));
    }
    Ok(())
}

fn check_length(rows: &Rows<'_, '_>, columns: usize) -> Result<(), Box<Rejection>> {
    if rows.cells() == columns {
        return Ok(());
    }
    let message = format!(
        "the row has {} cells, and there are {columns} columns",
        rows.cells()
    );
    Err(Rejection::because(Reason::RaggedRow, message))
}

/// Makes a record of the row in hand.
fn record(
    columns: &mut Columns<'_>,
    count: usize,
    trim: bool,
    rows: &Rows<'_, '_>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    check_length(rows, count)?;
    let row = rows.row()?;
    let cell = |column| {
        let cell = row.cell(column)?;
        Ok::<_, ConvertError>(if trim { cell.trim() } else { cell })
    };
    match columns {
        Columns::Whole(keys) => records.add(|record| {
            for (column, key) in keys.iter().enumerate() {
                record.raw(key)?;
                record.string_part(cell(column)?)?;
            }
            record.raw("\"}")
        }),
        Columns::Fields { capture, asked } => {
            capture.reset();
            capture.hold(row.text());
            for (column, steps) in asked {
                let cell = cell(*column)?;
                if !cell.is_empty() {
                    keep(row.range(cell), steps, capture)?;
                }
            }
            records.add(|record| capture.write_record(record))
        }
    }
}

fn keep(
    cell: Range<usize>,
    steps: &[StepId],
    capture: &mut Capture<'_>,
) -> Result<(), Box<Rejection>> {
    let Some((&last, parents)) = steps.split_last() else {
        return Ok(());
    };
    for &step in parents {
        capture.enter(step)?;
    }
    capture.take(last, cell)?;
    for _ in parents {
        capture.leave(Content::Nothing);
    }
    Ok(())
}

/// Adds the record, and the place and the text of its row, as far as nobody has said better.
fn locate(error: ConvertError, record: Option<u64>, rows: &mut Rows<'_, '_>) -> ConvertError {
    error.complete(|rejection| {
        rejection.record = record;
        rejection.place(rows.place());
        if rejection.excerpt.is_none() {
            rejection.excerpt = rows.excerpt();
        }
    })
}
