//! How the topics are laid out: partitions and settings, as `topics create` makes them and every start checks them.

use super::Topics;
use crate::{config::Config, kafka::admin::TopicSpec};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The topics under the configured prefix.
pub fn specs(config: &Config) -> Vec<TopicSpec> {
    let kafka = &config.kafka;
    let topics = Topics::with_prefix(&kafka.topic_prefix);
    let kept = |name: &str, partitions, days: i64| TopicSpec {
        name: name.to_owned(),
        partitions,
        config: vec![
            ("cleanup.policy", "delete".into()),
            ("retention.ms", (days * DAY_MS).to_string()),
        ],
        checked: &["cleanup.policy"],
    };
    // Tombstones outlive the seven days after which a local copy is no longer trusted.
    let compacted = |name: &str, extra: Vec<(&'static str, String)>| TopicSpec {
        name: name.to_owned(),
        partitions: kafka.partitions,
        config: [
            ("cleanup.policy", "compact".into()),
            ("delete.retention.ms", (14 * DAY_MS).to_string()),
            ("segment.bytes", (64 * 1024 * 1024).to_string()),
            ("min.cleanable.dirty.ratio", "0.2".into()),
        ]
        .into_iter()
        .chain(extra)
        .collect(),
        checked: &["cleanup.policy", "delete.retention.ms"],
    };
    let mut specs = vec![
        kept(&topics.events, kafka.partitions, 7),
        kept(&topics.results, kafka.partitions, 30),
        compacted(&topics.objects, vec![]),
        // Its full history is kept for 30 days before compaction may touch it.
        compacted(
            &topics.dead_letters,
            vec![("min.compaction.lag.ms", (30 * DAY_MS).to_string())],
        ),
        compacted(&topics.cleanups, vec![]),
        kept(&topics.rejected_notifications, 1, 7),
    ];
    // As many partitions as `events`: an event waits in the number of its own, and comes back to it.
    specs.extend(config.retry.tiers.iter().map(|tier| {
        let mut spec = kept(&topics.retry(tier), kafka.partitions, 30);
        // How long an event has waited is told by the brokers' clock, not by that of the worker that sent it here.
        spec.config
            .push(("message.timestamp.type", "LogAppendTime".into()));
        TopicSpec {
            checked: &["cleanup.policy", "message.timestamp.type"],
            ..spec
        }
    }));
    specs
}
