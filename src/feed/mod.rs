//! One partner's file: bytes in, JSON out. Pure: no Kafka, no S3, no clock; `feedmill convert` alone uses it.
//!
//! ```text
//! bytes ─▶ container ─▶ encoding ─▶ xml  ─▶ fields ──▶ write ─▶ JSON
//!          gzip, sizes  UTF-8       json    or whole    one record at a time
//! ```
//!
//! In: any reader, and a [`Plan`] compiled from a feed's [`Spec`](spec::Spec). Out: a JSON array or JSON lines, and a [`Summary`]; or the one
//! [`Rejection`] that says why the file can't be converted and where.
//! Promise: the same bytes and the same plan give the same output, memory is bounded by one record whatever the size of the file,
//! and no input makes it panic, hang or fetch anything.

mod batch;
mod container;
mod encode;
mod encoding;
mod fields;
mod jq;
mod json;
mod limits;
mod names;
mod plan;
mod reject;
mod rejects;
pub mod spec;
mod steps;
mod switch;
#[cfg(test)]
mod tests;
mod validate;
mod write;
mod xml;

use std::io::{Read, Write};

pub use batch::{MAX_ABANDONED, abandoned_threads};
use container::Stream;
use encode::Encoder;
pub use fields::{FieldError, TypeError};
pub use limits::Limits;
use plan::Mapping;
pub use plan::{Plan, PlanError};
pub use reject::{ConvertError, Reason, Rejection};
use rejects::Rejects;
pub use rejects::{FIRST_REJECTIONS, MaxRejected};
use spec::Format;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Records in the output.
    pub records: u64,
    /// Records left out of it.
    pub rejected: u64,
    /// The first of those, at most [`FIRST_REJECTIONS`].
    pub rejections: Vec<Rejection>,
    /// Bytes taken from the input, compressed if it was.
    pub input_bytes: u64,
    /// Bytes after decompression.
    pub decoded_bytes: u64,
    pub output_bytes: u64,
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
    mut input: impl Read,
    mut output: impl Write,
    report: Option<&mut dyn Write>,
) -> Result<Summary, ConvertError> {
    let mut stream = Stream::open(&mut input, &plan.limits)?;
    let report = report.map(|report| report as &mut dyn Write);
    let output = Encoder::new(&mut output, plan.compression).map_err(ConvertError::Write)?;
    let mut records = Records::new(output, plan.output, &plan.limits)
        .tolerating(Rejects::new(report, plan.max_rejected))
        .through(plan.batches(source)?);
    encoding::skip_byte_order_mark(&mut stream)?;
    let parsed = match format_of(&mut stream, plan)? {
        Format::Json => convert_json(
            json::Source::Document(&plan.record.keys),
            plan,
            &mut stream,
            &mut records,
        ),
        Format::JsonLines => convert_json(json::Source::Lines, plan, &mut stream, &mut records),
        Format::Xml | Format::Auto => convert_xml(plan, &mut stream, &mut records),
    };
    records.settle(parsed)?;
    let (rejected, rejections) = records.finish_rejects()?;
    records.finish()?;
    Ok(Summary {
        records: records.written(),
        rejected,
        rejections,
        input_bytes: stream.input_bytes(),
        decoded_bytes: stream.decoded_bytes(),
        output_bytes: records.output_bytes(),
    })
}

/// The format the plan says, or the one that the first character speaks for.
fn format_of(stream: &mut Stream<'_>, plan: &Plan) -> Result<Format, ConvertError> {
    let head = stream.peek(SNIFF_BYTES)?;
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
            let rejection = Rejection::because(
                Reason::UnknownFormat,
                "the file begins neither like XML nor like JSON",
            );
            Err(rejection.with_excerpt(head).into())
        }
        (format, _) => Ok(format),
    }
}

fn convert_xml<'p>(
    plan: &'p Plan,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let source = xml::Source {
        record: &plan.record.names,
        must_match: plan.record.is_given,
        namespaces: &plan.namespaces,
        limits: &plan.limits,
    };
    match &plan.mapping {
        Mapping::Whole(arrays) => xml::convert(
            source,
            &mut xml::Whole::new(arrays, &plan.limits),
            stream,
            records,
        ),
        Mapping::Fields(fields) => xml::convert(
            source,
            &mut fields::Capture::new(fields, &plan.limits),
            stream,
            records,
        ),
    }
}

fn convert_json<'p>(
    source: json::Source<'p>,
    plan: &'p Plan,
    stream: &mut Stream<'p>,
    records: &mut Records<'_>,
) -> Result<(), ConvertError> {
    let mapping = match &plan.mapping {
        Mapping::Whole(_) => json::Mapping::Whole,
        Mapping::Fields(fields) => {
            json::Mapping::Fields(fields::Capture::new(fields, &plan.limits))
        }
    };
    json::convert(source, mapping, &plan.limits, stream, records)
}
