//! A feed's `fields` written the way people write them, for `config show`: the short form where it says the same.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use crate::feed::spec::{FieldSpec, Fields, Scalar, Take, ValueSpec, ValueType};

pub(super) fn as_written<S: Serializer>(
    fields: &Option<Fields>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    fields.as_ref().map(written).serialize(serializer)
}

fn written(fields: &Fields) -> IndexMap<&str, Written<'_>> {
    fields
        .iter()
        .map(|(name, field)| (name.as_str(), Written::from(field)))
        .collect()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Path(&'a str),
    Table(Box<Table<'a>>),
}

#[derive(Default, Serialize)]
struct Table<'a> {
    path: Option<&'a str>,
    #[serde(rename = "const")]
    constant: Option<&'a Scalar>,
    each: Option<&'a str>,
    key: Option<&'a str>,
    value: Option<&'a str>,
    fields: Option<IndexMap<&'a str, Written<'a>>>,
    #[serde(rename = "type")]
    kind: Option<ValueType>,
    from: Option<&'a [String]>,
    to: Option<&'a str>,
    join: Option<&'a str>,
    take: Option<Take>,
    default: Option<&'a Scalar>,
    required: Option<bool>,
    trim: Option<bool>,
    fill_gaps: Option<bool>,
}

impl<'a> From<&'a FieldSpec> for Written<'a> {
    fn from(field: &'a FieldSpec) -> Self {
        let table = match field {
            FieldSpec::Value(value) if *value == ValueSpec::at(&value.path) => {
                return Self::Path(&value.path);
            }
            FieldSpec::Value(value) => Table {
                path: Some(&value.path),
                ..modifiers(value)
            },
            FieldSpec::Constant(value) => Table {
                constant: Some(value),
                ..Table::default()
            },
            FieldSpec::Joined { each, value, join } => Table {
                each: Some(each),
                value: Some(value.path.as_str()).filter(|path| *path != "."),
                join: Some(join),
                ..modifiers(value)
            },
            FieldSpec::List { each, value } => Table {
                each: Some(each),
                value: Some(value.path.as_str()).filter(|path| *path != "."),
                ..modifiers(value)
            },
            FieldSpec::Objects { each, fields } => Table {
                each: Some(each),
                fields: Some(written(fields)),
                ..Table::default()
            },
            FieldSpec::Keyed {
                each,
                key,
                value,
                fill_gaps,
            } => Table {
                each: Some(each),
                key: Some(key),
                value: Some(&value.path),
                fill_gaps: said(*fill_gaps),
                ..modifiers(value)
            },
            FieldSpec::Object { fields } => Table {
                fields: Some(written(fields)),
                ..Table::default()
            },
        };
        Self::Table(Box::new(table))
    }
}

fn modifiers(value: &ValueSpec) -> Table<'_> {
    Table {
        kind: value.kind,
        from: Some(value.from.as_slice()).filter(|from| !from.is_empty()),
        to: value.to.as_deref(),
        take: Some(value.take).filter(|take| !take.is_first()),
        default: value.default.as_ref(),
        required: said(value.required),
        trim: said(value.trim),
        ..Table::default()
    }
}

fn said(flag: bool) -> Option<bool> {
    flag.then_some(true)
}
