//! Log lines, on standard error.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::fmt;

use super::args::{Common, LogFormat};

/// Sends log lines to standard error, as they are asked for.
pub(crate) fn set_up(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    let lines = fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        // A log that cannot be written ends nothing.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match common.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
