//! "Did you mean": the nearest known name to one that nobody knows.

use super::Config;

/// The nearest of `known`, if it is near enough to be a slip of the finger: about one letter in three.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let tolerance = word.chars().count().max(3) / 3;
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word, name), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The setting that was meant by a name in the wrong place or with the wrong separator: `kafka.brokers` for `brokers`
/// and for `kafka_brokers`.
pub(super) fn nearest_setting(name: &str) -> Option<String> {
    let settings = settings();
    let last = |setting: &str| setting.rsplit('.').next() == Some(name);
    if let Some(elsewhere) = settings.iter().find(|setting| last(setting)) {
        return Some(elsewhere.clone());
    }
    let flat: Vec<String> = settings
        .iter()
        .map(|setting| setting.replace('.', "_"))
        .collect();
    let meant = nearest(&name.replace('.', "_"), flat.iter().map(String::as_str))?;
    let index = flat.iter().position(|setting| setting == meant)?;
    settings.into_iter().nth(index)
}

/// Every setting outside the feeds, as a dotted path. By way of JSON because that keeps the ones that are not set.
fn settings() -> Vec<String> {
    let mut settings = Vec::new();
    if let Ok(defaults) = serde_json::to_value(Config::default()) {
        collect("", &defaults, &mut settings);
    }
    settings
}

fn collect(path: &str, value: &serde_json::Value, into: &mut Vec<String>) {
    let Some(table) = value.as_object() else {
        into.push(path.to_owned());
        return;
    };
    for (key, value) in table {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        collect(&path, value, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        assert_eq!(nearest("recrod", ["name", "record"]), Some("record"));
        assert_eq!(nearest("broker", ["brokers", "group"]), Some("brokers"));
        assert_eq!(nearest("colour", ["name", "record"]), None);
    }

    #[test]
    fn a_setting_is_found_from_another_table_and_with_single_underscores() {
        assert_eq!(nearest_setting("brokers").as_deref(), Some("kafka.brokers"));
        assert_eq!(
            nearest_setting("s3_endpoint").as_deref(),
            Some("s3.endpoint")
        );
        assert_eq!(
            nearest_setting("kafka_commit_intervall_ms").as_deref(),
            Some("kafka.commit.interval_ms")
        );
        assert_eq!(nearest_setting("something"), None);
    }
}
