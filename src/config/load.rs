//! The layers: defaults < file < `[profile.NAME]` of the file < environment; and behind the feeds, those of the partners' files.
//!
//! In: [`Sources`]. Out: [`Loaded`], whose [`Loaded::validate`] everything that runs must pass.

use std::fmt;
use std::path::{Path, PathBuf};

use super::check::{Finding, Severity, check};
use super::de;
use super::documents::{self, DocumentError};
use super::layer::{Node, Origin, VARIABLE_PREFIX};
use super::{Config, Feed, SettingError, partners};

const DEFAULT_FILE: &str = "feedmill.toml";

/// Variables of the prefix that are not settings: those of the command line, of the build, and of the tests.
const NOT_SETTINGS: [&str; 3] = [
    "FEEDMILL_CONFIG",
    "FEEDMILL_PROFILE",
    "FEEDMILL_BUILD_REVISION",
];
const TEST_PREFIX: &str = "FEEDMILL_TEST_";

/// Where settings come from. Not `Debug`: the environment may hold secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that was named; left out: `feedmill.toml` of the working directory, if there is one.
    pub file: Option<PathBuf>,
    /// Which `[profile.NAME]` of the file to lay over it.
    pub profile: Option<String>,
    /// Environment variables; other programs' are skipped.
    pub env: Vec<(String, String)>,
}

impl Sources {
    /// With the environment of this process.
    pub fn of_process(file: Option<PathBuf>, profile: Option<String>) -> Self {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        Self { file, profile, env }
    }
}

/// The settings in force, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    pub profile: Option<String>,
    /// Where partners' files are, or would be if the folder were there.
    pub feeds_dir: Option<PathBuf>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        column: usize,
        message: String,
    },
    #[error(
        "{}: profile: expected tables, [profile.NAME]; --profile or FEEDMILL_PROFILE chooses one", path.display()
    )]
    ProfileNotATable { path: PathBuf },
    #[error("profile {0:?} was asked for, but there is no configuration file to find it in")]
    ProfileWithoutFile(String),
    #[error("{}: no profile {name:?}, {known}", path.display())]
    UnknownProfile {
        path: PathBuf,
        name: String,
        known: KnownProfiles,
    },
    #[error("read the folder of feeds {}, which feeds_dir names", path.display())]
    FeedsDir {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{}: unknown key {key:?}; a file of this folder holds [[feeds]] tables and nothing else, with the keys of a feed below each", path.display()
    )]
    NotAFeed { path: PathBuf, key: String },
    #[error(
        "{}: holds no feed; it needs a [[feeds]] table with a name and a match, or must go", .0.display()
    )]
    NoFeed(PathBuf),
    #[error("{}: feed {feed:?}", path.display())]
    Document {
        path: PathBuf,
        feed: String,
        source: DocumentError,
    },
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("the configuration cannot be used:{}", Lines(.0))]
    Invalid(Vec<Finding>),
}

/// The profiles that there are, as the end of a sentence.
#[derive(Debug)]
pub struct KnownProfiles(Vec<String>);

impl fmt::Display for KnownProfiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("the file has none"),
            known => write!(f, "there are: {}", known.join(", ")),
        }
    }
}

struct Lines<'a>(&'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl Loaded {
    /// What is wrong with the settings, and what is suspicious.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = check(&self.config);
        if self.file.is_none() && findings.iter().any(Finding::is_error) {
            findings.insert(0, no_file());
        }
        findings
    }

    /// Refuses settings with errors; returns the warnings.
    pub fn validate(&self) -> Result<Vec<Finding>, ConfigError> {
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.findings().into_iter().partition(Finding::is_error);
        match errors.is_empty() {
            true => Ok(warnings),
            false => Err(ConfigError::Invalid(errors)),
        }
    }
}

fn no_file() -> Finding {
    Finding {
        severity: Severity::Error,
        message: format!(
            "no configuration file: there is no {DEFAULT_FILE} in the working directory, and none was named by --config or FEEDMILL_CONFIG"
        ),
    }
}

/// Reads and merges the layers. A result is well-formed, not yet checked: see [`Loaded::validate`].
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let file = sources.file.or_else(default_file);
    let mut settings = match &file {
        Some(path) => read_file(path, sources.profile.as_deref())?,
        None => match sources.profile {
            Some(name) => return Err(ConfigError::ProfileWithoutFile(name)),
            None => Node::empty(Origin::File(DEFAULT_FILE.into())),
        },
    };
    for (name, value) in sources
        .env
        .iter()
        .filter(|(name, value)| is_setting(name, value))
    {
        settings.overlay(Node::from_variable(name, value));
    }
    let mut config: Config = de::read(&settings)?;
    read_documents(&mut config.feeds, file.as_deref())?;
    let feeds_dir = partners::folder(&config, file.as_deref());
    if let Some(folder) = &feeds_dir {
        let feeds = partners::read(folder, config.feeds_dir.is_some())?;
        partners::append(&mut config, &settings, feeds);
    }
    Ok(Loaded {
        config,
        file,
        profile: sources.profile,
        feeds_dir,
    })
}

/// Reads the files that the feeds of a file name.
pub(super) fn read_documents(feeds: &mut [Feed], file: Option<&Path>) -> Result<(), ConfigError> {
    let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
    documents::read(feeds, folder).map_err(|(feed, source)| ConfigError::Document {
        path: file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned(),
        feed,
        source,
    })
}

fn default_file() -> Option<PathBuf> {
    Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists())
}

/// An empty variable counts as one that is not set: compose files pass those on.
fn is_setting(name: &str, value: &str) -> bool {
    name.starts_with(VARIABLE_PREFIX)
        && !value.is_empty()
        && !NOT_SETTINGS.contains(&name)
        && !name.starts_with(TEST_PREFIX)
        && !is_service_link(name)
}

/// Kubernetes tells every pod of a namespace about the services in it by variables; a service named `feedmill` or
/// `feedmill-intake` is no mistake of the configuration.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_service_link(name: &str) -> bool {
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.ends_with("_PORT")
            || name.contains("_PORT_"))
}

/// The file's settings, those of the profile laid over them.
fn read_file(path: &Path, profile: Option<&str>) -> Result<Node, ConfigError> {
    let mut table = parse_file(path)?;
    let profiles = take_profiles(path, &mut table)?;
    let mut settings = Node::from_toml(toml::Value::Table(table), origin(path, None));
    if let Some(name) = profile {
        let chosen = find_profile(path, profiles, name)?;
        settings.overlay(Node::from_toml(chosen, origin(path, Some(name))));
    }
    Ok(settings)
}

pub(super) fn origin(path: &Path, profile: Option<&str>) -> Origin {
    let path = path.display();
    Origin::File(match profile {
        Some(name) => format!("{path} [profile.{name}]").into(),
        None => path.to_string().into(),
    })
}

pub(super) fn parse_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            column,
            // Not the error's own rendering: that quotes the line, which may hold a password.
            message: error.message().to_owned(),
        }
    })
}

/// Line and column in characters, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

fn take_profiles(path: &Path, table: &mut toml::Table) -> Result<toml::Table, ConfigError> {
    match table.remove("profile") {
        None => Ok(toml::Table::new()),
        Some(toml::Value::Table(profiles)) => Ok(profiles),
        Some(_) => Err(ConfigError::ProfileNotATable {
            path: path.to_owned(),
        }),
    }
}

fn find_profile(
    path: &Path,
    mut profiles: toml::Table,
    name: &str,
) -> Result<toml::Value, ConfigError> {
    profiles
        .remove(name)
        .ok_or_else(|| ConfigError::UnknownProfile {
            path: path.to_owned(),
            name: name.to_owned(),
            known: KnownProfiles(profiles.keys().cloned().collect()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Feed;

    /// Loads a file of this text.
    fn load_text(
        text: &str,
        profile: Option<&str>,
        env: &[(&str, &str)],
    ) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("feedmill.toml");
        std::fs::write(&path, text).unwrap();
        let loaded = load(Sources {
            file: Some(path),
            profile: profile.map(str::to_owned),
            env: env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        });
        let folder = format!("{}/", folder.path().display());
        loaded.map_err(|error| error.to_string().replace(&folder, ""))
    }

    const LAYERED: &str = r#"
        [kafka]
        brokers    = ["file:9092"]
        group      = "file"
        partitions = 3

        [profile.prod.kafka]
        brokers    = ["prod-1:9092", "prod-2:9092"]
        group      = "prod"

        [profile.test]
    "#;

    #[test]
    fn the_environment_is_over_the_profile_over_the_file_over_the_defaults() {
        let kafka =
            |profile, env: &[(&str, &str)]| load_text(LAYERED, profile, env).unwrap().config.kafka;

        let file = kafka(None, &[]);
        assert_eq!(
            (file.brokers.join(","), file.group.as_str()),
            ("file:9092".to_owned(), "file")
        );
        assert_eq!(
            (file.partitions, file.topic_prefix.as_str()),
            (3, "feedmill")
        );

        let profile = kafka(Some("prod"), &[]);
        assert_eq!(
            profile.brokers,
            ["prod-1:9092", "prod-2:9092"],
            "lists replace"
        );
        assert_eq!(
            (profile.group.as_str(), profile.partitions),
            ("prod", 3),
            "tables merge"
        );

        let env = kafka(Some("prod"), &[("FEEDMILL_KAFKA__GROUP", "env")]);
        assert_eq!((env.group.as_str(), env.brokers.len()), ("env", 2));
    }

    #[test]
    fn an_unknown_profile_names_those_there_are() {
        assert_eq!(
            load_text(LAYERED, Some("live"), &[]).unwrap_err(),
            r#"feedmill.toml: no profile "live", there are: prod, test"#
        );
        assert_eq!(
            load_text("", Some("live"), &[]).unwrap_err(),
            r#"feedmill.toml: no profile "live", the file has none"#
        );
        let no_file = Sources {
            profile: Some("live".to_owned()),
            ..Sources::default()
        };
        assert_eq!(
            load(no_file).unwrap_err().to_string(),
            r#"profile "live" was asked for, but there is no configuration file to find it in"#
        );
    }

    #[test]
    fn a_profile_is_not_chosen_in_the_file() {
        assert_eq!(
            load_text("profile = 'prod'", None, &[]).unwrap_err(),
            "feedmill.toml: profile: expected tables, [profile.NAME]; --profile or FEEDMILL_PROFILE chooses one"
        );
    }

    #[test]
    fn a_mistake_in_a_profile_names_the_profile() {
        assert_eq!(
            load_text("[profile.prod.kafka]\ngruop = 'x'", Some("prod"), &[]).unwrap_err(),
            r#"feedmill.toml [profile.prod]: unknown key "kafka.gruop", did you mean "kafka.group"?"#
        );
        assert_eq!(
            load_text("[profile]\nprod = 1", Some("prod"), &[]).unwrap_err(),
            "feedmill.toml [profile.prod]: expected a table, found a single value"
        );
    }

    #[test]
    fn a_syntax_error_has_its_line_and_column_and_quotes_nothing() {
        assert_eq!(
            load_text("[intake]\ntoken = 'ü' \"hush\"\n", None, &[]).unwrap_err(),
            "feedmill.toml:2:13: unexpected key or value, expected newline, `#`"
        );
        let unclosed = load_text("[intake]\ntoken = \"hush\n", None, &[]).unwrap_err();
        assert!(!unclosed.contains("hush"), "{unclosed}");
        assert_eq!(
            load_text("a = 1\nb = 2\na = 3", None, &[]).unwrap_err(),
            "feedmill.toml:3:1: duplicate key"
        );
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert_eq!(
            load(Sources {
                file: Some("no/such.toml".into()),
                ..Sources::default()
            })
            .unwrap_err()
            .to_string(),
            "read no/such.toml"
        );
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        let env = [
            ("PATH", "/bin"),
            ("FEEDMILL_CONFIG", "x.toml"),
            ("FEEDMILL_PROFILE", "prod"),
            ("FEEDMILL_BUILD_REVISION", "0123456"),
            ("FEEDMILL_TEST_KAFKA", "127.0.0.1:9092"),
            ("FEEDMILL_INTAKE__TOKEN", ""),
            ("FEEDMILL_SERVICE_HOST", "10.0.0.1"),
            ("FEEDMILL_PORT", "tcp://10.0.0.1:8080"),
            ("FEEDMILL_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("FEEDMILL_INTAKE_SERVICE_PORT_HTTP", "8080"),
        ];
        let loaded = load_text("", None, &env).unwrap();
        assert!(loaded.config.intake.token.is_none());
    }

    #[test]
    fn the_environment_suffices_without_a_file_but_for_the_feeds() {
        let env = [
            ("FEEDMILL_KAFKA__BROKERS", "a:9092"),
            ("FEEDMILL_OUTPUT__BUCKET", "json"),
        ];
        let loaded = load(Sources {
            env: env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(loaded.config.kafka.brokers, ["a:9092"]);
        assert_eq!(
            loaded.validate().unwrap_err().to_string(),
            "the configuration cannot be used:\
             \n  error: no configuration file: there is no feedmill.toml in the working directory, and none was named by --config or FEEDMILL_CONFIG\
             \n  error: feeds: there is none; each partner's feed is a [[feeds]] table with a name and a match"
        );
    }

    #[test]
    fn fields_keep_the_order_of_the_file() {
        let text = "feeds = [{ name = 'n', match = 's3://a/**', fields = { z = 'a', m = { each = 'b' }, a = 'c' } }]";
        let Feed { fields, .. } = load_text(text, None, &[]).unwrap().config.feeds.remove(0);
        assert_eq!(fields.unwrap().keys().collect::<Vec<_>>(), ["z", "m", "a"]);
    }
}
