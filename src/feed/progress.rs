//! How far a conversion is, for another thread to look at.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one conversion that is under way. They run ahead of each other by what is in buffers.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes taken from the input, compressed if it is.
    pub input_bytes: Counter,
    /// Bytes after decompression, in UTF-8.
    pub decoded_bytes: Counter,
    /// Records in the output.
    pub records: Counter,
    /// Records left out of it.
    pub rejected: Counter,
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// No more than a store: it is called for every record.
    #[inline]
    pub(super) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn the_counts_end_where_the_summary_stands() {
        let spec = "max_rejected = 9\nfields = { id = { path = '@id', required = true } }";
        let plan = Plan::compile(&toml::from_str(spec).unwrap(), Limits::default()).unwrap();
        let input = &b"<r><i id='1'/><i/><i id='2'/><i id='3'/></r>"[..];
        let progress = Progress::default();
        let source = Source::default();
        let summary =
            convert_watched(&plan, &source, input, std::io::sink(), None, &progress).unwrap();
        assert_eq!(progress.input_bytes.get(), summary.input_bytes);
        assert_eq!(progress.decoded_bytes.get(), summary.decoded_bytes);
        assert_eq!((progress.records.get(), progress.rejected.get()), (3, 1));
    }
}
