//! What a feed's configuration keeps in files of their own: jq programs and JSON Schemas.
//!
//! They are read with the configuration, relative to the file that names them, so that they are one moment's, and so that a
//! changed one is a changed feed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Feed;
use super::feed::Case;

/// A JSON Schema: in its place in the configuration, or in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the path of a JSON Schema, or the schema itself as a table"
)]
pub enum SchemaSetting {
    File(FileSetting<Value>),
    Inline(serde_json::Map<String, Value>),
}

impl SchemaSetting {
    pub fn value(&self) -> Value {
        match self {
            Self::Inline(schema) => Value::Object(schema.clone()),
            // One that was not read is no schema, which is an error when it is compiled.
            Self::File(file) => file
                .content
                .clone()
                .unwrap_or_else(|| file.path.clone().into()),
        }
    }
}

/// A file, and what it holds once it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FileSetting<T: Clone> {
    pub path: String,
    /// Where that is, once it is read.
    pub place: Option<PathBuf>,
    pub content: Option<T>,
}

impl<T: Clone> From<String> for FileSetting<T> {
    fn from(path: String) -> Self {
        Self {
            path,
            place: None,
            content: None,
        }
    }
}

impl<T: Clone> From<FileSetting<T>> for String {
    fn from(file: FileSetting<T>) -> Self {
        file.path
    }
}

impl FileSetting<String> {
    /// The program; one that was not read does not compile.
    pub fn program(&self) -> String {
        let unread = || format!("# {} was not read\n", self.path);
        self.content.clone().unwrap_or_else(unread)
    }
}

/// The files that a feed names.
pub(super) fn places(feed: &Feed) -> Vec<PathBuf> {
    let cases = feed
        .cases
        .values()
        .map(|case| (&case.jq_file, &case.schema));
    let mut places = Vec::new();
    for (jq_file, schema) in cases.chain([(&feed.jq_file, &feed.schema)]) {
        places.extend(jq_file.as_ref().and_then(|file| file.place.clone()));
        if let Some(SchemaSetting::File(file)) = schema {
            places.extend(file.place.clone());
        }
    }
    places
}

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("read {path}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path} is not JSON")]
    NotJson {
        path: String,
        source: serde_json::Error,
    },
}

/// Reads the files that the feeds of a configuration file in `folder` name; on an error, says which feed.
pub(super) fn read(feeds: &mut [Feed], folder: &Path) -> Result<(), (String, DocumentError)> {
    for feed in feeds {
        let name = feed.name.clone();
        read_feed(feed, folder).map_err(|error| (name, error))?;
    }
    Ok(())
}

fn read_feed(feed: &mut Feed, folder: &Path) -> Result<(), DocumentError> {
    read_program(feed.jq_file.as_mut(), folder)?;
    read_schema(feed.schema.as_mut(), folder)?;
    for Case {
        jq_file, schema, ..
    } in feed.cases.values_mut()
    {
        read_program(jq_file.as_mut(), folder)?;
        read_schema(schema.as_mut(), folder)?;
    }
    Ok(())
}

fn read_program(
    file: Option<&mut FileSetting<String>>,
    folder: &Path,
) -> Result<(), DocumentError> {
    if let Some(file) = file {
        file.place = Some(folder.join(&file.path));
        file.content = Some(text(folder, &file.path)?);
    }
    Ok(())
}

fn read_schema(schema: Option<&mut SchemaSetting>, folder: &Path) -> Result<(), DocumentError> {
    if let Some(SchemaSetting::File(file)) = schema {
        file.place = Some(folder.join(&file.path));
        let json = serde_json::from_str(&text(folder, &file.path)?);
        file.content = Some(json.map_err(|source| DocumentError::NotJson {
            path: file.path.clone(),
            source,
        })?);
    }
    Ok(())
}

fn text(folder: &Path, path: &str) -> Result<String, DocumentError> {
    std::fs::read_to_string(folder.join(path)).map_err(|source| DocumentError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::{Sources, load};
    use crate::failure::chain;

    const MAIN: &str = r#"
        kafka.brokers = ["a:1"]
        output.bucket = "json"
        [[feeds]]
        name = "nsx"
        match = "s3://in/**"
        jq_file = "jq/nsx.jq"
        schema = "nsx.schema.json"
    "#;

    fn findings(program: &str, schema: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("jq")).unwrap();
        for (name, text) in [
            ("feedmill.toml", MAIN),
            ("jq/nsx.jq", program),
            ("nsx.schema.json", schema),
        ] {
            if !text.is_empty() {
                fs::write(folder.path().join(name), text).unwrap();
            }
        }
        let loaded = load(Sources {
            file: Some(folder.path().join("feedmill.toml")),
            ..Sources::default()
        });
        let place = format!("{}/", folder.path().display());
        let loaded = loaded.map_err(|error| chain(&error).replace(&place, ""))?;
        Ok(loaded
            .findings()
            .into_iter()
            .map(|finding| finding.message)
            .collect())
    }

    #[test]
    fn programs_and_schemas_are_read_beside_the_file_that_names_them() {
        assert_eq!(findings("{id: .a}", "{\"type\": \"object\"}"), Ok(vec![]));
        let wrong = findings("{id: foo}", "{}").unwrap();
        assert_eq!(
            wrong,
            [
                "feed \"nsx\": the jq program can't be compiled: line 1, column 6: there is no filter foo\n  {id: foo}\n       ^"
            ]
        );
        let wrong = findings(".", "{\"$ref\": \"https://example.com/s.json\"}").unwrap();
        assert!(wrong[0].contains("example.com"), "{wrong:?}");
    }

    #[test]
    fn a_file_that_is_not_there_or_not_json_is_named() {
        let error = findings(".", "").unwrap_err();
        assert!(
            error.starts_with("feedmill.toml: feed \"nsx\": read nsx.schema.json: "),
            "{error}"
        );
        let error = findings(".", "{").unwrap_err();
        assert!(
            error.starts_with("feedmill.toml: feed \"nsx\": nsx.schema.json is not JSON: "),
            "{error}"
        );
    }
}
