//! What the engine promises for any bytes: they become JSON, or they are refused for a reason at a place; and how they arrive decides nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::sync::LazyLock;

use feedmill::feed::spec::{Format, OutputFormat};
use feedmill::feed::{
    ConvertError, FIRST_REJECTIONS, Reason, Rejection, Source, Summary, convert_reporting,
    is_packed,
};
use serde_json::Value;

use super::Feed;

/// What became of a file.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Converted(Box<Converted>),
    Refused(Box<Rejection>),
}

#[derive(Debug, PartialEq)]
pub struct Converted {
    pub summary: Summary,
    pub output: Vec<u8>,
    pub report: Vec<u8>,
    /// The records of an output that is not compressed.
    pub values: Vec<Value>,
}

/// Converts `input` and panics if that breaks a promise.
pub fn check(feed: &Feed, input: &[u8]) -> Outcome {
    if let Some(before) = padding(feed.spec.format) {
        check_after(before, feed, &[before, input].concat());
    }
    check_after(b"", feed, input)
}

/// What may stand before a text, and is more than is looked at before it is parsed: all of that arrives at once, whatever the pieces.
fn padding(format: Format) -> Option<&'static [u8]> {
    static COMMENTS: LazyLock<String> = LazyLock::new(|| "<!-- -->\n".repeat(600));
    match format {
        Format::Xml => Some(COMMENTS.as_bytes()),
        Format::Json | Format::JsonLines => Some(&[b' '; 5_000]),
        Format::Auto | Format::Csv | Format::Tsv => None,
    }
}

/// `input` begins with `before`, which arrives at once.
fn check_after(before: &[u8], feed: &Feed, input: &[u8]) -> Outcome {
    let outcome = convert(feed, input);
    match &outcome {
        Outcome::Converted(converted) => check_converted(feed, converted, input),
        Outcome::Refused(rejection) => check_rejection(feed, rejection, input),
    }
    let rest = &input[before.len()..];
    for pieces in [Pieces::of_one_byte(rest), Pieces::of_any_size(rest)] {
        let in_pieces = convert(feed, before.chain(pieces));
        if is_record_too_large(&outcome) || is_record_too_large(&in_pieces) {
            let both = (&outcome, &in_pieces);
            assert!(
                matches!(both, (Outcome::Refused(_), Outcome::Refused(_))),
                "in pieces: {both:?}"
            );
        } else {
            assert_eq!(in_pieces, outcome, "in pieces");
        }
    }
    outcome
}

/// Where a limit on bytes is passed, and so what else is wrong there, is known to a piece of markup only.
fn is_record_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(rejection) if rejection.reason == Reason::RecordTooLarge)
}

fn convert(feed: &Feed, input: impl Read) -> Outcome {
    let source = Source {
        key: "a/\"b\".xml".into(),
        ..Source::default()
    };
    let (mut output, mut report) = (Vec::new(), Vec::new());
    let result = convert_reporting(&feed.plan, &source, input, &mut output, Some(&mut report));
    match result {
        Ok(summary) => Outcome::Converted(Box::new(Converted {
            summary,
            values: values(feed, &output),
            output,
            report,
        })),
        Err(ConvertError::Rejected(rejection)) => Outcome::Refused(rejection),
        Err(error) => panic!("neither converted nor refused: {error:?}"),
    }
}

/// The records of an output, which must be JSON.
fn values(feed: &Feed, output: &[u8]) -> Vec<Value> {
    if feed.spec.compress.is_some() {
        return Vec::new();
    }
    let parsed = match feed.spec.output {
        OutputFormat::Array | OutputFormat::Pretty => serde_json::from_slice(output),
        OutputFormat::Lines => json_lines(output),
    };
    parsed.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(output)))
}

fn json_lines(text: &[u8]) -> serde_json::Result<Vec<Value>> {
    assert!(text.last().is_none_or(|&last| last == b'\n'));
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.map(serde_json::from_slice).collect()
}

fn check_converted(feed: &Feed, converted: &Converted, input: &[u8]) {
    let summary = &converted.summary;
    assert_eq!(summary.output_bytes, converted.output.len() as u64);
    assert_eq!(summary.input_bytes, input.len() as u64);
    if feed.spec.compress.is_none() {
        assert_eq!(summary.records, converted.values.len() as u64);
    }
    assert!(summary.warnings.len() <= 20);
    let report = json_lines(&converted.report).expect("each line of the report is JSON");
    assert_eq!(summary.rejected, report.len() as u64);
    assert!(
        report
            .iter()
            .map(|line| line["record"].as_u64())
            .is_sorted_by(|a, b| a < b)
    );
    assert_eq!(summary.rejections.len(), report.len().min(FIRST_REJECTIONS));
    for rejection in &summary.rejections {
        assert!(rejection.reason.is_of_record(), "{rejection:?}");
        check_rejection(feed, rejection, input);
    }
}

fn check_rejection(feed: &Feed, rejection: &Rejection, input: &[u8]) {
    assert_ne!(rejection.reason, Reason::MappingTimeout, "{rejection:?}");
    assert!(!rejection.message.is_empty(), "{rejection:?}");
    if let Some(excerpt) = &rejection.excerpt {
        assert!(excerpt.chars().count() <= 120, "{rejection:?}");
        assert!(!excerpt.contains(char::is_control), "{rejection:?}");
    }
    assert!(rejection.rejected.len() <= FIRST_REJECTIONS);
    if let Some(offset) = rejection.byte_offset
        && feed.spec.encoding.is_none()
        && is_plain(input)
    {
        check_place(rejection, &input[..offset as usize]);
    }
}

/// Line and column say the same as the offset.
fn check_place(rejection: &Rejection, before: &[u8]) {
    let lines = before.iter().filter(|&&byte| byte == b'\n').count();
    let line = before
        .rsplit(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    assert_eq!(rejection.line, Some(lines as u64 + 1), "{rejection:?}");
    assert_eq!(
        rejection.column,
        Some(line.len() as u64 + 1),
        "{rejection:?}"
    );
}

/// Whether the input is the text itself, unless the feed says another encoding: in no container, and in UTF-8 for certain.
pub fn is_plain(input: &[u8]) -> bool {
    let head = &input[..input.len().min(1 << 10)];
    let may_be_declared = head.windows(8).any(|word| word == b"encoding");
    !is_packed(input)
        && !may_be_declared
        && !head.contains(&0)
        && std::str::from_utf8(input).is_ok()
}

/// A reader that gives the input in pieces, and is interrupted now and then.
struct Pieces<'a> {
    rest: &'a [u8],
    largest: u64,
    random: u64,
}

impl<'a> Pieces<'a> {
    fn of_one_byte(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            largest: 1,
            random: 1,
        }
    }

    /// Always the same ones for the same input.
    fn of_any_size(input: &'a [u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let random = hasher.finish();
        Self {
            rest: input,
            largest: 1 << (1 + random % 8),
            random: random | 1,
        }
    }

    /// xorshift64.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let random = self.next_random();
        if random.is_multiple_of(64) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = (1 + (random >> 8) % self.largest) as usize;
        let len = size.min(buffer.len());
        self.rest.read(&mut buffer[..len])
    }
}
