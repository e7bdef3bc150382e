//! `[[feeds]]`: one partner's files, and what becomes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::After;
use super::documents::{self, FileSetting, SchemaSetting};
use super::fields;
use super::pause;
use crate::feed::MaxRejected;
use crate::feed::spec::{
    CaseSpec, Compression, CsvSpec, Fields, Format, OutputFormat, RecordPath, Spec,
};

/// One partner's feed: which objects it takes, and what becomes of their records.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// The file that it stands in, for messages; `None` where all feeds stand in one.
    #[serde(skip)]
    pub file: Option<Arc<str>>,
    /// Names the feed in results, metrics and messages: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// `s3://bucket/glob`: the bucket literal; in the key `*` stays within a `/`, `**` does not.
    pub r#match: String,
    /// Off: as if the feed were not there; its name stays taken.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whom to ask about it.
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// For people and their tools; feedmill does nothing by them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The usual pause between its deliveries, `"1d"`; left out: learnt. Metrics show it, and an alert misses the feed after half
    /// as long again.
    #[serde(
        default,
        with = "pause::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub expect_every: Option<Duration>,
    #[serde(default)]
    pub format: Format,
    /// Of files that don't say which they are in, `windows-1252`; left out: UTF-8.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Path from the root to the records, `rss/channel/item`, or a list of several; left out: the children of the root.
    #[serde(default)]
    pub record: Option<RecordPath>,
    /// Prefixes as used in this feed's paths, each with its URI; other prefixes are taken literally.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// Elements that are always arrays, with one child too.
    #[serde(default)]
    pub arrays: Vec<String>,
    /// How a CSV file is written; left out: as its first rows look.
    #[serde(default)]
    pub csv: Option<CsvSpec>,
    /// Output fields in their order, each with where it comes from; left out: the record is converted whole.
    #[serde(default, serialize_with = "fields::as_written")]
    pub fields: Option<Fields>,
    /// `array`, `lines`, or `pretty`, an indented array.
    #[serde(default)]
    pub output_format: OutputFormat,
    /// `gzip` or `zstd`. The output's Content-Encoding says so; its key is what the template makes it.
    #[serde(default)]
    pub output_compress: Option<Compression>,
    /// A jq program for each record, after `fields`: what it gives is what is output.
    #[serde(default)]
    pub jq: Option<String>,
    /// A file with the program, relative to this one.
    #[serde(default)]
    pub jq_file: Option<FileSetting<String>>,
    /// A JSON Schema for each record as it is output: a file, relative to this one, or a table.
    #[serde(default)]
    pub schema: Option<SchemaSetting>,
    /// Where a record says of which kind it is, `.type`; each kind has its case.
    #[serde(default)]
    pub switch: Option<String>,
    #[serde(default)]
    pub cases: IndexMap<String, Case>,
    /// How many records may be left out because they are rejected, a number or a share (`"5%"`), before the file is refused.
    #[serde(default)]
    pub max_rejected: MaxRejected,
    /// What happens to the source when its JSON is in the output bucket.
    #[serde(default)]
    pub after: After,
    /// `after` may delete where the server has no conditional DELETE: an upload in the wrong moment is lost.
    #[serde(default, skip_serializing_if = "is_off")]
    pub unsafe_delete: bool,
}

impl Feed {
    /// How messages name it: its name, and its file where there are several.
    pub fn label(&self) -> String {
        match &self.file {
            Some(file) => format!("feed {:?} ({file})", self.name),
            None => format!("feed {:?}", self.name),
        }
    }

    /// The files it names.
    pub fn documents(&self) -> Vec<PathBuf> {
        documents::places(self)
    }

    /// Whether both say the same, the files they name included. Not `==`, which sees no difference in the order of `fields`.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let written = |feed: &Self| serde_json::to_string(&(feed, feed.spec())).ok();
        written(self) == written(other)
    }

    /// What the conversion engine needs to know of this feed: everything that decides the bytes of an output.
    pub fn spec(&self) -> Spec {
        Spec {
            format: self.format,
            encoding: self.encoding.clone(),
            record: self.record.clone(),
            namespaces: self.namespaces.clone(),
            arrays: self.arrays.clone(),
            fields: self.fields.clone(),
            output: self.output_format,
            csv: self.csv.clone().unwrap_or_default(),
            compress: self.output_compress,
            jq: program(&self.jq, &self.jq_file),
            schema: self.schema.as_ref().map(SchemaSetting::value),
            switch: self.switch.clone(),
            cases: self
                .cases
                .iter()
                .map(|(name, case)| (name.clone(), case.spec()))
                .collect(),
            max_rejected: self.max_rejected,
        }
    }
}

/// What becomes of the records of one kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Output fields; their paths are those of the record converted whole.
    #[serde(default, serialize_with = "fields::as_written")]
    pub fields: Option<Fields>,
    #[serde(default)]
    pub jq: Option<String>,
    #[serde(default)]
    pub jq_file: Option<FileSetting<String>>,
    #[serde(default)]
    pub schema: Option<SchemaSetting>,
}

impl Case {
    fn spec(&self) -> CaseSpec {
        CaseSpec {
            fields: self.fields.clone(),
            jq: program(&self.jq, &self.jq_file),
            schema: self.schema.as_ref().map(SchemaSetting::value),
        }
    }
}

/// Both at once are a finding of the check; the file's is what would count.
fn program(jq: &Option<String>, file: &Option<FileSetting<String>>) -> Option<String> {
    file.as_ref()
        .map(FileSetting::program)
        .or_else(|| jq.clone())
}

fn yes() -> bool {
    true
}

fn is_off(flag: &bool) -> bool {
    !flag
}
