//! Asks a person before much is done.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::anyhow;

use crate::failure::Failure;

/// Whether the answer is yes. Where nobody answers, an error that says what to do `instead`.
pub fn ask(question: &str, instead: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!(
            "ask {question:?} where nobody answers; {instead}"
        )));
    }
    let failed = |error: io::Error| Failure::service(anyhow!(error).context("ask"));
    eprint!("{question} [y/N] ");
    io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
