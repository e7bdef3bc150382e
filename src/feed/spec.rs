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
//! tags     = { each = "g:label", join = ", " }                          # one text
//! sale_end = { path = "g:sale_end", type = "date", from = ["%d.%m.%Y", "%Y-%m-%d"] }
//! source   = "$source.key"                                              # bucket, key, etag, last_modified or feed
//! version  = { const = 2 }
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
    /// Any other text is CSV if its first lines agree on a delimiter and there is no `record`.
    pub format: Format,
    /// The encoding of files that don't say: a label of the Encoding Standard, `windows-1252`. A byte order mark, an XML declaration, and
    /// NUL bytes that only UTF-16 has, count more; without any of these, it is UTF-8.
    pub encoding: Option<String>,
    /// Element names from the root, or object keys, joined by `/`, that lead to a record: `rss/channel/item`; `*` is any name.
    /// A list of such paths takes the records of all of them, in the order of the document.
    /// Without it, every child element of an XML root is a record, and so is every element of a JSON array.
    /// If no path leads anywhere, the file is rejected (`no_records`); if one of several does not, that is a warning.
    pub record: Option<RecordPath>,
    /// Prefixes used in this table, and the namespace each stands for. A prefix bound here matches whatever prefix the document
    /// uses for that namespace, none included; any other prefix is compared as it is written.
    pub namespaces: BTreeMap<String, String>,
    /// Elements that are always an array in whole-record conversion of XML, with one of them too. Each is the end of an
    /// element's path: `image` is any element of that name, `images/image` only one inside `images`.
    /// Any other element is an array only in records that repeat it; the first time is a [`Warning`](super::Warning) for its path.
    pub arrays: Vec<String>,
    /// The output object, key by key in this order. Without it, each record is converted whole.
    pub fields: Option<Fields>,
    pub output: OutputFormat,
    /// How a CSV file is written.
    #[serde(skip_serializing_if = "CsvSpec::is_default")]
    pub csv: CsvSpec,
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

/// One path to the records, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a record path is a string, several are a list of strings"
)]
pub enum RecordPath {
    One(String),
    Several(Vec<String>),
}

impl RecordPath {
    pub fn paths(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }

    /// The same for all that mean the same: the order of several paths decides nothing.
    pub(super) fn canonical(self) -> Self {
        match self {
            Self::Several(mut paths) if paths.len() != 1 => {
                paths.sort_unstable();
                Self::Several(paths)
            }
            Self::Several(mut paths) => Self::One(paths.remove(0)),
            one => one,
        }
    }
}

/// How a CSV file is written. The columns' names are the keys: a whole record is an object of strings in the order of the columns,
/// and a path in `fields` is the name of a column, spaces and slashes included: `Google Shopping / Gender`. An empty cell is a missing
/// value for `fields`, an empty string in a whole record. Empty lines are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CsvSpec {
    /// One ASCII character. Unless said, a tab in the format `tsv`, what a first line `sep=;` says, or the one of `,` `;` tab and `|` that
    /// the first rows agree on.
    pub delimiter: Option<char>,
    /// The ASCII character around cells that hold delimiters or line ends, twice for itself; empty for none. Unless said, `"`, or `'`
    /// where the first rows use that.
    pub quote: Option<String>,
    /// Whether the first row has the names of the columns.
    pub header: bool,
    /// Names of the columns, in place of those in the header.
    pub columns: Vec<String>,
    /// Lines that begin with this ASCII character are passed over.
    pub comment: Option<char>,
    /// White space around cells and names is cut.
    pub trim: bool,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self {
            delimiter: None,
            quote: None,
            header: true,
            columns: Vec::new(),
            comment: None,
            trim: false,
        }
    }
}

impl CsvSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
    /// Rows of cells, the first row having the columns' names.
    Csv,
    /// The same with tabs.
    Tsv,
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
