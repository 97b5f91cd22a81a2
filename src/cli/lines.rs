//! What is told for eyes: a fact a line, and what matters most in the last one.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::terminal;

/// Where the facts start.
const WIDTH: usize = 14;

/// Said of a path that may be mistyped.
pub(super) const NEVER_SYNCED: &str =
    "no pass was ever made for this path: check that it is the slave's";

/// Said of a file that was set aside.
pub(super) const SET_ASIDE: &str = "this file was set aside: passes leave it as it is";

/// How a fact looks.
#[derive(Clone, Copy)]
pub(super) enum Emphasis {
    Plain,
    Good,
    Warning,
    Bad,
}

impl Emphasis {
    fn style(self) -> Style {
        let colour = match self {
            Self::Plain => return Style::new(),
            Self::Good => AnsiColor::Green,
            Self::Warning => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
        };
        Style::new().fg_color(Some(colour.into()))
    }
}

/// Lines that grow.
pub(super) struct Lines {
    text: String,
    coloured: bool,
}

impl Lines {
    /// None yet, for standard output.
    pub(super) fn for_stdout() -> Self {
        Self {
            text: String::new(),
            coloured: terminal::shows_colours(&io::stdout()),
        }
    }

    /// A line with a fact.
    pub(super) fn add(&mut self, what: &str, emphasis: Emphasis, fact: &str) {
        let _ = write!(self.text, "{what:WIDTH$}");
        self.push(emphasis.style(), fact);
        self.text.push('\n');
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// The last line, set off from the others: what it is about, and the verdict.
    pub(super) fn conclude(&mut self, about: &str, emphasis: Emphasis, verdict: &str) {
        self.gap();
        self.text += about;
        self.push(emphasis.style().bold(), verdict);
        self.text.push('\n');
    }

    /// Prints them on standard output.
    pub(super) fn print(&self) -> io::Result<()> {
        io::stdout().lock().write_all(self.text.as_bytes())
    }

    fn push(&mut self, style: Style, fact: &str) {
        let style = if self.coloured { style } else { Style::new() };
        // What a file says cannot steer the terminal.
        let fact: String = fact
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let _ = write!(self.text, "{style}{fact}{style:#}");
    }
}
