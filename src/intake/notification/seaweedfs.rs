//! What SeaweedFS's filer posts to a webhook (`notification.toml`): `{event_type, key, message}`, one event a message;
//! and, as [`protobuf`], what it writes to Kafka.
//!
//! The filer tells of files, not of objects: the path is `/buckets/<bucket>/<key>`, written as it is, and folders, parts
//! of uploads under way and the filer's own files are announced as well. Bytes are base64, absent fields are protobuf's
//! zero values. Seen with 4.48; the fields are those of `filer_pb.EventNotification`.
//!
//! In a versioned bucket one upload gives two events, and both count as a creation. The version's own file,
//! `<key>.versions/v_<version id>`, comes first, when a GET may still return the version before it. Then its folder,
//! `<key>.versions`, is updated to name the latest version, and only now is the upload what a GET returns. The second
//! alone would be right, the first costs a duplicate and makes a lost message less likely to matter.

mod protobuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde_json::Value;

use super::fields::{excerpt, text, unsigned, usable_etag, usable_version_id};
use super::{Dialect, Entry, IgnoreReason, Message, Notification, RecordError};
use crate::object::{ETag, ObjectRef};

pub(super) use self::protobuf::read as from_protobuf;

const BUCKETS_FOLDER: &str = "/buckets/";
const UPLOADS_FOLDER: &str = ".uploads";
const VERSIONS_FOLDER_SUFFIX: &str = ".versions";
const VERSION_FILE_PREFIX: &str = "v_";

pub(super) fn parse(event: &Value) -> Message {
    Message {
        dialect: Dialect::SeaweedFs,
        entries: vec![Entry::or_invalid(entry(event), event)],
    }
}

fn entry(event: &Value) -> Result<Entry, RecordError> {
    let event_name = text(event, "/event_type").ok_or(RecordError::EventNameNotText)?;
    let ignored = |why| Ok(Entry::ignored(event_name, why));

    // `event_type` is of no use: releases differ in whether an overwrite is an "update" or a "rename".
    let Some(entry) = FilerEntry::after(event) else {
        return ignored(IgnoreReason::NotACreation);
    };
    let path = path_now(event, &entry).ok_or(RecordError::NoKey)?;
    let Some((bucket, key)) = bucket_and_key(&path) else {
        return ignored(IgnoreReason::OutsideBuckets);
    };
    if bucket.starts_with('.') {
        return ignored(IgnoreReason::ServerInternal);
    }
    if key.split('/').next() == Some(UPLOADS_FOLDER) {
        return ignored(IgnoreReason::MultipartPart);
    }
    let Some(named) = NamedObject::of(key, &entry) else {
        return ignored(IgnoreReason::Folder);
    };
    if named.is_delete_marker {
        return ignored(IgnoreReason::DeleteMarker);
    }

    Ok(Entry::Created(Notification {
        object: ObjectRef::try_new(bucket, named.key)?,
        etag: named.etag,
        version_id: named.version_id,
        size: named.size,
        sequencer: None,
        event_name: excerpt(event_name),
        event_time: named.modified,
        dialect: Dialect::SeaweedFs,
        source_id: None,
    }))
}

/// Where the file is after the event; `key` alone is where it was before a rename.
fn path_now(event: &Value, entry: &FilerEntry) -> Option<String> {
    match (
        text(event, "/message/new_parent_path"),
        text(entry.0, "/name"),
    ) {
        (Some(folder), Some(name)) => Some(format!("{folder}/{name}")),
        _ => text(event, "/key").map(str::to_owned),
    }
}

/// `None` for a path outside the buckets' folder, and for a bucket's own folder.
fn bucket_and_key(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(BUCKETS_FOLDER)?.split_once('/')
}

/// What a filer entry says about an object, whichever of its three forms the entry has.
struct NamedObject<'a> {
    key: &'a str,
    etag: Option<ETag>,
    version_id: Option<String>,
    size: Option<u64>,
    modified: Option<Timestamp>,
    is_delete_marker: bool,
}

impl<'a> NamedObject<'a> {
    /// `None` for a folder that says nothing about an object.
    fn of(key: &'a str, entry: &FilerEntry) -> Option<Self> {
        if entry.is_folder() {
            return Self::latest_version(key, entry);
        }
        match version_file(key) {
            Some((key, version_id)) => Some(Self {
                version_id: usable_version_id(version_id),
                ..Self::file(key, entry)
            }),
            None => Some(Self::file(key, entry)),
        }
    }

    fn file(key: &'a str, entry: &FilerEntry) -> Self {
        Self {
            key,
            etag: entry.etag(),
            version_id: None,
            size: unsigned(entry.0, "/attributes/file_size"),
            modified: entry.modified(),
            is_delete_marker: entry.extended("Delete-Marker").as_deref() == Some("true"),
        }
    }

    /// From the folder of an object's versions, once it names the latest of them.
    fn latest_version(folder: &'a str, entry: &FilerEntry) -> Option<Self> {
        let key = folder.strip_suffix(VERSIONS_FOLDER_SUFFIX)?;
        let latest = |field: &str| entry.extended(&format!("Latest-Version-{field}"));
        let version_id = latest("Id")?;
        Some(Self {
            key,
            etag: latest("ETag").as_deref().and_then(usable_etag),
            version_id: usable_version_id(&version_id),
            size: latest("Size").and_then(|size| size.parse().ok()),
            modified: latest("Mtime")
                .and_then(|seconds| seconds.parse().ok())
                .and_then(|seconds| timestamp(seconds, 0)),
            is_delete_marker: latest("Is-Delete-Marker").as_deref() == Some("true"),
        })
    }
}

/// Splits `<key>.versions/v_<version id>`, a name that the server keeps to itself.
fn version_file(path: &str) -> Option<(&str, &str)> {
    let (folder, file) = path.rsplit_once('/')?;
    let key = folder.strip_suffix(VERSIONS_FOLDER_SUFFIX)?;
    let version_id = file.strip_prefix(VERSION_FILE_PREFIX)?;
    Some((key, version_id))
}

/// The JSON of a `filer_pb.Entry`.
struct FilerEntry<'a>(&'a Value);

impl<'a> FilerEntry<'a> {
    /// The file as it is after the event; none after a removal.
    fn after(event: &'a Value) -> Option<Self> {
        event
            .pointer("/message/new_entry")
            .filter(|entry| entry.is_object())
            .map(Self)
    }

    fn is_folder(&self) -> bool {
        self.0.get("is_directory") == Some(&Value::Bool(true))
    }

    /// One of the S3 gateway's own attributes, which the filer stores as bytes.
    fn extended(&self, name: &str) -> Option<String> {
        let encoded = self
            .0
            .get("extended")?
            .get(format!("Seaweed-X-Amz-{name}"))?;
        let bytes = BASE64_STANDARD.decode(encoded.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// The gateway's ETag; a file that did not come through it, or long ago, has only its MD5.
    fn etag(&self) -> Option<ETag> {
        self.extended("ETag")
            .as_deref()
            .and_then(usable_etag)
            .or_else(|| self.md5())
    }

    fn md5(&self) -> Option<ETag> {
        let digest = BASE64_STANDARD
            .decode(text(self.0, "/attributes/md5")?)
            .ok()?;
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        usable_etag(&hex)
    }

    fn modified(&self) -> Option<Timestamp> {
        let seconds = unsigned(self.0, "/attributes/mtime")?;
        let nanoseconds = unsigned(self.0, "/attributes/mtime_ns").unwrap_or(0);
        timestamp(seconds.try_into().ok()?, nanoseconds.try_into().ok()?)
    }
}

fn timestamp(seconds: i64, nanoseconds: i32) -> Option<Timestamp> {
    Timestamp::new(seconds, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{created, difficult_keys, fixture, ignored, invalid};
    use super::*;

    const ETAG: &str = "0f343b0931126a20f133d67c2b018a3b";

    fn object(key: &str) -> ObjectRef {
        ObjectRef::try_new("partner-feeds", key).unwrap()
    }

    #[test]
    fn a_new_file_is_read_in_full() {
        assert_eq!(
            created(&fixture("seaweedfs-create.json")),
            Notification {
                object: object("nsx/100% wool+silk ü.xml"),
                etag: ETag::parse(ETAG),
                version_id: None,
                size: Some(2048),
                sequencer: None,
                event_name: "create".to_owned(),
                event_time: Some("2026-03-14T15:09:26.535Z".parse().unwrap()),
                dialect: Dialect::SeaweedFs,
                source_id: None,
            }
        );
    }

    #[test]
    fn an_overwrite_has_the_etag_of_the_new_bytes_without_its_quotes() {
        let notification = created(&fixture("seaweedfs-overwrite.json"));
        assert_eq!(notification.object, object("nsx/a.xml"));
        assert_eq!(
            notification.etag,
            ETag::parse("9b2cf535f27731c974343645a3985328-12")
        );
    }

    #[test]
    fn without_an_etag_of_the_gateway_the_md5_is_the_etag() {
        let notification = created(&fixture("seaweedfs-no-gateway-etag.json"));
        assert_eq!(notification.etag, ETag::parse(ETAG));
    }

    #[test]
    fn a_file_moved_into_a_bucket_is_created_where_it_is_now() {
        let notification = created(&fixture("seaweedfs-rename.json"));
        assert_eq!(notification.object, object("nsx/a.xml"));
    }

    #[test]
    fn what_is_no_object_is_ignored_with_its_reason() {
        for (name, why) in [
            ("seaweedfs-delete.json", IgnoreReason::NotACreation),
            ("seaweedfs-rename-away.json", IgnoreReason::OutsideBuckets),
            ("seaweedfs-bucket.json", IgnoreReason::OutsideBuckets),
            ("seaweedfs-folder.json", IgnoreReason::Folder),
            ("seaweedfs-versions-folder.json", IgnoreReason::Folder),
            ("seaweedfs-part.json", IgnoreReason::MultipartPart),
            ("seaweedfs-system.json", IgnoreReason::ServerInternal),
            ("seaweedfs-delete-marker.json", IgnoreReason::DeleteMarker),
            (
                "seaweedfs-latest-is-delete-marker.json",
                IgnoreReason::DeleteMarker,
            ),
        ] {
            assert_eq!(ignored(&fixture(name)).1, why, "{name}");
        }
    }

    #[test]
    fn the_file_of_a_version_and_the_folder_that_names_it_are_the_same_creation() {
        for name in ["seaweedfs-version.json", "seaweedfs-latest-version.json"] {
            let notification = created(&fixture(name));
            assert_eq!(
                notification.object,
                object("nsx/100% wool+silk.xml"),
                "{name}"
            );
            assert_eq!(notification.version_id.as_deref(), Some("67aa01"), "{name}");
            assert_eq!(notification.etag, ETag::parse(ETAG), "{name}");
            assert_eq!(notification.size, Some(2048), "{name}");
            assert_eq!(notification.event_time.unwrap().as_second(), 1773500966);
        }
    }

    #[test]
    fn only_the_server_s_own_form_is_a_version() {
        assert_eq!(version_file("a.versions/v_1"), Some(("a", "1")));
        assert_eq!(
            version_file("d/a.versions/b.versions/v_1"),
            Some(("d/a.versions/b", "1"))
        );
        for key in ["a.versions", "a.versions/x", "a/v_1", "v_1"] {
            assert_eq!(version_file(key), None, "{key}");
        }
    }

    #[test]
    fn difficult_keys_are_taken_as_they_are() {
        let event = |key: &str| {
            json!({"event_type": "create", "key": format!("/buckets/feeds/{key}"),
                "message": {"new_entry": {}}})
            .to_string()
            .into_bytes()
        };
        for key in difficult_keys() {
            assert_eq!(created(&event(&key)).object.key(), key);
        }
        assert_eq!(
            invalid(&event(&"k".repeat(1025))),
            "the object key has 1025 bytes, more than 1024"
        );
    }

    #[test]
    fn fields_of_a_wrong_type_are_left_out() {
        let event = json!({"event_type": "create", "key": "/buckets/feeds/k", "message": {"new_entry": {
            "attributes": {"md5": "not base64!", "mtime": "soon", "file_size": []},
            "extended": {"Seaweed-X-Amz-ETag": 7}}}});
        let notification = created(event.to_string().as_bytes());
        assert_eq!(
            (
                notification.etag,
                notification.size,
                notification.event_time
            ),
            (None, None, None)
        );
    }
}
