//! How much of anything a file may have, so that no file can hurt the process that reads it.

use std::time::Duration;

/// Bounds on one file. Passing one rejects the file, each with a [`Reason`](super::Reason) of its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the whole file, after decompression: all layers of it, and all entries of a zip, together.
    pub file_bytes: u64,
    /// Bytes of one record: as it stands in the file, as it is held, and as JSON. Outside records it bounds a single piece of markup.
    /// Memory use is a small multiple of it. At most 1 GiB.
    pub record_bytes: usize,
    /// Records of the whole file, those rejected included.
    pub records: u64,
    /// Bytes of one text: what stands between two tags, an attribute's value, a JSON string or number, a cell. References and escapes are
    /// counted as what they stand for; none of them stands for more bytes than it has.
    pub text_bytes: usize,
    /// Elements, or JSON arrays and objects, inside each other. At most 1,000.
    pub depth: usize,
    /// Attributes of one element, and namespace declarations in force at one place.
    pub attributes: usize,
    /// Bytes of one element name, attribute name, JSON key or name of a zip entry.
    pub name_bytes: usize,
    /// Decompressed bytes for each compressed one. Looked at once a file has given 16 MiB: a small one can't hurt.
    pub decompression_ratio: u64,
    /// Bytes of memory that the header of a zstd or xz file may ask for: its window or dictionary, in zstd rounded down to a power of two.
    /// Each container in another has its own.
    pub decompressor_bytes: u64,
    /// Bytes of one zip, which is kept in a temporary file while it is read.
    pub spool_bytes: u64,
    /// Entries of one zip, folders included.
    pub zip_entries: usize,
    /// Containers inside each other. At most 16.
    pub nesting: usize,
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

/// Containers are opened on top of each other, each with its buffers.
pub const MAX_NESTING: usize = 16;

/// Decompressed bytes below which no ratio is refused.
pub const RATIO_FLOOR_BYTES: u64 = 16 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 30,
            record_bytes: 16 << 20,
            // The largest product feeds have some ten million.
            records: 100_000_000,
            // A picture in Base64, not a description.
            text_bytes: 8 << 20,
            depth: 128,
            attributes: 256,
            name_bytes: 1_024,
            // Product feeds reach 20 to 100; deflate itself ends at 1,032, which is where bombs are.
            decompression_ratio: 500,
            // `xz -9` takes 65 MiB, zstd up to level 19 takes 8.
            decompressor_bytes: 80 << 20,
            spool_bytes: 1 << 30,
            zip_entries: 1_000,
            nesting: 3,
            jq_outputs: 1_000,
            jq_timeout: Duration::from_secs(1),
            gap: 1_000,
        }
    }
}
