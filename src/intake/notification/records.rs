//! The `{"Records": [...]}` of AWS S3 and of the servers that speak like it: MinIO, RustFS, Ceph RGW, versitygw.
//!
//! They share the shape and differ in how a key is written, which is all that this module has to get right. The shape:
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>; unknown fields are
//! ignored, and any 2.x version is taken, as that page asks.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::fields::{excerpt, label, text, unsigned, usable_etag, usable_version_id};
use super::{
    Dialect, Entry, IgnoreReason, MAX_RECORDS, Message, Notification, ParseError, RecordError,
};
use crate::object::ObjectRef;

/// The event of a record that does not name one, as in the minimal form with only bucket and key.
const UNNAMED_CREATION: &str = "ObjectCreated";

pub(super) fn parse(records: &Value) -> Result<Message, ParseError> {
    let records = records.as_array().ok_or(ParseError::RecordsNotAnArray)?;
    let first = records.first().ok_or(ParseError::NoRecords)?;
    if records.len() > MAX_RECORDS {
        return Err(ParseError::TooManyRecords(records.len()));
    }
    Ok(Message {
        dialect: dialect_of(first).unwrap_or(Dialect::Aws),
        entries: records
            .iter()
            .map(|record| Entry::or_invalid(entry(record), record))
            .collect(),
    })
}

fn entry(record: &Value) -> Result<Entry, RecordError> {
    check_version(record)?;
    let dialect = dialect_of(record)?;
    let event_name = event_name(record)?;
    if !is_creation(event_name) {
        return Ok(Entry::ignored(event_name, IgnoreReason::NotACreation));
    }

    let bucket = text(record, "/s3/bucket/name").ok_or(RecordError::NoBucket)?;
    let key = decode_key(
        text(record, "/s3/object/key").ok_or(RecordError::NoKey)?,
        dialect,
    )?;
    if key.ends_with('/') {
        return Ok(Entry::ignored(event_name, IgnoreReason::Folder));
    }

    Ok(Entry::Created(Notification {
        object: ObjectRef::try_new(bucket, key)?,
        etag: text(record, "/s3/object/eTag").and_then(usable_etag),
        version_id: text(record, "/s3/object/versionId").and_then(usable_version_id),
        size: unsigned(record, "/s3/object/size"),
        sequencer: label(record, "/s3/object/sequencer"),
        event_name: excerpt(event_name),
        event_time: text(record, "/eventTime").and_then(|time| time.parse().ok()),
        dialect,
        // Ceph has an id of the event itself; everywhere else it is the request that caused it.
        source_id: label(record, "/eventId")
            .or_else(|| label(record, "/responseElements/x-amz-request-id")),
    }))
}

/// AWS: the major version must be equal, the minor one may be any.
fn check_version(record: &Value) -> Result<(), RecordError> {
    match text(record, "/eventVersion") {
        Some(version) if version.split('.').next() != Some("2") => {
            Err(RecordError::UnsupportedVersion(excerpt(version)))
        }
        _ => Ok(()),
    }
}

fn dialect_of(record: &Value) -> Result<Dialect, RecordError> {
    match text(record, "/eventSource") {
        Some("aws:s3") if is_versitygw(record) => Ok(Dialect::Versitygw),
        None | Some("aws:s3") => Ok(Dialect::Aws),
        Some("minio:s3") => Ok(Dialect::Minio),
        Some("rustfs:s3") => Ok(Dialect::RustFs),
        Some("ceph:s3") => Ok(Dialect::Ceph),
        Some(other) => Err(RecordError::UnknownSource(excerpt(other))),
    }
}

/// versitygw calls itself `aws:s3`, but prefixes the event name, which AWS never does, and capitalises `PrincipalId`.
fn is_versitygw(record: &Value) -> bool {
    text(record, "/eventName").is_some_and(|name| name.starts_with("s3:"))
        || record.pointer("/userIdentity/PrincipalId").is_some()
}

fn event_name(record: &Value) -> Result<&str, RecordError> {
    match record.get("eventName") {
        None | Some(Value::Null) => Ok(UNNAMED_CREATION),
        Some(Value::String(name)) => Ok(name),
        Some(_) => Err(RecordError::EventNameNotText),
    }
}

/// MinIO's tagging and retention events are named `ObjectCreated:Put...` too and pass; their ETag is settled by then.
/// So does Ceph's `ObjectCreated:Post` of a multipart upload that has only begun: the bucket will tell.
fn is_creation(event_name: &str) -> bool {
    let name = event_name.strip_prefix("s3:").unwrap_or(event_name);
    name == UNNAMED_CREATION || name.starts_with("ObjectCreated:")
}

/// The key as the object has it. AWS, MinIO and RustFS write it as a form value (a space is `+`), the others as it is;
/// decoding theirs would corrupt every key with a `+` or a `%`.
fn decode_key(written: &str, dialect: Dialect) -> Result<Cow<'_, str>, RecordError> {
    match dialect {
        Dialect::Aws | Dialect::Minio | Dialect::RustFs => {
            decode_form_value(written).map(Cow::Owned)
        }
        Dialect::Ceph | Dialect::Versitygw | Dialect::SeaweedFs | Dialect::EventBridge => {
            Ok(Cow::Borrowed(written))
        }
    }
}

/// Decodes exactly once; the library would leave a broken escape as it is, which is a guess at another key.
fn decode_form_value(written: &str) -> Result<String, RecordError> {
    if !escapes_are_whole(written) {
        return Err(RecordError::BrokenEscape(excerpt(written)));
    }
    let spaced = written.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| RecordError::KeyNotUtf8(excerpt(written)))
}

fn escapes_are_whole(written: &str) -> bool {
    written.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::parse;
    use super::super::tests::{created, difficult_keys, fixture, ignored, invalid};
    use super::*;
    use crate::object::ETag;

    const ETAG: &str = "0f343b0931126a20f133d67c2b018a3b";
    const RAW: [&str; 2] = ["ceph:s3", "versitygw"];
    const FORM: [&str; 4] = ["aws:s3", "minio:s3", "rustfs:s3", "minimal"];

    fn record(source: &str, key: &str) -> Vec<u8> {
        let mut record = json!({"s3": {"bucket": {"name": "feeds"}, "object": {"key": key}}});
        match source {
            "minimal" => {}
            "versitygw" => {
                record["eventSource"] = json!("aws:s3");
                record["eventName"] = json!("s3:ObjectCreated:Put");
            }
            source => {
                record["eventSource"] = json!(source);
                record["eventName"] = json!("ObjectCreated:Put");
            }
        }
        json!({"Records": [record]}).to_string().into_bytes()
    }

    /// As Go's `url.QueryEscape` and AWS write it.
    fn form_encode(key: &str) -> String {
        utf8_percent_encode(key, NON_ALPHANUMERIC)
            .to_string()
            .replace("%20", "+")
    }

    /// As LocalStack writes it.
    fn percent_encode(key: &str) -> String {
        utf8_percent_encode(key, NON_ALPHANUMERIC).to_string()
    }

    fn object(key: &str) -> ObjectRef {
        ObjectRef::try_new("partner-feeds", key).unwrap()
    }

    #[test]
    fn an_aws_record_is_read_in_full() {
        assert_eq!(
            created(&fixture("aws-put.json")),
            Notification {
                object: object("nsx/summer sale 100% + grüße.xml"),
                etag: ETag::parse(ETAG),
                version_id: Some("v.7Kq_2".to_owned()),
                size: Some(2048),
                sequencer: Some("0066F0A1B2C3D4E5F6".to_owned()),
                event_name: "ObjectCreated:Put".to_owned(),
                event_time: Some("2026-03-14T15:09:26.535Z".parse().unwrap()),
                dialect: Dialect::Aws,
                source_id: Some("REQ-0001".to_owned()),
            }
        );
    }

    #[test]
    fn a_later_minor_version_with_unknown_fields_is_read_like_the_first() {
        let notification = created(&fixture("aws-newer-minor-version.json"));
        assert_eq!(notification.object, object("nsx/big.xml"));
        assert_eq!(
            notification.etag,
            ETag::parse("9b2cf535f27731c974343645a3985328-12")
        );
    }

    #[test]
    fn another_major_version_is_rejected_by_name() {
        assert_eq!(
            invalid(&fixture("aws-version-3.json")),
            r#"event version "3.0" is not 2.x"#
        );
    }

    #[test]
    fn bucket_and_key_alone_are_a_creation() {
        let notification = created(&fixture("minimal.json"));
        assert_eq!(notification.object, object("nsx/red shoes+socks.xml"));
        assert_eq!(notification.event_name, "ObjectCreated");
        assert_eq!(notification.dialect, Dialect::Aws);
        assert_eq!((notification.etag, notification.size), (None, None));
    }

    #[test]
    fn minio_and_rustfs_write_the_key_as_a_form_value() {
        for (name, dialect) in [
            ("minio.json", Dialect::Minio),
            ("rustfs.json", Dialect::RustFs),
        ] {
            let notification = created(&fixture(name));
            assert_eq!(notification.object, object("nsx/red shoes+socks.xml"));
            assert_eq!(notification.dialect, dialect);
            assert_eq!(notification.version_id, None);
            assert_eq!(notification.event_name, "s3:ObjectCreated:Put");
        }
    }

    #[test]
    fn ceph_writes_the_key_as_it_is_and_the_size_as_a_text() {
        let notification = created(&fixture("ceph.json"));
        assert_eq!(notification.object, object("nsx/100% wool+silk.xml"));
        assert_eq!(notification.dialect, Dialect::Ceph);
        assert_eq!(notification.size, Some(2048));
        assert_eq!(notification.version_id, None);
        assert_eq!(
            notification.source_id.as_deref(),
            Some("1773500966.535000.0f343b0931126a20f133d67c2b018a3b")
        );
    }

    #[test]
    fn versitygw_is_told_from_aws_and_its_quotes_are_taken_off() {
        let notification = created(&fixture("versitygw.json"));
        assert_eq!(notification.object, object("nsx/100% wool+silk.xml"));
        assert_eq!(notification.dialect, Dialect::Versitygw);
        assert_eq!(notification.etag, ETag::parse(ETAG));
        assert_eq!(notification.version_id, None);
        assert_eq!(notification.source_id, None);
        assert_eq!(
            notification.event_time,
            Some("2026-03-14T15:09:26Z".parse().unwrap())
        );
    }

    #[test]
    fn a_removal_is_ignored_by_its_name() {
        assert_eq!(
            ignored(&fixture("aws-removed.json")),
            (
                "ObjectRemoved:Delete".to_owned(),
                IgnoreReason::NotACreation
            )
        );
    }

    #[test]
    fn only_names_of_creations_create() {
        for name in [
            "ObjectCreated:Put",
            "ObjectCreated:Post",
            "s3:ObjectCreated:Copy",
            "ObjectCreated:CompleteMultipartUpload",
        ] {
            assert!(is_creation(name), "{name}");
        }
        for name in [
            "ObjectRestore:Completed",
            "ObjectTagging:Put",
            "s3:ObjectRemoved:DeleteObjects",
            "ObjectCreatedNot:Put",
            "LifecycleTransition",
            "",
        ] {
            assert!(!is_creation(name), "{name}");
        }
    }

    #[test]
    fn every_record_of_a_mixed_message_gets_its_entry() {
        let message = parse(&fixture("mixed.json")).unwrap();
        let keys: Vec<&str> = message.created().map(|n| n.object.key()).collect();
        assert_eq!(keys, ["nsx/one.xml", "nsx/two.xml"]);
        assert_eq!(
            message.entries[1],
            Entry::ignored("ObjectRemoved:Delete", IgnoreReason::NotACreation)
        );
        let Entry::Invalid { reason, record } = &message.entries[2] else {
            panic!("{:?}", message.entries[2])
        };
        assert!(reason.contains("nsx/broken%zz.xml"), "{reason}");
        assert!(record.contains(r#""key":"nsx/broken%zz.xml""#), "{record}");
        assert_eq!(
            message.entries[3],
            Entry::ignored("ObjectCreated:Put", IgnoreReason::Folder)
        );
    }

    #[test]
    fn difficult_keys_survive_every_encoding() {
        for key in difficult_keys() {
            let encoded = FORM.map(|source| record(source, &form_encode(&key)));
            let raw = RAW.map(|source| record(source, &key));
            let localstack = [record("aws:s3", &percent_encode(&key))];
            for body in encoded.iter().chain(&raw).chain(&localstack) {
                assert_eq!(created(body).object.key(), key);
            }
        }
    }

    #[test]
    fn a_key_is_decoded_exactly_once() {
        let key = |source| created(&record(source, "a%252Bb")).object.key().to_owned();
        assert_eq!(key("aws:s3"), "a%2Bb");
        assert_eq!(key("ceph:s3"), "a%252Bb");
    }

    #[test]
    fn keys_that_do_not_decode_are_invalid() {
        for (key, reason) in [
            ("a%", "hexadecimal"),
            ("a%2", "hexadecimal"),
            ("a%+1", "hexadecimal"),
            ("a%zz", "hexadecimal"),
            ("a%2ü", "hexadecimal"),
            ("a%FF", "not UTF-8"),
            ("a%C3", "not UTF-8"),
        ] {
            let told = invalid(&record("aws:s3", key));
            assert!(told.contains(reason), "{key}: {told}");
        }
    }

    #[test]
    fn names_outside_the_limits_of_s3_are_invalid() {
        let long = "k".repeat(1025);
        for source in FORM.iter().chain(&RAW) {
            let told = invalid(&record(source, &long));
            assert_eq!(told, "the object key has 1025 bytes, more than 1024");
            assert_eq!(invalid(&record(source, "")), "no object key");
        }
        let bucket = format!("a/{}", "b".repeat(100_000));
        let body =
            json!({"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": "k"}}}]});
        let told = invalid(body.to_string().as_bytes());
        assert!(told.contains("slash") && told.len() < 200, "{told}");
    }

    #[test]
    fn a_source_of_unknown_encoding_is_not_guessed_at() {
        assert_eq!(
            invalid(&record("other:s3", "a+b")),
            r#"event source "other:s3" is not known, nor how it encodes keys"#
        );
    }

    #[test]
    fn records_of_a_wrong_shape_are_invalid_one_by_one() {
        for wrong in [
            json!(null),
            json!("text"),
            json!({}),
            json!({"s3": []}),
            json!({"s3": {"bucket": {"name": 1}, "object": {"key": "k"}}}),
            json!({"s3": {"bucket": {"name": "b"}, "object": {"key": ["k"]}}}),
            json!({"eventName": 3, "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}),
        ] {
            let right = json!({"s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}});
            let body = json!({"Records": [wrong, right]}).to_string();
            let message = parse(body.as_bytes()).unwrap();
            assert!(
                matches!(
                    &message.entries[..],
                    [Entry::Invalid { .. }, Entry::Created(_)]
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn descriptions_of_a_wrong_type_do_not_lose_the_object() {
        let body = json!({"Records": [{"eventTime": "yesterday", "s3": {"bucket": {"name": "b"},
            "object": {"key": "k", "eTag": 7, "size": -1, "versionId": {}, "sequencer": []}}}]});
        let notification = created(body.to_string().as_bytes());
        assert_eq!(
            (
                notification.etag,
                notification.size,
                notification.version_id
            ),
            (None, None, None)
        );
        assert_eq!(notification.event_time, None);
    }

    #[test]
    fn the_number_of_records_is_bounded_and_not_zero() {
        let body = |n| json!({"Records": vec![json!({}); n]}).to_string();
        assert!(parse(body(1000).as_bytes()).is_ok());
        assert!(matches!(
            parse(body(1001).as_bytes()),
            Err(ParseError::TooManyRecords(1001))
        ));
        assert!(matches!(
            parse(body(0).as_bytes()),
            Err(ParseError::NoRecords)
        ));
        assert!(matches!(
            parse(br#"{"Records":{}}"#),
            Err(ParseError::RecordsNotAnArray)
        ));
    }

    proptest! {
        #[test]
        fn any_key_survives_every_encoding(key in "\\PC{0,60}[^/]") {
            for source in FORM {
                let read = created(&record(source, &form_encode(&key)));
                prop_assert_eq!(read.object.key(), &key);
            }
            for source in RAW {
                let read = created(&record(source, &key));
                prop_assert_eq!(read.object.key(), &key);
            }
        }
    }
}
