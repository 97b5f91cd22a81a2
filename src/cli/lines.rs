//! Reports for people: one fact a line, and a conclusion in the last line.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::terminal;

/// The column of the facts.
const WIDTH: usize = 14;

/// The fact about a path that may be mistyped.
pub(super) const NEVER_SYNCED: &str =
    "no pass was ever made for this path: check that it is the slave's";

/// The fact about a file that was set aside.
pub(super) const SET_ASIDE: &str = "this file was set aside; passes do not change it";

/// The colour of a fact.
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

/// The lines of a report.
pub(super) struct Lines {
    text: String,
    coloured: bool,
}

impl Lines {
    /// An empty report for standard output.
    pub(super) fn for_stdout() -> Self {
        Self {
            text: String::new(),
            coloured: terminal::shows_colours(&io::stdout()),
        }
    }

    /// Adds a line with a fact.
    pub(super) fn add(&mut self, label: &str, emphasis: Emphasis, fact: &str) {
        let _ = write!(self.text, "{label:WIDTH$}");
        self.push(emphasis.style(), fact);
        self.text.push('\n');
    }

    /// Adds a row of a table: a name, and coloured cells.
    pub(super) fn row(&mut self, name: &str, emphasis: Emphasis, cells: &str) {
        self.text += name;
        self.push(emphasis.style(), cells);
        self.text.push('\n');
    }

    /// Adds a line of text.
    pub(super) fn say(&mut self, line: &str) {
        self.push(Style::new(), line);
        self.text.push('\n');
    }

    /// Adds an empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Adds the last line, after an empty one: the subject, and the conclusion.
    pub(super) fn conclude(&mut self, subject: &str, emphasis: Emphasis, verdict: &str) {
        self.gap();
        self.text += subject;
        self.push(emphasis.style().bold(), verdict);
        self.text.push('\n');
    }

    /// Prints them on standard output.
    pub(super) fn print(&self) -> io::Result<()> {
        io::stdout().lock().write_all(self.text.as_bytes())
    }

    fn push(&mut self, style: Style, fact: &str) {
        let style = if self.coloured { style } else { Style::new() };
        // Text from a file must not control the terminal.
        let fact: String = fact
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let _ = write!(self.text, "{style}{fact}{style:#}");
    }
}
