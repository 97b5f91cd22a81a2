//! The `fssync` program: what was typed → what it means → run → exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(&cli::args::Args::parse())
}
