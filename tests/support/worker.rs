//! A running `feedmill run`.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::process::Process;
use super::{poll_until, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How a worker differs from the others of its world.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// A state folder of its own, inside the world's folder; unless said, the one that all workers share.
    pub state_dir: Option<String>,
    /// Environment, `FEEDMILL_TEST_FAULT` or settings.
    pub env: Vec<(String, String)>,
    /// Arguments after `run`.
    pub args: Vec<String>,
}

impl WorkerOptions {
    pub fn state_dir(self, name: impl Into<String>) -> Self {
        Self {
            state_dir: Some(name.into()),
            ..self
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Stop,
    Continue,
    Terminate,
    /// Asks for a reload of the configuration.
    Hangup,
}

/// Killed when dropped; the end of its log is shown when the test fails.
pub struct Worker {
    process: Process,
    http: reqwest::Client,
}

impl Worker {
    pub(super) fn new(process: Process, http: reqwest::Client) -> Self {
        Self { process, http }
    }

    /// The most memory that was resident so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()));
        let status = status.expect("a process on Linux");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("the peak") * 1024
    }

    /// Time on a processor so far, its own and the kernel's for it; to a hundredth of a second.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid()));
        let stat = stat.expect("a process on Linux");
        // proc(5): utime and stime are the 14th and the 15th, and the name in brackets may hold blanks.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM: an orderly end.
    pub fn terminate(&self) {
        self.signal(Signal::Terminate);
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(match signal {
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
            Signal::Terminate => "TERM",
            Signal::Hangup => "HUP",
        });
    }

    /// The end of a process that must end.
    pub async fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let status = self.process.wait(timeout).await;
        status.unwrap_or_else(|| panic!("the worker still runs after {timeout:?}"))
    }

    fn must_run(&mut self) {
        if let Some(status) = self.process.has_ended() {
            panic!("the worker ended by itself: {status}");
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.has_ended().is_none()
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self, timeout: Duration) {
        let address = self.admin_address().await;
        let url = format!("http://{address}/readyz");
        let ready = poll_until(timeout, async || {
            self.must_run();
            let answer = self.http.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        });
        if ready.await.is_none() {
            let (status, body) = self.get("/readyz").await;
            panic!("the worker is not ready after {timeout:?}: {status} {body}");
        }
    }

    /// Status and body of an admin page, `/readyz` or `/metrics`.
    pub async fn get(&mut self, path: &str) -> (u16, String) {
        let address = self.admin_address().await;
        let request = self.http.get(format!("http://{address}{path}"));
        answer(request).await
    }

    /// Posts a notification to the worker's webhook; status and body.
    pub async fn notify(&mut self, notification: &Value) -> (u16, String) {
        let url = self.webhook_url().await;
        let request = self.http.post(url).body(notification.to_string());
        answer(request).await
    }

    /// Where notifications are posted to.
    pub async fn webhook_url(&mut self) -> String {
        let address = self.address_in_log("webhook listening").await;
        format!("http://{address}/api/v1/s3/event")
    }

    /// Where `/metrics` is served.
    pub async fn admin_address(&mut self) -> SocketAddr {
        self.address_in_log("admin listening").await
    }

    /// A port that the worker chose: it says so in its log.
    async fn address_in_log(&mut self, message: &str) -> SocketAddr {
        let waiting_for = format!("the worker's log line {message:?}");
        wait_until(&waiting_for, START_TIMEOUT, async || {
            self.must_run();
            let log = self.log();
            log.lines().find_map(|line| address(line, message))
        })
        .await
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether some JSON line of its log has this message.
    pub fn has_logged(&self, message: &str) -> bool {
        let log = self.log();
        log.lines().any(|line| logged(line, message).is_some())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.expect("the worker answers");
    let status = answer.status().as_u16();
    (
        status,
        answer.text().await.expect("the worker answers to the end"),
    )
}

fn address(line: &str, message: &str) -> Option<SocketAddr> {
    logged(line, message)?
        .get("address")?
        .as_str()?
        .parse()
        .ok()
}

/// The fields of a JSON log line with this message.
fn logged(line: &str, message: &str) -> Option<Value> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    let fields = match line.get_mut("fields") {
        Some(fields) => fields.take(),
        None => line,
    };
    (fields.get("message")? == message).then_some(fields)
}
