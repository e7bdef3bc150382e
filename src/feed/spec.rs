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

mod field;

use std::collections::BTreeMap;

pub use field::{FieldSpec, Scalar, Take, ValueSpec, ValueType};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

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
