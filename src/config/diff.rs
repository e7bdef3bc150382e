//! What a running process takes over from a new configuration, and which settings only a restart does.

use serde_json::Value;

use super::{Config, Intake, S3};

/// What runs, with what can be taken over while running: the feeds, the excluded keys, and the accounts of buckets.
pub fn reloaded(running: &Config, wanted: &Config) -> Config {
    Config {
        feeds: wanted.feeds.clone(),
        feeds_dir: wanted.feeds_dir.clone(),
        intake: Intake {
            exclude: wanted.intake.exclude.clone(),
            ..running.intake.clone()
        },
        s3: S3 {
            buckets: wanted.s3.buckets.clone(),
            ..running.s3.clone()
        },
        ..running.clone()
    }
}

/// Paths of the settings that differ, `kafka.brokers`, feeds left out. A secret that differs is not shown by any output, so
/// its table is named.
pub fn restart_needed(running: &Config, wanted: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    collect("", &printable(running), &printable(wanted), &mut paths);
    for section in sections_that_differ(running, wanted) {
        let begins = |path: &String| path.split('.').next() == Some(section);
        if !paths.iter().any(begins) {
            paths.push(format!("{section} (a secret)"));
        }
    }
    paths
}

fn printable(config: &Config) -> Value {
    let without_feeds = Config {
        feeds: Vec::new(),
        ..config.clone()
    };
    serde_json::to_value(without_feeds).unwrap_or_default()
}

fn collect(path: &str, running: &Value, wanted: &Value, into: &mut Vec<String>) {
    let (Value::Object(running), Value::Object(wanted)) = (running, wanted) else {
        if running != wanted {
            into.push(path.to_owned());
        }
        return;
    };
    let only_wanted = wanted.keys().filter(|key| !running.contains_key(*key));
    for key in running.keys().chain(only_wanted) {
        let path = match path {
            "" => key.clone(),
            _ => format!("{path}.{key}"),
        };
        let of =
            |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or_default();
        collect(&path, &of(running), &of(wanted), into);
    }
}

/// Taken apart, so that a new section can't be forgotten here.
fn sections_that_differ(running: &Config, wanted: &Config) -> Vec<&'static str> {
    let Config {
        kafka,
        s3,
        intake,
        sweep,
        convert,
        memory,
        retry,
        dead_letters,
        output,
        state,
        admin,
        log,
        shutdown,
        feeds_dir: _,
        feeds: _,
    } = running;
    let sections = [
        ("kafka", *kafka != wanted.kafka),
        ("s3", *s3 != wanted.s3),
        ("intake", *intake != wanted.intake),
        ("sweep", *sweep != wanted.sweep),
        ("convert", *convert != wanted.convert),
        ("memory", *memory != wanted.memory),
        ("retry", *retry != wanted.retry),
        ("dead_letters", *dead_letters != wanted.dead_letters),
        ("output", *output != wanted.output),
        ("state", *state != wanted.state),
        ("admin", *admin != wanted.admin),
        ("log", *log != wanted.log),
        ("shutdown", *shutdown != wanted.shutdown),
    ];
    let differing = sections.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::layered;

    const RUNNING: &str = r#"
        kafka.brokers = ["a:1"]
        kafka.security.username = "u"
        intake.token = "one"
        feeds = [{ name = "nsx", match = "s3://a/**" }]
    "#;

    #[track_caller]
    fn needs(settings: &str, expected: &[&str]) {
        let (running, wanted) = (layered("", RUNNING), layered(RUNNING, settings));
        assert_eq!(restart_needed(&running, &wanted), expected, "{settings}");
    }

    #[test]
    fn each_setting_that_differs_is_named_by_its_path() {
        needs("", &[]);
        needs("feeds = [{ name = 'other', match = 's3://b/**' }]", &[]);
        needs(
            "kafka.brokers = ['b:1']\nkafka.security.password = 'x'\noutput.bucket = 'json'",
            &["kafka.brokers", "kafka.security.password", "output.bucket"],
        );
        needs(
            "s3.buckets.partner.region = 'eu-west-1'",
            &["s3.buckets.partner"],
        );
    }

    #[test]
    fn what_is_taken_over_needs_no_restart() {
        let running = layered("", RUNNING);
        let wanted = layered(
            RUNNING,
            "feeds_dir = 'x'\nintake.exclude = ['x']\nfeeds = []\nlog.level = 'debug'",
        );
        let taken = reloaded(&running, &wanted);
        assert_eq!(restart_needed(&taken, &wanted), ["log.level"]);
        assert_eq!((taken.feeds.len(), taken.log.level.as_str()), (0, "info"));
    }

    #[test]
    fn a_secret_that_differs_is_noticed_and_not_shown() {
        needs("intake.token = 'two'", &["intake (a secret)"]);
        needs(
            "intake.token = 'two'\nintake.max_body_bytes = 5",
            &["intake.max_body_bytes"],
        );
    }
}
