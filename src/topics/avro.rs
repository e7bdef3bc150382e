//! Values on the topics: Avro single-object encoding (Avro 1.11 specification, "Single-object encoding"): two marker
//! bytes, the writer schema's CRC-64-AVRO fingerprint, the datum.
//!
//! A value is read with the schema that wrote it, found by fingerprint among the committed earlier ones, and resolved to today's.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use apache_avro::{
    Schema, from_value, rabin::Rabin, reader::datum::GenericDatumReader,
    writer::datum::GenericDatumWriter,
};
use serde::{Serialize, de::DeserializeOwned};

/// The marker that opens a single-object encoded value.
const MARKER: [u8; 2] = [0xC3, 0x01];

const HEADER_BYTES: usize = 10;

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer feedmill or by another program: waiting for an upgrade may help.
    #[error("no known {schema} schema has the fingerprint {fingerprint:016x}")]
    UnknownSchema {
        schema: &'static str,
        fingerprint: u64,
    },
    /// The bytes are not what they claim to be: waiting will not help.
    #[error("not a readable {schema}: {reason}")]
    Corrupt {
        schema: &'static str,
        reason: String,
    },
}

/// A record type of the topics: its schema of today and the ones it had before.
pub trait TopicRecord: Serialize + DeserializeOwned {
    const NAME: &'static str;
    fn codec() -> &'static Codec;
}

/// The compiled schemas of one record type.
pub struct Codec {
    name: &'static str,
    /// How many versions of the schema there have been, today's included.
    version: usize,
    current: Schema,
    header: [u8; HEADER_BYTES],
    /// Every schema a value may have been written with, today's among them.
    writers: HashMap<u64, Schema>,
}

impl Codec {
    /// Compiles schemas that are part of the program; a test compiles all of them.
    pub fn compile(name: &'static str, current: &str, earlier: &[&str]) -> Self {
        let parse = |text: &str| Schema::parse_str(text).expect("a committed schema parses");
        let current = parse(current);
        let writers = earlier
            .iter()
            .map(|text| parse(text))
            .chain([current.clone()])
            .map(|schema| (fingerprint(&schema), schema))
            .collect();
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&MARKER);
        header[2..].copy_from_slice(&fingerprint(&current).to_le_bytes());
        Self {
            name,
            version: earlier.len(),
            current,
            header,
            writers,
        }
    }
}

/// The schema that a record type is written with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaVersion {
    pub name: &'static str,
    /// Counted from 1: the number of its file under `schemas/earlier`.
    pub version: usize,
    /// CRC-64-AVRO of its canonical form, in hexadecimal: its eight bytes in big-endian order.
    pub fingerprint: String,
}

impl SchemaVersion {
    pub fn of<T: TopicRecord>() -> Self {
        let codec = T::codec();
        Self {
            name: codec.name,
            version: codec.version,
            fingerprint: format!("{:016x}", fingerprint(&codec.current)),
        }
    }
}

fn fingerprint(schema: &Schema) -> u64 {
    let bytes = schema.fingerprint::<Rabin>().bytes;
    u64::from_le_bytes(bytes.try_into().expect("a CRC-64 has eight bytes"))
}

/// Encodes a record with today's schema.
pub fn encode<T: TopicRecord>(record: &T) -> Vec<u8> {
    let codec = T::codec();
    let mut bytes = codec.header.to_vec();
    GenericDatumWriter::builder(&codec.current)
        .build()
        .and_then(|writer| writer.write_ser(&mut bytes, record))
        .expect("a record type matches its schema: a test writes each of them");
    bytes
}

/// Decodes a value whatever committed schema wrote it.
pub fn decode<T: TopicRecord>(bytes: &[u8]) -> Result<T, DecodeError> {
    let codec = T::codec();
    let corrupt = |reason: String| DecodeError::Corrupt {
        schema: codec.name,
        reason,
    };
    let (header, datum) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| corrupt(format!("{} bytes are too few", bytes.len())))?;
    let (marker, fingerprint) = header.split_at(MARKER.len());
    if marker != MARKER {
        return Err(corrupt(
            "it does not start with the single-object marker".into(),
        ));
    }
    let fingerprint = u64::from_le_bytes(fingerprint.try_into().expect("eight bytes are left"));
    let writer = codec
        .writers
        .get(&fingerprint)
        .ok_or(DecodeError::UnknownSchema {
            schema: codec.name,
            fingerprint,
        })?;
    let mut datum = Datum {
        rest: datum,
        overrun: false,
    };
    let value = GenericDatumReader::builder(writer)
        .reader_schema(&codec.current)
        .build()
        .and_then(|reader| reader.read_value(&mut datum))
        .map_err(|error| corrupt(error.to_string()))?;
    if datum.overrun {
        return Err(corrupt("it ends too early".into()));
    }
    if !datum.rest.is_empty() {
        return Err(corrupt(format!("{} bytes are left over", datum.rest.len())));
    }
    from_value(&value).map_err(|error| corrupt(error.to_string()))
}

/// A datum that notices being read past its end: the library takes the end of the bytes for a null union.
struct Datum<'a> {
    rest: &'a [u8],
    overrun: bool,
}

impl Read for Datum<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.overrun |= buffer.len() > self.rest.len();
        self.rest.read(buffer)
    }
}

/// Ties a record type to its files under `schemas/`.
macro_rules! topic_record {
    ($type:ty, $name:literal, earlier: [$($version:literal),*]) => {
        impl $crate::topics::avro::TopicRecord for $type {
            const NAME: &'static str = $name;
            fn codec() -> &'static $crate::topics::avro::Codec {
                static CODEC: std::sync::LazyLock<$crate::topics::avro::Codec> = std::sync::LazyLock::new(|| {
                    $crate::topics::avro::Codec::compile(
                        $name,
                        include_str!(concat!("../../schemas/", $name, ".avsc")),
                        &[$(include_str!(concat!("../../schemas/earlier/", $name, ".", $version, ".avsc"))),*],
                    )
                });
                &CODEC
            }
        }
    };
}
pub(crate) use topic_record;
