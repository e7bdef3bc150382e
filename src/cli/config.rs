//! `feedmill config check | show`.

use clap::Subcommand;

use super::{loaded, say};
use crate::{
    config::{Sources, show},
    failure::Failure,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what is wrong with the configuration; exit code 2 when something is
    ///
    /// Finds unknown keys, outputs that would collide, outputs that feedmill would read again, feeds that can never
    /// match, mappings that do not compile, and unsafe listening.
    #[command(
        after_help = "Example: feedmill config check --config feedmill.toml --profile production"
    )]
    Check,
    /// Print the settings in force as TOML, secrets hidden
    #[command(after_help = "Example: feedmill config show --profile production")]
    Show,
}

pub fn run(sources: Sources, command: &Command) -> Result<(), Failure> {
    let loaded = loaded(sources)?;
    match command {
        Command::Show => say(show(&loaded.config).trim_end())?,
        Command::Check => {
            let findings = loaded.findings();
            for finding in &findings {
                say(finding)?;
            }
            if findings.iter().any(|finding| finding.is_error()) {
                return Err(Failure::usage(anyhow::anyhow!(
                    "accept the configuration: see above"
                )));
            }
            say(format_args!(
                "the configuration is sound: {} feeds",
                loaded.config.feeds.len()
            ))?;
        }
    }
    Ok(())
}
