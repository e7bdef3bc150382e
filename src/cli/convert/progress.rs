//! How far a conversion is, in a line.

use std::time::Duration;

use crate::feed::Progress;

/// `120.5 of 482.0 MB (25 %), 96.3 MB/s, 41000 records, 3 rejected`; in ASCII.
pub fn line(progress: &Progress, total: Option<u64>, elapsed: Duration) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let read = progress.input_bytes.get();
    let of_total = match total {
        Some(total) => format!(
            "{:.1} of {:.1} MB ({} %)",
            megabytes(read),
            megabytes(total),
            read.saturating_mul(100) / total.max(1)
        ),
        None => format!("{:.1} MB", megabytes(read)),
    };
    format!(
        "{of_total}, {:.1} MB/s, {} records, {} rejected",
        megabytes(progress.decoded_bytes.get()) / elapsed.as_secs_f64().max(0.001),
        progress.records.get(),
        progress.rejected.get()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{self, Plan, Source};

    #[test]
    fn the_line_has_the_share_where_the_size_is_known() {
        let plan = Plan::compile(&Default::default(), Default::default()).unwrap();
        let xml = format!("<r>{}</r>", "<i>12345</i>".repeat(10_000));
        let progress = Progress::default();
        let source = Source::default();
        let (input, output) = (xml.as_bytes(), std::io::sink());
        feed::convert_watched(&plan, &source, input, output, None, &progress).unwrap();
        let told = |total| line(&progress, total, Duration::from_secs(2));
        assert_eq!(
            told(Some(240_014)),
            "0.1 of 0.2 MB (50 %), 0.1 MB/s, 10000 records, 0 rejected"
        );
        assert_eq!(told(None), "0.1 MB, 0.1 MB/s, 10000 records, 0 rejected");
        assert!(told(Some(0)).contains("MB"));
    }
}
