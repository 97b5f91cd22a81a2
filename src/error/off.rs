//! Why syncing is off, and how switches are written.

use std::fmt;
use std::path::PathBuf;

use rustix::process::geteuid;

use super::RAISE_OPEN_FILES;

/// The length in bytes from which a switch is too long.
pub(crate) const MAX_LEN: u64 = 64;

/// The content of a switch that is off.
pub(crate) const OFF: &str = "SYNCING=0";

/// The content of a switch that is on.
pub(crate) const ON: &str = "SYNCING=1";

/// Why syncing is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffReason {
    /// The switch that is off.
    pub(crate) switch: PathBuf,
    /// The reason.
    pub(crate) cause: Cause,
}

/// Why a switch is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It contains `SYNCING=0`.
    SwitchedOff,
    /// It is named by `--status-file` and does not exist.
    Missing,
    /// It is empty, as after `fssync off` on a full disk.
    Empty,
    /// It contains something else, given here with escapes.
    Unexpected(String),
    /// It is too long.
    TooLong,
    /// It cannot be read; the cause.
    Unreadable(String),
    /// It cannot be read because too many files are open; the cause.
    OutOfFiles(String),
}

impl OffReason {
    /// Whether this may be the work of `fssync off`.
    #[must_use]
    pub fn is_intended(&self) -> bool {
        matches!(
            self.cause,
            Cause::SwitchedOff | Cause::Missing | Cause::Empty
        )
    }

    /// The warning if syncing was probably not switched off on purpose.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if matches!(self.cause, Cause::SwitchedOff | Cause::Missing) {
            return None;
        }
        if matches!(self.cause, Cause::OutOfFiles(_)) {
            return Some(RAISE_OPEN_FILES.to_owned());
        }
        let uid = geteuid().as_raw();
        Some(format!(
            "a switch must be a file that uid {uid} can read, with one line, {ON} or {OFF}; \
             anything else counts as off"
        ))
    }
}

impl fmt::Display for OffReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.switch.display())?;
        match &self.cause {
            Cause::SwitchedOff => write!(f, "contains {OFF}"),
            Cause::Missing => f.write_str("is missing"),
            Cause::Empty => f.write_str("is empty, as `fssync off` leaves it on a full disk"),
            Cause::Unexpected(content) => {
                write!(f, "contains neither {ON} nor {OFF} but \"{content}\"")
            }
            Cause::TooLong => write!(f, "is longer than {} bytes", MAX_LEN - 1),
            Cause::Unreadable(error) | Cause::OutOfFiles(error) => {
                write!(f, "cannot be read: {error}")
            }
        }
    }
}
