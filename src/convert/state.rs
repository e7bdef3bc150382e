//! What convert keeps locally of an object's state: what decisions and the next state need, in few bytes.
//!
//! ETags that are MD5s take 16 bytes instead of 32, hashes 32 instead of 64, and an output's key is stored by how it
//! differs from its source's.

use serde::{Deserialize, Serialize};

use crate::{
    kafka::StateBytes,
    object::ETag,
    topics::{ObjectState, Output, Status, decode},
};

/// What is settled for an object, as decisions need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    pub etag: Option<ETag>,
    pub version_id: Option<String>,
    pub feed: Option<String>,
    pub mapping_hash: Option<String>,
    pub status: Option<Status>,
    pub outputs: Vec<Output>,
    pub dead_letter_id: Option<String>,
    pub last_request_id: Option<String>,
    pub generation: i64,
}

#[derive(Serialize, Deserialize)]
struct Packed {
    etag: Option<Hex<16>>,
    version_id: Option<String>,
    feed: Option<String>,
    mapping_hash: Option<Hex<8>>,
    status: Option<Status>,
    outputs: Vec<PackedOutput>,
    dead_letter_id: Option<String>,
    last_request_id: Option<String>,
    generation: i64,
}

#[derive(Serialize, Deserialize)]
struct PackedOutput {
    bucket: String,
    key: Name,
    etag: Hex<16>,
    sha256: Hex<32>,
    size: i64,
    records: i64,
}

/// A name, by what stands around the source's key in it.
#[derive(Serialize, Deserialize)]
enum Name {
    Around { before: String, after: String },
    Whole(String),
}

impl Name {
    fn pack(name: &str, source_key: &str) -> Self {
        match name.split_once(source_key) {
            Some((before, after)) => Self::Around {
                before: before.to_owned(),
                after: after.to_owned(),
            },
            None => Self::Whole(name.to_owned()),
        }
    }

    fn unpack(self, source_key: &str) -> String {
        match self {
            Self::Around { before, after } => before + source_key + &after,
            Self::Whole(name) => name,
        }
    }
}

/// A text that is usually `2 * N` lower-case hexadecimal digits.
enum Hex<const N: usize> {
    Bytes([u8; N]),
    Text(String),
}

impl<const N: usize> Hex<N> {
    fn pack(text: &str) -> Self {
        let mut bytes = [0; N];
        let digits = text.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if digits.len() != 2 * N {
            return Self::Text(text.to_owned());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Self::Text(text.to_owned());
            };
            *byte = high << 4 | low;
        }
        Self::Bytes(bytes)
    }

    fn unpack(self) -> String {
        match self {
            Self::Bytes(bytes) => hex(&bytes),
            Self::Text(text) => text,
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (packed, bytes) = match self {
            Self::Bytes(bytes) => (true, &bytes[..]),
            Self::Text(text) => (false, text.as_bytes()),
        };
        (packed, bytes).serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let (packed, bytes) = <(bool, Vec<u8>)>::deserialize(deserializer)?;
        match packed {
            true => bytes
                .try_into()
                .map(Self::Bytes)
                .map_err(|_| D::Error::custom("a hash of another length")),
            false => String::from_utf8(bytes)
                .map(Self::Text)
                .map_err(D::Error::custom),
        }
    }
}

/// Folds a record of `objects`; a tombstone forgets the object.
pub fn fold(value: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
    let Some(value) = value else { return Ok(None) };
    let state: ObjectState = decode(value).map_err(|error| error.to_string())?;
    let outputs = state.outputs.iter().map(|output| PackedOutput {
        bucket: output.bucket.clone(),
        key: Name::pack(&output.key, &state.key),
        etag: Hex::pack(output.etag.as_str()),
        sha256: Hex::pack(&output.sha256),
        size: output.size,
        records: output.records,
    });
    let packed = Packed {
        etag: state.etag.as_ref().map(|etag| Hex::pack(etag.as_str())),
        status: state.status,
        version_id: state.version_id,
        feed: state.feed,
        mapping_hash: state.mapping_hash.as_deref().map(Hex::pack),
        outputs: outputs.collect(),
        dead_letter_id: state.dead_letter_id,
        last_request_id: state.last_request_id,
        generation: state.generation,
    };
    postcard::to_allocvec(&packed)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// What a record of `objects` says of an object with this key; `None` when it was settled at this time or later, in milliseconds
/// since the epoch.
pub fn settled_before(
    value: &[u8],
    source_key: &str,
    before_ms: i64,
) -> Result<Option<Settled>, String> {
    let state: ObjectState = decode(value).map_err(|error| error.to_string())?;
    if state.settled_at.0 >= before_ms {
        return Ok(None);
    }
    let packed = fold(Some(value))?.unwrap_or_default();
    Settled::read(&packed, source_key).map(Some)
}

impl Settled {
    /// Whether a version was settled by an event behind this offset; a letter that was opened meanwhile settles none.
    pub fn was_settled_after(&self, offset: i64) -> bool {
        self.status.is_some() && self.generation > offset
    }

    /// Reads back what [`fold`] made of the state of an object with this key.
    pub fn read(bytes: &[u8], source_key: &str) -> Result<Self, String> {
        let packed: Packed = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let etag = |hex: Hex<16>| ETag::parse(&hex.unpack()).ok_or("an empty ETag");
        let outputs = packed.outputs.into_iter().map(|output| {
            Ok(Output {
                bucket: output.bucket,
                key: output.key.unpack(source_key),
                etag: etag(output.etag)?,
                sha256: output.sha256.unpack(),
                size: output.size,
                records: output.records,
            })
        });
        Ok(Self {
            outputs: outputs.collect::<Result<_, &str>>()?,
            etag: packed.etag.map(etag).transpose()?,
            status: packed.status,
            version_id: packed.version_id,
            feed: packed.feed,
            mapping_hash: packed.mapping_hash.map(Hex::unpack),
            dead_letter_id: packed.dead_letter_id,
            last_request_id: packed.last_request_id,
            generation: packed.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::{Millis, encode};

    fn state(etag: &str, output_key: &str) -> ObjectState {
        ObjectState {
            bucket: "feeds".into(),
            key: "nsx/a.xml".into(),
            etag: ETag::parse(etag),
            version_id: Some("v1".into()),
            status: Some(Status::Converted),
            outputs: vec![Output {
                bucket: "shop-json".into(),
                key: output_key.into(),
                etag: ETag::parse("d41d8cd98f00b204e9800998ecf8427e").unwrap(),
                sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
                size: 10_000,
                records: 25,
            }],
            feed: Some("nsx".into()),
            mapping_hash: Some("0011223344556677".into()),
            dead_letter_id: None,
            last_request_id: None,
            generation: 1_000_000,
            settled_at: Millis(1_795_000_000_000),
        }
    }

    fn packed(state: &ObjectState) -> StateBytes {
        fold(Some(&encode(state))).unwrap().unwrap()
    }

    #[test]
    fn a_state_keeps_what_decisions_and_the_next_state_need() {
        let cases = [
            (
                "f019ee9a03978aff9f9b78d0ddf3edb7",
                "products/nsx/a.xml.json",
            ),
            ("F019EE9A-12", "somewhere/else.json"),
        ];
        for (etag, output_key) in cases {
            let state = state(etag, output_key);
            let settled = Settled::read(&packed(&state), "nsx/a.xml").unwrap();
            assert_eq!(settled.etag, state.etag);
            let names = (settled.version_id, settled.feed, settled.mapping_hash);
            assert_eq!(names, (state.version_id, state.feed, state.mapping_hash));
            assert_eq!(settled.outputs, state.outputs);
            assert_eq!(
                (settled.status, settled.generation),
                (state.status, state.generation)
            );
        }
    }

    #[test]
    fn an_old_state_is_the_one_that_the_copy_has() {
        let state = state("A", "somewhere/else.json");
        let (value, settled_at) = (encode(&state), state.settled_at.0);
        let before = |time| settled_before(&value, "nsx/a.xml", time);
        let copied = Settled::read(&packed(&state), "nsx/a.xml").unwrap();
        assert_eq!(before(settled_at + 1), Ok(Some(copied)));
        assert_eq!(before(settled_at), Ok(None));
        assert!(settled_before(b"no avro", "k", 0).is_err());
    }

    #[test]
    fn the_usual_state_takes_few_bytes() {
        let bytes = packed(&state(
            "f019ee9a03978aff9f9b78d0ddf3edb7",
            "products/nsx/a.xml.json",
        ))
        .len();
        assert!(bytes <= 130, "{bytes} bytes");
    }

    #[test]
    fn a_tombstone_forgets_and_damage_is_an_error() {
        assert_eq!(fold(None), Ok(None));
        assert!(fold(Some(b"no avro")).is_err());
        assert!(Settled::read(&[1, 2, 3], "k").is_err());
    }
}
