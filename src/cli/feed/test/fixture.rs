//! A feed's fixtures on disk: files of the partner, and what they have to become.
//!
//! In: the folder `FEED.tests`. Out: [`Fixture`]s, each with the [`Outcome`] that is expected. All files of a fixture begin with its name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::outcome::{Outcome, Place};
use crate::{
    cli::source::StandIn,
    config::{Feed, Loaded},
};

/// More than that is a file to convert, not a fixture.
pub const MAX_BYTES: u64 = 16 << 20;

const ARRAY: &str = ".expected.json";
const LINES: &str = ".expected.jsonl";
const REJECTED: &str = ".rejected.json";
const SOURCE: &str = ".source.toml";

/// What a packed file's name ends with after its own ending.
const PACKED: [&str; 4] = [".gz", ".zst", ".bz2", ".xz"];

/// What is wrong with the files of a fixture.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_BYTES} bytes; a fixture is small", .0.display())]
    TooLarge(PathBuf),
    #[error("{} belongs to no file of the partner", .0.display())]
    NoInput(PathBuf),
    #[error("{} and {} would have the same expected file; one of them needs another name", .0.display(), .1.display())]
    TwoInputs(PathBuf, PathBuf),
    #[error("{} and {} are there, and one of them is enough", .0.display(), .1.display())]
    TwoOutputs(PathBuf, PathBuf),
    #[error("{} is not JSON", path.display())]
    NotJson {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} has to be {expected}", path.display())]
    Shape {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("{}: a rejection has no {key:?}; it has reason, record, line, column, byte_offset, path, message and excerpt", path.display())]
    UnknownKey { path: PathBuf, key: String },
    #[error("{}: {message}", path.display())]
    Source { path: PathBuf, message: String },
}

/// Where the fixtures of a feed are: beside the file that it stands in.
pub fn folder(loaded: &Loaded, feed: &Feed) -> PathBuf {
    let of_feed = feed.file.as_deref().map(Path::new).and_then(Path::parent);
    let of_main = loaded.file.as_deref().and_then(Path::parent);
    let beside = of_feed
        .filter(|folder| loaded.feeds_dir.as_deref() == Some(folder))
        .or(of_main);
    beside
        .unwrap_or(Path::new(""))
        .join(format!("{}.tests", feed.name))
}

/// A file of the partner, and the files beside it.
#[derive(Debug)]
pub struct Fixture {
    pub input: PathBuf,
    /// The folder and what the names of all its files begin with.
    stem: PathBuf,
}

impl Fixture {
    /// All of a folder, by name; none when it is not there.
    pub fn all(folder: &Path) -> Result<Vec<Self>, FixtureError> {
        let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut companions = Vec::new();
        for (name, path) in files(folder)? {
            let kept = [ARRAY, LINES, REJECTED, SOURCE];
            if let Some(stem) = kept.iter().find_map(|end| name.strip_suffix(end)) {
                companions.push((stem.to_owned(), path));
            } else if let Some(other) = inputs.insert(stem(&name).to_owned(), path.clone()) {
                return Err(FixtureError::TwoInputs(other, path));
            }
        }
        if let Some((_, alone)) = companions
            .into_iter()
            .find(|(stem, _)| !inputs.contains_key(stem))
        {
            return Err(FixtureError::NoInput(alone));
        }
        let fixture = |(stem, input)| Self {
            input,
            stem: folder.join(stem),
        };
        Ok(inputs.into_iter().map(fixture).collect())
    }

    /// The name of the partner's file.
    pub fn name(&self) -> String {
        file_name(&self.input)
    }

    pub fn open(&self) -> Result<File, FixtureError> {
        File::open(&self.input).map_err(|source| FixtureError::Read {
            path: self.input.clone(),
            source,
        })
    }

    /// What stands in for the object.
    pub fn source(&self) -> Result<StandIn, FixtureError> {
        let path = self.file(SOURCE);
        let Some(text) = read(&path)? else {
            return Ok(StandIn::default());
        };
        let text = String::from_utf8_lossy(&text);
        toml::from_str(&text).map_err(|error| FixtureError::Source {
            message: error.message().to_owned(),
            path,
        })
    }

    /// `None` when nothing is said yet.
    pub fn expected(&self) -> Result<Option<Outcome>, FixtureError> {
        let path = self.file(REJECTED);
        let rejected = match read(&path)? {
            Some(bytes) => Some(json::<Value>(&path, &bytes)?),
            None => None,
        };
        let shape = |expected| FixtureError::Shape {
            path: path.clone(),
            expected,
        };
        let outcome = match (self.records()?, rejected) {
            (None, None) => return Ok(None),
            (None, Some(Value::Object(refusal))) => Outcome::Refused(refusal),
            (None, Some(_)) => {
                return Err(shape("an object with a reason, for no output is expected"));
            }
            (Some(records), rejected) => Outcome::Converted {
                records,
                rejected: places(rejected)
                    .ok_or_else(|| shape("a list of objects, for an output is expected"))?,
            },
        };
        match outcome.unknown_key() {
            Some(key) => Err(FixtureError::UnknownKey {
                key: key.to_owned(),
                path,
            }),
            None => Ok(Some(outcome)),
        }
    }

    fn records(&self) -> Result<Option<Vec<Value>>, FixtureError> {
        let (array, lines) = (self.file(ARRAY), self.file(LINES));
        match (read(&array)?, read(&lines)?) {
            (Some(_), Some(_)) => Err(FixtureError::TwoOutputs(array, lines)),
            (Some(bytes), None) => json(&array, &bytes).map(Some),
            (None, Some(bytes)) => {
                json_lines(&bytes)
                    .map(Some)
                    .map_err(|source| FixtureError::NotJson {
                        path: lines,
                        source,
                    })
            }
            (None, None) => Ok(None),
        }
    }

    /// Replaces what is expected, in the form that it has; the files that were written.
    pub fn write(&self, expected: &Outcome) -> Result<Vec<PathBuf>, FixtureError> {
        let (array, lines, rejected) = (self.file(ARRAY), self.file(LINES), self.file(REJECTED));
        let mut texts = Vec::new();
        match expected {
            Outcome::Refused(refusal) => texts.push((&rejected, pretty(refusal))),
            Outcome::Converted {
                records,
                rejected: places,
            } => {
                match lines.exists() {
                    true => texts.push((&lines, one_a_line(records))),
                    false => texts.push((&array, pretty(records))),
                }
                if !places.is_empty() {
                    texts.push((&rejected, pretty(places)));
                }
            }
        }
        for path in [&array, &lines, &rejected] {
            let is_written = texts.iter().any(|(written, _)| *written == path);
            if !is_written && path.exists() {
                fs::remove_file(path).map_err(|source| write_failed(path, source))?;
            }
        }
        for (path, text) in &texts {
            fs::write(path, text).map_err(|source| write_failed(path, source))?;
        }
        Ok(texts.into_iter().map(|(path, _)| path.clone()).collect())
    }

    /// Where the expected output is, or would be.
    pub fn output(&self) -> PathBuf {
        let lines = self.file(LINES);
        match lines.exists() {
            true => lines,
            false => self.file(ARRAY),
        }
    }

    fn file(&self, end: &str) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(end);
        path.into()
    }
}

fn write_failed(path: &Path, source: io::Error) -> FixtureError {
    FixtureError::Write {
        path: path.to_owned(),
        source,
    }
}

pub fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The files of a folder by name, without hidden ones, notes, and what editors leave behind.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, FixtureError> {
    let failed = |source| FixtureError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = file_name(&path);
        let is_other = name.starts_with(['.', '#']) || name.ends_with('~') || name.ends_with(".md");
        if !is_other && !path.is_dir() {
            files.insert(name, path);
        }
    }
    Ok(files)
}

/// The name without its ending: `kettle` of `kettle.xml` and `kettle.xml.gz`.
fn stem(name: &str) -> &str {
    let unpacked = PACKED.iter().find_map(|end| name.strip_suffix(end));
    let name = unpacked.unwrap_or(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, FixtureError> {
    let failed = |source| FixtureError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > MAX_BYTES => {
            return Err(FixtureError::TooLarge(path.to_owned()));
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(failed)
}

fn json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FixtureError> {
    serde_json::from_slice(bytes).map_err(|source| FixtureError::NotJson {
        path: path.to_owned(),
        source,
    })
}

/// JSON values one after another.
pub fn json_lines<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, serde_json::Error> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .collect()
}

/// `None` for what is no list of objects.
fn places(rejected: Option<Value>) -> Option<Vec<Place>> {
    let Value::Array(list) = rejected.unwrap_or(Value::Array(Vec::new())) else {
        return None;
    };
    let place = |value| match value {
        Value::Object(place) => Some(place),
        _ => None,
    };
    list.into_iter().map(place).collect()
}

fn pretty(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("JSON is written to memory");
    text + "\n"
}

fn one_a_line(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn error(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        let first = Fixture::all(folder.path()).and_then(|all| all[0].expected());
        let error = crate::failure::chain(&first.unwrap_err());
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn files_are_told_by_their_endings_and_what_is_no_fixture_is_passed_over() {
        let folder = folder(&[
            ("b.xml.gz", ""),
            ("2026.11.csv", ""),
            ("a.json", ""),
            ("a.expected.json", "[]"),
            ("a.source.toml", ""),
            ("plain", ""),
            (".hidden.xml", ""),
            ("b.xml~", ""),
            ("README.md", ""),
        ]);
        fs::create_dir(folder.path().join("folder.xml")).unwrap();
        let all = Fixture::all(folder.path()).unwrap();
        let outputs: Vec<_> = all
            .iter()
            .map(|fixture| (fixture.name(), file_name(&fixture.output())))
            .collect();
        let expected = [
            ("2026.11.csv", "2026.11.expected.json"),
            ("a.json", "a.expected.json"),
            ("b.xml.gz", "b.expected.json"),
            ("plain", "plain.expected.json"),
        ];
        let expected = expected.map(|(input, output)| (input.to_owned(), output.to_owned()));
        assert_eq!(outputs, expected);
        let nowhere = folder.path().join("nowhere");
        assert!(Fixture::all(&nowhere).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_a_fixture_is_named() {
        assert_eq!(
            error(&[("a.xml", ""), ("b.expected.json", "[]")]),
            "b.expected.json belongs to no file of the partner"
        );
        assert!(error(&[("a.csv", ""), ("a.xml", "")]).starts_with("a.csv and a.xml would have"));
        assert!(
            error(&[
                ("a.xml", ""),
                ("a.expected.json", "[]"),
                ("a.expected.jsonl", "")
            ])
            .starts_with("a.expected.json and a.expected.jsonl are there")
        );
        assert!(
            error(&[("a.xml", ""), ("a.expected.json", "[1,]")])
                .starts_with("a.expected.json is not JSON: trailing comma at line 1")
        );
        for (files, words) in [
            (
                &[("a.expected.json", "[]"), ("a.rejected.json", "{}")][..],
                "a list",
            ),
            (&[("a.rejected.json", "[]")], "an object with a reason"),
        ] {
            let files = [&[("a.xml", "")], files].concat();
            assert!(error(&files).starts_with("a.rejected.json has to be "));
            assert!(error(&files).contains(words));
        }
    }

    #[test]
    fn what_is_written_is_read_again_in_the_form_that_was_there() {
        let folder = folder(&[("a.xml", ""), ("b.xml", ""), ("b.expected.jsonl", "1")]);
        let place: Place = serde_json::from_str(r#"{"reason": "x"}"#).unwrap();
        let output = Outcome::Converted {
            records: json_lines(br#"{"b": 79.90, "a": [1]} 2"#).unwrap(),
            rejected: vec![place.clone()],
        };
        for fixture in Fixture::all(folder.path()).unwrap() {
            for expected in [&output, &Outcome::Refused(place.clone()), &output] {
                fixture.write(expected).unwrap();
                assert_eq!(fixture.expected().unwrap().as_ref(), Some(expected));
            }
        }
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            text("a.expected.json"),
            "[\n  {\n    \"b\": 79.90,\n    \"a\": [\n      1\n    ]\n  },\n  2\n]\n"
        );
        // The form is forgotten with the file.
        assert_eq!(text("b.expected.json"), text("a.expected.json"));
    }
}
