//! Rejected records: how many a file may have, and the report of all of them.

use std::fmt;
use std::io::Write;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::container::name_entry;
use super::reject::{ConvertError, Reason, Rejection};

/// How many rejections a summary, or the refusal of a file, has in full.
pub const FIRST_REJECTIONS: usize = 20;

/// From this record on, a share that is passed by far ends the conversion.
const JUDGED_FROM: u64 = 1_000;

/// How many records of a file may be rejected: a number, or a share as in `"5%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRejected {
    Count(u64),
    /// In hundredths of a percent. Judged at the end of the file; but from the 1,000th record on, a file most of whose records so far are
    /// rejected, and more than the share, is given up.
    Share(u64),
}

const WHOLE: u64 = 10_000;

impl MaxRejected {
    /// Whether `rejected` of `seen` records are too many, the file being at its end or not.
    fn is_passed(self, rejected: u64, seen: u64, is_end: bool) -> bool {
        match self {
            Self::Count(most) => rejected > most,
            Self::Share(share) => {
                let is_over = |share: u64| {
                    u128::from(rejected) * u128::from(WHOLE) > u128::from(seen) * u128::from(share)
                };
                let is_hopeless = || seen >= JUDGED_FROM && is_over(WHOLE / 2);
                is_over(share) && (is_end || is_hopeless())
            }
        }
    }
}

impl Default for MaxRejected {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl fmt::Display for MaxRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(most) => most.fmt(f),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => {
                let decimals = format!("{:02}", share % 100);
                write!(f, "{}.{}%", share / 100, decimals.trim_end_matches('0'))
            }
        }
    }
}

const EXPECTED: &str = "a number of records, or a share from 0% to 100% with at most two decimals";

impl FromStr for MaxRejected {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let Some(share) = text.strip_suffix('%') else {
            return text.parse().map(Self::Count).map_err(|_| EXPECTED);
        };
        let (whole, decimals) = share.trim_end().split_once('.').unwrap_or((share, "0"));
        if decimals.is_empty() || decimals.len() > 2 {
            return Err(EXPECTED);
        }
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_number)
        };
        number(whole.trim())
            .zip(number(&format!("{decimals:0<2}")))
            .and_then(|(whole, decimals)| whole.checked_mul(100)?.checked_add(decimals))
            .filter(|share| *share <= WHOLE)
            .map(Self::Share)
            .ok_or(EXPECTED)
    }
}

impl<'de> Deserialize<'de> for MaxRejected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = MaxRejected;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_u64<E>(self, count: u64) -> Result<MaxRejected, E> {
                Ok(MaxRejected::Count(count))
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<MaxRejected, E> {
                let unexpected = serde::de::Unexpected::Signed(count);
                u64::try_from(count)
                    .map(MaxRejected::Count)
                    .map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MaxRejected, E> {
                let unexpected = serde::de::Unexpected::Str(text);
                text.parse()
                    .map_err(|_| E::invalid_value(unexpected, &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for MaxRejected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(most) => most.serialize(serializer),
            Self::Share(_) => serializer.collect_str(self),
        }
    }
}

/// The rejected records of one file.
#[derive(Default)]
pub struct Rejects<'w> {
    report: Option<&'w mut dyn Write>,
    most: MaxRejected,
    count: u64,
    first: Vec<Rejection>,
    /// The entry of a zip that records are in now.
    entry: Option<Rc<str>>,
}

impl<'w> Rejects<'w> {
    /// Each goes to `report`, as a line of JSON.
    pub fn new(report: Option<&'w mut dyn Write>, most: MaxRejected) -> Self {
        Self {
            report,
            most,
            count: 0,
            first: Vec::new(),
            entry: None,
        }
    }

    pub fn enter(&mut self, entry: Option<Rc<str>>) {
        self.entry = entry;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes the rejected record that is the last of `seen`; an error when it is one too many.
    pub fn take(&mut self, mut rejection: Box<Rejection>, seen: u64) -> Result<(), ConvertError> {
        if self.most == MaxRejected::Count(0) {
            return Err(rejection.into());
        }
        name_entry(&mut rejection, self.entry.as_deref());
        if let Some(report) = &mut self.report {
            let mut line = serde_json::to_vec(&rejection).expect("a rejection is text and numbers");
            line.push(b'\n');
            report.write_all(&line).map_err(ConvertError::Write)?;
        }
        self.count += 1;
        if self.first.len() < FIRST_REJECTIONS {
            self.first.push(*rejection);
        }
        self.judge(seen, false)
    }

    /// Judges the whole file; how many there were, and the first of them.
    pub fn finish(&mut self, seen: u64) -> Result<(u64, Vec<Rejection>), ConvertError> {
        self.judge(seen, true)?;
        if let Some(report) = &mut self.report {
            report.flush().map_err(ConvertError::Write)?;
        }
        Ok((self.count, std::mem::take(&mut self.first)))
    }

    fn judge(&mut self, seen: u64, is_end: bool) -> Result<(), ConvertError> {
        match self.most.is_passed(self.count, seen, is_end) {
            true => Err(self.too_many(seen, is_end).into()),
            false => Ok(()),
        }
    }

    /// At the place of the first of them.
    fn too_many(&mut self, seen: u64, is_end: bool) -> Box<Rejection> {
        let first = self.first.first();
        let so_far = if is_end { "" } else { " so far" };
        let message = format!(
            "{} of {seen} records{so_far} are rejected, and at most {} may be; the first: {}",
            self.count,
            self.most,
            first.map_or(String::new(), |first| format!(
                "{}: {}",
                first.reason, first.message
            ))
        );
        let mut rejection = Rejection::because(Reason::TooManyRejections, message);
        if let Some(first) = first.cloned() {
            rejection.record = first.record;
            rejection.line = first.line;
            rejection.column = first.column;
            rejection.byte_offset = first.byte_offset;
            rejection.path = first.path;
            rejection.excerpt = first.excerpt;
        }
        rejection.rejected_count = self.count;
        rejection.rejected = std::mem::take(&mut self.first);
        rejection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_share_are_read_and_written_alike() {
        for (text, value) in [
            ("0", MaxRejected::Count(0)),
            ("10", MaxRejected::Count(10)),
            ("5%", MaxRejected::Share(500)),
            ("0.5%", MaxRejected::Share(50)),
            ("100%", MaxRejected::Share(10_000)),
        ] {
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(value.to_string(), text);
        }
        assert_eq!("0.5 %".parse(), Ok(MaxRejected::Share(50)));
        for wrong in [
            "", "-1", "%", "5.%", ".5%", "101%", "1.001%", "+5%", "x", "1.5",
        ] {
            assert!(wrong.parse::<MaxRejected>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_judged_at_the_end_or_when_it_is_hopeless() {
        let share = MaxRejected::Share(500);
        assert!(!share.is_passed(500, 999, false));
        assert!(!share.is_passed(500, 1_000, false));
        assert!(share.is_passed(501, 1_000, false));
        assert!(share.is_passed(51, 1_000, true));
        assert!(!share.is_passed(50, 1_000, true));
        assert!(!MaxRejected::Share(10_000).is_passed(1_000, 1_000, true));
        assert!(!MaxRejected::Share(0).is_passed(0, 0, true));
        assert!(MaxRejected::Count(1).is_passed(2, 2, false));
    }
}
