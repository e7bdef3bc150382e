//! Notifications of one created object, as several servers write them.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use serde_json::{Value, json};

/// A message with these records.
pub fn message(records: impl IntoIterator<Item = Value>) -> Vec<u8> {
    let records: Vec<_> = records.into_iter().collect();
    json!({ "Records": records }).to_string().into_bytes()
}

/// A record as AWS writes it, its key as given.
pub fn aws_record(bucket: &str, key: &str) -> Value {
    json!({
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key}},
    })
}

/// As a form value: a space is a `+`.
fn form_encoded(key: &str) -> String {
    let encoded = key.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/' => {
            char::from(byte).to_string()
        }
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

/// As AWS writes it: the key is a form value.
pub fn aws(bucket: &str, key: &str) -> Vec<u8> {
    message([aws_record(bucket, &form_encoded(key))])
}

/// As MinIO writes it: the slashes of the key are escaped too.
pub fn minio(bucket: &str, key: &str) -> Vec<u8> {
    let mut record = aws_record(bucket, &form_encoded(key).replace('/', "%2F"));
    record["eventSource"] = json!("minio:s3");
    record["eventName"] = json!("s3:ObjectCreated:Put");
    message([record])
}

/// As versitygw writes it: the key as it is.
pub fn versitygw(bucket: &str, key: &str) -> Vec<u8> {
    let mut record = aws_record(bucket, key);
    record["eventName"] = json!("s3:ObjectCreated:Put");
    message([record])
}

/// As SeaweedFS's filer writes it: a path.
pub fn seaweedfs(bucket: &str, key: &str) -> Vec<u8> {
    let (folder, name) = key.rsplit_once('/').expect("a key in a folder");
    let event = json!({
        "event_type": "create",
        "key": format!("/buckets/{bucket}/{key}"),
        "message": {
            "new_entry": {"name": name, "attributes": {"file_size": 1}},
            "new_parent_path": format!("/buckets/{bucket}/{folder}"),
        },
    });
    event.to_string().into_bytes()
}
