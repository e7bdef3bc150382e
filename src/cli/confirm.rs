//! A question before something large is begun.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::anyhow;

use crate::failure::Failure;

/// Asks on standard error; whether the answer is yes. Where nobody answers it is an error that says what to do `instead`.
pub fn confirm(question: &str, instead: &str) -> Result<bool, Failure> {
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
