//! Times on the command line: a moment, or a span back from now.

use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::topics::Millis;

/// Reads an RFC 3339 time, or a span back from now such as `3h` or `2d 12h`.
pub fn moment(text: &str) -> Result<Millis, String> {
    before(text, Timestamp::now())
}

fn before(text: &str, now: Timestamp) -> Result<Millis, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.into());
    }
    let back = || {
        let span: Span = text.parse().ok()?;
        let duration = span
            .abs()
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .ok()?;
        now.checked_sub(duration).ok()
    };
    back().map(Millis::from).ok_or_else(|| {
        "expected a time such as 2026-01-31T08:00:00Z, or a span back from now such as 90m, 3h or 2d"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let now = "2026-03-10T12:00:00Z".parse().unwrap();
        before(text, now).map(|time| time.to_string())
    }

    #[test]
    fn a_moment_is_an_rfc_3339_time_or_a_span_back_from_now() {
        for (text, moment) in [
            ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00.000Z"),
            ("2026-03-01T08:00:00+02:00", "2026-03-01T06:00:00.000Z"),
            ("90m", "2026-03-10T10:30:00.000Z"),
            ("3h", "2026-03-10T09:00:00.000Z"),
            ("2d", "2026-03-08T12:00:00.000Z"),
            ("1d 12h", "2026-03-09T00:00:00.000Z"),
            ("1w", "2026-03-03T12:00:00.000Z"),
            ("2 days ago", "2026-03-08T12:00:00.000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(moment), "{text}");
        }
    }

    #[test]
    fn what_is_neither_says_what_was_expected() {
        for text in ["", "3", "yesterday", "2026-03-01", "1 month", "99999999y"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("3h"), "{text}: {error}");
        }
    }
}
