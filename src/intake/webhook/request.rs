//! What a request must be before its message is looked at: allowed, small enough, and there in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use crate::config::Secret;

/// Who may post: anybody, or who knows the token.
pub(super) enum Access {
    Open,
    /// The token's SHA-256. Comparing digests takes a time that says nothing about the token.
    Token([u8; 32]),
}

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        token.map_or(Self::Open, |token| {
            Self::Token(sha256(token.expose().as_bytes()))
        })
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Open => Ok(()),
            Self::Token(expected) => presented_token(headers)
                .filter(|token| sha256(token) == *expected)
                .map(|_| ())
                .ok_or(Refusal::Unauthorized),
        }
    }
}

/// `Bearer <token>`, or the token alone, as MinIO sends what its operator wrote.
fn presented_token(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let token = match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token,
        _ => value,
    };
    Some(token.trim_ascii())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Reads a body up to a size and within a time. One that announces itself as larger is not read at all.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    timeout: Duration,
) -> Result<Vec<u8>, Refusal> {
    if announced_bytes(headers).is_some_and(|bytes| bytes > max_bytes as u64) {
        return Err(Refusal::TooLarge(max_bytes));
    }
    tokio::time::timeout(timeout, collect(body, max_bytes))
        .await
        .unwrap_or(Err(Refusal::Late(timeout)))
}

async fn collect(body: Body, max_bytes: usize) -> Result<Vec<u8>, Refusal> {
    let mut collected = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Refusal::BrokenOff)?;
        if collected.len() + chunk.len() > max_bytes {
            return Err(Refusal::TooLarge(max_bytes));
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected)
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use axum::body::Bytes;
    use axum::http::StatusCode;
    use futures::{future, stream};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn token(token: &str) -> Access {
        Access::Token(sha256(token.as_bytes()))
    }

    #[test]
    fn a_token_is_taken_with_and_without_the_word_bearer() {
        let access = token("t0ken");
        for value in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken ", "t0ken"] {
            assert!(
                access.check(&headers(&[("authorization", value)])).is_ok(),
                "{value}"
            );
        }
    }

    #[test]
    fn nobody_passes_without_the_token() {
        let access = token("t0ken");
        for value in ["Bearer t0ke", "Bearer t0ken2", "Basic t0ken", "Bearer", ""] {
            let refused = access.check(&headers(&[("authorization", value)]));
            assert!(matches!(refused, Err(Refusal::Unauthorized)), "{value}");
        }
        assert!(access.check(&HeaderMap::new()).is_err());
        assert!(Access::Open.check(&HeaderMap::new()).is_ok());
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_read() {
        let body = read_body(&HeaderMap::new(), Body::from("12345"), 5, SOON).await;
        assert_eq!(body.unwrap(), b"12345");
    }

    #[tokio::test]
    async fn a_body_announced_as_too_large_is_not_read_at_all() {
        let untouched = Body::from_stream(stream::poll_fn(
            |_| -> Poll<Option<Result<Bytes, io::Error>>> { panic!("the body was read") },
        ));
        let announced = headers(&[("content-length", "6")]);
        let refused = read_body(&announced, untouched, 5, SOON).await;
        assert_eq!(refused.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_endless_body_is_read_no_further_than_the_limit() {
        let chunks = Arc::new(AtomicUsize::new(0));
        let sent = Arc::clone(&chunks);
        let endless = Body::from_stream(stream::repeat_with(move || {
            sent.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(Bytes::from_static(b"abcd"))
        }));
        let refused = read_body(&HeaderMap::new(), endless, 10, SOON).await;
        assert!(matches!(refused, Err(Refusal::TooLarge(10))));
        assert_eq!(chunks.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_in_time_is_408_and_one_that_breaks_off_400() {
        let stuck = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
        let late = read_body(&HeaderMap::new(), stuck, 10, Duration::from_millis(5)).await;
        assert_eq!(late.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);

        let cut = Body::from_stream(stream::once(future::ready(Err::<Bytes, _>(
            io::Error::from(io::ErrorKind::UnexpectedEof),
        ))));
        let broken = read_body(&HeaderMap::new(), cut, 10, SOON).await;
        assert_eq!(broken.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
