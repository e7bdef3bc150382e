//! How much of anything a file may have, so that no file can hurt the process that reads it.

use std::time::Duration;

/// Bounds on one file. Passing one rejects the file, each with a [`Reason`](super::Reason) of its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the whole file, after decompression.
    pub file_bytes: u64,
    /// Bytes of one record: as it stands in the file, as it is held, and as JSON. Outside records it bounds a single piece of markup.
    /// Memory use is a small multiple of it. At most 1 GiB.
    pub record_bytes: usize,
    /// Elements, or JSON arrays and objects, inside each other. At most 1,000.
    pub depth: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Bytes of one element name, attribute name or JSON key.
    pub name_bytes: usize,
    /// Decompressed bytes for each compressed one. Looked at once a file has given 16 MiB: a small one can't hurt.
    pub decompression_ratio: u64,
    /// Records that a jq program makes of one.
    pub jq_outputs: usize,
    /// How long a jq program may take for one record.
    #[serde(with = "crate::config::pause")]
    pub jq_timeout: Duration,
    /// The highest number that `fill_gaps` fills up to.
    pub gap: u32,
}

/// Records are written by recursion: deeper limits could exhaust a thread's stack.
pub const MAX_DEPTH: usize = 1_000;

/// Places in a record are kept in 32 bits.
pub const MAX_RECORD_BYTES: usize = 1 << 30;

/// Decompressed bytes below which no ratio is refused.
pub const RATIO_FLOOR_BYTES: u64 = 16 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 30,
            record_bytes: 16 << 20,
            depth: 128,
            attributes: 256,
            name_bytes: 1_024,
            // Product feeds reach 20 to 100; deflate itself ends at 1,032, which is where bombs are.
            decompression_ratio: 500,
            jq_outputs: 1_000,
            jq_timeout: Duration::from_secs(1),
            gap: 1_000,
        }
    }
}
