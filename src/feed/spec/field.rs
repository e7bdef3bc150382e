//! A field of the output: where its value comes from, as a string or a table in the configuration.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Fields;

/// Where one output value comes from. Paths are relative to the record, or to the element of the nearest `each`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldSpec {
    /// `"path"` or `{ path, take, type, default, required, trim }`: the first value found, or the last one.
    Value(ValueSpec),
    /// `{ const }`: the same in every record.
    Constant(Scalar),
    /// `{ each }`, `{ each, value }`: an array with one value for each element found. `value` takes `type` and `trim` beside it.
    List { each: String, value: ValueSpec },
    /// `{ each, join }`, `{ each, value, join }`: one text, `join` standing between the values found; empty ones are left out.
    /// Takes `default`, `required` and `trim`.
    Joined {
        each: String,
        value: ValueSpec,
        join: String,
    },
    /// `{ each, fields }`: an array with one object for each element found.
    Objects { each: String, fields: Fields },
    /// `{ each, key, value, fill_gaps }`: one object with a key for each element found; of equal keys the first wins.
    Keyed {
        each: String,
        /// Text with paths in braces: `image_{@type}`.
        key: String,
        value: ValueSpec,
        /// The key's one path gives a number, and every number from 1 to the highest gets its key, with null where none was found.
        fill_gaps: bool,
    },
    /// `{ fields }`: an object of values of the same record.
    Object { fields: Fields },
}

/// One scalar value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueSpec {
    /// Names joined by `/`, the last of which may be an attribute (`@id`); `.` is the element itself. The value of an element is
    /// all text inside it. `$source.bucket`, `.key`, `.etag`, `.last_modified` and `.feed` are what is known of the file.
    pub path: String,
    #[serde(skip_serializing_if = "Take::is_first")]
    pub take: Take,
    /// Without it, XML gives strings and JSON gives what stands there.
    #[serde(rename = "type")]
    pub kind: Option<ValueType>,
    /// For dates: the forms a value may have, in strptime's language, tried in this order; ISO 8601 unless said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// For dates: the form that is written, in strftime's language; ISO 8601 with what is known unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Taken where the value is missing; null unless said.
    pub default: Option<Scalar>,
    /// A record without the value, or with an empty one, is rejected (`missing_field`).
    pub required: bool,
    /// White space around the value is cut. Numbers and booleans are read without it anyway.
    pub trim: bool,
}

/// Which of several values counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    #[default]
    First,
    Last,
}

impl Take {
    pub fn is_first(&self) -> bool {
        *self == Self::First
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    String,
    Integer,
    /// A number written to JSON with the digits it came with: `79.90` stays `79.90`.
    Decimal,
    /// `true`, `false`, `1` or `0`, in any case.
    Boolean,
    /// A date, or a date and time, written as text. It is never moved to another time zone: `from` reads it, `to` writes it.
    Date,
}

/// A constant in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a default is a string, a number or a boolean")]
pub enum Scalar {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
        }
    }
}

impl ValueSpec {
    /// The value at `path`, as it stands, null when it is missing.
    pub fn at(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            take: Take::First,
            kind: None,
            from: Vec::new(),
            to: None,
            default: None,
            required: false,
            trim: false,
        }
    }
}

impl<'de> Deserialize<'de> for FieldSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = FieldSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with `path`, `each`, `fields` or `const`")
            }

            fn visit_str<E>(self, path: &str) -> Result<FieldSpec, E> {
                Ok(FieldSpec::Value(ValueSpec::at(path)))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<FieldSpec, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(table))?
                    .into_field()
                    .map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(FieldVisitor)
    }
}

/// Every key a field's table may have, before it is clear which kind of field it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: Option<String>,
    each: Option<String>,
    fields: Option<Fields>,
    #[serde(rename = "const")]
    constant: Option<Scalar>,
    take: Option<Take>,
    join: Option<String>,
    key: Option<String>,
    value: Option<String>,
    fill_gaps: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<ValueType>,
    from: Option<OneOrMore>,
    to: Option<String>,
    default: Option<Scalar>,
    required: Option<bool>,
    trim: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a form of a date, or a list of them")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(texts: OneOrMore) -> Self {
        match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        }
    }
}

impl Table {
    fn into_field(mut self) -> Result<FieldSpec, String> {
        let constant = self.constant.take().map(FieldSpec::Constant);
        let field = match (self.path.take(), self.each.take(), self.fields.take()) {
            (None, None, None) => {
                constant.ok_or("a field needs `path`, `each`, `fields` or `const`")?
            }
            _ if constant.is_some() => return Err("`const` stands alone".into()),
            (Some(path), None, None) => FieldSpec::Value(ValueSpec {
                take: self.take.take().unwrap_or_default(),
                ..self.take_whole_value(path)
            }),
            (None, Some(each), Some(fields)) => FieldSpec::Objects { each, fields },
            (None, Some(each), None) => self.take_each(each)?,
            (None, None, Some(fields)) => FieldSpec::Object { fields },
            (Some(_), _, _) => return Err("`path` goes with neither `each` nor `fields`".into()),
        };
        if self.from.is_some() || self.to.is_some() {
            return Err("`from` and `to` are the forms of a date, with `type = \"date\"`".into());
        }
        match self.left_over() {
            None => Ok(field),
            Some(key) => Err(format!("`{key}` does not go with {}", field.shape())),
        }
    }

    fn take_each(&mut self, each: String) -> Result<FieldSpec, String> {
        let value = self.value.take();
        match (self.key.take(), value) {
            _ if self.join.is_some() && self.kind.is_some() => {
                Err("`type` does not go with `join`: what is joined is text".into())
            }
            (None, value) if self.join.is_some() => Ok(FieldSpec::Joined {
                each,
                join: self.join.take().unwrap_or_default(),
                value: self.take_whole_value(value.unwrap_or_else(|| ".".into())),
            }),
            (None, value) => Ok(FieldSpec::List {
                each,
                value: self.take_value(value.unwrap_or_else(|| ".".into())),
            }),
            (Some(key), Some(value)) => Ok(FieldSpec::Keyed {
                each,
                key,
                value: self.take_value(value),
                fill_gaps: self.fill_gaps.take().unwrap_or_default(),
            }),
            (Some(_), None) => {
                Err("`key` needs `value`, the path of what is put under the key".into())
            }
        }
    }

    /// With what only makes sense where a missing value does not keep its place in a list.
    fn take_whole_value(&mut self, path: String) -> ValueSpec {
        ValueSpec {
            default: self.default.take(),
            required: self.required.take().unwrap_or_default(),
            ..self.take_value(path)
        }
    }

    fn take_value(&mut self, path: String) -> ValueSpec {
        let kind = self.kind.take();
        let (from, to) = match kind {
            Some(ValueType::Date) => (self.from.take(), self.to.take()),
            _ => (None, None),
        };
        ValueSpec {
            kind,
            from: from.map(Vec::from).unwrap_or_default(),
            to,
            trim: self.trim.take().unwrap_or_default(),
            ..ValueSpec::at(path)
        }
    }

    /// A key that the kind of field has no use for.
    fn left_over(&self) -> Option<&'static str> {
        [
            (self.take.is_some(), "take"),
            (self.join.is_some(), "join"),
            (self.key.is_some(), "key"),
            (self.value.is_some(), "value"),
            (self.fill_gaps.is_some(), "fill_gaps"),
            (self.kind.is_some(), "type"),
            (self.default.is_some(), "default"),
            (self.required.is_some(), "required"),
            (self.trim.is_some(), "trim"),
        ]
        .into_iter()
        .find_map(|(is_set, key)| is_set.then_some(key))
    }
}

impl FieldSpec {
    fn shape(&self) -> &'static str {
        match self {
            Self::Value(_) => "`path`",
            Self::Constant(_) => "`const`",
            Self::List { .. } => "`each` alone",
            Self::Joined { .. } => "`each` and `join`",
            Self::Objects { .. } => "`each` and `fields`",
            Self::Keyed { .. } => "`each` and `key`",
            Self::Object { .. } => "`fields` alone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Result<FieldSpec, String> {
        #[derive(Deserialize)]
        struct Holder {
            x: FieldSpec,
        }
        toml::from_str::<Holder>(&format!("x = {text}"))
            .map(|holder| holder.x)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_bare_string_is_short_for_a_path() {
        assert_eq!(field(r#""@id""#), field(r#"{ path = "@id" }"#));
    }

    #[test]
    fn each_kind_of_field_is_told_by_its_keys() {
        assert!(
            matches!(field(r#"{ each = "a" }"#), Ok(FieldSpec::List { value, .. }) if value.path == ".")
        );
        assert!(matches!(
            field(r#"{ each = "a", value = "@b", type = "integer" }"#),
            Ok(FieldSpec::List { value, .. }) if value.kind == Some(ValueType::Integer)
        ));
        assert!(matches!(
            field(r#"{ each = "a", key = "n_{b}", value = "c", fill_gaps = true }"#),
            Ok(FieldSpec::Keyed {
                fill_gaps: true,
                ..
            })
        ));
        assert!(matches!(
            field(r#"{ each = "a", fields = { b = "c" } }"#),
            Ok(FieldSpec::Objects { .. })
        ));
        assert!(matches!(
            field(r#"{ fields = { b = "c" } }"#),
            Ok(FieldSpec::Object { .. })
        ));
        assert!(matches!(
            field(r#"{ each = "a", value = "@b", join = ", ", required = true, trim = true }"#),
            Ok(FieldSpec::Joined { join, value, .. }) if join == ", " && value.required && value.trim
        ));
        assert_eq!(
            field("{ const = 7 }"),
            Ok(FieldSpec::Constant(Scalar::Integer(7)))
        );
        assert!(matches!(
            field(r#"{ path = "a", take = "last" }"#),
            Ok(FieldSpec::Value(ValueSpec {
                take: Take::Last,
                ..
            }))
        ));
        assert_eq!(
            field(r#"{ path = "a", type = "date", from = "%Y" }"#),
            field(r#"{ path = "a", type = "date", from = ["%Y"] }"#)
        );
    }

    #[test]
    fn what_is_wrong_with_a_field_is_named() {
        let message = |text: &str| field(text).unwrap_err();
        assert!(
            message(r#"{ pth = "a" }"#).contains("unknown field `pth`, expected one of `path`")
        );
        assert_eq!(
            message("{}"),
            "a field needs `path`, `each`, `fields` or `const`"
        );
        assert_eq!(
            message(r#"{ path = "a", each = "b" }"#),
            "`path` goes with neither `each` nor `fields`"
        );
        assert_eq!(
            message(r#"{ path = "a", fill_gaps = true }"#),
            "`fill_gaps` does not go with `path`"
        );
        assert_eq!(
            message(r#"{ each = "a", required = true }"#),
            "`required` does not go with `each` alone"
        );
        assert!(message(r#"{ each = "a", key = "b" }"#).contains("`key` needs `value`"));
        assert_eq!(
            message(r#"{ const = 1, path = "a" }"#),
            "`const` stands alone"
        );
        assert_eq!(
            message(r#"{ const = 1, trim = true }"#),
            "`trim` does not go with `const`"
        );
        assert_eq!(
            message(r#"{ path = "a", join = ", " }"#),
            "`join` does not go with `path`"
        );
        assert!(message(r#"{ each = "a", join = ",", type = "integer" }"#).contains("is text"));
        assert_eq!(
            message(r#"{ each = "a", take = "last" }"#),
            "`take` does not go with `each` alone"
        );
        for forms in [r#"from = "%Y""#, r#"to = "%Y""#] {
            let table = format!(r#"{{ path = "a", {forms}, type = "string" }}"#);
            assert!(message(&table).contains("`type = \"date\"`"));
        }
        assert!(message(r#"{ path = "a", type = "int" }"#).contains("unknown variant `int`"));
        assert!(
            message(r#"{ path = "a", default = [] }"#).contains("a string, a number or a boolean")
        );
        assert!(message("7").contains("expected a path, or a table"));
    }
}
