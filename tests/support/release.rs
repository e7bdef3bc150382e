//! What an earlier release left: fixtures under `tests/fixtures/upgrade`, a folder a release, and how they are written.
//!
//! * `build.json`: what `feedmill --version --json` said
//! * `records/NAME.VERSION.avro`: a value of a topic by each schema version, and beside it what it reads as
//! * `offsets.json`: committed offsets with their metadata
//! * `state.postcard.zst`: a worker's state folder; `state.json`: what is in it

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use feedmill::kafka::store::LogIdentity;
use feedmill::object::{ETag, ObjectRef};
use feedmill::topics::{
    Attempt, Cleanup, CleanupAction, CleanupOutcome, DeadLetter, DecodeError, Id, Intent, Millis,
    ObjectEvent, ObjectState, Outcome, Output, RejectedNotification, RejectedOutput,
    RejectedRecord, ResultRecord, Status, decode, encode,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A committed offset, and what it says is finished above it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Committed {
    pub offset: i64,
    pub metadata: String,
    pub finished: Vec<i64>,
}

/// What is in a state folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Whose it is, as its log lines say.
    pub worker: String,
    pub log: LogIdentity,
    pub written_at: Millis,
    /// By store, and there by partition of `objects`.
    pub next_offsets: BTreeMap<String, Vec<i64>>,
    pub states: Vec<ObjectState>,
}

/// The fixtures of one release.
pub struct Release(PathBuf);

impl Release {
    pub fn all() -> Vec<Self> {
        let folders = fs::read_dir(root()).expect("there are fixtures");
        folders.map(|folder| Self(folder.unwrap().path())).collect()
    }

    pub fn named(name: &str) -> Self {
        Self(root().join(name))
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self, file: &str) -> T {
        let text = fs::read(self.0.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub fn write_json(&self, file: &str, value: &impl Serialize) {
        let mut text = serde_json::to_string_pretty(value).unwrap();
        text.push('\n');
        write(&self.0.join(file), text.as_bytes());
    }

    /// Name of the schema, bytes, and what they read as.
    pub fn records(&self) -> Vec<(String, Vec<u8>, Value)> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.0.join("records")).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "avro")
            {
                let file = path.file_stem().unwrap().to_str().unwrap();
                let value = self.json(&format!("records/{file}.json"));
                let (name, _) = file.split_once('.').unwrap();
                records.push((name.to_owned(), fs::read(&path).unwrap(), value));
            }
        }
        records
    }

    /// Writes each sample by every version of its schema.
    pub fn write_records(&self) {
        for (name, bytes) in samples() {
            let today = schema(&format!("{name}.avsc")).expect("a schema of today");
            let versions = (1..).map_while(|version| {
                Some((version, schema(&format!("earlier/{name}.{version}.avsc"))?))
            });
            for (version, writer) in versions {
                let bytes = written_by(&writer, &today, &bytes);
                let value = read(name, &bytes).unwrap();
                write(
                    &self.0.join(format!("records/{name}.{version}.avro")),
                    &bytes,
                );
                self.write_json(&format!("records/{name}.{version}.json"), &value);
            }
        }
    }

    pub fn pack_state(&self, folder: &Path) {
        let mut entries = Vec::new();
        pack(folder, Path::new(""), &mut entries);
        let packed = postcard::to_allocvec(&entries).unwrap();
        let packed = zstd::encode_all(&packed[..], 19).unwrap();
        write(&self.0.join(STATE), &packed);
    }

    pub fn unpack_state(&self, folder: &Path) {
        let packed = fs::read(self.0.join(STATE)).unwrap();
        let packed = zstd::decode_all(&packed[..]).unwrap();
        for entry in postcard::from_bytes::<Vec<Entry>>(&packed).unwrap() {
            let path = folder.join(&entry.name);
            let Some((bytes, length)) = entry.content else {
                fs::create_dir_all(path).unwrap();
                continue;
            };
            write(&path, &bytes);
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(length).unwrap();
        }
    }
}

const STATE: &str = "state.postcard.zst";

/// A file or an empty folder, which git would forget.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    /// Of a file: its bytes up to the zeros at its end, and its length. The store makes its journals of zeros beforehand.
    content: Option<(Vec<u8>, u64)>,
}

fn pack(folder: &Path, name: &Path, into: &mut Vec<Entry>) {
    let path = folder.join(name);
    let packed = |content| Entry {
        name: name.to_str().expect("the store's own names").to_owned(),
        content,
    };
    if path.is_file() {
        let mut bytes = fs::read(path).unwrap();
        let length = bytes.len() as u64;
        let end = bytes.iter().rposition(|byte| *byte != 0);
        bytes.truncate(end.map_or(0, |end| end + 1));
        into.push(packed(Some((bytes, length))));
        return;
    }
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    if names.is_empty() {
        into.push(packed(None));
    }
    for entry in names {
        pack(folder, &name.join(entry), into);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/upgrade")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Reads a value as the code of today does.
pub fn read(name: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
    fn json<T: Serialize>(record: T) -> Value {
        serde_json::to_value(record).expect("a record has text keys")
    }
    match name {
        "ObjectEvent" => decode::<ObjectEvent>(bytes).map(json),
        "Result" => decode::<ResultRecord>(bytes).map(json),
        "ObjectState" => decode::<ObjectState>(bytes).map(json),
        "DeadLetter" => decode::<DeadLetter>(bytes).map(json),
        "Cleanup" => decode::<Cleanup>(bytes).map(json),
        "RejectedNotification" => decode::<RejectedNotification>(bytes).map(json),
        other => panic!("no record is called {other}"),
    }
}

fn schema(file: &str) -> Option<Schema> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schemas")
        .join(file);
    let text = fs::read_to_string(path).ok()?;
    Some(Schema::parse_str(&text).expect("a committed schema parses"))
}

/// A value of today as an earlier schema has it.
fn written_by(writer: &Schema, today: &Schema, bytes: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 10;
    let value = GenericDatumReader::builder(today)
        .reader_schema(writer)
        .build()
        .and_then(|reader| reader.read_value(&mut &bytes[HEADER_BYTES..]))
        .unwrap();
    let mut written = bytes[..2].to_vec();
    written.extend(&writer.fingerprint::<Rabin>().bytes);
    let writer = GenericDatumWriter::builder(writer).build().unwrap();
    writer.write_value(&mut written, value).unwrap();
    written
}

/// A value of each topic, with something in every field. A record type that is new comes here too.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let state = ObjectState {
        bucket: "feeds".into(),
        key: "nsx/ü b.xml".into(),
        etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7"),
        version_id: Some("v1".into()),
        status: Some(Status::Converted),
        outputs: vec![output()],
        feed: Some("nsx".into()),
        mapping_hash: Some("0011223344556677".into()),
        dead_letter_id: Some("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1b".into()),
        last_request_id: Some("request-1".into()),
        generation: 1_000_000,
        settled_at: Millis(1_795_000_000_000),
    };
    let letter = DeadLetter {
        id: "01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1b".into(),
        bucket: "feeds".into(),
        key: "nsx/ü b.xml".into(),
        etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7"),
        version_id: Some("v1".into()),
        size: Some(7),
        stage: "convert".into(),
        reason: "missing_field".into(),
        message: "a required value is missing or empty".into(),
        record: Some(8),
        line: Some(30),
        column: Some(5),
        byte_offset: Some(1_000),
        path: Some("items/item/price".into()),
        excerpt: Some("<item id=\"A8\">".into()),
        feed: Some("nsx".into()),
        mapping_hash: Some("0011223344556677".into()),
        attempts: 3,
        first_failed_at: Millis(1_795_000_000_000),
        last_failed_at: Millis(1_795_000_060_000),
        replays: 2,
        event_partition: 3,
        event_offset: 1_000_000,
        worker: "0a1b2c3d".into(),
        trace_parent: Some(TRACE.into()),
    };
    let rejected = RejectedNotification {
        source: "webhook".into(),
        reason: "not JSON".into(),
        body: b"\xff{".to_vec(),
        body_size: 2,
        partition: Some(1),
        offset: Some(5),
        rejected_at: Millis(1_795_000_000_000),
    };
    vec![
        ("ObjectEvent", encode(&event())),
        ("Result", encode(&result())),
        ("ObjectState", encode(&state)),
        ("DeadLetter", encode(&letter)),
        ("Cleanup", encode(&cleanup())),
        ("RejectedNotification", encode(&rejected)),
    ]
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn output() -> Output {
    Output {
        bucket: "shop-json".into(),
        key: "nsx/ü b.xml.json".into(),
        etag: ETag::parse("d41d8cd98f00b204e9800998ecf8427e").unwrap(),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
        size: 10_000,
        records: 25,
    }
}

fn cleanup() -> Cleanup {
    Cleanup {
        bucket: "feeds".into(),
        key: "nsx/ü b.xml".into(),
        etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7").unwrap(),
        version_id: Some("v1".into()),
        event_id: Id("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1b".parse().unwrap()),
        generation: 1_000_000,
        feed: "nsx".into(),
        action: CleanupAction::Move,
        outcome: CleanupOutcome::Skipped,
        reason: Some("output_absent".into()),
        message: Some("s3://shop-json/nsx/ü b.xml.json is not there".into()),
        target: Some("s3://feeds/done/nsx/ü b.xml".into()),
        cleaned_at: Millis(1_795_000_000_000),
        worker: "0a1b2c3d".into(),
        trace_parent: Some(TRACE.into()),
    }
}

fn event() -> ObjectEvent {
    let object = ObjectRef::try_new("feeds", "nsx/ü b.xml").unwrap();
    ObjectEvent {
        id: Id("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1b".parse().unwrap()),
        etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7"),
        version_id: Some("v1".into()),
        size: Some(7),
        sequencer: Some("0055AED6DCD90281E5".into()),
        event_time: Some(Millis(1_795_000_000_000)),
        received_at: Millis(1_795_000_001_000),
        source_id: Some("message-1".into()),
        intent: Intent::Reconvert,
        intent_id: Some("request-1".into()),
        attempt: 2,
        first_attempt_offset: Some(999_000),
        not_before: Some(Millis(1_795_000_060_000)),
        history: vec![Attempt {
            at: Millis(1_795_000_002_000),
            reason: "s3_unavailable".into(),
            message: "HTTP 503".into(),
        }],
        trace_parent: Some(TRACE.into()),
        replays: 1,
        ..ObjectEvent::observed(&object, "aws")
    }
}

fn result() -> ResultRecord {
    ResultRecord {
        event_id: Id("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1b".parse().unwrap()),
        outcome: Outcome::Converted,
        reason: Some("missing_field".into()),
        message: Some("a required value is missing or empty".into()),
        bucket: "feeds".into(),
        key: "nsx/ü b.xml".into(),
        etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7"),
        settled_etag: ETag::parse("f019ee9a03978aff9f9b78d0ddf3edb7"),
        version_id: Some("v1".into()),
        feed: Some("nsx".into()),
        mapping_hash: Some("0011223344556677".into()),
        outputs: vec![output()],
        generation: Some(1_000_000),
        status: Some(Status::Converted),
        dead_letter_id: Some("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1c".into()),
        intent: Intent::Replay,
        intent_id: Some("01a1ff4a-4f6f-724f-9ef9-ffc0986c5e1c".into()),
        attempt: 2,
        event_partition: 3,
        event_offset: 1_000_000,
        event_time: Some(Millis(1_795_000_000_000)),
        received_at: Millis(1_795_000_001_000),
        finished_at: Millis(1_795_000_002_000),
        worker: "0a1b2c3d".into(),
        trace_parent: Some(TRACE.into()),
        rejected: 1,
        rejections: vec![RejectedRecord {
            record: Some(1),
            line: Some(2),
            column: Some(3),
            byte_offset: Some(7),
            path: Some("items/item".into()),
            reason: "missing_field".into(),
            message: "a required value is missing or empty".into(),
            excerpt: Some("<item>".into()),
        }],
        rejected_output: Some(RejectedOutput {
            bucket: "shop-json".into(),
            key: "nsx/ü b.xml.json.rejected.jsonl".into(),
        }),
    }
}
