//! Why a file is refused, and where in it the reason stands.
//!
//! A rejection is the file's fault and stays until the file changes; an error of the caller's streams is nobody's fault in the file
//! and may heal. The two are never mixed up: a rejection raised below a parser travels through it as the payload of an
//! [`io::Error`], and so does the caller's own error; [`ConvertError`]'s `From<io::Error>` tells them apart again.

use std::fmt;
use std::io;

use serde::{Serialize, Serializer};

/// Why a conversion did not come to its end. What was written until then is not an output.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The file can't be converted, now or later.
    #[error(transparent)]
    Rejected(#[from] Box<Rejection>),
    /// The caller's input failed; says nothing about the file.
    #[error("reading the file failed")]
    Read(#[source] io::Error),
    /// The caller's output failed; says nothing about the file.
    #[error("writing the output failed")]
    Write(#[source] io::Error),
}

impl ConvertError {
    /// Wraps the error for its way up through a parser; [`Self::from_carrier`] takes it out again.
    pub(super) fn into_carrier(self) -> io::Error {
        io::Error::other(self)
    }

    /// What a parser's I/O error stands for. One that carries nothing of ours came from the caller's stream.
    pub(super) fn from_carrier(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Read)
    }

    /// Completes a rejection with what only an outer layer knows; other errors pass unchanged.
    pub(super) fn complete(mut self, complete: impl FnOnce(&mut Rejection)) -> Self {
        if let Self::Rejected(rejection) = &mut self {
            complete(rejection);
        }
        self
    }
}

/// What is wrong with a file, or with one of its records. As JSON it is a line of the file of rejected records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The record it happened in, the first being 1.
    pub record: Option<u64>,
    pub reason: Reason,
    /// A lower-case fragment for people; does not repeat the place.
    pub message: String,
    /// The first line is 1.
    pub line: Option<u64>,
    /// Bytes into the line, the first being 1.
    pub column: Option<u64>,
    /// Bytes into the text: the file, or the entry of a zip, decompressed and in UTF-8, a byte order mark included.
    pub byte_offset: Option<u64>,
    /// Element names or object keys, from the root as far as known; before them, the entry of a zip: `zip entry a.xml: items/item`.
    pub path: Option<String>,
    /// What stands there: printable, at most 120 characters.
    pub excerpt: Option<String>,
    /// How many records were rejected, of a file that has too many.
    #[serde(skip)]
    pub rejected_count: u64,
    /// The first of those.
    #[serde(skip)]
    pub rejected: Vec<Rejection>,
}

const MAX_EXCERPT_CHARS: usize = 120;

/// What an excerpt is made of; no character of UTF-8 has more than four bytes.
pub(super) const EXCERPT_BYTES: usize = 4 * MAX_EXCERPT_CHARS;

/// The kinds of rejection. The codes are part of the dead-letter contract: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No bytes, or nothing but white space.
    EmptyFile,
    /// Neither XML nor JSON nor CSV by its first bytes.
    UnknownFormat,
    /// A container that is recognised and not read; a zip entry that is encrypted or compressed in a rare way.
    UnsupportedContainer,
    MalformedXml,
    MalformedJson,
    /// A quote that never closes.
    MalformedCsv,
    /// A row with more cells than there are columns, or fewer.
    RaggedRow,
    /// The rows agree on no delimiter, or on two.
    UnknownDialect,
    DuplicateColumn,
    /// A column without a name in the header.
    UnnamedColumn,
    /// No column is one that the mapping asks for.
    UnknownColumns,
    CorruptGzip,
    CorruptZstd,
    CorruptBzip2,
    CorruptXz,
    CorruptZip,
    /// Declared as, or marked by its first bytes as, an encoding that is not read.
    UnsupportedEncoding,
    /// Bytes that are not what the file's encoding has.
    InvalidEncoding,
    /// The record path leads nowhere in this file.
    NoRecords,
    /// A required value is not there.
    MissingField,
    /// A value that does not fit the mapping.
    InvalidValue,
    FileTooLarge,
    RecordTooLarge,
    TooManyRecords,
    TextTooLong,
    TooDeep,
    /// Or namespace declarations.
    TooManyAttributes,
    NameTooLong,
    DecompressionRatio,
    DecompressorMemory,
    TooManyContainers,
    /// Of a zip.
    TooManyEntries,
    /// An entity other than the five that XML predefines.
    EntityNotAllowed,
    /// More rejected records than the feed's `max_rejected`.
    TooManyRejections,
    /// A record that does not fit the feed's schema.
    SchemaViolation,
    /// A jq program that fails on a record.
    MappingError,
    /// A jq program that does not end in its time.
    MappingTimeout,
    /// A jq program that makes too many records of one.
    TooManyOutputs,
    /// A record of a kind that the feed's `switch` has no case for.
    UnknownType,
}

impl Reason {
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyFile => "empty_file",
            Self::UnknownFormat => "unknown_format",
            Self::UnsupportedContainer => "unsupported_container",
            Self::MalformedXml => "malformed_xml",
            Self::MalformedJson => "malformed_json",
            Self::MalformedCsv => "malformed_csv",
            Self::RaggedRow => "ragged_row",
            Self::UnknownDialect => "unknown_dialect",
            Self::DuplicateColumn => "duplicate_column",
            Self::UnnamedColumn => "unnamed_column",
            Self::UnknownColumns => "unknown_columns",
            Self::CorruptGzip => "corrupt_gzip",
            Self::CorruptZstd => "corrupt_zstd",
            Self::CorruptBzip2 => "corrupt_bzip2",
            Self::CorruptXz => "corrupt_xz",
            Self::CorruptZip => "corrupt_zip",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::InvalidEncoding => "invalid_encoding",
            Self::NoRecords => "no_records",
            Self::MissingField => "missing_field",
            Self::InvalidValue => "invalid_value",
            Self::FileTooLarge => "file_too_large",
            Self::RecordTooLarge => "record_too_large",
            Self::TooManyRecords => "too_many_records",
            Self::TextTooLong => "text_too_long",
            Self::TooDeep => "too_deep",
            Self::TooManyAttributes => "too_many_attributes",
            Self::NameTooLong => "name_too_long",
            Self::DecompressionRatio => "decompression_ratio",
            Self::DecompressorMemory => "decompressor_memory",
            Self::TooManyContainers => "too_many_containers",
            Self::TooManyEntries => "too_many_entries",
            Self::EntityNotAllowed => "entity_not_allowed",
            Self::TooManyRejections => "too_many_rejections",
            Self::SchemaViolation => "schema_violation",
            Self::MappingError => "mapping_error",
            Self::MappingTimeout => "mapping_timeout",
            Self::TooManyOutputs => "too_many_outputs",
            Self::UnknownType => "unknown_type",
        }
    }

    /// Whether it is about one record, which can be left out, and not about the file.
    pub fn is_of_record(self) -> bool {
        matches!(
            self,
            Self::MissingField
                | Self::InvalidValue
                | Self::RaggedRow
                | Self::SchemaViolation
                | Self::MappingError
                | Self::UnknownType
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A place in the decoded stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub offset: u64,
    pub line: u64,
    /// Where the line begins.
    pub line_offset: u64,
}

impl Place {
    pub const START: Self = Self {
        offset: 0,
        line: 1,
        line_offset: 0,
    };

    /// Moves over `bytes`.
    pub fn advance(&mut self, bytes: &[u8]) {
        // Byte-sized sums of chunks they can't overflow in compile to vector instructions; this runs over every byte of a file.
        let in_chunk = |chunk: &[u8]| {
            chunk
                .iter()
                .map(|&byte| u8::from(byte == b'\n'))
                .sum::<u8>()
        };
        self.line += bytes
            .chunks(255)
            .map(|chunk| u64::from(in_chunk(chunk)))
            .sum::<u64>();
        if let Some(last) = bytes.iter().rposition(|&byte| byte == b'\n') {
            self.line_offset = self.offset + last as u64 + 1;
        }
        self.offset += bytes.len() as u64;
    }
}

impl Rejection {
    /// Boxed, because it is large and rare.
    pub(super) fn because(reason: Reason, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            record: None,
            reason,
            message: message.into(),
            line: None,
            column: None,
            byte_offset: None,
            path: None,
            excerpt: None,
            rejected_count: 0,
            rejected: Vec::new(),
        })
    }

    pub(super) fn with_path(mut self: Box<Self>, path: impl Into<String>) -> Box<Self> {
        self.path = Some(path.into());
        self
    }

    pub(super) fn with_excerpt(mut self: Box<Self>, text: &[u8]) -> Box<Self> {
        self.excerpt = excerpt(text);
        self
    }

    /// Says where it is, unless a layer that knew better has said so.
    pub(super) fn place(&mut self, place: Place) {
        if self.byte_offset.is_none() {
            self.byte_offset = Some(place.offset);
            self.line = Some(place.line);
            self.column = Some(place.offset - place.line_offset + 1);
        }
    }
}

/// The beginning of `text` as one printable line; `None` when there is nothing to show.
pub(super) fn excerpt(text: &[u8]) -> Option<String> {
    let head = &text[..text.len().min(EXCERPT_BYTES)];
    let printable: String = String::from_utf8_lossy(head)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_EXCERPT_CHARS)
        .collect();
    let trimmed = printable.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_survives_its_way_through_an_io_error() {
        let rejection = Rejection::because(Reason::CorruptGzip, "bad");
        let carried = ConvertError::from(rejection).into_carrier();
        let ConvertError::Rejected(back) = ConvertError::from_carrier(carried) else {
            panic!("a rejection came back as something else");
        };
        assert_eq!(back.reason, Reason::CorruptGzip);
        let foreign = io::Error::from(io::ErrorKind::TimedOut);
        assert!(matches!(
            ConvertError::from_carrier(foreign),
            ConvertError::Read(error) if error.kind() == io::ErrorKind::TimedOut
        ));
    }

    #[test]
    fn an_excerpt_is_short_printable_and_on_one_line() {
        assert_eq!(excerpt(b" a\nb\0c\xff "), Some("a b c\u{fffd}".into()));
        assert_eq!(excerpt(b"\n"), None);
        let long = excerpt("ø".repeat(1_000).as_bytes()).unwrap();
        assert_eq!(long.chars().count(), MAX_EXCERPT_CHARS);
    }
}
