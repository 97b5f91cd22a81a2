//! What the last `fssync verify` found, in `Data.fs.fssync-verified`.
//!
//! It belongs to one file: once a full copy has put another in the slave's place, it says
//! nothing about that. It is replaced atomically and not synced; losing it costs another
//! verification. No pass writes it, so it needs no lock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::small_file::{read_if_exists, replace_small_file};
use crate::error::Error;
use crate::source::FileId;

/// More than a record has, in bytes.
const MAX_LEN: u64 = 16 * 1024;

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// When it ended.
    pub time: Timestamp,
    /// The file that was verified.
    pub file: FileId,
    /// Whether it was the structure alone.
    pub quick: bool,
    /// How many findings in `Data.fs` are damage.
    pub damages: u64,
    /// The exit code, which may be about the master too.
    pub exit_code: u8,
    /// What was found, in one line.
    pub verdict: String,
}

impl Record {
    /// The record of the file that is at `place` now. What cannot be read, or makes no
    /// sense, is passed over.
    #[must_use]
    pub fn load(paths: &SlavePaths) -> Option<Self> {
        let path = paths.sibling(Sibling::Verified);
        let text = read_if_exists(&path, MAX_LEN)
            .inspect_err(|error| tracing::debug!("{}", error.display_chain()))
            .ok()??;
        let record: Self = serde_json::from_slice(&text)
            .inspect_err(|error| tracing::debug!("{} is passed over: {error}", path.display()))
            .ok()?;
        let file = paths::open(paths.data(), OpenMode::Read).ok()?;
        (FileId::of(&file).ok()? == record.file).then_some(record)
    }

    /// Whether the slave was found damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damages > 0
    }

    /// Whether an earlier record tells more than this one: damage that a quick verification
    /// does not look for.
    fn is_outdone_by(&self, earlier: &Self) -> bool {
        self.quick && !self.is_damaged() && earlier.is_damaged() && !earlier.quick
    }

    /// Puts it in its place, with the slave's owner and mode, unless an earlier one tells
    /// more.
    pub fn store(&self, paths: &SlavePaths) -> Result<(), Error> {
        if Self::load(paths).is_some_and(|earlier| self.is_outdone_by(&earlier)) {
            return Ok(());
        }
        paths.check_is_mounted()?;
        let path = paths.sibling(Sibling::Verified);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        text.push(b'\n');
        replace_small_file(paths, Sibling::VerifiedNew, &path, &text)?;
        Ok(())
    }
}
