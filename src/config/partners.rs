//! The folder of feeds: one TOML file a partner, with `[[feeds]]` tables as in the main file and nothing else.
//!
//! In: a folder. Out: the feeds of its `*.toml` files, by file name. Hidden files are skipped, so that a mounted
//! Kubernetes ConfigMap works, whose files are links into a hidden folder; what editors leave behind is, too, and so are the folders
//! of fixtures, `NAME.tests`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::de;
use super::layer::{Node, Value};
use super::load::{ConfigError, origin, parse_file, read_documents};
use super::{Config, Feed};

const DEFAULT_FOLDER: &str = "feeds.d";

/// Where the folder is, or would be if somebody made it; `None` when there must be none.
pub(super) fn folder(config: &Config, file: Option<&Path>) -> Option<PathBuf> {
    let name = match &config.feeds_dir {
        Some(name) if name.as_os_str().is_empty() => return None,
        Some(name) => name,
        None => Path::new(DEFAULT_FOLDER),
    };
    let beside = file.and_then(Path::parent).unwrap_or(Path::new(""));
    Some(beside.join(name))
}

/// The feeds of all files; a folder that is not there has none, unless it was named.
pub(super) fn read(folder: &Path, is_named: bool) -> Result<Vec<Feed>, ConfigError> {
    let paths = match files(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return Ok(Vec::new()),
        found => found.map_err(|source| ConfigError::FeedsDir {
            path: folder.to_owned(),
            source,
        })?,
    };
    let mut feeds = Vec::new();
    for path in paths {
        feeds.extend(read_file(&path)?);
    }
    Ok(feeds)
}

/// The files that count, by the bytes of their names.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(is_feed_file) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_feed_file(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".") && !name.starts_with(b"#")
}

/// The feeds of one file.
pub fn read_file(path: &Path) -> Result<Vec<Feed>, ConfigError> {
    let table = parse_file(path)?;
    if let Some(key) = table.keys().find(|key| *key != "feeds") {
        return Err(ConfigError::NotAFeed {
            path: path.to_owned(),
            key: key.clone(),
        });
    }
    let settings = Node::from_toml(toml::Value::Table(table), origin(path, None));
    let Config { mut feeds, .. } = de::read(&settings)?;
    // An empty file is more likely one that is being written than a partner without feeds.
    if feeds.is_empty() {
        return Err(ConfigError::NoFeed(path.to_owned()));
    }
    read_documents(&mut feeds, Some(path))?;
    label(&mut feeds, &path.display().to_string());
    Ok(feeds)
}

/// Notes which file the feeds stand in.
fn label(feeds: &mut [Feed], file: &str) {
    for feed in feeds {
        feed.file = Some(file.into());
    }
}

/// Lays the folder's feeds behind those of the main file. Files are named in messages only where there are several.
pub(super) fn append(config: &mut Config, settings: &Node, more: Vec<Feed>) {
    if more.is_empty() {
        return;
    }
    if let Value::Table(table) = &settings.value
        && let Some(node) = table.get("feeds")
    {
        label(&mut config.feeds, &node.origin.to_string());
    }
    config.feeds.extend(more);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::super::load::{Loaded, Sources, load};
    const MAIN: &str = "feeds = [{ name = 'main', match = 's3://a/main/**' }]";

    struct Folder(TempDir);

    impl Folder {
        fn new(main: &str) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.write("feedmill.toml", main);
            folder
        }

        fn write(&self, name: &str, text: &str) -> &Self {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn feed(&self, file: &str, name: &str) -> &Self {
            let text = format!("[[feeds]]\nname = '{name}'\nmatch = 's3://a/{name}/**'");
            self.write(file, &text)
        }

        fn load(&self) -> Result<Loaded, String> {
            let sources = Sources {
                file: Some(self.0.path().join("feedmill.toml")),
                ..Sources::default()
            };
            let folder = format!("{}/", self.0.path().display());
            load(sources).map_err(|error| {
                crate::failure::chain(&error)
                    .replace(&folder, "")
                    .to_owned()
            })
        }

        fn names(&self) -> Vec<String> {
            let feeds = self.load().unwrap().config.feeds;
            feeds.into_iter().map(|feed| feed.name).collect()
        }

        fn findings(&self) -> Vec<String> {
            let folder = format!("{}/", self.0.path().display());
            let findings = self.load().unwrap().findings();
            let texts = findings
                .iter()
                .map(|finding| finding.message.replace(&folder, ""));
            texts.filter(|text| text.contains("feed ")).collect()
        }
    }

    #[test]
    fn partners_files_follow_the_main_file_by_their_names() {
        let folder = Folder::new(MAIN);
        folder
            .feed("feeds.d/b.toml", "b")
            .feed("feeds.d/B.toml", "B");
        folder
            .feed("feeds.d/10.toml", "ten")
            .feed("feeds.d/9.toml", "nine");
        assert_eq!(folder.names(), ["main", "ten", "nine", "B", "b"]);
    }

    #[test]
    fn what_editors_and_mounts_leave_in_the_folder_is_skipped_and_links_are_followed() {
        let folder = Folder::new(MAIN);
        folder.feed("feeds.d/..2026_11_21/linked.toml", "linked");
        let feeds = folder.0.path().join("feeds.d");
        symlink("..2026_11_21", feeds.join("..data")).unwrap();
        symlink("..data/linked.toml", feeds.join("linked.toml")).unwrap();
        for skipped in [
            ".hidden.toml",
            "#x.toml",
            "#x.toml#",
            ".x.toml.swp",
            "x.toml~",
            "x.toml.bak",
            "README.md",
            "folder.toml/x",
            "nsx.tests/kettle.source.toml",
        ] {
            folder.write(&format!("feeds.d/{skipped}"), "not = 'a feed'");
        }
        assert_eq!(folder.names(), ["main", "linked"]);
    }

    #[test]
    fn the_folder_is_beside_the_file_unless_it_is_named_or_refused() {
        let named = Folder::new(&format!("feeds_dir = 'partners'\n{MAIN}"));
        assert_eq!(
            named.load().unwrap_err(),
            "read the folder of feeds partners, which feeds_dir names: No such file or directory (os error 2)"
        );
        named
            .feed("partners/x.toml", "x")
            .feed("feeds.d/y.toml", "y");
        assert_eq!(named.names(), ["main", "x"]);

        let refused = Folder::new(&format!("feeds_dir = ''\n{MAIN}"));
        refused.feed("feeds.d/x.toml", "x");
        assert_eq!(refused.names(), ["main"]);
    }

    #[test]
    fn a_file_that_is_not_feeds_alone_is_named_with_what_may_stand_there() {
        let error = |text: &str| {
            let folder = Folder::new(MAIN);
            folder.write("feeds.d/nsx.toml", text).load().unwrap_err()
        };
        assert_eq!(
            error("name = 'nsx'\nmatch = 's3://a/**'"),
            "feeds.d/nsx.toml: unknown key \"name\"; a file of this folder holds [[feeds]] tables and nothing else, with the keys of a feed below each"
        );
        assert!(error("[kafka]\nbrokers = ['a:1']").contains("unknown key \"kafka\""));
        for empty in ["", "# later", "feeds = []"] {
            assert_eq!(
                error(empty),
                "feeds.d/nsx.toml: holds no feed; it needs a [[feeds]] table with a name and a match, or must go"
            );
        }
        assert_eq!(
            error("[[feeds]]\nname = 'nsx'\nmatch = 's3://a/**'\nrecrod = 'x'"),
            r#"feeds.d/nsx.toml: feeds[0] ("nsx"): unknown key "recrod", did you mean "record"?"#
        );
        assert!(error("[[feeds]]\nname = ").starts_with("feeds.d/nsx.toml:2:8: "));
    }

    #[test]
    fn findings_name_the_files() {
        let folder = Folder::new(&format!(
            "kafka.brokers = ['a:1']\noutput.bucket = 'json'\n{MAIN}"
        ));
        folder
            .feed("feeds.d/a.toml", "main")
            .feed("feeds.d/b.toml", "a/b");
        assert_eq!(
            folder.findings(),
            [
                "feed \"main\" (feeds.d/a.toml): there is another of this name in feedmill.toml; every feed needs its own",
                "feed \"a/b\" (feeds.d/b.toml): expected letters, digits, dots, underscores and hyphens in the name",
                "feed \"main\" (feeds.d/a.toml): never gets an object, feed \"main\" (feedmill.toml) before it takes them all (s3://a/main/** covers s3://a/main/**); put it first",
            ]
        );
    }
}
