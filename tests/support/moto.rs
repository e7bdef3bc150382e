//! A server that plays AWS's SQS and SNS, started by the first test that needs it and shared by all of a file.
//!
//! A shell watches over it, and over a pipe from this process: when the pipe closes, however this process ended, the
//! server is killed.

use std::collections::HashMap;
use std::io::PipeWriter;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::OnceCell;

use crate::support::poll_until;

/// Long enough on a busy machine; it takes about two seconds on an idle one.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Signals end the pipe's reader, not the shell, which then cleans up.
const WATCH: &str = r#"
trap : HUP INT TERM
"$@" &
server=$!
cat >/dev/null
kill -KILL $server
wait
"#;

pub struct Moto {
    pub endpoint: String,
    client: Client,
    _shell: Child,
    /// Open for as long as this process lives.
    _alive: PipeWriter,
}

impl Moto {
    /// The one of this process; `None`, and a printed note, where there is none to start.
    pub async fn shared() -> Option<&'static Self> {
        static SERVER: OnceCell<Option<Moto>> = OnceCell::const_new();
        let server = SERVER.get_or_init(async || {
            let Some(program) = std::env::var_os("FEEDMILL_TEST_MOTO") else {
                let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
                let note = "needs FEEDMILL_TEST_MOTO (tests/run)";
                assert!(!required, "{note}");
                eprintln!("skipped: {note}");
                return None;
            };
            let server = Self::start(Path::new(&program)).expect("a moto server");
            let ready = poll_until(READY_TIMEOUT, async || {
                server.client.list_queues().send().await.ok()
            });
            ready.await.expect("the moto server serves");
            Some(server)
        });
        server.await.as_ref()
    }

    fn start(program: &Path) -> Result<Self> {
        let port = {
            let free = TcpListener::bind("127.0.0.1:0")?;
            free.local_addr()?.port().to_string()
        };
        let (reader, alive) = std::io::pipe()?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", WATCH, "watch"])
            .arg(program)
            .args(["-H", "127.0.0.1", "-p", &port])
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let endpoint = format!("http://127.0.0.1:{port}");
        Ok(Self {
            client: client(&endpoint),
            endpoint,
            _shell: shell.spawn().context("a shell")?,
            _alive: alive,
        })
    }

    /// A queue whose messages come again after `visibility` when they are not deleted.
    pub async fn queue(&'static self, visibility: Duration) -> Queue {
        let name = format!("fm-{}", uuid::Uuid::new_v4().simple());
        let url = self.create(&name, visibility).await;
        Queue {
            name,
            url,
            moto: self,
        }
    }

    async fn create(&self, name: &str, visibility: Duration) -> String {
        let timeout = QueueAttributeName::VisibilityTimeout;
        let request = self.client.create_queue().queue_name(name);
        let request = request.attributes(timeout, visibility.as_secs().to_string());
        let made = request.send().await.expect("the moto server serves");
        made.queue_url.expect("a queue has a URL")
    }

    /// A call of SNS's own protocol; what its answer has between `<tag>` and `</tag>`.
    pub async fn sns(&self, action: &str, parameters: &[(&str, &str)], tag: &str) -> String {
        // Signatures are not checked; the scope says which service is meant.
        let scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=none";
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).extend_pairs(parameters);
        let request = reqwest::Client::new()
            .post(&self.endpoint)
            .header("authorization", scope)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish());
        let answer = request.send().await.expect("the moto server serves");
        let text = answer.text().await.expect("the moto server serves");
        let found = text
            .split_once(&format!("<{tag}>"))
            .and_then(|(_, rest)| rest.split_once('<'));
        let (value, _) = found.unwrap_or_else(|| panic!("{action}: {text}"));
        value.to_owned()
    }
}

/// A queue of one test.
pub struct Queue {
    pub name: String,
    pub url: String,
    moto: &'static Moto,
}

impl Queue {
    pub async fn send(&self, body: impl Into<String>) {
        let request = self.moto.client.send_message().queue_url(&self.url);
        let sent = request.message_body(body).send().await;
        sent.expect("the moto server serves");
    }

    /// Messages that can be received now, and those that were and are not deleted yet.
    pub async fn messages(&self) -> (usize, usize) {
        let request = self.moto.client.get_queue_attributes().queue_url(&self.url);
        let request = request.attribute_names(QueueAttributeName::All);
        let answer = request.send().await.expect("the moto server serves");
        let attributes: HashMap<_, _> = answer.attributes.unwrap_or_default();
        let count = |name| attributes.get(&name).and_then(|n| n.parse().ok());
        (
            count(QueueAttributeName::ApproximateNumberOfMessages).expect("a number"),
            count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible).expect("a number"),
        )
    }

    /// Whether nothing is left, seen or unseen.
    pub async fn is_empty(&self) -> bool {
        self.messages().await == (0, 0)
    }

    pub async fn remove(&self) {
        let request = self.moto.client.delete_queue().queue_url(&self.url);
        request.send().await.expect("the moto server serves");
    }

    /// Makes it again after it was removed.
    pub async fn make(&self) {
        self.moto.create(&self.name, Duration::from_secs(30)).await;
    }
}

fn client(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .http_client(http)
        .build();
    Client::from_conf(config)
}
