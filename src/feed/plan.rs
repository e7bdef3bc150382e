//! A feed's configuration, compiled: everything that can be wrong with it is found here, before the first file.

use std::sync::Arc;

use encoding_rs::Encoding;
use sha2::{Digest, Sha256};

use super::Source;
use super::batch::Batches;
use super::csv::{DialectError, GivenDialect};
use super::encoding;
use super::fields::{self, FieldError, is_path_name};
use super::jq::{Program, ProgramError};
use super::limits::{Limits, MAX_DEPTH, MAX_NESTING, MAX_RECORD_BYTES};
use super::names::{NameTest, Namespaces};
use super::record_path::RecordPath;
use super::reject::ConvertError;
use super::rejects::MaxRejected;
use super::spec::{self, CaseSpec, Compression, CsvSpec, Format, OutputFormat, Spec};
use super::steps::{Case, Steps};
use super::switch::Switch;
use super::validate::Schema;

/// Part of every mapping hash. To be raised by a change that gives other bytes for the same input and configuration.
pub const ENGINE_VERSION: u32 = 3;

/// A [`Spec`] compiled once, for any number of conversions, on any number of threads.
#[derive(Debug)]
pub struct Plan {
    pub(super) format: Format,
    /// Of files that don't say.
    pub(super) encoding: Option<&'static Encoding>,
    pub(super) output: OutputFormat,
    pub(super) compression: Option<Compression>,
    pub(super) max_rejected: MaxRejected,
    pub(super) limits: Limits,
    pub(super) namespaces: Namespaces,
    pub(super) record: RecordPath,
    pub(super) csv: GivenDialect,
    pub(super) mapping: Mapping,
    steps: Arc<Steps>,
    hash: String,
}

#[derive(Debug)]
pub(super) enum Mapping {
    /// The paths declared to be arrays.
    Whole(Vec<Vec<NameTest>>),
    Fields(fields::Mapping),
}

/// What makes a [`Spec`] impossible to follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the record path {0:?} is not names joined by `/`")]
    RecordPath(String),
    #[error("`record` is a list of {0} paths, and 1 to {max} can be followed", max = RecordPath::MAX)]
    RecordPathCount(usize),
    #[error(
        "the record path {outer:?} ends in or before {inner:?}: a record can't hold another one"
    )]
    RecordInRecord { outer: String, inner: String },
    #[error("`{0}` is for XML and JSON; the rows of a CSV file are its records")]
    NotForCsv(&'static str),
    #[error("`csv` is for the formats csv, tsv and auto")]
    CsvForOther,
    #[error("the `csv` table can't be followed")]
    Csv(#[from] DialectError),
    #[error("the path {0:?} in `arrays` is not names joined by `/`")]
    ArrayPath(String),
    #[error("`arrays` is for records converted whole; with `fields`, an `each` makes an array")]
    ArraysWithFields,
    #[error("the namespace prefix {0:?} is not a name, or its namespace is empty")]
    Namespace(String),
    #[error("the field `{field}` can't be compiled")]
    Field { field: String, source: FieldError },
    #[error(
        "the encoding {0:?} is not one of the Encoding Standard's labels: utf-8, windows-1252 ..."
    )]
    Encoding(String),
    #[error("the jq program can't be compiled")]
    Program(#[source] ProgramError),
    #[error("the schema can't be used: {0}")]
    Schema(String),
    #[error("the case {name:?} can't be compiled")]
    Case { name: String, source: Box<Self> },
    #[error("`switch` is {0:?}, which is not a path such as \".type\"")]
    Switch(String),
    #[error("`switch` needs `cases`, and `cases` need `switch`")]
    SwitchWithoutCases,
    #[error("with `switch`, `{0}` stands in the cases")]
    BesideSwitch(&'static str),
    #[error("the limit on depth is {0}, more than {MAX_DEPTH}")]
    Depth(usize),
    #[error("the limit on the bytes of a record is {0}, more than {MAX_RECORD_BYTES}")]
    RecordBytes(usize),
    #[error("the limit on nesting is {0}, more than {MAX_NESTING}")]
    Nesting(usize),
}

impl Plan {
    pub fn compile(spec: &Spec, limits: Limits) -> Result<Self, PlanError> {
        check_limits(&limits)?;
        if let Some((prefix, _)) = spec
            .namespaces
            .iter()
            .find(|(prefix, uri)| !is_prefix(prefix) || uri.is_empty())
        {
            return Err(PlanError::Namespace(prefix.clone()));
        }
        check_csv(spec)?;
        let namespaces = Namespaces::new(&spec.namespaces);
        Ok(Self {
            format: spec.format,
            encoding: spec.encoding.as_deref().map(known_encoding).transpose()?,
            output: spec.output,
            compression: spec.compress,
            max_rejected: spec.max_rejected,
            limits,
            record: RecordPath::compile(spec.record.as_ref(), &namespaces)?,
            csv: GivenDialect::compile(spec.format, &spec.csv)?,
            mapping: Mapping::compile(spec, &namespaces)?,
            steps: Arc::new(Steps::compile(spec, &namespaces)?),
            namespaces,
            hash: mapping_hash(spec),
        })
    }

    /// Sixteen hex digits over all that decides what bytes an input becomes: the configuration's meaning, the order of `fields`
    /// included, and the engine's version. Limits and `max_rejected` decide whether there is an output, not what it is, and are left out.
    pub fn mapping_hash(&self) -> &str {
        &self.hash
    }

    /// Whether a conversion runs jq programs, which take their time.
    pub fn runs_jq(&self) -> bool {
        self.steps.run_jq()
    }

    /// What is done to the records of one file before they are output, if anything.
    pub(super) fn batches<'p>(
        &'p self,
        source: &'p Source,
    ) -> Result<Option<Batches<'p>>, ConvertError> {
        match self.steps.are_none() {
            true => Ok(None),
            false => Batches::new(&self.steps, &self.limits, source).map(Some),
        }
    }

    /// Whether a file may be converted without some of its records.
    pub fn tolerates_rejections(&self) -> bool {
        self.max_rejected != MaxRejected::default()
    }
}

impl Mapping {
    fn compile(spec: &Spec, namespaces: &Namespaces) -> Result<Self, PlanError> {
        match &spec.fields {
            Some(_) if !spec.arrays.is_empty() => Err(PlanError::ArraysWithFields),
            Some(fields) => fields::Mapping::compile(fields, namespaces)
                .map(Self::Fields)
                .map_err(|(field, source)| PlanError::Field { field, source }),
            None => spec
                .arrays
                .iter()
                .map(|path| array_path(path, namespaces))
                .collect::<Result<_, _>>()
                .map(Self::Whole),
        }
    }
}

impl Steps {
    fn compile(spec: &Spec, namespaces: &Namespaces) -> Result<Self, PlanError> {
        let Some(path) = &spec.switch else {
            if !spec.cases.is_empty() {
                return Err(PlanError::SwitchWithoutCases);
            }
            return Ok(Self {
                switch: None,
                // The fields are found while the record is parsed.
                cases: vec![Case {
                    fields: None,
                    jq: program(spec.jq.as_deref())?,
                    schema: schema(spec.schema.as_ref())?,
                }],
            });
        };
        if spec.cases.is_empty() {
            return Err(PlanError::SwitchWithoutCases);
        }
        let beside = [
            (spec.fields.is_some(), "fields"),
            (spec.jq.is_some(), "jq"),
            (spec.schema.is_some(), "schema"),
        ];
        if let Some((_, key)) = beside.into_iter().find(|(is_set, _)| *is_set) {
            return Err(PlanError::BesideSwitch(key));
        }
        let compile = |(name, case): (&String, &CaseSpec)| {
            Case::compile(case, namespaces).map_err(|source| PlanError::Case {
                name: name.clone(),
                source: source.into(),
            })
        };
        Ok(Self {
            switch: Some(
                Switch::compile(path, spec.cases.keys())
                    .ok_or_else(|| PlanError::Switch(path.clone()))?,
            ),
            cases: spec.cases.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }
}

impl Case {
    fn compile(case: &CaseSpec, namespaces: &Namespaces) -> Result<Self, PlanError> {
        let compile = |fields| {
            fields::Mapping::compile(fields, namespaces)
                .map_err(|(field, source)| PlanError::Field { field, source })
        };
        Ok(Self {
            fields: case.fields.as_ref().map(compile).transpose()?,
            jq: program(case.jq.as_deref())?,
            schema: schema(case.schema.as_ref())?,
        })
    }
}

fn program(text: Option<&str>) -> Result<Option<Program>, PlanError> {
    text.map(Program::compile)
        .transpose()
        .map_err(PlanError::Program)
}

fn schema(schema: Option<&serde_json::Value>) -> Result<Option<Schema>, PlanError> {
    schema
        .map(Schema::compile)
        .transpose()
        .map_err(PlanError::Schema)
}

fn array_path(path: &str, namespaces: &Namespaces) -> Result<Vec<NameTest>, PlanError> {
    let names = names(path).ok_or_else(|| PlanError::ArrayPath(path.to_owned()))?;
    Ok(names
        .into_iter()
        .map(|name| namespaces.test(name))
        .collect())
}

fn names(path: &str) -> Option<Vec<&str>> {
    let names: Vec<_> = path.split('/').collect();
    names.iter().all(|name| is_path_name(name)).then_some(names)
}

fn known_encoding(label: &str) -> Result<&'static Encoding, PlanError> {
    encoding::from_label(label).ok_or_else(|| PlanError::Encoding(label.to_owned()))
}

/// Settings that the format has no use for are more likely a mistake than a wish.
fn check_csv(spec: &Spec) -> Result<(), PlanError> {
    match spec.format {
        Format::Csv | Format::Tsv if spec.record.is_some() => Err(PlanError::NotForCsv("record")),
        Format::Csv | Format::Tsv if !spec.arrays.is_empty() => Err(PlanError::NotForCsv("arrays")),
        Format::Xml | Format::Json | Format::JsonLines if spec.csv != CsvSpec::default() => {
            Err(PlanError::CsvForOther)
        }
        _ => Ok(()),
    }
}

fn is_prefix(prefix: &str) -> bool {
    is_path_name(prefix) && !prefix.contains([':', '/'])
}

fn check_limits(limits: &Limits) -> Result<(), PlanError> {
    if limits.depth > MAX_DEPTH {
        return Err(PlanError::Depth(limits.depth));
    }
    if limits.record_bytes > MAX_RECORD_BYTES {
        return Err(PlanError::RecordBytes(limits.record_bytes));
    }
    if limits.nesting > MAX_NESTING {
        return Err(PlanError::Nesting(limits.nesting));
    }
    Ok(())
}

fn mapping_hash(spec: &Spec) -> String {
    let mut canonical = spec.clone();
    canonical.arrays.sort_unstable();
    canonical.arrays.dedup();
    canonical.record = canonical.record.map(spec::RecordPath::canonical);
    canonical.max_rejected = MaxRejected::default();
    let canonical = serde_json::to_vec(&(ENGINE_VERSION, canonical))
        .expect("a spec is text, numbers and tables with text for keys");
    Sha256::digest(canonical)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(toml: &str) -> String {
        let spec: Spec = toml::from_str(toml).unwrap();
        Plan::compile(&spec, Limits::default())
            .unwrap()
            .mapping_hash()
            .to_owned()
    }

    fn error(toml: &str) -> PlanError {
        let spec: Spec = toml::from_str(toml).unwrap();
        Plan::compile(&spec, Limits::default()).unwrap_err()
    }

    #[test]
    fn the_hash_ignores_comments_and_the_order_of_tables_without_one() {
        let one = "record = 'a/b'\narrays = ['x', 'y']\nnamespaces = { g = 'u', h = 'v' }";
        let other = "# a comment\nnamespaces = { h = 'v', g = 'u' }\narrays = ['y', 'x', 'y']\nrecord = 'a/b'";
        assert_eq!(hash(one), hash(other));
        assert_eq!(
            hash("[fields]\na = 'x'"),
            hash("[fields]\na = { path = 'x', required = false }")
        );
        assert_eq!(hash(one).len(), 16);
    }

    #[test]
    fn the_hash_changes_with_whatever_decides_bytes() {
        let hashes = [
            "",
            "output = 'lines'",
            "encoding = 'windows-1251'",
            "record = 'a/b'",
            "record = 'a/c'",
            "arrays = ['x']",
            "namespaces = { g = 'u' }",
            "[fields]\na = 'x'\nb = 'y'",
            "[fields]\nb = 'y'\na = 'x'",
            "[fields]\na = { path = 'x', trim = true }\nb = 'y'",
            "[fields]\na = { path = 'x', type = 'decimal' }\nb = 'y'",
            "[fields]\na = { each = 'x' }\nb = 'y'",
            "[fields]\na = { each = 'x', value = '@y' }\nb = 'y'",
        ]
        .map(hash);
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn what_cannot_be_followed_is_said_before_the_first_file() {
        for path in ["", "/a", "a/", "a//b", "a/@b", "a*"] {
            assert_eq!(
                error(&format!("record = '{path}'")),
                PlanError::RecordPath(path.into())
            );
            assert_eq!(
                error(&format!("arrays = ['{path}']")),
                PlanError::ArrayPath(path.into())
            );
        }
        assert_eq!(
            error("arrays = ['a']\nfields = { b = 'c' }"),
            PlanError::ArraysWithFields
        );
        assert_eq!(
            error("namespaces = { g = '' }"),
            PlanError::Namespace("g".into())
        );
        assert!(
            matches!(error("fields = { b = '/' }"), PlanError::Field { field, .. } if field == "b")
        );
        assert_eq!(
            error("encoding = 'utf-7'"),
            PlanError::Encoding("utf-7".into())
        );
        let deep = Limits {
            depth: 1_001,
            ..Limits::default()
        };
        assert_eq!(
            Plan::compile(&Spec::default(), deep).unwrap_err(),
            PlanError::Depth(1_001)
        );
    }
}
