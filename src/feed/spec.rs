//! What a feed's configuration says about conversion: the serde types as they stand in a feed's TOML table.
//!
//! In: a table a person wrote. Out: a [`Spec`] whose every part is understood, or an error that names the key that is not.
//! Whether paths and templates make sense is for [`Plan::compile`](super::Plan::compile) to say.
//!
//! ```toml
//! record     = "rss/channel/item"
//! namespaces = { g = "http://base.google.com/ns/1.0" }
//!
//! [fields]
//! id       = "g:id"                                                     # a path: the first value found, or null
//! price    = { path = "g:price", type = "decimal", required = true }
//! pictures = { each = "g:additional_image_link" }                       # a list of values
//! shipping = { each = "g:shipping", fields = { country = "g:country" } } # a list of objects
//! images   = { each = "img", key = "image_{@type}", value = "@url", fill_gaps = true }
//! seller   = { fields = { name = "g:seller" } }                         # an object of the same record's values
//! ```

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::rejects::MaxRejected;

/// How the bytes of a feed become records, and the records JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// `auto` looks at the first bytes: `<` is XML, `[` a JSON array, `{` JSON lines, or a JSON document when `record` is set.
    pub format: Format,
    /// Element names from the root, or object keys, joined by `/`, that lead to a record: `rss/channel/item`.
    /// Without it, every child element of an XML root is a record, and so is every element of a JSON array.
    /// A path that leads nowhere rejects the file (`no_records`).
    pub record: Option<String>,
    /// Prefixes used in this table, and the namespace each stands for. A prefix bound here matches whatever prefix the document
    /// uses for that namespace, none included; any other prefix is compared as it is written.
    pub namespaces: BTreeMap<String, String>,
    /// Elements that are always an array in whole-record conversion of XML, with one of them too. Each is the end of an
    /// element's path: `image` is any element of that name, `images/image` only one inside `images`.
    pub arrays: Vec<String>,
    /// The output object, key by key in this order. Without it, each record is converted whole.
    pub fields: Option<Fields>,
    pub output: OutputFormat,
    #[serde(skip_serializing_if = "is_default")]
    pub compress: Option<Compression>,
    /// A jq program for each record, after `fields` if there are any. What it gives are the records of the output.
    #[serde(skip_serializing_if = "is_default")]
    pub jq: Option<String>,
    /// A JSON Schema for each record as it is output.
    #[serde(skip_serializing_if = "is_default")]
    pub schema: Option<serde_json::Value>,
    /// Where a record, converted whole, says of which of the `cases` it is: `.type`.
    #[serde(skip_serializing_if = "is_default")]
    pub switch: Option<String>,
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub cases: IndexMap<String, CaseSpec>,
    /// How many rejected records are left out before the file is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub max_rejected: MaxRejected,
}

/// What becomes of the records of one kind. Paths are those of the record converted whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseSpec {
    pub fields: Option<Fields>,
    pub jq: Option<String>,
    pub schema: Option<serde_json::Value>,
}

/// What is not said takes no part in the mapping hash, so that a new setting does not change the hash of a feed without it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Output keys in the order in which they are written, and where their values come from.
pub type Fields = IndexMap<String, FieldSpec>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Auto,
    Xml,
    /// One document: an array of records, or an object with `record` naming the keys that lead to the array.
    Json,
    /// One JSON value after another, by custom one per line.
    JsonLines,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// One JSON array, each record on a line of its own.
    #[default]
    Array,
    /// One record per line.
    Lines,
    /// One JSON array, indented for people.
    Pretty,
}

/// What an output is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// As HTTP and S3 name it.
    pub fn content_encoding(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Where one output value comes from. Paths are relative to the record, or to the element of the nearest `each`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldSpec {
    /// `"path"` or `{ path, type, default, required, trim }`: the first value found.
    Value(ValueSpec),
    /// `{ each }`, `{ each, value }`: an array with one value for each element found. `value` takes `type` and `trim` beside it.
    List { each: String, value: ValueSpec },
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
    /// all text inside it.
    pub path: String,
    /// Without it, XML gives strings and JSON gives what stands there.
    #[serde(rename = "type")]
    pub kind: Option<ValueType>,
    /// Taken where the value is missing; null unless said.
    pub default: Option<Scalar>,
    /// A record without the value, or with an empty one, is rejected (`missing_field`).
    pub required: bool,
    /// White space around the value is cut. Numbers and booleans are read without it anyway.
    pub trim: bool,
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
            kind: None,
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
                f.write_str("a path, or a table with `path`, `each` or `fields`")
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
    key: Option<String>,
    value: Option<String>,
    fill_gaps: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<ValueType>,
    default: Option<Scalar>,
    required: Option<bool>,
    trim: Option<bool>,
}

impl Table {
    fn into_field(mut self) -> Result<FieldSpec, String> {
        let field = match (self.path.take(), self.each.take(), self.fields.take()) {
            (Some(path), None, None) => FieldSpec::Value(ValueSpec {
                default: self.default.take(),
                required: self.required.take().unwrap_or_default(),
                ..self.take_value(path)
            }),
            (None, Some(each), Some(fields)) => FieldSpec::Objects { each, fields },
            (None, Some(each), None) => self.take_each(each)?,
            (None, None, Some(fields)) => FieldSpec::Object { fields },
            (None, None, None) => return Err("a field needs `path`, `each` or `fields`".into()),
            (Some(_), _, _) => return Err("`path` goes with neither `each` nor `fields`".into()),
        };
        match self.left_over() {
            None => Ok(field),
            Some(key) => Err(format!("`{key}` does not go with {}", field.shape())),
        }
    }

    fn take_each(&mut self, each: String) -> Result<FieldSpec, String> {
        let value = self.value.take();
        match (self.key.take(), value) {
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

    fn take_value(&mut self, path: String) -> ValueSpec {
        ValueSpec {
            kind: self.kind.take(),
            trim: self.trim.take().unwrap_or_default(),
            ..ValueSpec::at(path)
        }
    }

    /// A key that the kind of field has no use for.
    fn left_over(&self) -> Option<&'static str> {
        [
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
            Self::List { .. } => "`each` alone",
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
    }

    #[test]
    fn what_is_wrong_with_a_field_is_named() {
        let message = |text| field(text).unwrap_err();
        assert!(
            message(r#"{ pth = "a" }"#).contains("unknown field `pth`, expected one of `path`")
        );
        assert_eq!(message("{}"), "a field needs `path`, `each` or `fields`");
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
        assert!(message(r#"{ path = "a", type = "int" }"#).contains("unknown variant `int`"));
        assert!(
            message(r#"{ path = "a", default = [] }"#).contains("a string, a number or a boolean")
        );
        assert!(message("7").contains("expected a path, or a table"));
    }

    #[test]
    fn a_spec_reads_from_toml_and_refuses_keys_it_does_not_know() {
        let spec: Spec =
            toml::from_str("format = 'json_lines'\noutput = 'lines'\n[fields]\nb = 'x'\na = 'y'")
                .unwrap();
        assert_eq!(
            (spec.format, spec.output),
            (Format::JsonLines, OutputFormat::Lines)
        );
        assert_eq!(spec.fields.unwrap().keys().collect::<Vec<_>>(), ["b", "a"]);
        let error = toml::from_str::<Spec>("recrod = 'a'").unwrap_err();
        assert!(error.message().contains("unknown field `recrod`"));
    }
}
