//! The result of the last `fssync verify`, in `Data.fs.fssync-verified`.
//!
//! A result belongs to one file: after a full copy has replaced the slave, it is ignored. The
//! result is replaced atomically and not synced, because the loss costs only another
//! verification. Passes do not write it, so it needs no lock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::small_file::{read_if_exists, replace_small_file};
use crate::error::Error;
use crate::source::FileId;

/// Upper limit for the size of a result, in bytes.
const MAX_LEN: u64 = 16 * 1024;

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// Time at which it ended.
    pub time: Timestamp,
    /// The file that was verified.
    pub file: FileId,
    /// Whether only the structure was checked (`--quick`).
    pub quick: bool,
    /// Number of findings in `Data.fs` that are damage.
    pub damages: u64,
    /// The exit code, which may also concern the master.
    pub exit_code: u8,
    /// The findings in one line.
    pub verdict: String,
}

impl Record {
    /// Reads the result for the file that is the slave now. `None` if there is none, if it is
    /// about another file, or if it is unreadable or invalid.
    #[must_use]
    pub fn load(paths: &SlavePaths) -> Option<Self> {
        let path = paths.sibling(Sibling::Verified);
        let text = read_if_exists(&path, MAX_LEN)
            .inspect_err(|error| tracing::debug!("{}", error.display_chain()))
            .ok()??;
        let record: Self = serde_json::from_slice(&text)
            .inspect_err(|error| tracing::debug!("ignoring {}: {error}", path.display()))
            .ok()?;
        let file = paths::open(paths.data(), OpenMode::Read).ok()?;
        (FileId::of(&file).ok()? == record.file).then_some(record)
    }

    /// Whether the slave was found damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damages > 0
    }

    /// Whether an earlier result must stay: a full verification found damage, which this quick
    /// one does not look for.
    fn must_not_replace(&self, earlier: &Self) -> bool {
        self.quick && !self.is_damaged() && earlier.is_damaged() && !earlier.quick
    }

    /// Replaces the stored result atomically, with the slave's owner and mode, unless the
    /// earlier one must stay. Fails if the slave's file system is not mounted.
    pub fn store(&self, paths: &SlavePaths) -> Result<(), Error> {
        if Self::load(paths).is_some_and(|earlier| self.must_not_replace(&earlier)) {
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
