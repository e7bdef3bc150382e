//! A feed's `after`: what becomes of a source object when its JSON is in the output bucket.
//!
//! Written `"keep"`, `"delete"`, `"tag"`, `{ tag = "name=value" }` or `{ move = "s3://bucket/prefix/" }`.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::ObjectRef;

/// The tag of `after = "tag"`.
const USUAL_TAG: &str = "feedmill=done";

const MEANT: &str =
    r#""keep", "delete", "tag", { tag = "name=value" } or { move = "s3://bucket/prefix/" }"#;

/// S3's limits on the name and the value of a tag, in characters.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
const MAX_TAG_NAME: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// What happens to a source object after its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    #[default]
    Keep,
    Delete,
    Move(Place),
    Tag(Tag),
}

/// Where sources are moved: a source's key there is the prefix and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
}

/// A tag of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: String,
    pub value: String,
}

impl After {
    /// Whether the source goes from where it is.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Delete | Self::Move(_))
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = |what: &str| format!("expected s3://bucket/prefix/, found {text:?}{what}");
        let rest = text.strip_prefix("s3://").ok_or_else(|| expected(""))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        ObjectRef::try_new(bucket, "any").map_err(|error| expected(&format!(": {error}")))?;
        if !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(expected(", which does not end with a slash"));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl Tag {
    fn parse(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').filter(|(name, value)| {
            (1..=MAX_TAG_NAME).contains(&name.chars().count())
                && value.chars().count() <= MAX_TAG_VALUE
                && !name.starts_with("aws:")
        });
        let (name, value) = pair.ok_or_else(|| {
            format!(
                "expected name=value, of at most {MAX_TAG_NAME} and {MAX_TAG_VALUE} characters and not beginning with aws:, found {text:?}"
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Delete => f.write_str("delete"),
            Self::Move(place) => write!(f, "move to {place}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
        }
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = After;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MEANT)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<After, E> {
        match text {
            "keep" => Ok(After::Keep),
            "delete" => Ok(After::Delete),
            "tag" => Tag::parse(USUAL_TAG).map(After::Tag).map_err(E::custom),
            "move" => Err(E::custom(
                r#""move" must say where to: after = { move = "s3://bucket/prefix/" }"#,
            )),
            _ => Err(E::custom(format_args!("expected {MEANT}, found {text:?}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<After, A::Error> {
        let Some(name) = table.next_key::<String>()? else {
            return Err(A::Error::custom(format_args!(
                "expected {MEANT}, found an empty table"
            )));
        };
        let read = match name.as_str() {
            "move" => Place::parse(&table.next_value::<String>()?).map(After::Move),
            "tag" => Tag::parse(&table.next_value::<String>()?).map(After::Tag),
            _ => Err(format!("unknown key {name:?}, known here: move, tag")),
        };
        if table.next_key::<String>()?.is_some() {
            return Err(A::Error::custom("expected one of move and tag, found more"));
        }
        read.map_err(A::Error::custom)
    }
}

/// As it is written.
impl Serialize for After {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, value) = match self {
            Self::Keep => return serializer.serialize_str("keep"),
            Self::Delete => return serializer.serialize_str("delete"),
            Self::Move(place) => ("move", place.to_string()),
            Self::Tag(tag) => ("tag", tag.to_string()),
        };
        let mut table = serializer.serialize_map(Some(1))?;
        table.serialize_entry(name, &value)?;
        table.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct Setting {
        after: After,
    }

    fn read(text: &str) -> Result<After, String> {
        toml::from_str::<Setting>(&format!("after = {text}"))
            .map(|setting| setting.after)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_form_is_read_and_shown_as_it_is_written() {
        let done = Place {
            bucket: "archive".into(),
            prefix: "done/".into(),
        };
        let whole = Place {
            bucket: "archive".into(),
            prefix: String::new(),
        };
        for (text, after) in [
            (r#""keep""#, After::Keep),
            (r#""delete""#, After::Delete),
            (r#"{ move = "s3://archive/done/" }"#, After::Move(done)),
            (r#"{ move = "s3://archive/" }"#, After::Move(whole)),
            (
                r#"{ tag = "a=b=c" }"#,
                After::Tag(Tag {
                    name: "a".into(),
                    value: "b=c".into(),
                }),
            ),
        ] {
            assert_eq!(read(text).unwrap(), after);
            let shown = toml::to_string(&Setting { after }).unwrap();
            let again: Setting = toml::from_str(&shown).unwrap();
            assert_eq!(Ok(again.after), read(text));
        }
        let usual = Tag::parse(USUAL_TAG).unwrap();
        assert_eq!(read(r#""tag""#), Ok(After::Tag(usual)));
    }

    #[test]
    fn what_can_not_be_meant_says_what_can() {
        for (text, says) in [
            (r#""move""#, "must say where to"),
            (r#""delet""#, r#"expected "keep", "delete""#),
            (r#"{ move = "archive" }"#, "expected s3://bucket/prefix/"),
            (
                r#"{ move = "s3://archive/done" }"#,
                "does not end with a slash",
            ),
            (r#"{ move = "s3:///done/" }"#, "the bucket name is empty"),
            (r#"{ tag = "done" }"#, "expected name=value"),
            (r#"{ tag = "aws:x=1" }"#, "expected name=value"),
            (r#"{ delete = "x" }"#, "known here: move, tag"),
            ("{}", "found an empty table"),
            (r#"{ move = "s3://a/", tag = "a=b" }"#, "found more"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
