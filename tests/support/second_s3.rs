//! A second S3 server, with an account of its own, started by the first test that needs it and shared by all of a file.
//!
//! A shell watches over it, and over a pipe from this process: when the pipe closes, however this process ended, the
//! server is killed and its folder removed.

use std::fs::{self, File};
use std::io::PipeWriter;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_s3::config::Credentials;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::{Store, poll_until};

/// Long enough on a busy machine; it takes about three seconds on an idle one.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub const ACCESS_KEY: &str = "second-account";
/// Found nowhere else, so that a leak can be looked for.
pub const SECRET_KEY: &str = "hush-second-83fe";
/// The bucket that anybody may list and read.
pub const PUBLIC_BUCKET: &str = "public-feeds";

const PORTS: [&str; 8] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    "s3.port",
];

pub struct SecondS3 {
    pub endpoint: String,
    _shell: Child,
    /// Open for as long as this process lives.
    _alive: PipeWriter,
}

impl SecondS3 {
    /// The one of this process; `None`, and a printed note, where there is none to start.
    pub async fn shared() -> Option<&'static Self> {
        static SERVER: OnceCell<Option<SecondS3>> = OnceCell::const_new();
        let server = SERVER.get_or_init(async || {
            let Some(weed) = std::env::var_os("FEEDMILL_TEST_WEED") else {
                let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
                let note = "needs FEEDMILL_TEST_WEED (tests/run)";
                assert!(!required, "{note}");
                eprintln!("skipped: {note}");
                return None;
            };
            let server = Self::start(Path::new(&weed)).expect("a second S3 server");
            server.wait_until_ready().await;
            Some(server)
        });
        server.await.as_ref()
    }

    fn start(weed: &Path) -> Result<Self> {
        let folder: PathBuf = tempfile::Builder::new().prefix("fm-s3-").tempdir()?.keep();
        fs::write(folder.join("s3.json"), identities())?;
        // Held until all are chosen, so that none is chosen twice.
        let held: Vec<TcpListener> = PORTS
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let mut ports = Vec::new();
        for (name, listener) in PORTS.iter().zip(&held) {
            ports.push((*name, listener.local_addr()?.port()));
        }
        let s3 = ports.last().map_or(0, |(_, port)| *port);
        drop(held);
        let (reader, alive) = std::io::pipe()?;
        let log = File::create(folder.join("weed.log"))?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", WATCH, "watch"])
            .arg(&folder)
            .arg(weed)
            .args(["-logtostderr=true", "server", "-dir=.", "-filer", "-s3"])
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=100"])
            .args(["-master.electionTimeout=1s", "-master.telemetry=false"])
            .args(["-master.volumeSizeLimitMB=64", "-s3.config=s3.json"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(ports.iter().map(|(name, port)| format!("-{name}={port}")))
            // The server would take the tests' own credentials for another owner's.
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .current_dir(&folder)
            .stdin(reader)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(log);
        Ok(Self {
            endpoint: format!("http://127.0.0.1:{s3}"),
            _shell: shell.spawn().context("a shell")?,
            _alive: alive,
        })
    }

    async fn wait_until_ready(&self) {
        let store = self.store();
        let ready = poll_until(READY_TIMEOUT, async || {
            // It may be there from the last try.
            let _ = store.create_bucket(PUBLIC_BUCKET).await;
            let put = store.put(PUBLIC_BUCKET, "ready", b"yes".to_vec()).await;
            put.ok()
        });
        ready.await.expect("the second S3 server serves");
    }

    /// The server as its owner sees it.
    pub fn store(&self) -> Store {
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests");
        Store::connect_as(&self.endpoint, credentials)
    }
}

fn identities() -> String {
    let read = |action: &str| format!("{action}:{PUBLIC_BUCKET}");
    json!({"identities": [
        {
            "name": "owner",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {"name": "anonymous", "actions": [read("Read"), read("List")]},
    ]})
    .to_string()
}

/// Signals end the pipe's reader, not the shell, which then cleans up. The sockets' names hold the ports.
const WATCH: &str = r#"
trap : HUP INT TERM
folder=$1
shift
{ WEED_MASTER_VOLUME_GROWTH_COPY_1=3 "$@" & echo $! >pid; wait; echo "server ended"; } &
cat >/dev/null
kill -KILL "$(cat pid)"
wait
for argument; do
  case $argument in *.port*=*) rm -f /tmp/seaweedfs-*-"${argument#*=}".sock ;; esac
done
rm -rf "$folder"
"#;
