//! The form in which the filer writes the same events to Kafka: the record's key is the path, its value the protobuf of
//! `filer_pb.EventNotification` (<https://github.com/seaweedfs/seaweedfs/blob/master/weed/pb/filer.proto>; only what is
//! used is declared here).

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use prost::Message;
use serde_json::{Map, Value, json};

#[derive(Message)]
struct EventNotification {
    #[prost(message, tag = "2")]
    new_entry: Option<Entry>,
    #[prost(string, tag = "4")]
    new_parent_path: String,
}

#[derive(Message)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    is_directory: bool,
    #[prost(message, tag = "4")]
    attributes: Option<Attributes>,
    #[prost(map = "string, bytes", tag = "5")]
    extended: HashMap<String, Vec<u8>>,
}

#[derive(Message)]
struct Attributes {
    #[prost(uint64, tag = "1")]
    file_size: u64,
    #[prost(int64, tag = "2")]
    mtime: i64,
    #[prost(bytes = "vec", tag = "14")]
    md5: Vec<u8>,
}

/// The event as the filer would post it to a webhook; `None` for what is not in this form.
pub fn read(key: &[u8], value: &[u8]) -> Option<Value> {
    let is_json = value.trim_ascii_start().first() == Some(&b'{');
    let path = std::str::from_utf8(key).ok()?;
    if is_json || !path.starts_with('/') {
        return None;
    }
    let event = EventNotification::decode(value).ok()?;
    let mut message = Map::new();
    if let Some(entry) = event.new_entry {
        message.insert("new_entry".into(), entry_json(entry));
    }
    if !event.new_parent_path.is_empty() {
        message.insert("new_parent_path".into(), event.new_parent_path.into());
    }
    Some(json!({ "event_type": "kafka", "key": path, "message": message }))
}

fn entry_json(entry: Entry) -> Value {
    let extended: Map<String, Value> = entry
        .extended
        .into_iter()
        .map(|(name, value)| (name, BASE64_STANDARD.encode(value).into()))
        .collect();
    let attributes = entry.attributes.unwrap_or_default();
    json!({
        "name": entry.name,
        "is_directory": entry.is_directory,
        "attributes": {
            "file_size": attributes.file_size,
            "mtime": attributes.mtime,
            "md5": BASE64_STANDARD.encode(attributes.md5),
        },
        "extended": extended,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::{Entry, IgnoreReason, Message, Notification, parse_record};
    use super::*;

    /// Values as SeaweedFS 4.48 wrote them to Kafka, in base64.
    const FILE: &str = "Er8CChVyZWQgZmxvd2VyK3glMjDDvC54bWwaMRgLIOvz98mgqoX1GCoYc3kwQnFrRWhPOGdsbFNmWWNjcklmdz09OgkIBhAC\
             HQcIu5siPQgLELvRhtgGGLADMLvRhtgGchCzLQGqQSE7yCWVJ9hxysh/iAHrs+yDrOWL5ZcBkAG70YbYBrABu9GG2AYqNgoS\
             U2Vhd2VlZC1YLUFtei1FVGFnEiBiMzJkMDFhYTQxMjEzYmM4MjU5NTI3ZDg3MWNhYzg3Zio2Ch54LXNlYXdlZWRmcy1jaGVj\
             a3N1bS1hbGdvcml0aG0SFFgtQW16LUNoZWNrc3VtLUNyYzMyKiYKGngtc2Vhd2VlZGZzLWNoZWNrc3VtLXZhbHVlEgg4ek9K\
             OWc9PSocChNTZWF3ZWVkLVgtQW16LU93bmVyEgVhZG1pbhgBIhcvYnVja2V0cy9mZWVkcy9wcm9kdWN0czIKvte89fv/////\
             AQ==";
    const FOLDER: &str = "Ej8KCHByb2R1Y3RzEAEiMRC70YbYBhj5g4CACDC70YbYBogBsrGbnoqtl8PjAZABgJK4w5j+////AZgB3J2hgQIiDi9idWNr\
             ZXRzL2ZlZWRzMgq+17z1+/////8B";

    fn parsed(key: &str, value: &str) -> Message {
        let value = BASE64_STANDARD.decode(value).unwrap();
        parse_record(key.as_bytes(), &value).unwrap()
    }

    #[test]
    fn a_recorded_upload_names_its_object_etag_and_size() {
        let message = parsed("/buckets/feeds/products/red flower+x%20ü.xml", FILE);
        let created: Vec<&Notification> = message.created().collect();
        let [upload] = created[..] else {
            panic!("{message:?}")
        };
        assert_eq!(upload.object.bucket(), "feeds");
        assert_eq!(upload.object.key(), "products/red flower+x%20ü.xml");
        let etag = upload.etag.as_ref().map(|etag| etag.as_str());
        assert_eq!(etag, Some("b32d01aa41213bc8259527d871cac87f"));
        assert_eq!(upload.size, Some(11));
        assert!(upload.event_time.is_some());
    }

    #[test]
    fn a_recorded_folder_asks_for_nothing() {
        let message = parsed("/buckets/feeds/products", FOLDER);
        let [Entry::Ignored { why, .. }] = &message.entries[..] else {
            panic!("{message:?}")
        };
        assert_eq!(*why, IgnoreReason::Folder);
    }

    #[test]
    fn json_and_nonsense_are_not_taken_for_protobuf() {
        assert_eq!(read(b"/buckets/b/k", b" {\"Records\":[]}"), None);
        assert_eq!(read(b"b/k", b"\x12\x00"), None);
        assert_eq!(read(b"/buckets/b/k", b"\xFF\xFF\xFF"), None);
    }
}
