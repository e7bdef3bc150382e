//! The source of a letter, from the bucket into a file without a name.

use std::{
    fs::File,
    io::{Seek, Write},
};

use aws_sdk_s3::Client;

use crate::{
    feed::Source,
    object::ETag,
    s3::{self, S3Error},
    spool,
    topics::DeadLetter,
};

/// The bytes of a version, in a file without a name.
pub struct Fetched {
    /// Which version it is, in words.
    pub what: String,
    /// What mappings may know of it, but for the feed.
    pub source: Source,
    pub file: File,
}

/// The version that failed, or what is there now.
pub async fn fetch(s3: &Client, letter: &DeadLetter) -> anyhow::Result<Fetched> {
    let request = |version: Option<String>, etag: Option<&ETag>| {
        let request = s3.get_object().bucket(&letter.bucket).key(&letter.key);
        let request = request
            .set_version_id(version)
            .set_if_match(etag.map(ETag::quoted));
        request.send()
    };
    let pinned = letter.version_id.is_some() || letter.etag.is_some();
    let answer = request(letter.version_id.clone(), letter.etag.as_ref()).await;
    let answer = answer.map_err(|error| S3Error::new("GetObject", &error));
    let (answer, what) = match answer {
        Ok(answer) if pinned => (answer, "the version that failed"),
        Ok(answer) => (answer, "as it is now"),
        Err(error) if pinned && is_gone(error.failure) => {
            let now = request(None, None).await;
            let now = now.map_err(|error| S3Error::new("GetObject", &error))?;
            (now, "as it is now: the version that failed is gone")
        }
        Err(error) => return Err(error.into()),
    };
    let etag = answer.e_tag().and_then(ETag::parse);
    let source = Source {
        bucket: letter.bucket.clone(),
        key: letter.key.clone(),
        etag: etag.map_or_else(String::new, |etag| etag.as_str().to_owned()),
        last_modified: answer
            .last_modified()
            .and_then(|time| jiff::Timestamp::from_second(time.secs()).ok())
            .map(|time| time.to_string()),
        feed: String::new(),
    };
    let mut body = answer.body;
    let mut file = spool::unnamed_file()?;
    while let Some(chunk) = body.next().await {
        file.write_all(&chunk?)?;
    }
    file.rewind()?;
    Ok(Fetched {
        what: format!("{what} (etag {})", source.etag),
        source,
        file,
    })
}

fn is_gone(failure: s3::Failure) -> bool {
    matches!(
        failure,
        s3::Failure::NotFound | s3::Failure::PreconditionFailed
    )
}
