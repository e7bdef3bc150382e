//! One GET from a host that was checked: bounded in size and time, and never led elsewhere.

use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use futures::future::BoxFuture;
use tokio::time::timeout;
use url::Url;

use crate::aws::TLS;
use crate::failure::chain;

/// Shorter than the 15 seconds that SNS waits for the webhook's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where certificates and confirmations are asked for.
pub trait Web: Send + Sync {
    /// The body of a 200, of at most so many bytes.
    fn get(&self, url: Url, max_bytes: usize) -> BoxFuture<'_, Result<Vec<u8>, WebError>>;
}

/// Why there was no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("no answer from {host} in time")]
    Late { host: String },
    #[error("no answer from {host}: {why}")]
    Unreachable { host: String, why: String },
    /// Redirects among them.
    #[error("{host} answered {status}")]
    Status { host: String, status: u16 },
    #[error("the answer of {host} is longer than {max_bytes} bytes")]
    TooLong { host: String, max_bytes: usize },
}

/// The web by the HTTP client of the AWS SDK, which follows no redirects.
pub struct Https {
    connector: Connector,
    timeout: Duration,
}

impl Default for Https {
    fn default() -> Self {
        Self {
            connector: Connector::builder().tls_provider(TLS).build(),
            timeout: TIMEOUT,
        }
    }
}

impl Web for Https {
    fn get(&self, url: Url, max_bytes: usize) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        Box::pin(async move {
            let host = url.host_str().unwrap_or_default().to_owned();
            let answer = timeout(self.timeout, self.ask(&url, &host, max_bytes)).await;
            answer.unwrap_or(Err(WebError::Late { host }))
        })
    }
}

impl Https {
    async fn ask(&self, url: &Url, host: &str, max_bytes: usize) -> Result<Vec<u8>, WebError> {
        let unreachable = |error: &(dyn std::error::Error + 'static)| WebError::Unreachable {
            host: host.to_owned(),
            why: chain(error),
        };
        let request = HttpRequest::get(url.as_str()).map_err(|error| unreachable(&error))?;
        let answer = self.connector.call(request).await;
        let answer = answer.map_err(|error| unreachable(&error))?;
        match answer.status().as_u16() {
            200 => {}
            status => {
                let host = host.to_owned();
                return Err(WebError::Status { host, status });
            }
        }
        body(answer, max_bytes)
            .await
            .map_err(|error| unreachable(&error))?
            .ok_or_else(|| WebError::TooLong {
                host: host.to_owned(),
                max_bytes,
            })
    }
}

/// `None` when it is longer.
async fn body(
    answer: HttpResponse,
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, aws_sdk_s3::primitives::ByteStreamError> {
    let mut chunks = ByteStream::new(answer.into_body());
    let mut collected = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if collected.len() + chunk.len() > max_bytes {
            return Ok(None);
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(Some(collected))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use futures::{future, stream};
    use tokio::net::TcpListener;

    use super::*;

    const MAX: usize = 1_000;

    /// A server of our own, by HTTP; that only HTTPS is asked is decided before.
    async fn ask(path: &str) -> Result<Vec<u8>, WebError> {
        let chunks = || stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 400]));
        let router = Router::new()
            .route("/found", get(|| future::ready("found")))
            .route("/fits", get(|| future::ready("x".repeat(MAX))))
            .route("/long", get(|| future::ready("x".repeat(MAX + 1))))
            .route(
                "/endless",
                get(move || future::ready(Body::from_stream(chunks()))),
            )
            .route("/silent", get(future::pending::<String>))
            .route("/error", get(|| future::ready(StatusCode::FORBIDDEN)))
            .route(
                "/elsewhere",
                get(|| future::ready((StatusCode::FOUND, [("location", "/found")]))),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        let web = Https {
            timeout: Duration::from_millis(500),
            ..Https::default()
        };
        let url = Url::parse(&format!("http://{address}{path}")).unwrap();
        let answer = web.get(url, MAX).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn an_answer_is_taken_up_to_its_longest() {
        assert_eq!(ask("/found").await.unwrap(), b"found");
        assert_eq!(ask("/fits").await.unwrap().len(), MAX);
        for path in ["/long", "/endless"] {
            let error = ask(path).await.unwrap_err();
            assert!(matches!(error, WebError::TooLong { .. }), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_is_no_answer_like_any_other_refusal() {
        for (path, expected) in [("/elsewhere", 302), ("/error", 403), ("/absent", 404)] {
            match ask(path).await {
                Err(WebError::Status { status, .. }) => assert_eq!(status, expected),
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_it_takes_sns_to_lose_patience() {
        let error = ask("/silent").await.unwrap_err();
        assert!(matches!(error, WebError::Late { .. }), "{error}");
        let nobody = Url::parse("http://127.0.0.1:1/a.pem").unwrap();
        let error = Https::default().get(nobody, MAX).await.unwrap_err();
        assert!(matches!(error, WebError::Unreachable { .. }), "{error}");
    }
}
