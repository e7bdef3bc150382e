//! The settings in force as TOML that loads again, but for the secrets, which show as `***`.

use toml::{Table, Value};

use super::Config;

/// Whether a table's keys have an order that means something.
fn is_fields(path: &str) -> bool {
    path == "feeds.fields" || path.starts_with("feeds.cases.") && path.ends_with(".fields")
}

/// The settings first, then the feeds in the order in which they are tried, wherever they stand.
pub fn show(config: &Config) -> String {
    let mut settings = Table::try_from(config).expect(
        "settings hold texts, 63-bit numbers, booleans, lists and tables, and TOML has them all",
    );
    let has_partners = config.feeds.iter().any(|feed| feed.file.is_some());
    if has_partners {
        // Loaded again, the folder's feeds must not come twice.
        settings.insert("feeds_dir".into(), "".into());
    }
    let feeds = match config.feeds.is_empty() {
        true => None,
        false => settings.remove("feeds"),
    };
    let mut text = String::new();
    write_table(&mut text, "", &settings);
    let tables = feeds
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for (feed, table) in config.feeds.iter().zip(tables.filter_map(Value::as_table)) {
        let heading = match &feed.file {
            Some(file) => format!("# {file}\n[[feeds]]"),
            None => "[[feeds]]".to_owned(),
        };
        write_section(&mut text, &heading, "feeds", table);
    }
    text
}

/// Single values first, as TOML wants them, then the tables under their headings.
fn write_table(text: &mut String, path: &str, table: &Table) {
    for (key, value) in table.iter().filter(|(_, value)| !has_heading(path, value)) {
        text.push_str(&format!("{} = {value}\n", quoted(key)));
    }
    for (key, value) in table.iter().filter(|(_, value)| has_heading(path, value)) {
        let path = match path {
            "" => quoted(key),
            _ => format!("{path}.{}", quoted(key)),
        };
        match value {
            Value::Table(table) if table.is_empty() => {}
            Value::Table(table) => write_section(text, &format!("[{path}]"), &path, table),
            _ => {
                for item in value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_table)
                {
                    write_section(text, &format!("[[{path}]]"), &path, item);
                }
            }
        }
    }
}

fn write_section(text: &mut String, heading: &str, path: &str, table: &Table) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{heading}\n"));
    write_table(text, path, table);
}

/// A feed's `fields` are written in one line each: under headings of their own they would lose their order among the
/// others, which is the order of the output.
fn has_heading(path: &str, value: &Value) -> bool {
    let is_table = value.is_table();
    let is_list_of_tables = value
        .as_array()
        .is_some_and(|items| items.first().is_some_and(Value::is_table));
    !is_fields(path) && (is_table || is_list_of_tables)
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match bare {
        true => key.to_owned(),
        false => serde_json::Value::from(key).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::layered;

    const FULL: &str = include_str!("../../tests/fixtures/config/full.toml");
    const SHOWN: &str = include_str!("../../tests/fixtures/config/full.shown.toml");

    #[test]
    fn every_setting_is_shown_and_no_secret_is() {
        let shown = show(&layered("", FULL));
        assert_eq!(shown, SHOWN, "what is shown now:\n{shown}");
        assert!(FULL.contains("hush") && !shown.contains("hush"));
    }

    #[test]
    fn what_is_shown_loads_again_as_the_same_settings() {
        for text in [FULL, ""] {
            let shown = show(&layered("", text));
            assert_eq!(show(&layered("", &shown)), shown);
        }
    }

    #[test]
    fn debugging_prints_no_secret_either() {
        let printed = format!("{:?}", layered("", FULL));
        assert!(
            printed.contains("certificates/ca.pem") && !printed.contains("hush"),
            "{printed}"
        );
    }
}
