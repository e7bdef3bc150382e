//! What the checks found, printed check by check.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::{cli::say, failure::Failure};

/// Nothing is silent for longer than this without saying what is being tried.
const PATIENCE: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// A worker runs, and somebody should look.
    Warning,
    /// A worker does not run, or stands on less than was configured.
    Failed,
    /// What it stands on is missing.
    Skipped,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub status: Status,
    /// What was seen, or why nothing was looked at.
    pub seen: String,
    /// Commands, policies and settings that mend it.
    pub remedies: Vec<String>,
}

impl Verdict {
    fn new(status: Status, seen: impl Into<String>) -> Self {
        Self {
            status,
            seen: seen.into(),
            remedies: Vec::new(),
        }
    }

    pub fn ok(seen: impl Into<String>) -> Self {
        Self::new(Status::Ok, seen)
    }

    pub fn warning(seen: impl Into<String>) -> Self {
        Self::new(Status::Warning, seen)
    }

    pub fn failed(seen: impl Into<String>) -> Self {
        Self::new(Status::Failed, seen)
    }

    pub fn skipped(why: impl Into<String>) -> Self {
        Self::new(Status::Skipped, why)
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    check: &'a str,
    /// What was checked, where there are several: a broker, a topic, a bucket.
    target: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

/// Prints, and counts what did not end well.
pub struct Report {
    json: bool,
    failed: usize,
    warnings: usize,
    skipped: usize,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            failed: 0,
            warnings: 0,
            skipped: 0,
        }
    }

    /// Runs a check for at most `limit`, saying on standard error what is being waited for.
    pub async fn wait<T>(
        &self,
        check: &str,
        target: &str,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Verdict> {
        let began = Instant::now();
        let mut ticks = interval_at(began + PATIENCE, PATIENCE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = timeout(limit, work);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    return done.map_err(|_| {
                        Verdict::failed(format!("no answer within {} s", limit.as_secs()))
                    });
                }
                _ = ticks.tick() => {
                    let seconds = began.elapsed().as_secs_f32();
                    eprintln!("trying   {} ({seconds:.0} s)", name(check, target));
                }
            }
        }
    }

    /// Runs a check whose verdict is all there is to know of it; whether it ended well enough to go on.
    pub async fn check(
        &mut self,
        check: &str,
        target: &str,
        limit: Duration,
        work: impl Future<Output = Verdict>,
    ) -> Result<bool, Failure> {
        let verdict = self.wait(check, target, limit, work).await;
        self.add(check, target, verdict.unwrap_or_else(|late| late))
    }

    /// Prints a verdict; whether it is good enough to go on.
    pub fn add(&mut self, check: &str, target: &str, verdict: Verdict) -> Result<bool, Failure> {
        match verdict.status {
            Status::Ok => {}
            Status::Warning => self.warnings += 1,
            Status::Failed => self.failed += 1,
            Status::Skipped => self.skipped += 1,
        }
        match self.json {
            true => self.add_json(check, target, &verdict)?,
            false => say(text(check, target, &verdict))?,
        }
        Ok(matches!(verdict.status, Status::Ok | Status::Warning))
    }

    fn add_json(&self, check: &str, target: &str, verdict: &Verdict) -> Result<(), Failure> {
        let line = Line {
            check,
            target,
            verdict,
        };
        let json = serde_json::to_string(&line)
            .map_err(|error| Failure::bug("write a verdict as JSON", error))?;
        say(json)
    }

    /// The last line, and the exit code.
    pub fn end(self) -> Result<(), Failure> {
        if !self.json {
            say(self.summary())?;
        }
        match self.failed {
            0 => Ok(()),
            _ => Err(Failure::Findings),
        }
    }

    fn summary(&self) -> String {
        let counts: Vec<String> = [
            (self.failed, "failed"),
            (self.warnings, "to look at"),
            (self.skipped, "skipped"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        match counts.is_empty() {
            true => "everything is in place".to_owned(),
            false => counts.join(", "),
        }
    }
}

fn name(check: &str, target: &str) -> String {
    match target {
        "" => check.to_owned(),
        target => format!("{check} {target}"),
    }
}

fn text(check: &str, target: &str, verdict: &Verdict) -> String {
    let mut text = format!(
        "{:<8} {}: {}",
        verdict.status.name(),
        name(check, target),
        verdict.seen
    );
    for remedy in &verdict.remedies {
        text.push_str("\n         -> ");
        text.push_str(remedy);
    }
    text
}
