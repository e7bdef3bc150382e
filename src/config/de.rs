//! Reads the settings tree into the types of [`Config`](super::Config).
//!
//! In: a [`Node`] tree. Out: a value, or a [`SettingError`] that says where the setting was written, its path, what was
//! expected and what stands there. An unknown key is an error in every table, and a variable's text is read as the type
//! that is asked for, so that `"0123"` stays a text where a text is wanted.

use std::marker::PhantomData;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::layer::{Node, Origin, Value, variable_name};
use super::setting_error::{Place, SettingError, hint};
use super::suggest::{nearest, nearest_setting};

pub(super) fn read<'de, T: Deserialize<'de>>(settings: &'de Node) -> Result<T, SettingError> {
    let root = Reader {
        node: settings,
        place: Place::default(),
    };
    root.read(PhantomData)
}

struct Reader<'de> {
    node: &'de Node,
    place: Place,
}

impl<'de> Reader<'de> {
    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, SettingError> {
        let (node, place) = (self.node, self.place.clone());
        seed.deserialize(self)
            .map_err(|error| error.at(node, &place))
    }

    fn variable_text(&self) -> Option<&'de str> {
        self.node
            .as_text()
            .filter(|_| self.node.is_text_of_variable())
    }

    fn integer<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match self.variable_text() {
            // As TOML's own integers, so that what the environment can set a file can set too.
            Some(text) => match text.trim().parse::<i64>() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => Err(SettingError::invalid_type(Unexpected::Str(text), &visitor)),
            },
            None => self.deserialize_any(visitor),
        }
    }

    fn refuse_unknown_keys(&self, known: &'static [&'static str]) -> Result<(), SettingError> {
        let Value::Table(table) = &self.node.value else {
            return Ok(());
        };
        match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, node)) => Err(self.unknown_key(key, node, known)),
            None => Ok(()),
        }
    }

    fn unknown_key(&self, key: &str, node: &Node, known: &'static [&'static str]) -> SettingError {
        let path = self.place.path_of(key);
        let profiles = self.place.is_root().then_some("profile");
        let meant = nearest(key, known.iter().copied().chain(profiles))
            .map(|name| self.place.path_of(name))
            .or_else(|| nearest_setting(&path).filter(|_| !self.place.is_in_item()));
        let message = match &node.origin {
            Origin::File(_) => format!("unknown key {path:?}, {}", hint(meant, known)),
            Origin::Variable(_) => match meant {
                Some(meant) => format!("no such setting, did you mean {}?", variable_name(&meant)),
                None => format!("no such setting, known here: {}", known.join(", ")),
            },
        };
        SettingError::custom(message).at(node, &self.place.without_key())
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = SettingError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match &self.node.value {
            Value::Table(table) => visitor.visit_map(Entries {
                table: table.iter(),
                value: None,
                place: self.place,
            }),
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                place: self.place,
            }),
            Value::Scalar(toml::Value::String(text)) => visitor.visit_borrowed_str(text),
            Value::Scalar(toml::Value::Integer(number)) => visitor.visit_i64(*number),
            Value::Scalar(toml::Value::Float(number)) => visitor.visit_f64(*number),
            Value::Scalar(toml::Value::Boolean(value)) => visitor.visit_bool(*value),
            Value::Scalar(other) => Err(SettingError::invalid_type(
                Unexpected::Other(other.type_str()),
                &visitor,
            )),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match self.variable_text() {
            Some(text) => match text.trim().to_lowercase().parse() {
                Ok(value) => visitor.visit_bool(value),
                Err(_) => Err(SettingError::invalid_type(Unexpected::Str(text), &visitor)),
            },
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.integer(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.integer(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.integer(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        self.integer(visitor)
    }

    /// One text stands for a list too, with commas between the items: the form of the environment, and of Kafka's tools.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        let Some(text) = self.node.as_text() else {
            return self.deserialize_any(visitor);
        };
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        visitor.visit_seq(SeqDeserializer::new(items.map(StrDeserializer::new)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        self.refuse_unknown_keys(fields)?;
        self.deserialize_map(visitor)
    }

    /// The usual complaint would quote the value, which may be a secret in the wrong place.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match &self.node.value {
            Value::Table(_) => self.deserialize_any(visitor),
            Value::List(_) => Err(SettingError::custom("expected a table, found a list")),
            Value::Scalar(_) => Err(SettingError::custom(
                "expected a table, found a single value",
            )),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        let Some(text) = self.node.as_text() else {
            return Err(SettingError::custom(format_args!(
                "expected one of {}",
                variants.join(", ")
            )));
        };
        let named = variants.iter().find(|name| name.eq_ignore_ascii_case(text));
        visitor.visit_enum(named.copied().unwrap_or(text).into_deserializer())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Entries<'de> {
    table: indexmap::map::Iter<'de, String, Node>,
    /// The entry whose key was taken last.
    value: Option<(&'de String, &'de Node)>,
    place: Place,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = SettingError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, SettingError> {
        self.value = self.table.next();
        match self.value {
            Some((key, _)) => seed.deserialize(key.as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, SettingError> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| SettingError::custom("a value was asked for before its key"))?;
        let place = self.place.key(key);
        Reader { node, place }.read(seed)
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    place: Place,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = SettingError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, SettingError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let place = self.place.item(index, node);
        Reader { node, place }.read(seed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::read;
    use crate::config::{Layout, SaslMechanism, SecurityProtocol};

    fn error(text: &str) -> String {
        read(text, &[]).unwrap_err()
    }

    fn variable_error(name: &str, value: &str) -> String {
        read("", &[(name, value)]).unwrap_err()
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        assert_eq!(
            error("kafka.broker = ['a:1']"),
            r#"feedmill.toml: unknown key "kafka.broker", did you mean "kafka.brokers"?"#
        );
        assert_eq!(
            error("[profiles.prod]"),
            r#"feedmill.toml: unknown key "profiles", did you mean "profile"?"#
        );
        assert_eq!(
            error("brokers = ['a:1']"),
            r#"feedmill.toml: unknown key "brokers", did you mean "kafka.brokers"?"#
        );
        assert_eq!(
            error("[admin]\ncolour = 1"),
            r#"feedmill.toml: unknown key "admin.colour", known here: listen"#
        );
        assert_eq!(
            error("[kafka.commit]\nintervall_ms = 1"),
            r#"feedmill.toml: unknown key "kafka.commit.intervall_ms", did you mean "kafka.commit.interval_ms"?"#
        );
    }

    #[test]
    fn a_mistake_in_a_feed_names_the_feed() {
        let feeds = |third: &str| {
            format!(
                "feeds = [{{ name = 'a', match = 'm' }}, {{ name = 'b', match = 'm' }}, {{ {third} }}]"
            )
        };
        assert_eq!(
            error(&feeds("name = 'nsx', match = 'm', recrod = 'x'")),
            r#"feedmill.toml: feeds[2] ("nsx"): unknown key "recrod", did you mean "record"?"#
        );
        assert_eq!(
            error(&feeds("match = 'm'")),
            r#"feedmill.toml: feeds[2]: "name" is missing"#
        );
        assert_eq!(
            error(&feeds("name = 'nsx', match = 'm', format = 'xlm'")),
            r#"feedmill.toml: feeds[2] ("nsx"): format: unknown value "xlm", did you mean "xml"?"#
        );
        assert_eq!(
            error(&feeds("name = 'nsx', match = 'm', after = 'move'")),
            r#"feedmill.toml: feeds[2] ("nsx"): after: "move" must say where to: after = { move = "s3://bucket/prefix/" }"#
        );
        assert_eq!(
            error(&feeds(
                "name = 'nsx', match = 'm', fields = { a = { pth = 'x' } }"
            )),
            r#"feedmill.toml: feeds[2] ("nsx"): fields.a: unknown key "pth", did you mean "path"?"#
        );
        assert_eq!(
            error(&feeds(
                "name = 'nsx', match = 'm', fields = { a = { each = 'x', fields = { b = 7 } } }"
            )),
            r#"feedmill.toml: feeds[2] ("nsx"): fields.a.fields.b: expected a path, or a table with `path`, `each`, `fields` or `const`, found 7"#
        );
    }

    #[test]
    fn a_wrong_type_says_what_was_expected_and_what_was_found() {
        assert_eq!(
            error("kafka.partitions = 'twelve'"),
            r#"feedmill.toml: kafka.partitions: expected a whole number up to 2147483647, found "twelve""#
        );
        assert_eq!(
            error("s3.path_style = 1"),
            "feedmill.toml: s3.path_style: expected true or false, found 1"
        );
        assert_eq!(
            error("output.part_bytes = -1"),
            "feedmill.toml: output.part_bytes: expected a whole number that is not negative, found -1"
        );
        assert_eq!(
            error("log.level = 3"),
            "feedmill.toml: log.level: expected a text, found 3"
        );
        assert_eq!(
            error("kafka.brokers = [1]"),
            "feedmill.toml: kafka.brokers[0]: expected a text, found 1"
        );
        assert_eq!(
            error("s3 = 's3'"),
            "feedmill.toml: s3: expected a table, found a single value"
        );
        assert_eq!(
            error("feeds = {}"),
            "feedmill.toml: feeds: expected a list, found a table"
        );
        assert_eq!(
            error("state.dir = 2026-01-01"),
            "feedmill.toml: state.dir: expected a text, found datetime"
        );
        assert_eq!(
            error("intake.listen = 'localhost:8080'"),
            r#"feedmill.toml: intake.listen: expected an IP address and a port such as 127.0.0.1:8080, found "localhost:8080""#
        );
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_not_quoted() {
        for text in [
            "intake.token = 12345",
            "kafka.security.password = [12345]",
            "kafka.properties = '12345'",
        ] {
            let error = error(text);
            assert!(!error.contains("12345"), "{error}");
        }
        assert_eq!(
            error("intake.token = 12345"),
            "feedmill.toml: intake.token: expected a text in quotes (the value is a secret and not shown)"
        );
    }

    #[test]
    fn a_variable_is_read_as_the_type_of_its_setting() {
        let config = read(
            "",
            &[
                ("FEEDMILL_KAFKA__BROKERS", "a:1, b:2,"),
                ("FEEDMILL_KAFKA__GROUP", "0123"),
                ("FEEDMILL_KAFKA__REPLICATION", "3"),
                ("FEEDMILL_KAFKA__PROPERTIES__SOCKET.NAGLE.DISABLE", "true"),
                ("FEEDMILL_KAFKA__SECURITY__SASL_MECHANISM", "scram-sha-256"),
                ("FEEDMILL_KAFKA__SECURITY__PROTOCOL", "SASL_SSL"),
                ("FEEDMILL_S3__PATH_STYLE", "True"),
                ("FEEDMILL_output__Layout", "versioned"),
            ],
        )
        .unwrap();
        assert_eq!(config.kafka.brokers, ["a:1", "b:2"]);
        assert_eq!(config.kafka.group, "0123");
        assert_eq!(config.kafka.replication, Some(3));
        assert_eq!(config.kafka.properties["socket.nagle.disable"], "true");
        assert_eq!(
            config.kafka.security.sasl_mechanism,
            Some(SaslMechanism::ScramSha256)
        );
        assert_eq!(
            config.kafka.security.protocol,
            Some(SecurityProtocol::SaslSsl)
        );
        assert!(config.s3.path_style);
        assert_eq!(config.output.layout, Layout::Versioned);
    }

    #[test]
    fn a_mistake_in_a_variable_names_the_variable() {
        assert_eq!(
            variable_error("FEEDMILL_KAFKA__BROKER", "a:1"),
            "FEEDMILL_KAFKA__BROKER: no such setting, did you mean FEEDMILL_KAFKA__BROKERS?"
        );
        assert_eq!(
            variable_error("FEEDMILL_S3_ENDPOINT", "http://x"),
            "FEEDMILL_S3_ENDPOINT: no such setting, did you mean FEEDMILL_S3__ENDPOINT?"
        );
        assert_eq!(
            variable_error("FEEDMILL_KAFKA__PARTITIONS", "many"),
            r#"FEEDMILL_KAFKA__PARTITIONS: expected a whole number up to 2147483647, found "many""#
        );
        assert_eq!(
            variable_error("FEEDMILL_S3__PATH_STYLE", "yes"),
            r#"FEEDMILL_S3__PATH_STYLE: expected true or false, found "yes""#
        );
        assert_eq!(
            variable_error("FEEDMILL_FEEDS__0__NAME", "nsx"),
            "FEEDMILL_FEEDS__0__NAME: expected a list, found a table"
        );
    }

    #[test]
    fn librdkafka_properties_may_be_written_as_numbers_and_booleans() {
        let config = read(
            "[kafka.properties]\n'fetch.min.bytes' = 1\n'log.connection.close' = false",
            &[],
        )
        .unwrap();
        assert_eq!(config.kafka.properties["fetch.min.bytes"], "1");
        assert_eq!(config.kafka.properties["log.connection.close"], "false");
        assert_eq!(
            error("[kafka.properties]\nfetch.min.bytes = 1"),
            r#"feedmill.toml: kafka.properties: "fetch": expected a text, a number or a boolean, found a table; names with dots go in quotes"#
        );
    }
}
