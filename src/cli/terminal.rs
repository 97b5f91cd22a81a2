//! The capabilities of a terminal.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// The assumed width of a terminal that does not report it, in columns.
const USUAL_WIDTH: u16 = 80;

/// Whether output to `stream` may be coloured: it is a terminal with colours, and
/// `NO_COLOR` is not set.
pub(super) fn shows_colours(stream: &impl IsTerminal) -> bool {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    moves_cursor(stream) && !no_color
}

/// Whether `stream` is a terminal that supports escape sequences, for example to return
/// to the start of the line.
pub(super) fn moves_cursor(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The width of a terminal in columns.
pub(super) fn width(stream: impl AsFd) -> u16 {
    match tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 => size.ws_col,
        _ => USUAL_WIDTH,
    }
}
