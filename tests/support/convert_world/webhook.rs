//! A worker's webhook as anybody on the network sees it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;
use crate::support::{Worker, wait_until};

const PATH: &str = "/api/v1/s3/event";
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Webhook {
    address: SocketAddr,
    http: reqwest::Client,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub challenge: Option<String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Why the message was not accepted.
    #[track_caller]
    pub fn error(&self) -> String {
        let json = self.json();
        let error = json["error"].as_str();
        error.unwrap_or_else(|| panic!("no error: {self:?}")).into()
    }

    /// The answer's entry for the only record of an accepted message.
    #[track_caller]
    pub fn only_record(&self) -> Value {
        assert_eq!(self.status, 202, "{self:?}");
        match self.json()["records"].as_array().map(Vec::as_slice) {
            Some([record]) => record.clone(),
            _ => panic!("not one record: {self:?}"),
        }
    }
}

impl Webhook {
    pub async fn of(worker: &mut Worker) -> Self {
        let address = wait_until("the webhook's address", PATIENCE, async || {
            assert!(worker.is_running());
            listening(&worker.log())
        })
        .await;
        let http = reqwest::Client::builder().timeout(TIMEOUT).build();
        Self {
            address,
            http: http.expect("a client without TLS"),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method, url)
    }

    /// A request to be completed, by `POST` to where notifications go.
    pub fn notification(&self) -> RequestBuilder {
        self.request(Method::POST, PATH)
    }

    pub async fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        answer(self.notification().body(body.into())).await
    }

    pub async fn with_method(&self, method: Method) -> Answer {
        answer(self.request(method, PATH)).await
    }

    /// Sends bytes as they are and closes that side; everything that comes back.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        // A server may also answer what it does not understand by hanging up.
        answer.expect("an end").unwrap_or_default()
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the webhook answers");
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map(|value| value.to_str().expect("ASCII").to_owned());
    Answer {
        status: response.status().as_u16(),
        challenge,
        body: response.text().await.expect("an answer to its end"),
    }
}

fn listening(log: &str) -> Option<SocketAddr> {
    let line = log
        .lines()
        .find(|line| line.contains("webhook listening"))?;
    let line: Value = serde_json::from_str(line).ok()?;
    let address = line.pointer("/fields/address").or(line.get("address"));
    address?.as_str()?.parse().ok()
}
