//! A child process with its output in a file; it never outlives its owner.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::poll_until;

/// Lines of output shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A command that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs a command to its end, its output going through files in `folder`.
pub async fn run(command: &mut Command, folder: &Path, timeout: Duration) -> io::Result<Finished> {
    let stdout = tempfile::NamedTempFile::new_in(folder)?;
    let stderr = tempfile::NamedTempFile::new_in(folder)?;
    command.stdout(stdout.reopen()?).stderr(stderr.reopen()?);
    let mut child = OwnedChild(command.stdin(Stdio::null()).spawn()?);
    let status = child.wait(timeout).await;
    let read = |file: &tempfile::NamedTempFile| {
        std::fs::read(file.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let (stdout, stderr) = (read(&stdout)?, read(&stderr)?);
    match status {
        Some(status) => Ok(Finished {
            status,
            stdout,
            stderr,
        }),
        None => panic!("{command:?} did not end within {timeout:?}:\n{stdout}{stderr}"),
    }
}

/// Killed when dropped.
struct OwnedChild(Child);

impl OwnedChild {
    async fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let child = &mut self.0;
        poll_until(timeout, async || child.try_wait().expect("our own child")).await
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs until it is told to end.
pub struct Process {
    child: OwnedChild,
    log: PathBuf,
}

impl Process {
    /// Starts a command whose standard output and error go to the file `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> io::Result<Self> {
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.stdin(Stdio::null()).spawn()?;
        Ok(Self {
            child: OwnedChild(child),
            log,
        })
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("our own child");
        self.child.0.wait().expect("our own child");
    }

    /// Sends a signal by its name, `TERM`; the shell's `kill` is everywhere, and the standard library has only SIGKILL.
    pub fn signal(&self, name: &str) {
        let pid = self.child.0.id().to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]);
        let status = kill.status().expect("a shell");
        assert!(status.success(), "signal {name} to {pid}: {status}");
    }

    /// `None` while it still runs after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        self.child.wait(timeout).await
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.0.try_wait().expect("our own child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!(
                "--- end of {}:\n{}\n---",
                self.log.display(),
                shown.join("\n")
            );
        }
    }
}
