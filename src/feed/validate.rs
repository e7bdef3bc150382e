//! JSON Schema for the records of a feed.
//!
//! Nothing is fetched, neither at the start nor later: a `$ref` to what does not stand in the schema itself is an error of the
//! configuration. Patterns take time linear in the text, so no text makes one slow; in exchange they have no look-around.

use std::fmt;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::reject::{Reason, Rejection, excerpt};

/// A compiled schema.
pub struct Schema(Validator);

/// Longest text kept of what a violation is, in characters; some name all properties that are too many.
const MAX_MESSAGE_CHARS: usize = 200;

impl Schema {
    pub fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(schema)
            .map(Self)
            .map_err(|error| {
                let path = error.instance_path().to_string();
                match path.is_empty() {
                    true => error.masked().to_string(),
                    false => format!("{}, at {path}", error.masked()),
                }
            })
    }

    /// The first violation is the rejection. Its path is within the record.
    pub fn check(&self, record: &Value) -> Result<(), Box<Rejection>> {
        let Err(error) = self.0.validate(record) else {
            return Ok(());
        };
        let message: String = error
            .masked()
            .to_string()
            .chars()
            .take(MAX_MESSAGE_CHARS)
            .collect();
        let mut rejection = Rejection::because(Reason::SchemaViolation, message);
        let path = error.instance_path().to_string();
        let path = path.trim_start_matches('/');
        rejection.path = (!path.is_empty()).then(|| path.to_owned());
        rejection.excerpt = excerpt(beginning_of(error.instance()).as_bytes());
        Err(rejection)
    }
}

/// Enough of a value for an excerpt, without writing all of a large one.
fn beginning_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(members) => {
            let keys: Vec<_> = members.keys().take(20).map(String::as_str).collect();
            format!("an object with {}", keys.join(", "))
        }
        Value::String(text) => text.clone(),
        scalar => scalar.to_string(),
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_violation_is_named_with_its_path_and_without_the_value() {
        let schema = Schema::compile(&json!({
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "pattern": "^[a-z]+$"},
                "sizes": {"items": {"type": "object", "properties": {"n": {"type": "integer"}}}}
            }
        }))
        .unwrap();
        assert!(
            schema
                .check(&json!({"id": "a", "sizes": [{"n": 1}]}))
                .is_ok()
        );
        let violation = |record: Value| *schema.check(&record).unwrap_err();
        let wrong = violation(json!({"id": "a", "sizes": [{"n": 1}, {"n": "two"}]}));
        assert_eq!(wrong.reason, Reason::SchemaViolation);
        assert_eq!(wrong.path.as_deref(), Some("sizes/1/n"));
        assert_eq!(wrong.excerpt.as_deref(), Some("two"));
        assert_eq!(wrong.message, r#"value is not of type "integer""#);
        let missing = violation(json!({"x": 1}));
        assert_eq!(missing.message, r#""id" is a required property"#);
        assert_eq!(
            (missing.path, missing.excerpt.as_deref()),
            (None, Some("an object with x"))
        );
    }

    #[test]
    fn what_would_have_to_be_fetched_is_refused_when_the_schema_is_compiled() {
        for reference in ["https://example.com/a.json", "file:///etc/a.json", "a.json"] {
            let error = Schema::compile(&json!({"$ref": reference})).unwrap_err();
            assert!(error.contains("a.json"), "{reference}: {error}");
        }
        let within = json!({"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"});
        assert!(
            Schema::compile(&within)
                .unwrap()
                .check(&json!("x"))
                .is_err()
        );
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        for wrong in [
            json!("nsx.schema.json"),
            json!({"type": "text"}),
            json!({"pattern": "("}),
            json!({"pattern": "(?=a)"}),
        ] {
            assert!(Schema::compile(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_compared_by_all_their_digits() {
        let schema = Schema::compile(&json!({"maximum": 10, "multipleOf": 0.01})).unwrap();
        let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert!(schema.check(&number("9.99")).is_ok());
        assert!(schema.check(&number("10.000000000000000000001")).is_err());
    }
}
