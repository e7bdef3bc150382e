//! A real broker that asks who is there: TLS, mutual TLS, and SASL over TLS, each on a port of its own. It is started by
//! the first test that needs it and shared by all of a file.
//!
//! A shell watches over it, and over a pipe from this process: when the pipe closes, however this process ended, the
//! broker is killed and its folder removed.
//!
//! [`SecureKafka::with_acls`] is another one, which lets its users do only what was granted to them.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::PipeWriter;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tls::Authority;

/// Long enough for a virtual machine to start on a busy machine of two cores.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Another start with other ports, when somebody took one of ours between the choice and the start.
const ATTEMPTS: usize = 3;

pub const USER: &str = "feedmill";

/// Passwords by mechanism. Each is a text that is found nowhere else, so that a leak can be looked for.
pub const PLAIN_PASSWORD: &str = "hush-plain-4e1d";
pub const SCRAM_PASSWORD: &str = "hush-scram-9b7c";

/// Further users of [`SecureKafka::with_acls`], by PLAIN with [`PLAIN_PASSWORD`].
pub const INTAKE_USER: &str = "intake";
pub const SWEEP_USER: &str = "sweep";
const ADMIN: &str = "admin";

/// Brokers talk to each other without a name here.
const AUTHORIZER: &str = "
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
";

pub struct SecureKafka {
    ports: Ports,
    folder: PathBuf,
    _shell: Child,
    /// Open for as long as this process lives.
    _alive: PipeWriter,
}

#[derive(Clone, Copy)]
struct Ports {
    plaintext: u16,
    controller: u16,
    tls: u16,
    mutual_tls: u16,
    sasl: u16,
}

impl SecureKafka {
    /// The one broker of this process; `None`, and a printed note, where there is no Kafka to start.
    pub fn shared() -> Option<&'static Self> {
        // A failure is kept, too: the next test would only wait as long again.
        static BROKER: OnceLock<Option<Result<SecureKafka>>> = OnceLock::new();
        Self::in_cell(&BROKER, "")
    }

    /// The one broker of this process that enforces ACLs: on [`USER`], [`INTAKE_USER`] and [`SWEEP_USER`], not on [`ADMIN`] and on
    /// whoever comes in without a name.
    pub fn with_acls() -> Option<&'static Self> {
        static BROKER: OnceLock<Option<Result<SecureKafka>>> = OnceLock::new();
        Self::in_cell(&BROKER, AUTHORIZER)
    }

    fn in_cell(
        cell: &'static OnceLock<Option<Result<SecureKafka>>>,
        more: &str,
    ) -> Option<&'static Self> {
        let broker = cell.get_or_init(|| {
            let libraries = std::env::var_os("FEEDMILL_TEST_KAFKA_LIBS");
            let java = std::env::var_os("FEEDMILL_TEST_JAVA");
            let Some((libraries, java)) = libraries.zip(java) else {
                let required = std::env::var("FEEDMILL_TEST_REQUIRE").is_ok_and(|v| v == "1");
                let note = "needs FEEDMILL_TEST_KAFKA_LIBS and FEEDMILL_TEST_JAVA (tests/run)";
                assert!(!required, "{note}");
                eprintln!("skipped: {note}");
                return None;
            };
            Some(Self::start(Path::new(&java), Path::new(&libraries), more))
        });
        match broker.as_ref()? {
            Ok(broker) => Some(broker),
            Err(error) => panic!("no broker could be started: {error:#}"),
        }
    }

    fn start(java: &Path, libraries: &Path, more: &str) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start(java, libraries, more) {
                Err(error) if attempt < ATTEMPTS => eprintln!("attempt {attempt}: {error:#}"),
                ended => return ended,
            }
            attempt += 1;
        }
    }

    fn try_start(java: &Path, libraries: &Path, more: &str) -> Result<Self> {
        let ports = Ports::choose()?;
        let folder = tempfile::Builder::new().prefix("fm-kafka-").tempdir()?;
        write_certificates(folder.path())?;
        let properties = properties(folder.path(), ports) + more;
        fs::write(folder.path().join("server.properties"), properties)?;
        write_tools(folder.path(), java, libraries)?;
        format_storage(java, libraries, folder.path())?;
        let (reader, alive) = std::io::pipe()?;
        let log = File::create(folder.path().join("broker.log"))?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", WATCH, "watch"])
            .arg(java)
            .arg(libraries.join("*"))
            .arg(folder.path())
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/deploy/local/log4j2.properties"
            ))
            .current_dir(folder.path())
            .stdin(reader)
            .stdout(log.try_clone()?)
            .stderr(log);
        let shell = shell.spawn().context("a shell")?;
        // From here on the shell removes the folder.
        let broker = Self {
            ports,
            folder: folder.keep(),
            _shell: shell,
            _alive: alive,
        };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let log = fs::read_to_string(self.folder.join("broker.log"))?;
            if log.contains("Kafka Server started") {
                return Ok(());
            }
            let ended = log.contains("broker ended");
            if ended || Instant::now() > deadline {
                let from = log.len().saturating_sub(4_000);
                let end = log.get(from..).unwrap_or(&log);
                bail!("the broker is not ready: {end}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Without any security, for the harness.
    pub fn plaintext(&self) -> String {
        address(self.ports.plaintext)
    }

    /// The broker shows a certificate and asks for none.
    pub fn tls(&self) -> String {
        address(self.ports.tls)
    }

    /// The broker asks for a certificate, too.
    pub fn mutual_tls(&self) -> String {
        address(self.ports.mutual_tls)
    }

    /// A user and a password over TLS.
    pub fn sasl(&self) -> String {
        address(self.ports.sasl)
    }

    /// SIGSTOP: it answers nobody, and its connections stay open.
    pub fn pause(&self) {
        self.as_admin("kill -STOP $(cat pid)");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.as_admin("kill -CONT $(cat pid)");
    }

    /// Runs a command as an administrator would: in a shell, with Kafka's tools on the path and `admin.properties`.
    pub fn as_admin(&self, command: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", self.folder.display()));
        let output = shell.stdin(Stdio::null()).output().expect("a shell");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{command}: {said}");
    }

    /// A file of the run: `ca.pem`, `other-ca.pem`, `client.pem`, `client.key`, `stranger.pem`, `stranger.key`.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Signals end the pipe's reader, not the shell, which then cleans up.
const WATCH: &str = r#"
trap : HUP INT TERM
{ "$1" -Xmx384m "-Dlog4j2.configurationFile=$4" -cp "$2" kafka.Kafka server.properties & echo $! >pid; wait; echo "broker ended"; } &
cat >/dev/null
kill -KILL "$(cat pid)"
wait
rm -rf "$3"
"#;

impl Ports {
    fn choose() -> Result<Self> {
        let mut held = Vec::new();
        let mut next = || -> Result<u16> {
            let (listener, port) = free_port()?;
            held.push(listener);
            Ok(port)
        };
        Ok(Self {
            plaintext: next()?,
            controller: next()?,
            tls: next()?,
            mutual_tls: next()?,
            sasl: next()?,
        })
    }
}

/// Below 32768, where Linux begins to hand out ports to outgoing connections.
fn free_port() -> Result<(TcpListener, u16)> {
    for _ in 0..1_000 {
        let random = uuid::Uuid::new_v4().as_u128() % 10_000;
        let port = 22_000 + u16::try_from(random)?;
        if let Ok(listener) = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))) {
            return Ok((listener, port));
        }
    }
    bail!("no free port")
}

fn write_certificates(folder: &Path) -> Result<()> {
    let ours = Authority::new("feedmill tests")?;
    let other = Authority::new("somebody else")?;
    ours.write(&folder.join("ca.pem"))?;
    other.write(&folder.join("other-ca.pem"))?;
    ours.server()?.write_store(&folder.join("broker.pem"))?;
    for (authority, name) in [(&ours, "client"), (&other, "stranger")] {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        authority.client(name)?.write(&certificate, &key)?;
    }
    Ok(())
}

fn properties(folder: &Path, ports: Ports) -> String {
    let folder = folder.display();
    let Ports {
        plaintext,
        controller,
        tls,
        mutual_tls,
        sasl,
    } = ports;
    let clients = format!(
        "PLAINTEXT://127.0.0.1:{plaintext},TLS://127.0.0.1:{tls},\
         MUTUAL://127.0.0.1:{mutual_tls},SASL://127.0.0.1:{sasl}"
    );
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    format!(
        r#"
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners={clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={clients}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,SASL:SASL_SSL
log.dirs={folder}/data

ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config={plain} user_{USER}="{PLAIN_PASSWORD}" user_{INTAKE_USER}="{PLAIN_PASSWORD}" user_{SWEEP_USER}="{PLAIN_PASSWORD}" user_{ADMIN}="{PLAIN_PASSWORD}";
listener.name.sasl.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl.scram-sha-512.sasl.jaas.config={scram}

offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
"#
    )
}

/// `kafka-acls.sh`, as Kafka's own distribution has it, and who an administrator is.
fn write_tools(folder: &Path, java: &Path, libraries: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nexec '{}' -cp '{}' org.apache.kafka.tools.AclCommand \"$@\"\n",
        java.display(),
        libraries.join("*").display(),
    );
    let path = folder.join("kafka-acls.sh");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let properties = format!(
        r#"
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config={plain} username="{ADMIN}" password="{PLAIN_PASSWORD}";
ssl.truststore.type=PEM
ssl.truststore.location={}/ca.pem
"#,
        folder.display()
    );
    fs::write(folder.join("admin.properties"), properties)?;
    Ok(())
}

fn format_storage(java: &Path, libraries: &Path, folder: &Path) -> Result<()> {
    let mut format = Command::new(java);
    format
        .current_dir(folder)
        .arg("-cp")
        .arg(libraries.join("*"))
        .args(["kafka.tools.StorageTool", "format", "--standalone"])
        .args(["-c", "server.properties"])
        // A cluster id is 16 bytes in base64url: 22 characters.
        .args(["-t", "ZmVlZG1pbGwtdGVzdHMtMQ"]);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let user = format!("{mechanism}=[name={USER},password={SCRAM_PASSWORD}]");
        format.args(["--add-scram", &user]);
    }
    let output = format.stdin(Stdio::null()).output().context("Java")?;
    ensure!(
        output.status.success(),
        "format: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
