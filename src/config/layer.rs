//! Settings as written, each remembering where, so that a later complaint can name the place.
//!
//! In: parsed TOML, environment variables. Out: one [`Node`] tree with later layers laid over earlier ones.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;

pub(super) const VARIABLE_PREFIX: &str = "FEEDMILL_";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file, or a profile in it.
    File(Arc<str>),
    /// An environment variable, by its name.
    Variable(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) | Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Not `Debug`: it may hold secrets.
#[derive(Clone)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    /// In the order of the file: the order of a feed's `fields` is the order of its output.
    Table(IndexMap<String, Node>),
    List(Vec<Node>),
    /// Neither table nor array. From a variable it is always text, read as the type of the setting it is for.
    Scalar(toml::Value),
}

impl Node {
    pub fn empty(origin: Origin) -> Self {
        Self::from_toml(toml::Value::Table(toml::Table::new()), origin)
    }

    pub fn from_toml(value: toml::Value, origin: Origin) -> Self {
        let child = |value| Self::from_toml(value, origin.clone());
        let value = match value {
            toml::Value::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, child(value)))
                    .collect(),
            ),
            toml::Value::Array(items) => Value::List(items.into_iter().map(child).collect()),
            scalar => Value::Scalar(scalar),
        };
        Self { origin, value }
    }

    /// `FEEDMILL_KAFKA__BROKERS=...` as the tables around one text: `{ kafka: { brokers: ... } }`.
    pub fn from_variable(name: &str, value: &str) -> Self {
        let origin = Origin::Variable(name.into());
        let path = name
            .strip_prefix(VARIABLE_PREFIX)
            .unwrap_or(name)
            .to_lowercase();
        let leaf = Self {
            origin: origin.clone(),
            value: Value::Scalar(toml::Value::String(value.to_owned())),
        };
        path.rsplit("__").fold(leaf, |inner, key| Self {
            origin: origin.clone(),
            value: Value::Table(IndexMap::from([(key.to_owned(), inner)])),
        })
    }

    /// Lays `upper` over this: tables merge key by key, anything else replaces.
    pub fn overlay(&mut self, upper: Self) {
        match (&mut self.value, upper) {
            (
                Value::Table(lower),
                Self {
                    value: Value::Table(upper),
                    ..
                },
            ) => {
                for (key, node) in upper {
                    match lower.entry(key) {
                        Entry::Occupied(mut entry) => entry.get_mut().overlay(node),
                        Entry::Vacant(entry) => drop(entry.insert(node)),
                    }
                }
            }
            (_, upper) => *self = upper,
        }
    }

    pub fn is_text_of_variable(&self) -> bool {
        matches!(self.origin, Origin::Variable(_))
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => scalar.as_str(),
            Value::Table(_) | Value::List(_) => None,
        }
    }
}

/// The variable that sets `kafka.brokers`.
pub(super) fn variable_name(setting: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        setting.replace('.', "__").to_uppercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str, origin: &str) -> Node {
        Node::from_toml(
            toml::Value::Table(text.parse().unwrap()),
            Origin::File(origin.into()),
        )
    }

    fn at<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Value::Table(table) = &node.value else {
            panic!("{key} is not in a table")
        };
        &table[key]
    }

    #[test]
    fn tables_merge_lists_replace_and_each_value_keeps_its_origin() {
        let mut settings = toml("a = { x = 1, y = [1, 2] }", "lower");
        settings.overlay(toml("a = { y = [3], z = 4 }", "upper"));
        let a = at(&settings, "a");
        assert_eq!(at(a, "x").origin.to_string(), "lower");
        assert_eq!(at(a, "z").origin.to_string(), "upper");
        let Value::List(items) = &at(a, "y").value else {
            panic!()
        };
        assert_eq!(items.len(), 1);
    }

    #[test]
    fn a_variable_names_its_setting_whatever_its_case() {
        let node = Node::from_variable("FEEDMILL_Kafka__Group", "g");
        assert_eq!(at(at(&node, "kafka"), "group").as_text(), Some("g"));
        assert_eq!(variable_name("kafka.group"), "FEEDMILL_KAFKA__GROUP");
    }
}
