//! Log lines on standard error, and the one route from a result to the exit code.

use std::io;

use fssync::error::Error;
use fssync::plan::outcome::Exit;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use super::args::{CommonArgs, LogFormat};
use super::terminal;

/// The target of lines that are logged even with `--quiet`, since they deserve a person's
/// attention.
const NEWS: &str = "news";

/// Sends log lines to standard error, in the format and from the level that the arguments
/// choose.
pub(crate) fn set_up(common: &CommonArgs) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        // fssync continues if its log cannot be written.
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

/// How a command, or one pass of a watch, ended.
#[derive(Debug)]
pub(crate) struct End {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, why, and what to do.
    pub(crate) line: String,
    /// Warnings that deserve a person's attention even if the exit code does not.
    pub(crate) warnings: Vec<String>,
}

impl End {
    /// A command that failed, with a line of its own.
    pub(crate) fn failed(exit: Exit, line: String) -> Self {
        Self {
            exit,
            line,
            warnings: Vec::new(),
        }
    }

    /// Logs the end, and returns the exit code. This is the only way from a result to the
    /// two.
    ///
    /// With `quiet` it logs a single line, warnings included, and only if the exit code or a
    /// warning deserves a person's attention. Otherwise each warning has its own line. A
    /// message never contains a line break, even if a file name does.
    pub(crate) fn log(&self, quiet: bool) -> Exit {
        let mut line = self.line.clone();
        if quiet {
            line.extend(self.warnings.iter().map(|it| format!("; {it}")));
        } else {
            for warning in &self.warnings {
                tracing::warn!("{}", on_one_line(warning));
            }
        }
        let line = on_one_line(&line);
        let exit = self.exit;
        match exit {
            _ if exit.is_quiet() && !self.warnings.is_empty() => {
                tracing::warn!(target: NEWS, "{line}");
            }
            Exit::Success => tracing::info!("{line}"),
            _ if exit.is_quiet() => tracing::warn!("{line}"),
            _ => tracing::error!("{line}"),
        }
        exit
    }
}

impl End {
    /// Logs a good end that deserves a person's attention even with `--quiet`.
    pub(crate) fn log_as_news(&self) -> Exit {
        tracing::warn!(target: NEWS, "{}", on_one_line(&self.line));
        self.exit
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(|hint| format!(" ({hint})"));
        Self {
            exit: error.exit(),
            line: error.display_chain() + &hint.unwrap_or_default(),
            warnings: error.warnings(),
        }
    }
}

/// A result that could not be printed, or another failure of the program itself.
impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(Exit::Failure, format!("{error:#}"))
    }
}

fn on_one_line(message: &str) -> String {
    message.replace(char::is_control, "?")
}
