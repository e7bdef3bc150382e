//! What each stage asks of Kafka, S3 and this machine. The tests grant exactly this to a user of a real broker, and run
//! a worker as that user.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::Stage,
    cleanup::{self, rules::is_asked_for},
    config::Config,
    convert,
    intake::topic,
    kafka::admin::Operation::{self, Describe, DescribeConfigs, Read, Write},
    retry, sweep,
    topics::{Topics, layout},
};

/// What the chosen stages need together.
#[derive(Debug, Default)]
pub struct Needs {
    pub topics: BTreeMap<String, BTreeSet<Operation>>,
    pub groups: BTreeMap<String, BTreeSet<Operation>>,
    /// What the transactional ids of workers begin with.
    pub transactional_ids: BTreeSet<String>,
    /// Buckets that a stage lists and reads: those of the feeds.
    pub reads_inputs: bool,
    /// The output bucket is listed, read and written.
    pub writes_outputs: bool,
    /// Sources are deleted, on a condition that their buckets have to honour.
    pub cleans_up: bool,
    pub keeps_state: bool,
}

impl Needs {
    pub fn of(stages: &BTreeSet<Stage>, config: &Config) -> Self {
        let mut needs = Self::default();
        // Every start looks at all topics and their settings.
        for spec in layout::specs(config) {
            needs.topic(&spec.name, &[Describe, DescribeConfigs]);
        }
        let topics = Topics::with_prefix(&config.kafka.topic_prefix);
        for stage in stages {
            match stage {
                Stage::Intake => needs.intake(&topics, config),
                Stage::Sweep if config.sweep.enabled => needs.sweep(&topics, &config.kafka.group),
                Stage::Sweep => {}
                Stage::Convert => needs.convert(&topics, config),
                Stage::Retry => needs.retry(&topics, config),
                Stage::Cleanup if is_asked_for(config) => {
                    needs.cleanup(&topics, &config.kafka.group)
                }
                Stage::Cleanup => {}
            }
        }
        needs
    }

    /// The idempotent producer needs no more than Write on a topic, since Kafka 3.0 (KIP-679).
    fn intake(&mut self, topics: &Topics, config: &Config) {
        self.topic(&topics.events, &[Write]);
        self.topic(&topics.rejected_notifications, &[Write]);
        for topic in &config.intake.topics {
            self.topic(topic, &[Describe, Read]);
            self.runs_on_kafka(&config.kafka.group, &topic::stage_name(topic));
        }
    }

    fn sweep(&mut self, topics: &Topics, group: &str) {
        self.topic(&topics.events, &[Write]);
        self.topic(&topics.objects, &[Read]);
        // What was cleaned up, and how far that stage is in the results.
        self.topic(&topics.cleanups, &[Read]);
        self.topic(&topics.results, &[Describe]);
        // Its only partition elects the process that sweeps.
        self.topic(&topics.rejected_notifications, &[Read]);
        let group_of = |stage| format!("{group}.{stage}");
        self.groups
            .entry(group_of(sweep::STAGE))
            .or_default()
            .insert(Read);
        for stage in [convert::STAGE, cleanup::STAGE] {
            let group = self.groups.entry(group_of(stage)).or_default();
            group.insert(Describe);
        }
        self.reads_inputs = true;
        self.keeps_state = true;
    }

    fn convert(&mut self, topics: &Topics, config: &Config) {
        for tier in &config.retry.tiers {
            self.topic(&topics.retry(tier), &[Write]);
        }
        // Written, too: an event found in another key's partition is moved home.
        self.topic(&topics.events, &[Read, Write]);
        self.topic(&topics.objects, &[Read, Write]);
        // Read, too, for the metrics: which letters are open, and when each feed had its last file.
        self.topic(&topics.results, &[Read, Write]);
        self.topic(&topics.dead_letters, &[Read, Write]);
        self.topic(&topics.rejected_notifications, &[Write]);
        self.runs_on_kafka(&config.kafka.group, convert::STAGE);
        self.reads_inputs = true;
        self.writes_outputs = true;
    }

    fn retry(&mut self, topics: &Topics, config: &Config) {
        self.topic(&topics.events, &[Write]);
        self.topic(&topics.rejected_notifications, &[Write]);
        for tier in &config.retry.tiers {
            self.topic(&topics.retry(tier), &[Read]);
            self.runs_on_kafka(&config.kafka.group, &retry::stage_name(&tier.to_string()));
        }
    }

    fn cleanup(&mut self, topics: &Topics, group: &str) {
        self.topic(&topics.results, &[Read]);
        self.topic(&topics.objects, &[Read]);
        self.topic(&topics.cleanups, &[Read, Write]);
        self.topic(&topics.rejected_notifications, &[Write]);
        self.runs_on_kafka(group, cleanup::STAGE);
        self.reads_inputs = true;
        self.cleans_up = true;
    }

    /// A stage on the exactly-once runtime: its group, its transactional ids, and a state folder.
    fn runs_on_kafka(&mut self, group: &str, stage: &str) {
        let group = format!("{group}.{stage}");
        self.transactional_ids.insert(format!("{group}-"));
        self.groups.entry(group).or_default().insert(Read);
        self.keeps_state = true;
    }

    fn topic(&mut self, name: &str, operations: &[Operation]) {
        self.topics
            .entry(name.to_owned())
            .or_default()
            .extend(operations);
    }
}
