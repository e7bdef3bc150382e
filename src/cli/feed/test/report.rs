//! What the fixtures came to, printed one by one; coloured on a terminal.

use std::path::Path;

use clap::builder::styling::{AnsiColor, Style};

use crate::{
    cli::diff::{BAD, GOOD, Line, print, show},
    failure::Failure,
};

/// How a fixture ended.
pub enum Verdict {
    Ok(String),
    Written(String),
    Missing(String),
    Differs(String, Vec<Line>),
    Failed(String),
}

/// Prints, and counts.
#[derive(Default)]
pub struct Report {
    ok: usize,
    written: usize,
    differs: usize,
    missing: usize,
    failed: usize,
    /// Feeds without fixtures.
    without: usize,
}

const ODD: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();

impl Report {
    pub fn say(&mut self, name: &str, verdict: &Verdict) -> Result<(), Failure> {
        let (count, style, word, text) = match verdict {
            Verdict::Ok(text) => (&mut self.ok, GOOD, "ok", text),
            Verdict::Written(text) => (&mut self.written, ODD, "written", text),
            Verdict::Missing(text) => (&mut self.missing, BAD, "missing", text),
            Verdict::Differs(text, _) => (&mut self.differs, BAD, "differs", text),
            Verdict::Failed(text) => (&mut self.failed, BAD, "failed", text),
        };
        *count += 1;
        print(style, format_args!("{word:8} "), &format!("{name}: {text}"))?;
        match verdict {
            Verdict::Differs(_, lines) => show(lines),
            _ => Ok(()),
        }
    }

    pub fn without(&mut self, name: &str, folder: &Path) -> Result<(), Failure> {
        self.without += 1;
        let folder = folder.display();
        let text = format!("{name}: a file of the partner in {folder} would be its first fixture");
        print(ODD, format_args!("{:8} ", "none"), &text)
    }

    /// The sum; an error unless all is well.
    pub fn end(self) -> Result<(), Failure> {
        let counts = [
            (self.ok, "ok"),
            (self.written, "written"),
            (self.differs, "differs"),
            (self.missing, "missing"),
            (self.failed, "failed"),
        ];
        let said = counts.iter().filter(|(count, _)| *count > 0);
        let said: Vec<_> = said
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let mut sum = match said.is_empty() {
            true => "no fixtures".to_owned(),
            false => said.join(", "),
        };
        if self.without > 0 {
            sum.push_str(&format!("; feeds without fixtures: {}", self.without));
        }
        print(PLAIN, format_args!(""), &sum)?;
        match self.differs + self.missing + self.failed {
            0 => Ok(()),
            _ => Err(Failure::Findings),
        }
    }
}
