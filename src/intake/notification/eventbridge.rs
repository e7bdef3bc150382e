//! S3 events as EventBridge delivers them: one event a message, its own field names, the key as it is.
//!
//! Shape: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>. That page does not say how keys are
//! encoded; they are taken literally.

use serde_json::Value;

use super::fields::{excerpt, label, text, unsigned, usable_etag, usable_version_id};
use super::{Dialect, Entry, IgnoreReason, Message, Notification, ParseError, RecordError};
use crate::object::ObjectRef;

const OBJECT_CREATED: &str = "Object Created";

pub(super) fn parse(event: &Value) -> Result<Message, ParseError> {
    match text(event, "/source").unwrap_or_default() {
        "aws.s3" => Ok(Message {
            dialect: Dialect::EventBridge,
            entries: vec![Entry::or_invalid(entry(event), event)],
        }),
        other => Err(ParseError::ForeignEventBridgeSource(excerpt(other))),
    }
}

fn entry(event: &Value) -> Result<Entry, RecordError> {
    let detail_type = text(event, "/detail-type").ok_or(RecordError::EventNameNotText)?;
    if detail_type != OBJECT_CREATED {
        return Ok(Entry::ignored(detail_type, IgnoreReason::NotACreation));
    }

    let bucket = text(event, "/detail/bucket/name").ok_or(RecordError::NoBucket)?;
    let key = text(event, "/detail/object/key").ok_or(RecordError::NoKey)?;
    if key.ends_with('/') {
        return Ok(Entry::ignored(detail_type, IgnoreReason::Folder));
    }

    Ok(Entry::Created(Notification {
        object: ObjectRef::try_new(bucket, key)?,
        etag: text(event, "/detail/object/etag").and_then(usable_etag),
        version_id: text(event, "/detail/object/version-id").and_then(usable_version_id),
        size: unsigned(event, "/detail/object/size"),
        sequencer: label(event, "/detail/object/sequencer"),
        event_name: OBJECT_CREATED.to_owned(),
        event_time: text(event, "/time").and_then(|time| time.parse().ok()),
        dialect: Dialect::EventBridge,
        source_id: label(event, "/id"),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse;
    use super::super::tests::{created, difficult_keys, fixture, ignored, invalid};
    use super::*;
    use crate::object::ETag;

    fn event(key: &str) -> Vec<u8> {
        json!({"detail-type": OBJECT_CREATED, "source": "aws.s3",
            "detail": {"bucket": {"name": "feeds"}, "object": {"key": key}}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn an_object_created_event_is_read_in_full() {
        assert_eq!(
            created(&fixture("eventbridge.json")),
            Notification {
                object: ObjectRef::try_new("partner-feeds", "nsx/100% wool+silk.xml").unwrap(),
                etag: ETag::parse("0f343b0931126a20f133d67c2b018a3b"),
                version_id: Some("v.7Kq_2".to_owned()),
                size: Some(2048),
                sequencer: Some("0066F0A1B2C3D4E5F6".to_owned()),
                event_name: "Object Created".to_owned(),
                event_time: Some("2026-03-14T15:09:26Z".parse().unwrap()),
                dialect: Dialect::EventBridge,
                source_id: Some("5d1b7f0a-0000-4000-8000-000000000001".to_owned()),
            }
        );
    }

    #[test]
    fn other_events_and_folders_are_ignored_by_name() {
        assert_eq!(
            ignored(&fixture("eventbridge-deleted.json")),
            ("Object Deleted".to_owned(), IgnoreReason::NotACreation)
        );
        assert_eq!(ignored(&event("folder/")).1, IgnoreReason::Folder);
    }

    #[test]
    fn difficult_keys_are_taken_as_they_are() {
        for key in difficult_keys() {
            assert_eq!(created(&event(&key)).object.key(), key);
        }
        assert_eq!(
            invalid(&event(&"k".repeat(1025))),
            "the object key has 1025 bytes, more than 1024"
        );
    }

    #[test]
    fn events_of_other_services_are_refused() {
        let error = parse(br#"{"detail-type":"Object Created","source":"aws.ec2"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"an EventBridge event of "aws.ec2", not of "aws.s3""#
        );
    }
}
