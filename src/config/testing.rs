//! What the tests of this module share.

use super::layer::{Node, Origin};
use super::{Config, Feed, de};

fn file(text: &str) -> Node {
    let table = text.parse().expect("the test's TOML is well-formed");
    Node::from_toml(
        toml::Value::Table(table),
        Origin::File("feedmill.toml".into()),
    )
}

/// Reads a file's text, and variables over it; the error is what a person would see.
pub(super) fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let mut settings = file(text);
    for (name, value) in variables {
        settings.overlay(Node::from_variable(name, value));
    }
    de::read(&settings).map_err(|error| error.to_string())
}

/// One text's settings over another's.
pub(super) fn layered(lower: &str, upper: &str) -> Config {
    let mut settings = file(lower);
    settings.overlay(file(upper));
    de::read(&settings).expect("the test's configuration reads")
}

pub(super) fn feed(name: &str, r#match: &str) -> Feed {
    let table = format!("feeds = [{{ name = '{name}', match = '''{}''' }}]", r#match);
    layered("", &table).feeds.remove(0)
}
