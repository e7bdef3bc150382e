//! Dates and times from the partner's form to the feed's.
//!
//! Nothing is computed: a date stays the date that was written, and a time keeps its offset or its lack of one. No time zone is ever looked up.

use jiff::civil::DateTime;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// The forms of a value of type `date`, in the language of strptime and strftime as [`jiff::fmt::strtime`] has it.
#[derive(Debug, Default)]
pub struct DateFormat {
    /// Tried in this order; without any, ISO 8601.
    from: Vec<String>,
    /// Without it, ISO 8601 with what is known: a date, a time, an offset.
    to: Option<String>,
}

/// A form that jiff does not understand, or one that does not say which day it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{format:?} is not a form of a date: {message}")]
pub struct DateFormatError {
    format: String,
    message: String,
}

/// What a date says.
struct Moment {
    /// Midnight where there is no time.
    datetime: DateTime,
    has_time: bool,
    offset: Option<Offset>,
}

impl DateFormat {
    pub fn compile(from: &[String], to: Option<&str>) -> Result<Self, DateFormatError> {
        for format in from {
            check_reading(format)?;
        }
        if let Some(format) = to {
            check_writing(format)?;
        }
        Ok(Self {
            from: from.to_vec(),
            to: to.map(str::to_owned),
        })
    }

    /// `None` when `text` is not a date in any of the forms, or lacks what the output's form asks for.
    pub fn convert(&self, text: &str) -> Option<String> {
        let moment = if self.from.is_empty() {
            Moment::from_iso(text)
        } else {
            self.from
                .iter()
                .find_map(|format| Moment::parse(format, text))
        }?;
        match &self.to {
            Some(format) => moment.format(format),
            None => moment.to_iso(),
        }
    }
}

impl Moment {
    fn from_iso(text: &str) -> Option<Self> {
        let pieces = Pieces::parse(text).ok()?;
        if pieces.time_zone_annotation().is_some() {
            return None;
        }
        Some(Self {
            datetime: pieces.date().to_datetime(pieces.time().unwrap_or_default()),
            has_time: pieces.time().is_some(),
            offset: pieces.to_numeric_offset(),
        })
    }

    fn parse(format: &str, text: &str) -> Option<Self> {
        let parsed = strtime::parse(format, text).ok()?;
        if let Some(timestamp) = parsed.timestamp() {
            return Some(Self {
                datetime: Offset::UTC.to_datetime(timestamp),
                has_time: true,
                offset: Some(Offset::UTC),
            });
        }
        // What a zone's name means changes with the tables of zones.
        if parsed.iana_time_zone().is_some() {
            return None;
        }
        Some(Self {
            datetime: parsed.to_datetime().ok()?,
            has_time: parsed.hour().is_some(),
            offset: parsed.offset(),
        })
    }

    fn format(&self, format: &str) -> Option<String> {
        let mut time = BrokenDownTime::from(self.datetime);
        time.set_offset(self.offset);
        if let Some(offset) = self.offset {
            time.set_timestamp(Some(offset.to_timestamp(self.datetime).ok()?));
        }
        time.to_string(format).ok()
    }

    fn to_iso(&self) -> Option<String> {
        let datetime = self.datetime;
        match self.offset {
            _ if !self.has_time => Some(datetime.date().to_string()),
            None => Some(datetime.to_string()),
            Some(Offset::UTC) => Some(format!("{datetime}Z")),
            Some(_) => Some(format!("{datetime}{}", self.format("%:z")?)),
        }
    }
}

/// A form reads what it writes, and what it reads is a day.
fn check_reading(format: &str) -> Result<(), DateFormatError> {
    let written = write_example(format)?;
    let parsed = strtime::parse(format, &written).map_err(|error| refuse(format, &error))?;
    if parsed.timestamp().is_some() {
        return Ok(());
    }
    parsed
        .to_datetime()
        .map(drop)
        .map_err(|error| refuse(format, &error))
}

fn check_writing(format: &str) -> Result<(), DateFormatError> {
    write_example(format).map(drop)
}

fn write_example(format: &str) -> Result<String, DateFormatError> {
    let example = Moment {
        datetime: jiff::civil::datetime(2001, 12, 31, 14, 5, 6, 789_000_000),
        has_time: true,
        offset: Some(Offset::UTC),
    };
    let mut time = BrokenDownTime::from(example.datetime);
    time.set_offset(example.offset);
    time.set_timestamp(Offset::UTC.to_timestamp(example.datetime).ok());
    time.to_string(format)
        .map_err(|error| refuse(format, &error))
}

fn refuse(format: &str, error: &jiff::Error) -> DateFormatError {
    DateFormatError {
        format: format.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(from: &[&str], to: Option<&str>, text: &str) -> Option<String> {
        let from: Vec<_> = from.iter().map(|&format| format.to_owned()).collect();
        DateFormat::compile(&from, to).unwrap().convert(text)
    }

    #[test]
    fn without_forms_a_date_is_iso_8601_and_stays_what_it_says() {
        for (text, expected) in [
            ("2026-11-21", "2026-11-21"),
            ("20261121", "2026-11-21"),
            ("2026-11-21T10:00", "2026-11-21T10:00:00"),
            ("2026-11-21 10:00:01.5", "2026-11-21T10:00:01.5"),
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
            ("2026-11-21T23:30:00+00:00", "2026-11-21T23:30:00Z"),
            ("2026-11-21T00:30:00+01:00", "2026-11-21T00:30:00+01:00"),
            ("2026-11-21T00:30:00-0330", "2026-11-21T00:30:00-03:30"),
        ] {
            assert_eq!(convert(&[], None, text).as_deref(), Some(expected));
        }
        for text in [
            "",
            "21.11.2026",
            "2026-02-29",
            "2026-13-01",
            "today",
            "10:00",
            "2026-11-21T10:00:00+01:00[Europe/Paris]",
            "2026-11-21x",
        ] {
            assert_eq!(convert(&[], None, text), None, "{text}");
        }
    }

    #[test]
    fn the_first_form_that_fits_reads_and_the_other_form_writes() {
        let from = [
            "%d.%m.%Y",
            "%Y-%m-%d",
            "%d %B %Y %H:%M",
            "%Y%m%dT%H%M%S%z",
            "@%s",
        ];
        for (text, iso, us) in [
            ("1.2.2026", "2026-02-01", "02/01/26"),
            ("2026-02-01", "2026-02-01", "02/01/26"),
            ("1 February 2026 23:59", "2026-02-01T23:59:00", "02/01/26"),
            (
                "20260201T233000-0200",
                "2026-02-01T23:30:00-02:00",
                "02/01/26",
            ),
            ("@1769987106", "2026-02-01T23:05:06Z", "02/01/26"),
        ] {
            assert_eq!(convert(&from, None, text).as_deref(), Some(iso));
            assert_eq!(convert(&from, Some("%m/%d/%y"), text).as_deref(), Some(us));
        }
        assert_eq!(convert(&from, None, "31.2.2026"), None);
        let zoned = |text| convert(&["%F %R%Q"], None, text);
        assert_eq!(
            zoned("2026-02-01 10:00+0100").as_deref(),
            Some("2026-02-01T10:00:00+01:00")
        );
        assert_eq!(zoned("2026-02-01 10:00Europe/Paris"), None);
        assert_eq!(convert(&from, None, "2026-02-01T00:00:00Z"), None);
        let epoch = |text| convert(&["%Y-%m-%d", "%Y-%m-%dT%H:%M%z"], Some("%s"), text);
        assert_eq!(
            epoch("2026-02-01T00:00+0100").as_deref(),
            Some("1769900400")
        );
        assert_eq!(epoch("2026-02-01"), None, "nobody knows where");
    }

    #[test]
    fn forms_that_can_never_work_are_refused_at_once() {
        for format in ["%", "%!", "%H:%M", "%Y-%m", "day %d", "%Q", ""] {
            let error = DateFormat::compile(&[format.to_owned()], None).unwrap_err();
            assert!(
                error.to_string().contains(&format!("{format:?}")),
                "{error}"
            );
        }
        assert!(DateFormat::compile(&[], Some("%!")).is_err());
        assert!(DateFormat::compile(&[], Some("week %V of %G")).is_ok());
    }
}
