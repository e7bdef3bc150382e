//! The binary as a person runs it: in a folder of its own, fed through a pipe, its output read to the end.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any command may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A command that ran to its end.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails the test unless the command ended with this exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails the test unless standard error has each of these.
    #[track_caller]
    pub fn expect_said(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:#?}");
        }
        self
    }
}

/// `feedmill ARGS` in `folder`, without settings from the environment of the tests.
pub fn feedmill(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedmill"));
    command.current_dir(folder).args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FEEDMILL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end with nothing on its standard input.
pub fn run(command: &mut Command) -> Ended {
    run_with_input(command, b"")
}

/// Runs a command to its end with these bytes on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Running::start(command);
    let mut stdin = child.0.stdin.take().expect("piped");
    let stdout = read_to_end(child.0.stdout.take().expect("piped"));
    let stderr = read_to_end(child.0.stderr.take().expect("piped"));
    // A command that does not read its input is free not to.
    let _ = stdin.write_all(input);
    drop(stdin);
    let code = child.wait();
    Ended {
        code,
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    }
}

/// Runs a command whose standard output nobody reads: every write to it fails with a broken pipe.
pub fn run_unread(command: &mut Command) -> Ended {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    let mut child = Running::start(command);
    let stderr = read_to_end(child.0.stderr.take().expect("piped"));
    Ended {
        code: child.wait(),
        stdout: String::new(),
        stderr: stderr.join().expect("reading does not panic"),
    }
}

fn read_to_end(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Killed when dropped.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the binary runs"))
    }

    /// The lines of a piped standard output, as they come; the end when the command has closed it.
    pub fn lines(&mut self) -> std::sync::mpsc::Receiver<String> {
        let stdout = BufReader::new(self.0.stdout.take().expect("piped"));
        let (send, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        lines
    }

    /// Sends a signal by its name; the shell's `kill` is everywhere, and the standard library has only SIGKILL.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]);
        let status = kill.status().expect("a shell");
        assert!(status.success(), "signal {name} to {pid}: {status}");
    }

    /// Its exit code; `None` when a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.0.try_wait().expect("our own child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it runs after {TIMEOUT:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
