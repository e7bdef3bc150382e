//! What a conversion came to, on standard error: in words, or as one line of JSON.

use std::path::Path;

use serde::Serialize;

use crate::{
    cli::text::refusal,
    feed::{Rejection, Summary},
};

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Ending<'a> {
    Converted {
        seconds: f64,
        #[serde(flatten)]
        summary: &'a Summary,
    },
    Refused {
        #[serde(flatten)]
        rejection: &'a Rejection,
        /// Records that were rejected, of a file that has too many.
        rejected: u64,
        /// The first of those.
        rejections: &'a [Rejection],
    },
}

impl<'a> Ending<'a> {
    pub fn refused(rejection: &'a Rejection) -> Self {
        Self::Refused {
            rejection,
            rejected: rejection.rejected_count,
            rejections: &rejection.rejected,
        }
    }

    pub fn say(&self, file: &Path, json: bool) -> Result<(), serde_json::Error> {
        if json {
            eprintln!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        match self {
            Self::Converted { seconds, summary } => {
                for warning in &summary.warnings {
                    eprintln!("{}: warning: {warning}", file.display());
                }
                say_rejected(file, summary.rejected, &summary.rejections);
                say_summary(summary, *seconds);
            }
            Self::Refused {
                rejection,
                rejected,
                rejections,
            } => {
                eprintln!("{}", refusal(file, rejection));
                say_rejected(file, *rejected, rejections);
            }
        }
        Ok(())
    }
}

/// How many rejected records are shown.
const SHOWN: usize = 5;

fn say_rejected(file: &Path, count: u64, first: &[Rejection]) {
    for rejection in first.iter().take(SHOWN) {
        eprintln!("rejected: {}", refusal(file, rejection));
    }
    let shown = first.len().min(SHOWN) as u64;
    if count > shown {
        eprintln!("rejected: {} more", count - shown);
    }
}

fn say_summary(summary: &Summary, seconds: f64) {
    eprintln!(
        "{} records, {} rejected, {} bytes in, {} bytes out, {seconds:.2} s, {:.1} MB/s",
        summary.records,
        summary.rejected,
        summary.input_bytes,
        summary.output_bytes,
        summary.decoded_bytes as f64 / 1e6 / seconds.max(0.001)
    );
}
