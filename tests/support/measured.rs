//! A command that runs to its end, and the most memory it held.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Measured {
    /// `None` when a signal ended it, which is ours when it took too long.
    pub code: Option<i32>,
    pub stderr: String,
    /// The largest its resident set was. Never less than that of the process that started it had been: keep that one small.
    pub peak_bytes: u64,
    pub took: Duration,
    /// What of that a processor worked for it.
    pub cpu: Duration,
}

/// Runs a command, whose standard input and output the caller has seen to. It is killed when it has not ended within `patience`.
pub fn run(command: &mut Command, patience: Duration) -> Measured {
    run_fed(command, patience, |_| ())
}

/// The same, with what `feed` does to the child, which is to give it its input.
pub fn run_fed(
    command: &mut Command,
    patience: Duration,
    feed: impl FnOnce(&mut Child) + Send,
) -> Measured {
    let started = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut pipe = child.stderr.take().expect("piped");
    let stderr = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let pid = i32::try_from(child.id()).expect("a process id");
    let (status, usage) = thread::scope(|scope| {
        scope.spawn(|| feed(&mut child));
        wait(pid, started + patience)
    });
    Measured {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        stderr: stderr.join().expect("reading does not panic"),
        // In KiB on Linux.
        peak_bytes: u64::try_from(usage.ru_maxrss).expect("a size") << 10,
        took: started.elapsed(),
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs_f64(time.tv_sec as f64 + 1e-6 * time.tv_usec as f64)
}

/// Waits for the child and takes the account of what it used, which the standard library leaves out.
fn wait(pid: i32, deadline: Instant) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to what lives on this stack, and the child is ours and not waited for by anybody else.
        let waited = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
        assert!(waited >= 0, "{}", std::io::Error::last_os_error());
        if waited == pid {
            return (status, usage);
        }
        if Instant::now() > deadline {
            // SAFETY: the child is ours, and not waited for yet, so that the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(2));
    }
}
