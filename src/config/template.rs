//! The template of output keys: from a source object to the key its JSON gets.

use crate::object::ObjectRef;

use super::suggest::nearest;

/// Behind the key of an output: the report of the records that it is without.
pub const REJECTED_SUFFIX: &str = ".rejected.jsonl";

const PLACEHOLDERS: [&str; 3] = ["bucket", "key", "feed"];

/// A parsed `output.key`: what stands before the source's key, and what after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    before: Vec<Part>,
    after: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Bucket,
    Feed,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{{{name}}} is not known, {}", meant(.name))]
    UnknownPlaceholder { name: String },
    #[error("a brace in {0:?} has no partner")]
    UnpairedBrace(String),
    #[error("it needs {{key}} exactly once, or different sources would share an output")]
    KeyNotOnce,
    #[error("it begins with a slash, which makes a folder without a name")]
    LeadingSlash,
}

fn meant(name: &str) -> String {
    match nearest(name, PLACEHOLDERS) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => "there are {bucket}, {key} and {feed}".to_owned(),
    }
}

impl KeyTemplate {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.starts_with('/') {
            return Err(TemplateError::LeadingSlash);
        }
        match text.split("{key}").collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self {
                before: parts(before)?,
                after: parts(after)?,
            }),
            // A misspelled placeholder is the better answer than one that is missing.
            _ => parts(&text.replace("{key}", "")).and(Err(TemplateError::KeyNotOnce)),
        }
    }

    /// The output's key.
    pub fn expand(&self, source: &ObjectRef, feed: &str) -> String {
        let (before, after) = self.around_key(source.bucket(), feed);
        before + source.key() + &after
    }

    /// What stands before and after the source's key in outputs of this bucket and feed.
    pub(crate) fn around_key(&self, bucket: &str, feed: &str) -> (String, String) {
        let render = |parts: &[Part]| -> String {
            let texts = parts.iter().map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Bucket => bucket,
                Part::Feed => feed,
            });
            texts.collect()
        };
        (render(&self.before), render(&self.after))
    }
}

fn parts(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, tail) = tail
            .split_once('}')
            .ok_or_else(|| TemplateError::UnpairedBrace(text.to_owned()))?;
        parts.push(literal_part(literal, text)?);
        parts.push(placeholder(name)?);
        rest = tail;
    }
    parts.push(literal_part(rest, text)?);
    Ok(parts)
}

fn literal_part(literal: &str, text: &str) -> Result<Part, TemplateError> {
    match literal.contains('}') {
        true => Err(TemplateError::UnpairedBrace(text.to_owned())),
        false => Ok(Part::Literal(literal.to_owned())),
    }
}

fn placeholder(name: &str) -> Result<Part, TemplateError> {
    match name {
        "bucket" => Ok(Part::Bucket),
        "feed" => Ok(Part::Feed),
        _ => Err(TemplateError::UnknownPlaceholder {
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_and_the_key_is_taken_as_it_is() {
        let source = ObjectRef::try_new("in", "a/{feed} b.xml").unwrap();
        let expand = |template: &str| KeyTemplate::parse(template).unwrap().expand(&source, "nsx");
        assert_eq!(expand("{key}.json"), "a/{feed} b.xml.json");
        assert_eq!(
            expand("out/{bucket}/{feed}/{key}"),
            "out/in/nsx/a/{feed} b.xml"
        );
        assert_eq!(expand("{key}-{feed}"), "a/{feed} b.xml-nsx");
    }

    #[test]
    fn a_template_that_cannot_work_says_why() {
        let error = |template: &str| KeyTemplate::parse(template).unwrap_err().to_string();
        assert_eq!(
            error("{buckt}/{key}"),
            "{buckt} is not known, did you mean {bucket}?"
        );
        assert_eq!(
            error("{date}/{key}"),
            "{date} is not known, there are {bucket}, {key} and {feed}"
        );
        assert_eq!(
            error("{kye}.json"),
            "{kye} is not known, did you mean {key}?"
        );
        assert_eq!(
            error("{bucket/{key}"),
            "a brace in \"{bucket/\" has no partner"
        );
        assert_eq!(
            error("bucket}/{key}"),
            "a brace in \"bucket}/\" has no partner"
        );
        assert_eq!(
            error("products.json"),
            "it needs {key} exactly once, or different sources would share an output"
        );
        assert_eq!(
            KeyTemplate::parse("{key}{key}"),
            Err(TemplateError::KeyNotOnce)
        );
        assert_eq!(
            KeyTemplate::parse("/{key}"),
            Err(TemplateError::LeadingSlash)
        );
    }
}
