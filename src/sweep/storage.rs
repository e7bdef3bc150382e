//! What a sweep asks of S3: a page of a listing, an object's head, some bytes of a listing file.
//!
//! Keys are asked for percent-encoded, as the AWS command line and boto3 do: XML cannot hold every key, and servers
//! written in Go put U+FFFD in place of what it cannot hold. A listing goes on by the server's own token and not after
//! the last key: SeaweedFS lists the object `x` before the folder `x/`, and after the key `x` it leaves the folder out.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use aws_sdk_s3::{
    operation::list_objects_v2::ListObjectsV2Output,
    types::{EncodingType, Object},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::{
    live::Live,
    object::{ETag, ObjectRef},
    s3::{Accounts, Failure, S3Error},
    topics::Millis,
};

/// What a server writes in place of a character that it cannot write.
const REPLACEMENT: char = '\u{fffd}';

/// An object, as a listing or its head describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub etag: ETag,
    pub size: Option<i64>,
    /// By the server's clock, to the second.
    pub modified: Option<Millis>,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// The server's own bookmark.
    Token(String),
    /// Behind this key.
    Key(String),
}

/// Some objects of a listing, at most 1,000 on most servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// Entries that can't be taken for what they are, each with the reason.
    pub unreadable: Vec<String>,
    /// `None` at the end.
    pub next: Option<Cursor>,
}

/// The S3 servers, as far as a sweep needs them.
pub trait Storage: Send + Sync + 'static {
    /// A page of the objects whose keys begin with the prefix.
    fn page(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&Cursor>,
    ) -> impl Future<Output = Result<Page, S3Error>> + Send;

    /// The object as it is now; `None` when it is not there.
    fn head(
        &self,
        object: &ObjectRef,
    ) -> impl Future<Output = Result<Option<Listed>, S3Error>> + Send;

    /// Some bytes of this version of an object.
    fn read(
        &self,
        object: &ObjectRef,
        etag: &ETag,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, S3Error>> + Send;
}

/// The real servers.
pub struct S3Storage {
    pub accounts: Arc<Live<Accounts>>,
    /// Longest wait for the body of a range.
    pub stall: Duration,
}

impl Storage for S3Storage {
    async fn page(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&Cursor>,
    ) -> Result<Page, S3Error> {
        let accounts = self.accounts.current();
        let request = accounts.of(bucket).list_objects_v2();
        let request = request.bucket(bucket).prefix(prefix);
        let request = match from {
            None => request,
            Some(Cursor::Token(token)) => request.continuation_token(token),
            Some(Cursor::Key(key)) => request.start_after(key),
        };
        let answer = request.encoding_type(EncodingType::Url).send().await;
        read_page(&answer.map_err(|error| S3Error::new("ListObjectsV2", &error))?)
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        let accounts = self.accounts.current();
        let request = accounts.of(object.bucket()).head_object();
        let request = request.bucket(object.bucket()).key(object.key());
        let head = match request.send().await {
            Ok(head) => head,
            Err(error) => {
                let refused = error
                    .raw_response()
                    .is_some_and(|response| response.status().as_u16() == 400);
                let mut error = S3Error::new("HeadObject", &error);
                if refused {
                    // The answer to a HEAD has no body to say why; it is the key that differs from request to request.
                    error.failure = Failure::Refused;
                }
                return match error.failure {
                    Failure::NotFound => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let etag = head.e_tag().and_then(ETag::parse);
        Ok(Some(Listed {
            key: object.key().to_owned(),
            etag: etag.ok_or_else(|| S3Error::unavailable("HeadObject", "there is no ETag"))?,
            size: head.content_length(),
            modified: head.last_modified().and_then(millis),
        }))
    }

    async fn read(
        &self,
        object: &ObjectRef,
        etag: &ETag,
        range: Range<u64>,
    ) -> Result<Bytes, S3Error> {
        let accounts = self.accounts.current();
        let request = accounts.of(object.bucket()).get_object();
        let answer = request
            .bucket(object.bucket())
            .key(object.key())
            .if_match(etag.quoted())
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .send()
            .await
            .map_err(|error| S3Error::new("GetObject", &error))?;
        let failed = |why: String| S3Error::unavailable("GetObject", why);
        let wanted = range.end - range.start;
        if answer
            .content_length()
            .and_then(|bytes| u64::try_from(bytes).ok())
            != Some(wanted)
        {
            return Err(failed(format!(
                "the server did not send the {wanted} bytes asked for"
            )));
        }
        let body = tokio::time::timeout(self.stall, answer.body.collect()).await;
        let body = body.map_err(|_| failed("the body does not come".to_owned()))?;
        body.map(|body| body.into_bytes())
            .map_err(|error| failed(error.to_string()))
    }
}

fn millis(time: &aws_sdk_s3::primitives::DateTime) -> Option<Millis> {
    time.to_millis().ok().map(Millis)
}

/// Reads what a server answered; an answer without ETags is an error, because nothing can be compared by it.
fn read_page(answer: &ListObjectsV2Output) -> Result<Page, S3Error> {
    let encoded = answer.encoding_type() == Some(&EncodingType::Url);
    let mut page = Page::default();
    for object in answer.contents() {
        match read_key(object.key().unwrap_or_default(), encoded) {
            Ok(key) => page.objects.push(listed(key, object)?),
            Err(reason) => page.unreadable.push(reason),
        }
    }
    if answer.is_truncated() == Some(true) {
        let last = page.objects.last().map(|object| object.key.as_str());
        page.next = Some(next(answer.next_continuation_token(), last)?);
    }
    Ok(page)
}

/// A token that is the last key may have been mangled on its way through the XML; then the key itself is the bookmark.
fn next(token: Option<&str>, last_key: Option<&str>) -> Result<Cursor, S3Error> {
    match (token.filter(|token| !token.is_empty()), last_key) {
        (Some(token), Some(key)) if token.contains(REPLACEMENT) => Ok(Cursor::Key(key.to_owned())),
        (Some(token), _) => Ok(Cursor::Token(token.to_owned())),
        (None, Some(key)) => Ok(Cursor::Key(key.to_owned())),
        (None, None) => Err(S3Error::unavailable(
            "ListObjectsV2",
            "a page without objects says that there are more, but not where",
        )),
    }
}

fn read_key(raw: &str, encoded: bool) -> Result<String, String> {
    if encoded {
        let spaced = raw.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        return decoded
            .map(|key| key.into_owned())
            .map_err(|_| format!("the key {raw:?} is not UTF-8"));
    }
    match raw.contains(REPLACEMENT) {
        true => Err(format!("the server could not write the key {raw:?} in XML")),
        false => Ok(raw.to_owned()),
    }
}

fn listed(key: String, object: &Object) -> Result<Listed, S3Error> {
    let etag = object.e_tag().and_then(ETag::parse);
    Ok(Listed {
        etag: etag.ok_or_else(no_etags)?,
        size: object.size(),
        modified: object.last_modified().and_then(millis),
        key,
    })
}

fn no_etags() -> S3Error {
    S3Error {
        operation: "ListObjectsV2",
        failure: Failure::Refused,
        message: "the server lists objects without their ETags, so that nothing can be compared; set sweep.enabled = false, or name the objects by sweep.lists".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object::builder().key(key).e_tag("\"abc\"").size(7).build()
    }

    fn answer(keys: &[&str], encoded: bool) -> ListObjectsV2Output {
        ListObjectsV2Output::builder()
            .set_contents(Some(keys.iter().map(|key| object(key)).collect()))
            .set_encoding_type(encoded.then_some(EncodingType::Url))
            .build()
    }

    fn keys(page: &Page) -> Vec<&str> {
        page.objects
            .iter()
            .map(|object| object.key.as_str())
            .collect()
    }

    #[test]
    fn encoded_keys_are_decoded_when_the_server_says_that_it_encoded_them() {
        let raw = ["a%01b", "a+b%2Bc%2520%26%3C%C3%BC", "x/%EF%BF%BD"];
        let page = read_page(&answer(&raw, true)).unwrap();
        assert_eq!(keys(&page), ["a\u{1}b", "a b+c%20&<ü", "x/\u{fffd}"]);
        assert_eq!((page.next, page.unreadable), (None, vec![]));
        let plain = read_page(&answer(&["a+b%20c"], false)).unwrap();
        assert_eq!(keys(&plain), ["a+b%20c"]);
    }

    #[test]
    fn a_key_that_is_not_what_it_was_is_named_and_never_taken_for_another() {
        let page = read_page(&answer(&["a\u{fffd}b", "good"], false)).unwrap();
        assert_eq!(keys(&page), ["good"]);
        assert_eq!(page.unreadable.len(), 1);
        let page = read_page(&answer(&["a%FFb", "good"], true)).unwrap();
        assert_eq!(keys(&page), ["good"]);
        assert_eq!(page.unreadable, ["the key \"a%FFb\" is not UTF-8"]);
    }

    #[test]
    fn a_listing_goes_on_by_the_servers_token_unless_that_was_mangled() {
        let token = |token: Option<&str>, last: Option<&str>| next(token, last).unwrap();
        let of_key = |key: &str| Cursor::Key(key.to_owned());
        assert_eq!(token(Some("t"), Some("k")), Cursor::Token("t".to_owned()));
        assert_eq!(token(Some("t"), None), Cursor::Token("t".to_owned()));
        assert_eq!(token(Some("a\u{fffd}"), Some("a\u{1}")), of_key("a\u{1}"));
        assert_eq!(token(None, Some("k")), of_key("k"));
        assert!(next(None, None).is_err());
    }

    #[test]
    fn a_listing_without_etags_is_refused_and_says_what_to_do() {
        let without = Object::builder().key("k").build();
        let answer = ListObjectsV2Output::builder().contents(without).build();
        let error = read_page(&answer).unwrap_err();
        assert_eq!(error.failure, Failure::Refused);
        assert!(error.message.contains("sweep.enabled = false"), "{error}");
    }
}
