//! One partner's file: bytes in, JSON out. Pure: no Kafka, no S3, no clock; `feedmill convert` alone uses it.
//!
//! ```text
//! bytes ─▶ container ─▶ encoding ─▶ xml  ─▶ fields ──▶ write ─▶ JSON
//!          gzip, zip …  to UTF-8    json    or whole    one record at a time
//!                                   csv
//! ```
//!
//! In: any reader, and a [`Plan`] compiled from a feed's [`Spec`](spec::Spec). Out: a JSON array or JSON lines, and a [`Summary`]; or the one
//! [`Rejection`] that says why the file can't be converted and where.
//! [`infer`] goes the other way: from files to the [`Spec`](spec::Spec) that converts them.
//!
//! Promise: the same bytes and the same plan give the same output, memory is bounded by one record whatever the size of the file,
//! and no input makes it panic, hang or fetch anything.

mod around;
mod batch;
mod container;
mod csv;
mod encode;
mod encoding;
mod fields;
pub mod infer;
mod jq;
mod json;
mod limits;
mod names;
mod plan;
mod progress;
mod record_path;
mod reject;
mod rejects;
pub mod spec;
mod steps;
mod switch;
#[cfg(test)]
mod tests;
mod validate;
mod warnings;
mod window;
mod write;
mod xml;

use std::io::{Read, Write};

pub use around::{Around, text_around};
pub use batch::{MAX_ABANDONED, abandoned_threads};
pub use container::is_packed;
use container::{Documents, Stream};
pub use csv::DialectError;
use encode::Encoder;
pub use fields::{DateFormatError, FieldError, TypeError};
pub use limits::Limits;
use plan::Mapping;
pub use plan::{ENGINE_VERSION, Plan, PlanError};
pub use progress::{Counter, Progress};
pub use reject::{ConvertError, Reason, Rejection};
use rejects::Rejects;
pub use rejects::{FIRST_REJECTIONS, MaxRejected};
use serde::Serialize;
use spec::Format;
pub use warnings::Warning;
use write::Records;

/// What is known of the file besides its bytes: `$source` in mappings. All of it is the same whenever the same version is
/// converted, so that outputs stay deterministic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub bucket: String,
    pub key: String,
    pub etag: String,
    /// RFC 3339, in UTC; `None` when the server did not say.
    pub last_modified: Option<String>,
    /// Name of the feed.
    pub feed: String,
}

/// What a conversion came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records in the output.
    pub records: u64,
    /// Records left out of it.
    pub rejected: u64,
    /// The first of those, at most [`FIRST_REJECTIONS`].
    pub rejections: Vec<Rejection>,
    /// Bytes taken from the input, compressed if it was.
    pub input_bytes: u64,
    /// Bytes after decompression, in UTF-8.
    pub decoded_bytes: u64,
    pub output_bytes: u64,
    /// At most 20.
    pub warnings: Vec<Warning>,
}

/// How much of a file is looked at for its first character.
const SNIFF_BYTES: usize = 4 << 10;

/// Converts one file as `plan` says. Blocks while it reads and writes.
///
/// On an error, what `output` has got is a part and no result; it must not become visible to anybody.
pub fn convert(
    plan: &Plan,
    source: &Source,
    input: impl Read,
    output: impl Write,
) -> Result<Summary, ConvertError> {
    convert_reporting(plan, source, input, output, None)
}

/// The same, with a report of the records that are left out: each is a line of JSON.
pub fn convert_reporting(
    plan: &Plan,
    source: &Source,
    input: impl Read,
    output: impl Write,
    report: Option<&mut dyn Write>,
) -> Result<Summary, ConvertError> {
    convert_watched(plan, source, input, output, report, &Progress::default())
}

/// The same; `progress`, a new one, tells other threads how far it is.
pub fn convert_watched(
    plan: &Plan,
    source: &Source,
    mut input: impl Read,
    mut output: impl Write,
    report: Option<&mut dyn Write>,
    progress: &Progress,
) -> Result<Summary, ConvertError> {
    let report = report.map(|report| report as &mut dyn Write);
    let output = Encoder::new(&mut output, plan.compression).map_err(ConvertError::Write)?;
    let mut records = Records::new(output, plan.output, &plan.limits)
        .tolerating(Rejects::new(report, plan.max_rejected))
        .through(plan.batches(source)?)
        .telling(progress);
    let mut documents = Documents::new(&mut input, &plan.limits, plan.encoding).telling(progress);
    convert_documents(plan, source, &mut documents, &mut records)?;
    let (rejected, rejections) = records.finish_rejects()?;
    records.finish()?;
    Ok(Summary {
        records: records.written(),
        rejected,
        rejections,
        input_bytes: documents.input_bytes(),
        decoded_bytes: documents.text_bytes(),
        output_bytes: records.output_bytes(),
        warnings: records.warnings.take(),
    })
}

/// Converts one file after another: one, unless it is a zip.
fn convert_documents<'p>(
    plan: &'p Plan,
    source: &'p Source,
    documents: &mut Documents<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mut is_empty = true;
    while let Some(mut document) = documents.next()? {
        is_empty = false;
        records.enter(document.entry());
        let parsed = convert_document(plan, source, &mut document, records);
        // With all its records done, so that no rejection of theirs is said to be in the next document.
        records
            .settle(parsed)
            .map_err(|error| document.name(error))?;
    }
    match is_empty {
        true => Err(Rejection::because(Reason::EmptyFile, "there is no file in the zip").into()),
        false => Ok(()),
    }
}

/// Converts what is one file, or one entry of a zip, and nothing in it a container any more.
fn convert_document<'p>(
    plan: &'p Plan,
    source: &'p Source,
    document: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    encoding::skip_byte_order_mark(document)?;
    match format_of(document, plan)? {
        Format::Json => convert_json(
            json::Source::Document(&plan.record.keys),
            plan,
            source,
            document,
            records,
        ),
        Format::JsonLines => convert_json(json::Source::Lines, plan, source, document, records),
        Format::Csv | Format::Tsv => convert_csv(plan, source, document, records),
        Format::Xml | Format::Auto => convert_xml(plan, source, document, records),
    }
}

/// The format the plan says, or the one that the first character speaks for.
fn format_of(stream: &mut Stream<'_>, plan: &Plan) -> Result<Format, ConvertError> {
    let head = stream.peek(SNIFF_BYTES)?;
    // Never what happens to be there beyond: the same file has the same format however it arrives.
    let head = &head[..head.len().min(SNIFF_BYTES)];
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    match (plan.format, first) {
        (_, None) if head.len() < SNIFF_BYTES => {
            Err(Rejection::because(Reason::EmptyFile, "there is nothing in the file").into())
        }
        (Format::Auto, Some(b'<')) => Ok(Format::Xml),
        (Format::Auto, Some(b'[')) => Ok(Format::Json),
        (Format::Auto, Some(b'{')) if plan.record.is_given => Ok(Format::Json),
        (Format::Auto, Some(b'{')) => Ok(Format::JsonLines),
        (Format::Auto, _) => {
            let head = csv::head(stream)?;
            if !plan.record.is_given && plan.csv.fits(head) {
                return Ok(Format::Csv);
            }
            let rejection = Rejection::because(
                Reason::UnknownFormat,
                "the file begins neither like XML nor like JSON, and its rows are not those of CSV",
            );
            Err(rejection.with_excerpt(head.bytes).into())
        }
        (format, _) => Ok(format),
    }
}

fn convert_xml<'p>(
    plan: &'p Plan,
    source: &'p Source,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let places = xml::Source {
        record: &plan.record.elements,
        must_match: plan.record.is_given,
        namespaces: &plan.namespaces,
        limits: &plan.limits,
    };
    match &plan.mapping {
        Mapping::Whole(arrays) => xml::convert(
            places,
            &mut xml::Whole::new(arrays, &plan.limits),
            stream,
            records,
        ),
        Mapping::Fields(fields) => xml::convert(
            places,
            &mut fields::Capture::new(fields, source, &plan.limits),
            stream,
            records,
        ),
    }
}

fn convert_json<'p>(
    places: json::Source<'p>,
    plan: &'p Plan,
    source: &'p Source,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mapping = match &plan.mapping {
        Mapping::Whole(_) => json::Mapping::Whole,
        Mapping::Fields(fields) => {
            json::Mapping::Fields(fields::Capture::new(fields, source, &plan.limits))
        }
    };
    json::convert(places, mapping, &plan.limits, stream, records)
}

fn convert_csv<'p>(
    plan: &'p Plan,
    source: &'p Source,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let capture = match &plan.mapping {
        Mapping::Whole(_) => None,
        Mapping::Fields(fields) => Some(fields::Capture::new(fields, source, &plan.limits)),
    };
    csv::convert(&plan.csv, capture, &plan.limits, stream, records)
}
