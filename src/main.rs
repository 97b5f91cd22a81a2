//! The `fssync` program: parse the arguments, run the command, return the exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::args::Args::read() {
        Ok(args) => cli::run(&args),
        Err(code) => code,
    }
}
