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

/// The compiled schemas of one record type. They live as long as the process, so that what reads and writes by them is made once.
pub struct Codec {
    name: &'static str,
    /// How many versions of the schema there have been, today's included.
    version: usize,
    current: u64,
    header: [u8; HEADER_BYTES],
    write: GenericDatumWriter<'static>,
    /// For every schema a value may have been written with, today's among them, by fingerprint.
    readers: HashMap<u64, GenericDatumReader<'static>>,
}

impl Codec {
    /// Compiles schemas that are part of the program; a test compiles all of them.
    pub fn compile(name: &'static str, current: &str, earlier: &[&str]) -> Self {
        let parse = |text: &str| {
            let schema = Schema::parse_str(text).expect("a committed schema parses");
            &*Box::leak(Box::new(schema))
        };
        let current = parse(current);
        let resolves = "a committed schema names only what it defines";
        let reader = |writer: &'static Schema| {
            // What was written with today's schema needs nothing resolved: it becomes the record without a tree between.
            let today = (fingerprint(writer) != fingerprint(current)).then_some(current);
            let reader = GenericDatumReader::builder(writer).maybe_reader_schema(today);
            (fingerprint(writer), reader.build().expect(resolves))
        };
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&MARKER);
        header[2..].copy_from_slice(&fingerprint(current).to_le_bytes());
        Self {
            name,
            version: earlier.len(),
            current: fingerprint(current),
            header,
            write: GenericDatumWriter::builder(current)
                .build()
                .expect(resolves),
            readers: earlier
                .iter()
                .map(|text| parse(text))
                .chain([current])
                .map(reader)
                .collect(),
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
            fingerprint: format!("{:016x}", codec.current),
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
    codec
        .write
        .write_ser(&mut bytes, record)
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
    let reader = codec
        .readers
        .get(&fingerprint)
        .ok_or(DecodeError::UnknownSchema {
            schema: codec.name,
            fingerprint,
        })?;
    let mut read = Datum::from(datum);
    let direct = match fingerprint == codec.current {
        true => reader.read_deser(&mut read).ok(),
        false => None,
    };
    let record = match direct {
        Some(record) => record,
        // By way of a tree; also to say what is wrong: an error of the direct way holds the whole schema.
        None => {
            read = Datum::from(datum);
            let value = reader.read_value(&mut read);
            let record = value.and_then(|value| from_value(&value));
            record.map_err(|error| corrupt(error.to_string()))?
        }
    };
    if read.overrun {
        return Err(corrupt("it ends too early".into()));
    }
    if !read.rest.is_empty() {
        return Err(corrupt(format!("{} bytes are left over", read.rest.len())));
    }
    Ok(record)
}

/// Writes a record and reads it back, which must not take the way by a tree; and damaged, it must be the same both ways.
#[cfg(test)]
pub fn again<T: TopicRecord + PartialEq + std::fmt::Debug>(record: &T) -> T {
    let bytes = encode(record);
    let [direct, _] = both_ways::<T>(&bytes);
    assert!(direct.is_some(), "it is read directly");
    // The largest and the least count or length, which is eight bytes more.
    let extremes = [[0xff; 10], [0xfe; 10]].map(|mut long| {
        long[9] = 1;
        long
    });
    for place in HEADER_BYTES..bytes.len() {
        let changed = [1, 2, 3, 0x40, 0x80, 0xff].map(|change| {
            let mut damaged = bytes.clone();
            damaged[place] ^= change;
            damaged
        });
        let stretched =
            extremes.map(|extreme| [&bytes[..place], &extreme, &bytes[place + 1..]].concat());
        for damaged in changed.into_iter().chain(stretched) {
            let [direct, by_tree] = both_ways::<T>(&damaged);
            assert_eq!(direct, by_tree, "damaged at {place}");
        }
    }
    decode(&bytes).expect("it is read")
}

/// What a value of today's schema is directly, and by way of a tree.
#[cfg(test)]
pub fn both_ways<T: TopicRecord>(bytes: &[u8]) -> [Option<T>; 2] {
    let reader = &T::codec().readers[&T::codec().current];
    let datum = || Datum::from(&bytes[HEADER_BYTES.min(bytes.len())..]);
    let whole = |record, read: Datum<'_>| (!read.overrun && read.rest.is_empty()).then_some(record);
    let (mut directly, mut by_tree) = (datum(), datum());
    let direct = reader.read_deser(&mut directly).ok();
    let tree = reader.read_value(&mut by_tree).ok();
    let tree = tree.and_then(|value| from_value(&value).ok());
    [
        direct.and_then(|record| whole(record, directly)),
        tree.and_then(|record| whole(record, by_tree)),
    ]
}

/// A datum that notices being read past its end: the library takes the end of the bytes for a null union.
struct Datum<'a> {
    rest: &'a [u8],
    overrun: bool,
}

impl<'a> From<&'a [u8]> for Datum<'a> {
    fn from(rest: &'a [u8]) -> Self {
        Self {
            rest,
            overrun: false,
        }
    }
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
