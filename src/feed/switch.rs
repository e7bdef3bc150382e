//! Records of several kinds in one file: a value in each says which case it is, and each case has steps of its own.

use indexmap::IndexMap;
use serde_json::Value;

use super::fields::{Capture, Content, StepId};
use super::reject::{ConvertError, Reason, Rejection};
use super::xml::Mapping as _;

/// Which value of a record says what it is, and the number of each case.
#[derive(Debug)]
pub struct Switch {
    path: Vec<String>,
    cases: IndexMap<String, usize>,
}

impl Switch {
    /// `path` is `.type`, `.data.kind`; or names joined by `/`, as paths are elsewhere.
    pub fn compile<'a>(path: &str, cases: impl Iterator<Item = &'a String>) -> Option<Self> {
        let names: Vec<String> = match path.strip_prefix('.') {
            Some(path) => path.split('.').map(str::to_owned).collect(),
            None => path.split('/').map(str::to_owned).collect(),
        };
        let is_path = names.iter().all(|name| !name.is_empty());
        is_path.then(|| Self {
            path: names,
            cases: cases.cloned().zip(0..).collect(),
        })
    }

    /// The number of a record's case.
    pub fn case(&self, record: &Value) -> Result<usize, Box<Rejection>> {
        let found = self
            .path
            .iter()
            .try_fold(record, |value, name| value.get(name));
        let rejection = match found {
            None | Some(Value::Null) => Rejection::because(
                Reason::UnknownType,
                "there is no value that says what the record is",
            ),
            Some(Value::Array(_) | Value::Object(_)) => Rejection::because(
                Reason::UnknownType,
                "a list or an object stands where the record should say what it is",
            ),
            Some(value) => {
                let kind = match value {
                    Value::String(text) => text.clone(),
                    scalar => scalar.to_string(),
                };
                match self.cases.get(&kind) {
                    Some(&case) => return Ok(case),
                    None => Rejection::because(Reason::UnknownType, "there is no case for this")
                        .with_excerpt(kind.as_bytes()),
                }
            }
        };
        Err(rejection.with_path(self.path.join("/")))
    }
}

/// Takes the values that `fields` asks for out of a whole record. Of an XML element with attributes, `#text` is the value.
pub fn capture(record: &Value, capture: &mut Capture<'_>) -> Result<(), ConvertError> {
    if !record.is_object() {
        return Err(Rejection::because(Reason::InvalidValue, "the record is not an object").into());
    }
    capture.reset();
    match capture.find_key("") {
        Some(step) => take(step, record, false, capture),
        None => Ok(()),
    }
}

fn take(
    step: StepId,
    value: &Value,
    is_element: bool,
    capture: &mut Capture<'_>,
) -> Result<(), ConvertError> {
    let content = match value {
        Value::Array(items) => {
            return items
                .iter()
                .try_for_each(|item| take(step, item, true, capture));
        }
        Value::Null if !is_element => return Ok(()),
        _ => {
            capture.enter(step)?;
            match value {
                Value::Object(members) => take_members(members, capture)?,
                Value::String(text) => {
                    capture.text_mut().push_str(text);
                    Content::Text
                }
                Value::Null => Content::Nothing,
                literal => {
                    capture.text_mut().push_str(&literal.to_string());
                    Content::Literal
                }
            }
        }
    };
    capture.leave(content);
    Ok(())
}

fn take_members(
    members: &serde_json::Map<String, Value>,
    capture: &mut Capture<'_>,
) -> Result<Content, ConvertError> {
    let mut content = Content::Nothing;
    if capture.wants_value() {
        let Some(Value::String(text)) = members.get("#text") else {
            let message = "an object stands where one value is wanted";
            let rejection = Rejection::because(Reason::InvalidValue, message);
            return Err(rejection.with_path(capture.open_path()).into());
        };
        capture.text_mut().push_str(text);
        content = Content::Text;
    }
    for (key, value) in members {
        if let Some(child) = capture.find_key(key) {
            take(child, value, false, capture)?;
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_of_the_case_that_its_value_names() {
        let cases = ["song".to_owned(), "2".to_owned()];
        let switch = Switch::compile(".data.kind", cases.iter()).unwrap();
        let case = |kind: Value| switch.case(&json!({"data": {"kind": kind}}));
        assert_eq!(case(json!("song")), Ok(0));
        assert_eq!(case(json!(2)), Ok(1));
        let unknown = case(json!("podcast")).unwrap_err();
        assert_eq!(unknown.reason, Reason::UnknownType);
        assert_eq!(unknown.path.as_deref(), Some("data/kind"));
        assert_eq!(unknown.excerpt.as_deref(), Some("podcast"));
        for wrong in [json!(null), json!({}), json!(["song"])] {
            assert!(case(wrong).is_err());
        }
        assert!(switch.case(&json!([1])).is_err());
        assert!(Switch::compile("data/kind", cases.iter()).is_some());
        for wrong in ["", ".", ".a..b", "a//b", "/a"] {
            assert!(Switch::compile(wrong, cases.iter()).is_none(), "{wrong}");
        }
    }
}
