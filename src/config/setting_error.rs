//! What a person reads who wrote a setting that cannot be read: where it stands, its path, what was expected, what is there.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::layer::{Node, Origin, Value};
use super::suggest::nearest;

/// A setting that cannot be read.
#[derive(Debug, Clone)]
pub struct SettingError {
    /// Where it was written, and its path; unknown to the types that complain, filled in on the way out.
    location: Option<(Origin, Place)>,
    message: String,
}

impl SettingError {
    /// Innermost wins: it knows best.
    pub(super) fn at(mut self, node: &Node, place: &Place) -> Self {
        self.location
            .get_or_insert_with(|| (node.origin.clone(), place.clone()));
        self
    }
}

impl std::error::Error for SettingError {}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            // A variable's name is the setting's path already.
            Some((Origin::Variable(name), _)) => write!(f, "{name}: ")?,
            Some((Origin::File(name), place)) => write!(f, "{name}: {place}")?,
            None => {}
        }
        f.write_str(&self.message)
    }
}

impl serde::de::Error for SettingError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            location: None,
            message: message.to_string(),
        }
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::custom(format_args!(
            "expected {}, found {}",
            wanted(expected),
            seen(found)
        ))
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("{field:?} is missing"))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let hint = hint(
            nearest(field, known.iter().copied()).map(str::to_owned),
            known,
        );
        Self::custom(format_args!("unknown key {field:?}, {hint}"))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let hint = hint(
            nearest(variant, known.iter().copied()).map(str::to_owned),
            known,
        );
        Self::custom(format_args!("unknown value {variant:?}, {hint}"))
    }
}

pub(super) fn hint(meant: Option<String>, known: &[&str]) -> String {
    match meant {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// serde's words for what a type takes, in those of a configuration.
fn wanted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a string" | "path string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "u64" | "usize" => "a whole number that is not negative".to_owned(),
        "u32" => format!("a whole number up to {}", u32::MAX),
        "i32" => format!("a whole number up to {}", i32::MAX),
        "u16" => format!("a whole number up to {}", u16::MAX),
        "i16" => format!("a whole number up to {}", i16::MAX),
        _ => expected,
    }
}

fn seen(found: Unexpected) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(value) => format!("{value:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// The path of a setting. Inside a list's named item it starts anew: `feeds[2] ("nsx"): record`.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    item: Option<String>,
    key: String,
}

impl Place {
    pub fn is_root(&self) -> bool {
        self.item.is_none() && self.key.is_empty()
    }

    pub fn is_in_item(&self) -> bool {
        self.item.is_some()
    }

    pub fn path_of(&self, key: &str) -> String {
        match self.key.as_str() {
            "" => key.to_owned(),
            parent => format!("{parent}.{key}"),
        }
    }

    pub fn key(&self, key: &str) -> Self {
        Self {
            item: self.item.clone(),
            key: self.path_of(key),
        }
    }

    /// For a message that spells the key itself.
    pub fn without_key(&self) -> Self {
        Self {
            item: self.item.clone(),
            key: String::new(),
        }
    }

    pub fn item(&self, index: usize, node: &Node) -> Self {
        let key = format!("{}[{index}]", self.key);
        let Value::Table(table) = &node.value else {
            return Self {
                item: self.item.clone(),
                key,
            };
        };
        let name = table.get("name").and_then(Node::as_text);
        Self {
            item: Some(name.map_or_else(|| key.clone(), |name| format!("{key} ({name:?})"))),
            key: String::new(),
        }
    }
}

/// As the beginning of a message.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(item) = &self.item {
            write!(f, "{item}: ")?;
        }
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, "{key}: "),
        }
    }
}
