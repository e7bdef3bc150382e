//! One notification of an S3 server, in whatever dialect, to the objects that it says exist now.
//!
//! In: the bytes of one message. Out: a [`Message`] with one [`Entry`] per record, in the message's order. Pure: no
//! clock, no network.
//!
//! Promises: nothing panics and nothing is passed over in silence; every record is created, ignored by name, or
//! invalid with a reason. What identifies an object, its bucket and key, must be right. What only describes it (ETag,
//! version, size, time, the server's own ids) is left out when it cannot be used, because the bucket itself is asked
//! before anything is converted.

mod eventbridge;
mod fields;
mod records;
mod seaweedfs;

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use self::fields::{beginning_of, excerpt, text};
use crate::object::{ETag, ObjectRef, ObjectRefError};

/// Records taken from one message. AWS sends one; nobody is known to send more than a handful.
pub const MAX_RECORDS: usize = 1000;

/// A message that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of the first record; no server mixes dialects in one message.
    pub dialect: Dialect,
    /// Never empty, in the message's order.
    pub entries: Vec<Entry>,
}

/// What one record of a message comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A readable object is there now.
    Created(Notification),
    /// Understood, and nothing to do.
    Ignored { name: String, why: IgnoreReason },
    /// It may be about an object, but not one that can be told; `record` is its JSON.
    Invalid { reason: String, record: String },
}

/// An object that was created, in the words of the server that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub object: ObjectRef,
    pub etag: Option<ETag>,
    /// `None` for an unversioned object, whether the server says so by absence, `null`, `""` or `"null"`.
    pub version_id: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// For people: no two servers order by it in the same way, so nothing is ever compared with it.
    pub sequencer: Option<String>,
    /// As the server writes it, cut to 80 characters.
    pub event_name: String,
    pub event_time: Option<Timestamp>,
    pub dialect: Dialect,
    /// What the notification calls itself; not unique, some servers repeat it for a retry and some for every event.
    pub source_id: Option<String>,
}

/// Whose words a message is in. It decides how keys are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// AWS S3, what imitates it exactly, and the minimal form with only bucket and key.
    Aws,
    Minio,
    RustFs,
    Ceph,
    Versitygw,
    SeaweedFs,
    EventBridge,
}

/// Why an understood record asks for nothing; a closed set, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IgnoreReason {
    /// The server tries out its connection.
    TestEvent,
    /// A removal, a tag, a restore: no new bytes.
    NotACreation,
    /// A folder, or the empty object that stands for one.
    Folder,
    /// A part of a multipart upload that is still under way.
    MultipartPart,
    /// The newest version of the object is now a delete marker.
    DeleteMarker,
    /// The server's own bookkeeping.
    ServerInternal,
    /// A file that the server keeps outside its buckets.
    OutsideBuckets,
}

/// Why a message as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the message is not JSON, it begins with {begins:?}")]
    NotJson {
        begins: String,
        source: serde_json::Error,
    },
    #[error(
        "the message is JSON but no S3 notification of a known kind, it begins with {begins:?}"
    )]
    UnknownDialect { begins: String },
    #[error("\"Records\" is not an array")]
    RecordsNotAnArray,
    #[error("the message has no records")]
    NoRecords,
    #[error("the message has {0} records, more than {MAX_RECORDS}")]
    TooManyRecords(usize),
    #[error("an EventBridge event of {0:?}, not of \"aws.s3\"")]
    ForeignEventBridgeSource(String),
    #[error(
        "an SNS envelope: SNS needs raw message delivery for now, and the subscription confirmed by hand"
    )]
    SnsEnvelope,
}

/// Why one record does not name an object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum RecordError {
    #[error("event version {0:?} is not 2.x")]
    UnsupportedVersion(String),
    #[error("event source {0:?} is not known, nor how it encodes keys")]
    UnknownSource(String),
    #[error("the event name is not a text")]
    EventNameNotText,
    #[error("no bucket name")]
    NoBucket,
    #[error("no object key")]
    NoKey,
    #[error("the key {0:?} has a % that is not followed by two hexadecimal digits")]
    BrokenEscape(String),
    #[error("the key {0:?} is not UTF-8 when decoded")]
    KeyNotUtf8(String),
    #[error("the bucket name {0:?} contains a slash")]
    SlashInBucket(String),
    #[error(transparent)]
    Object(ObjectRefError),
}

/// Reads one message.
pub fn parse(body: &[u8]) -> Result<Message, ParseError> {
    let message: Value = serde_json::from_slice(body).map_err(|source| ParseError::NotJson {
        begins: beginning_of(body),
        source,
    })?;
    let has = |field: &str| message.get(field).is_some();

    if let Some(records) = message.get("Records") {
        records::parse(records)
    } else if text(&message, "/Event") == Some("s3:TestEvent") {
        Ok(test_event(&message))
    } else if has("detail-type") {
        eventbridge::parse(&message)
    } else if has("event_type") && has("key") && has("message") {
        Ok(seaweedfs::parse(&message))
    } else if has("Type") && has("TopicArn") {
        Err(ParseError::SnsEnvelope)
    } else {
        Err(ParseError::UnknownDialect {
            begins: beginning_of(body),
        })
    }
}

/// Reads one record of a Kafka topic: SeaweedFS writes its events there in a form of its own, all others as they post them.
pub fn parse_record(key: &[u8], value: &[u8]) -> Result<Message, ParseError> {
    match seaweedfs::from_protobuf(key, value) {
        Some(event) => Ok(seaweedfs::parse(&event)),
        None => parse(value),
    }
}

/// AWS sends one when notifications are switched on, versitygw one at every start.
fn test_event(message: &Value) -> Message {
    Message {
        dialect: match text(message, "/Service") {
            Some("S3") => Dialect::Versitygw,
            _ => Dialect::Aws,
        },
        entries: vec![Entry::Ignored {
            name: "s3:TestEvent".to_owned(),
            why: IgnoreReason::TestEvent,
        }],
    }
}

impl Message {
    /// The objects that were created, in the message's order.
    pub fn created(&self) -> impl Iterator<Item = &Notification> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Created(notification) => Some(notification),
            Entry::Ignored { .. } | Entry::Invalid { .. } => None,
        })
    }
}

impl Entry {
    fn ignored(name: &str, why: IgnoreReason) -> Self {
        Self::Ignored {
            name: excerpt(name),
            why,
        }
    }

    /// The entry, or what stands in for a record that does not name an object.
    fn or_invalid(entry: Result<Self, RecordError>, record: &Value) -> Self {
        entry.unwrap_or_else(|error| Self::Invalid {
            reason: error.to_string(),
            record: record.to_string(),
        })
    }
}

impl Dialect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Minio => "minio",
            Self::RustFs => "rustfs",
            Self::Ceph => "ceph",
            Self::Versitygw => "versitygw",
            Self::SeaweedFs => "seaweedfs",
            Self::EventBridge => "eventbridge",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl IgnoreReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TestEvent => "test_event",
            Self::NotACreation => "not_a_creation",
            Self::Folder => "folder",
            Self::MultipartPart => "multipart_part",
            Self::DeleteMarker => "delete_marker",
            Self::ServerInternal => "server_internal",
            Self::OutsideBuckets => "outside_buckets",
        }
    }
}

impl fmt::Display for IgnoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<ObjectRefError> for RecordError {
    /// The one variant that repeats a name of any length is cut.
    fn from(error: ObjectRefError) -> Self {
        match error {
            ObjectRefError::SlashInBucket(bucket) => Self::SlashInBucket(excerpt(&bucket)),
            other => Self::Object(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use proptest::prelude::*;

    /// A message written for these tests.
    pub(super) fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/notifications");
        std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(super) fn only_entry(body: &[u8]) -> Entry {
        let mut entries = parse(body).unwrap().entries;
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    pub(super) fn created(body: &[u8]) -> Notification {
        match only_entry(body) {
            Entry::Created(notification) => notification,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ignored(body: &[u8]) -> (String, IgnoreReason) {
        match only_entry(body) {
            Entry::Ignored { name, why } => (name, why),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn invalid(body: &[u8]) -> String {
        match only_entry(body) {
            Entry::Invalid { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Keys that some encoding or other gets wrong, up to S3's limit of 1,024 bytes.
    pub(super) fn difficult_keys() -> Vec<String> {
        [
            "plain.xml",
            "a+b c%20d%2Bé.xml",
            "100%",
            "%",
            "++",
            " ",
            "grüße/日本語/🛒.xml",
            "line\nbreak\ttab\r.xml",
            "quote\"back\\slash&<>.xml",
            "//double//slash",
            "\u{0}\u{7f}",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(["k".repeat(1024), "ü".repeat(512), " ".repeat(1024)])
        .collect()
    }

    #[test]
    fn test_events_of_aws_and_versitygw_are_acknowledged_and_ignored() {
        for (name, dialect) in [
            ("aws-test-event.json", Dialect::Aws),
            ("versitygw-test-event.json", Dialect::Versitygw),
        ] {
            let body = fixture(name);
            assert_eq!(parse(&body).unwrap().dialect, dialect);
            assert_eq!(
                ignored(&body),
                ("s3:TestEvent".to_owned(), IgnoreReason::TestEvent)
            );
        }
    }

    #[test]
    fn what_is_no_notification_is_refused_with_its_beginning() {
        let error = parse(b"<?xml version='1.0'?>\n<feed/>").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"the message is not JSON, it begins with "<?xml version='1.0'?><feed/>""#
        );
        for body in ["{}", "[]", "null", "3", r#""text""#, r#"{"Event":"other"}"#] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, ParseError::UnknownDialect { .. }), "{body}");
        }
        assert!(matches!(parse(b""), Err(ParseError::NotJson { .. })));
    }

    #[test]
    fn an_sns_envelope_is_refused_and_told_what_it_needs() {
        let error = parse(&fixture("sns-envelope.json")).unwrap_err();
        assert!(error.to_string().contains("raw message delivery"));
    }

    #[test]
    fn deep_nesting_is_refused_before_it_fills_the_stack() {
        let body = format!(r#"{{"Records":{}"#, "[".repeat(500_000));
        assert!(matches!(
            parse(body.as_bytes()),
            Err(ParseError::NotJson { .. })
        ));
    }

    /// Every message of the reference samples, in the form `created s3://bucket/key etag version` or as it is refused.
    #[test]
    fn the_reference_samples_read_as_their_servers_meant_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/events");
        if !folder.is_dir() {
            println!("left out: the reference samples are not here");
            return;
        }
        let versioned = "s3://b1795247724/dir/a file+ü.xml";
        let f019 = "f019ee9a03978aff9f9b78d0ddf3edb7";
        let four_bef = "4bef37e9c66018d0a21cc9d17730e5d7";
        let (v1, v2) = (
            "6715ffb4d386bde18dd1780581aab586",
            "6715ffb4c61fed9f72413dc2df5d5c05",
        );
        let expected: [(&str, Vec<String>); 13] = [
            (
                "aws-eventbridge-object-created.json",
                vec!["created s3://amzn-s3-demo-bucket1/example-key b1946ac92492d2347c6235b4d2611184 IYV3p45BT0ac8hjHg1houSdS1a.Mro8e".into()],
            ),
            (
                "aws-s3-put-v2.1.json",
                vec!["created s3://mybucket/HappyFace.jpg d41d8cd98f00b204e9800998ecf8427e 096fKKXTRTtl3on89fVO.nfljtsv6qko".into()],
            ),
            ("aws-s3-test-event.json", vec!["ignored test_event".into()]),
            ("aws-sns-notification-wrapping-s3.json", vec!["refused".into()]),
            ("aws-sns-subscription-confirmation.json", vec!["refused".into()]),
            (
                "ceph-rgw.json",
                vec!["created s3://mybucket1/myimage1.jpg 37b51d194a7513e45b56f6524f2d51f2 -".into()],
            ),
            (
                "minio-kafka.json",
                vec![format!("created s3://mybucket/5cdfb588cea4de1db3034a87/colors.xml {four_bef} -")],
            ),
            (
                "rustfs-kafka.json",
                vec![format!("created s3://mybucket/5cdfb588cea4de1db3034a87/colors.xml {four_bef} -")],
            ),
            (
                "seaweedfs-filer-webhook.jsonl",
                vec![
                    format!("created s3://feeds/partner/red flower+x.xml {f019} -"),
                    format!("created s3://feeds/partner/new.xml {four_bef} -"),
                    format!("created s3://feeds/partner/new.xml {f019} -"),
                    "ignored not_a_creation".into(),
                ],
            ),
            (
                "seaweedfs-filer-webhook-versioned.jsonl",
                vec![
                    format!("created {versioned} {f019} {v1}"),
                    format!("created {versioned} {four_bef} {v2}"),
                    "ignored folder".into(),
                    format!("created {versioned} {f019} {v1}"),
                ],
            ),
            (
                "versitygw-kafka-live.jsonl",
                vec![
                    "created s3://b1795247758/p/0 d0a9e8079f1e000013217aac970426c6 -".into(),
                    "created s3://b1795247758/p/2 d0a9e8079f1e000013217aac970426c6 -".into(),
                ],
            ),
            ("versitygw-test-event.json", vec!["ignored test_event".into()]),
            (
                "versitygw.json",
                vec![format!("created s3://feeds/partner/red flower+x.xml {f019} -")],
            ),
        ];
        for (name, expected) in expected {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            let messages: Vec<&str> = match name.ends_with(".jsonl") {
                true => text.lines().collect(),
                false => vec![&text],
            };
            let read: Vec<String> = messages.into_iter().map(summary).collect();
            assert_eq!(read, expected, "{name}");
        }
    }

    fn summary(body: &str) -> String {
        if parse(body.as_bytes()).is_err() {
            return "refused".to_owned();
        }
        match only_entry(body.as_bytes()) {
            Entry::Created(n) => format!(
                "created {} {} {}",
                n.object,
                n.etag.as_ref().map_or("-", ETag::as_str),
                n.version_id.as_deref().unwrap_or("-")
            ),
            Entry::Ignored { why, .. } => format!("ignored {why}"),
            Entry::Invalid { reason, .. } => format!("invalid {reason}"),
        }
    }

    const FIXTURES: [&str; 6] = [
        "aws-put.json",
        "mixed.json",
        "minio.json",
        "eventbridge.json",
        "seaweedfs-version.json",
        "seaweedfs-latest-version.json",
    ];

    proptest! {
        #[test]
        fn random_bytes_never_panic(body: Vec<u8>) {
            let _ = parse(&body);
        }

        #[test]
        fn damaged_messages_never_panic(
            which in 0..FIXTURES.len(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut body = fixture(FIXTURES[which]);
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let _ = parse(&body);
        }
    }
}
