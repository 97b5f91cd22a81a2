//! The trouble that `fssync -q --remind` last reported, in `Data.fs.fssync-reported`.
//!
//! It is not in the sidecar, because passes without the pass lock report trouble too: those
//! that find an invalid switch, another pass at work, or a full disk. Only a pass with `--remind`
//! writes this file, when it prints a line, and a first time when all is well.
//!
//! It is written outside of passes. So that nothing is written after `fssync off` has returned,
//! the step lock is held, under which the switches are read (the cases of
//! [`step`](super::step)). An invalid switch, which `fssync off` never leaves, does not prevent
//! the write.
//!
//! The file is written in place, without a sync. That needs no free block on a full disk, so that
//! a full disk is not reported by each pass. If a write is torn, the file is invalid, and the
//! trouble is reported once more.

use std::os::unix::fs::FileExt;

use super::owner::Owner;
use super::paths::{Sibling, SlavePaths};
use super::small_file::read_if_exists;
use super::step::Slave;
use crate::error::Error;
use crate::error::off::OffReason;
use crate::plan::remind::Trouble;

/// Upper limit for the size of the file, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reminder {
    /// There is no such file, or its content is invalid.
    Missing,
    /// The reported trouble; `None` if there is none.
    Stored(Option<Trouble>),
}

impl Reminder {
    /// Reads the file.
    pub fn load(paths: &SlavePaths) -> Result<Self, Error> {
        let text = read_if_exists(&paths.sibling(Sibling::Reported), MAX_LEN)?;
        let trouble = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(trouble.map_or(Self::Missing, Self::Stored))
    }

    /// The reported trouble.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Missing => None,
            Self::Stored(trouble) => trouble.as_ref(),
        }
    }
}

/// Writes the file. Fails if the slave's file system is not mounted, and with [`Error::Off`] if
/// syncing was switched off. Fails if no pass was made for this path, so that nothing is created
/// beside a name that was mistyped.
pub fn store(trouble: Option<&Trouble>, slave: &Slave) -> Result<(), Error> {
    let paths = &slave.paths;
    let _lock = slave.block_steps_of_synced()?;
    if let Some(why) = slave.switches.why_off().filter(OffReason::is_intended) {
        return Err(Error::Off(why));
    }
    let path = paths.sibling(Sibling::Reported);
    let fail = || Error::io("write", &path);
    let mut text = serde_json::to_vec(&trouble).map_err(|error| fail()(error.into()))?;
    text.push(b'\n');
    let file = Owner::open_or_create_for(paths, &path)?;
    file.write_all_at(&text, 0)
        .and_then(|()| file.set_len(text.len() as u64))
        .map_err(fail())
}

#[cfg(test)]
mod tests;
