//! States by the million, for benches.

use feedmill::object::ETag;
use feedmill::topics::{Millis, ObjectState, Output, Status};
use uuid::Uuid;

/// An object as convert leaves it, the `n`th one; its hashes are random, as real ones are to a compressor.
pub fn of(bucket: &str, key: &str, n: usize) -> ObjectState {
    let random = || Uuid::new_v4().simple().to_string();
    let etag = || ETag::parse(&random()).expect("not empty");
    ObjectState {
        bucket: bucket.into(),
        key: key.into(),
        etag: Some(etag()),
        version_id: None,
        status: Some(Status::Converted),
        outputs: vec![Output {
            bucket: "shop-json".into(),
            key: format!("products/{key}.json"),
            etag: etag(),
            sha256: random() + &random(),
            size: 40_000 + n as i64 % 9_000,
            records: 120,
        }],
        feed: Some("nsx".into()),
        mapping_hash: Some("0011223344556677".into()),
        dead_letter_id: None,
        last_request_id: None,
        generation: n as i64,
        settled_at: Millis(1_795_000_000_000),
    }
}
