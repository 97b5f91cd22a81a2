//! The `fssync` program: what was typed → what it means → run → exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::args::Args::read() {
        Ok(args) => cli::run(&args),
        Err(code) => code,
    }
}
