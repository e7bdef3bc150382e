//! The `feedmill` binary: see [`feedmill`] for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    feedmill::cli::main()
}
