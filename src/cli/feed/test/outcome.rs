//! What becomes of a fixture's file, or has to.

use std::{fmt, iter};

use serde_json::{Map, Value};

use crate::cli::diff::{Line, diff};
use crate::feed::Rejection;

/// A rejection as JSON, or as much of it as is expected.
pub type Place = Map<String, Value>;

/// The keys of a rejection; the first of them are written down.
const KEYS: [&str; 8] = [
    "reason",
    "record",
    "line",
    "column",
    "path",
    "message",
    "byte_offset",
    "excerpt",
];
const WRITTEN: usize = 5;

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Converted {
        records: Vec<Value>,
        /// The records that are left out.
        rejected: Vec<Place>,
    },
    Refused(Place),
}

impl Outcome {
    pub fn refused(rejection: &Rejection) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(rejection)?;
        Ok(Self::Refused(serde_json::from_str(&json)?))
    }

    /// The lines of the rejections, for people; they say more than what is written down.
    pub fn lines(&self) -> Vec<Line> {
        let places = match self {
            Self::Converted { rejected, .. } => &rejected[..],
            Self::Refused(place) => std::slice::from_ref(place),
        };
        let places: Vec<_> = places.iter().cloned().map(Value::Object).collect();
        diff("rejected", &[], &places)
    }

    /// A key that no rejection has.
    pub fn unknown_key(&self) -> Option<&str> {
        let places = match self {
            Self::Converted { rejected, .. } => &rejected[..],
            Self::Refused(place) => std::slice::from_ref(place),
        };
        let mut keys = places.iter().flat_map(Map::keys).map(String::as_str);
        keys.find(|key| !KEYS.contains(key))
    }

    /// With as much of its rejections as is worth writing down: a message may be worded better one day.
    pub fn brief(self) -> Self {
        match self {
            Self::Converted { records, rejected } => Self::Converted {
                records,
                rejected: rejected.iter().map(brief).collect(),
            },
            Self::Refused(place) => Self::Refused(brief(&place)),
        }
    }

    /// Where `found` is not what this one expects; `None` when not even the kind is.
    pub fn diff(&self, found: &Self) -> Option<Vec<Line>> {
        match (self, found) {
            (Self::Refused(place), Self::Refused(other)) => {
                Some(diff_places(std::slice::from_ref(place), &[other]))
            }
            (
                Self::Converted { records, rejected },
                Self::Converted {
                    records: other_records,
                    rejected: others,
                },
            ) => {
                let others: Vec<_> = others.iter().collect();
                let mut lines = diff("record", records, other_records);
                lines.extend(diff_places(rejected, &others));
                Some(lines)
            }
            _ => None,
        }
    }
}

/// In few words: `2 records, 1 rejected`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converted { records, rejected } => {
                let s = if records.len() == 1 { "" } else { "s" };
                write!(f, "{} record{s}", records.len())?;
                match rejected.len() {
                    0 => Ok(()),
                    count => write!(f, ", {count} rejected"),
                }
            }
            Self::Refused(place) => match place.get("reason").and_then(Value::as_str) {
                Some(reason) => write!(f, "refused, {reason}"),
                None => f.write_str("refused"),
            },
        }
    }
}

fn brief(place: &Place) -> Place {
    let value = |key: &&str| Some((key.to_string(), place.get(*key)?.clone()));
    let said = KEYS[..WRITTEN].iter().filter_map(value);
    said.filter(|(_, value)| !value.is_null()).collect()
}

/// Of what is found, only the keys that are expected count.
fn diff_places(expected: &[Place], found: &[&Place]) -> Vec<Line> {
    let asked = expected.iter().map(Some).chain(iter::repeat(None));
    let answers: Vec<_> = found
        .iter()
        .zip(asked)
        .map(|(place, asked)| match asked {
            Some(asked) => asked
                .keys()
                .map(|key| (key.clone(), place.get(key).cloned().unwrap_or_default()))
                .collect(),
            None => brief(place),
        })
        .map(Value::Object)
        .collect();
    let expected: Vec<_> = expected.iter().cloned().map(Value::Object).collect();
    diff("rejected", &expected, &answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> Outcome {
        Outcome::Refused(serde_json::from_str(json).unwrap())
    }

    fn converted(records: &str, rejected: &str) -> Outcome {
        Outcome::Converted {
            records: serde_json::from_str(records).unwrap(),
            rejected: serde_json::from_str(rejected).unwrap(),
        }
    }

    const FOUND: &str = r#"{"record":2,"reason":"missing_field","message":"m","line":3,"column":1,"byte_offset":9,"path":"a/b","excerpt":null}"#;

    #[test]
    fn only_what_is_expected_of_a_rejection_counts() {
        let differs = |asked: &str| !refused(asked).diff(&refused(FOUND)).unwrap().is_empty();
        for same in [
            "{}",
            r#"{"reason":"missing_field"}"#,
            r#"{"line":3,"reason":"missing_field"}"#,
            r#"{"excerpt":null}"#,
        ] {
            assert!(!differs(same), "{same}");
        }
        assert!(differs(r#"{"reason":"invalid_value"}"#));
        assert!(differs(r#"{"line":"3"}"#));
        assert_eq!(refused(r#"{"lime":3}"#).unknown_key(), Some("lime"));
        assert_eq!(refused(FOUND).unknown_key(), None);
    }

    #[test]
    fn records_that_are_left_out_count_one_by_one() {
        let found = converted("[1]", &format!("[{FOUND}]"));
        let lines = |rejected: &str| converted("[1]", rejected).diff(&found).unwrap();
        assert!(lines(r#"[{"line":3}]"#).is_empty());
        assert_eq!(lines(r#"[{"line":4}]"#).len(), 5);
        assert_eq!(lines("[]").len(), 8, "one that nobody expects");
        assert!(!lines("[{}, {}]").is_empty(), "one that does not come");
    }

    #[test]
    fn another_kind_of_outcome_is_no_difference_of_lines() {
        let (refused, converted) = (refused(FOUND), converted("[1]", "[]"));
        assert_eq!(refused.diff(&converted), None);
        assert_eq!(converted.diff(&refused), None);
        assert_eq!(refused.to_string(), "refused, missing_field");
        assert_eq!(converted.to_string(), "1 record");
    }
}
