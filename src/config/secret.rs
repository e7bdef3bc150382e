//! Values that must not reach a log, an error or `config show`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const HIDDEN: &str = "***";

/// A text that prints as `***` whatever prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// The usual complaint about a wrong type quotes the value, this one does not.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self).map_err(|_| {
            D::Error::custom("expected a text in quotes (the value is a secret and not shown)")
        })
    }
}

/// librdkafka properties by name. Numbers and booleans may be written as such; values of properties that hold a secret
/// print as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// By the words librdkafka uses for them: `sasl.password`, `ssl.key.pem`, `sasl.oauthbearer.client.secret`, ...
    fn is_secret(name: &str) -> bool {
        ["password", "secret", "key.pem", "oauthbearer.config"]
            .iter()
            .any(|word| name.contains(word))
    }

    fn printable(&self) -> BTreeMap<&str, &str> {
        self.0
            .iter()
            .map(|(name, value)| match Self::is_secret(name) {
                true => (name.as_str(), HIDDEN),
                false => (name.as_str(), value.as_str()),
            })
            .collect()
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.printable().fmt(f)
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.printable().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, toml::Value>::deserialize(deserializer)?
            .into_iter()
            .map(|(name, value)| match value {
                toml::Value::String(text) => Ok((name, text)),
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
                _ => Err(D::Error::custom(format_args!(
                    "{name:?}: expected a text, a number or a boolean, found a {}; names with dots go in quotes",
                    value.type_str()
                ))),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}
