//! Log lines, on standard error.

use std::io;

use fssync::plan::outcome::Exit;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use super::args::{CommonArgs, LogFormat};
use super::terminal;

/// The target of lines that are logged in every case: a person should see them, also
/// with `--quiet`.
const NEWS: &str = "news";

/// Sends log lines to standard error, as they are asked for.
pub(crate) fn set_up(common: &CommonArgs) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        // A log that cannot be written ends nothing.
        .log_internal_errors(false)
        .with_ansi(terminal::shows_colours(&io::stderr()))
        .with_target(false);
    let lines = match common.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let is_wanted = filter_fn(move |line| *line.level() <= level || line.target() == NEWS)
        .with_max_level_hint(level.max(Level::WARN));
    tracing_subscriber::registry()
        .with(lines.with_filter(is_wanted))
        .init();
}

/// Logs how something ended, in one line, whatever it is made of. With `--quiet` it is
/// logged if the exit code, or a warning in the line, deserves a person's attention.
pub(crate) fn end(exit: Exit, line: &str, warns: bool) {
    let line = line.replace(char::is_control, "?");
    match exit {
        _ if exit.is_quiet() && warns => tracing::warn!(target: NEWS, "{line}"),
        Exit::Success => tracing::info!("{line}"),
        _ if exit.is_quiet() => tracing::warn!("{line}"),
        _ => tracing::error!("{line}"),
    }
}
