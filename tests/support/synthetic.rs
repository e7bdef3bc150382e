//! A run as feedmill should leave it, written by hand, for the checker's own tests to break.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::checker::{
    Commit, Content, Dump, Expectations, Log, Record, Source, StoredOutput, Topic, Violation,
    check, murmur2,
};

const PARTITIONS: i32 = 4;

#[derive(Clone)]
pub struct Run {
    pub dump: Dump,
    pub expected: Expectations,
    outputs: BTreeMap<String, Value>,
}

impl Run {
    fn new() -> Self {
        let dump = Dump {
            input_bucket: "in".into(),
            ..Dump::default()
        };
        Self {
            dump,
            expected: Expectations::default(),
            outputs: BTreeMap::new(),
        }
    }

    /// Every rule has something to look at: conversions, duplicates, an overwrite, letters open and closed, a source
    /// that went away, a key of no feed, an event that was moved to its partition, and one that nobody can read.
    pub fn healthy() -> Self {
        let mut run = Self::new();
        run.converted("a.xml", "a1");
        run.unchanged("a.xml", "a1", "duplicate");
        run.converted("b.xml", "b1");
        run.converted("b.xml", "b2");
        run.unchanged("b.xml", "b1", "superseded");
        run.converted("b.xml", "b1");
        run.dead_lettered("broken.xml", "x1");
        run.dead_lettered("mended.xml", "m1");
        run.converted("mended.xml", "m2");
        run.converted("spoilt.xml", "s1");
        run.dead_lettered("spoilt.xml", "s2");
        run.converted("gone.xml", "g1");
        run.missing("gone.xml");
        run.ignored("notes.txt");
        let moved = run.event_on(run.foreign_partition("moved.xml"), "moved.xml");
        run.outcome("moved.xml", &moved, "w1", "converted");
        let partition = run.partition("a.xml");
        run.append(
            Topic::Events,
            partition,
            "in/a.xml",
            Content::Unreadable("not Avro".into()),
        );
        run.finish();
        run
    }

    pub fn partition(&self, key: &str) -> i32 {
        murmur2::partition_of(&format!("in/{key}"), PARTITIONS)
    }

    pub fn foreign_partition(&self, key: &str) -> i32 {
        (self.partition(key) + 1) % PARTITIONS
    }

    pub fn append(&mut self, topic: Topic, partition: i32, key: &str, content: Content) -> i64 {
        let lies_there = |r: &&Record| r.topic == topic && r.partition == partition;
        // Every other offset is a transaction marker.
        let offset = 2 * self.dump.records.iter().filter(lies_there).count() as i64;
        self.dump.records.push(Record {
            topic,
            partition,
            offset,
            key: key.into(),
            content,
        });
        offset
    }

    pub fn write(&mut self, topic: Topic, key: &str, value: Value) -> i64 {
        let content = match value {
            Value::Null => Content::Tombstone,
            value => Content::Value(value),
        };
        self.append(topic, self.partition(key), &format!("in/{key}"), content)
    }

    /// Announces an object; the id of the event.
    fn event_on(&mut self, partition: i32, key: &str) -> String {
        let id = format!("event {}", self.dump.records.len());
        let content = Content::Value(json!({"id": id}));
        self.append(Topic::Events, partition, &format!("in/{key}"), content);
        id
    }

    /// Appends the event to its own partition and everything that its outcome writes.
    fn outcome(&mut self, key: &str, id: &str, etag: &str, outcome: &str) {
        let offset = self.write(Topic::Events, key, json!({"id": id}));
        let before = self.state(key);
        let after = self.state_after(before.clone(), key, etag, outcome, offset, id);
        let written = match outcome {
            "converted" => after["outputs"].clone(),
            _ => json!([]),
        };
        let result = json!({
            "event_id": id, "outcome": outcome, "etag": etag, "intent": "observe",
            "settled_etag": after["etag"], "outputs": written,
            "generation": after["generation"], "status": after["status"],
            "event_partition": self.partition(key), "event_offset": offset,
        });
        self.write(Topic::Results, key, result);
        if after != before {
            self.write(Topic::Objects, key, after.clone());
        }
        self.write_letters(key, &before, &after);
    }

    fn state_after(
        &mut self,
        before: Value,
        key: &str,
        etag: &str,
        outcome: &str,
        offset: i64,
        id: &str,
    ) -> Value {
        let outputs = match outcome {
            "converted" => json!([self.put_output(key, etag)]),
            _ if before.is_null() => json!([]),
            _ => before["outputs"].clone(),
        };
        let letter = match outcome {
            "dead_lettered" => json!(id),
            _ => Value::Null,
        };
        match outcome {
            "converted" | "dead_lettered" => json!({
                "etag": etag, "status": outcome, "outputs": outputs,
                "dead_letter_id": letter, "generation": offset,
            }),
            "missing" => Value::Null,
            _ => before,
        }
    }

    fn write_letters(&mut self, key: &str, before: &Value, after: &Value) {
        match (&before["dead_letter_id"], &after["dead_letter_id"]) {
            (before, after) if before == after => {}
            (_, Value::Null) => {
                self.write(Topic::DeadLetters, key, Value::Null);
            }
            (_, id) => {
                self.write(Topic::DeadLetters, key, json!({"id": id}));
            }
        }
    }

    /// The last state written for a key.
    fn state(&self, key: &str) -> Value {
        let key = format!("in/{key}");
        let mut states = self.dump.records.iter().rev();
        match states.find(|r| r.topic == Topic::Objects && r.key == key) {
            Some(Record {
                content: Content::Value(value),
                ..
            }) => value.clone(),
            _ => Value::Null,
        }
    }

    pub fn put_output(&mut self, key: &str, etag: &str) -> Value {
        let output = format!("{key}.json");
        let json = json!([{"from": etag}]);
        self.dump.outputs.retain(|stored| stored.key != output);
        self.dump.outputs.push(StoredOutput {
            key: output.clone(),
            etag: format!("etag of {etag}"),
            sha256: format!("hash of {etag}"),
            json: Some(json.clone()),
            metadata: BTreeMap::new(),
        });
        self.outputs.insert(key.into(), json);
        json!({"key": output, "etag": format!("etag of {etag}"), "sha256": format!("hash of {etag}")})
    }

    pub fn put_source(&mut self, key: &str, etag: &str) {
        self.dump.sources.retain(|source| source.key != key);
        self.dump.sources.push(Source {
            key: key.into(),
            etag: etag.into(),
        });
    }

    fn new_id(&self) -> String {
        format!("event {}", self.dump.records.len())
    }

    pub fn converted(&mut self, key: &str, etag: &str) {
        self.put_source(key, etag);
        self.outcome(key, &self.new_id(), etag, "converted");
        self.expected
            .sources
            .insert(key.into(), Some(self.outputs[key].clone()));
    }

    fn dead_lettered(&mut self, key: &str, etag: &str) {
        self.put_source(key, etag);
        self.outcome(key, &self.new_id(), etag, "dead_lettered");
        self.expected.sources.insert(key.into(), None);
    }

    fn unchanged(&mut self, key: &str, etag: &str, outcome: &str) {
        self.outcome(key, &self.new_id(), etag, outcome);
    }

    fn missing(&mut self, key: &str) {
        self.dump.sources.retain(|source| source.key != key);
        self.expected.sources.remove(key);
        self.outcome(key, &self.new_id(), "gone", "missing");
    }

    fn ignored(&mut self, key: &str) {
        self.put_source(key, "n1");
        self.outcome(key, &self.new_id(), "n1", "ignored");
    }

    /// Ends of the logs and commits, as they stand when everything is done.
    fn finish(&mut self) {
        self.put_source("moved.xml", "w1");
        let json = self.outputs["moved.xml"].clone();
        self.expected.sources.insert("moved.xml".into(), Some(json));
        for topic in Topic::ALL {
            for partition in 0..PARTITIONS {
                let end = self.end(topic, partition);
                self.dump.logs.push(Log {
                    topic,
                    partition,
                    start: 0,
                    committed_end: end,
                    uncommitted_end: end,
                });
            }
        }
        for partition in 0..PARTITIONS {
            self.dump.commits.push(Commit {
                partition,
                next_offset: self.end(Topic::Events, partition),
                metadata: "fm1:".into(),
            });
        }
    }

    fn end(&self, topic: Topic, partition: i32) -> i64 {
        let lies_there = |r: &&Record| r.topic == topic && r.partition == partition;
        2 * self.dump.records.iter().filter(lies_there).count() as i64
    }

    /// Position of the last record of a key on a topic.
    pub fn last(&self, topic: Topic, key: &str) -> usize {
        let key = format!("in/{key}");
        let records = &self.dump.records;
        let is_it = |r: &Record| r.topic == topic && r.key == key;
        records
            .iter()
            .rposition(is_it)
            .expect("the healthy run has such a record")
    }

    pub fn value(&mut self, index: usize) -> &mut Value {
        match &mut self.dump.records[index].content {
            Content::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    pub fn output(&mut self, key: &str) -> &mut StoredOutput {
        let outputs = &mut self.dump.outputs;
        outputs
            .iter_mut()
            .find(|output| output.key == key)
            .expect("such an output")
    }

    /// Moves commits behind events that were appended after the run had been finished.
    pub fn settle_logs(&mut self) {
        for partition in 0..PARTITIONS {
            let end = self.end(Topic::Events, partition);
            let commits = &mut self.dump.commits;
            let commit = commits.iter_mut().find(|c| c.partition == partition);
            commit.expect("finished").next_offset = end;
        }
    }

    pub fn check(&self) -> Vec<Violation> {
        check(&self.dump, &self.expected)
    }

    /// Asserts that a fault is caught exactly once, by this rule.
    pub fn is_caught_by(&self, rule: &str) {
        let found = self.check();
        let rules: Vec<_> = found.iter().map(Violation::rule).collect();
        assert_eq!(rules, [rule], "{found:#?}");
    }
}
