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
    /// Number of findings in blobs that are damage.
    #[serde(default)]
    pub blob_damages: u64,
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

    /// Whether the slave or its blobs were found damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damages > 0 || self.blob_damages > 0
    }

    /// The pass that repairs the damage.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        if self.damages > 0 {
            "replace the slave with `fssync --full`, or verify it again"
        } else {
            "fetch the blobs again with `fssync --recheck-blobs`, and verify them again"
        }
    }

    /// The result to store after an earlier one; `None` if the earlier one must stay. A quick
    /// verification does not look for all damage, so damage that a full one has found remains.
    fn after(&self, earlier: Option<&Self>) -> Option<Self> {
        let mut result = self.clone();
        let Some(earlier) = earlier.filter(|earlier| self.quick && !earlier.quick) else {
            return Some(result);
        };
        let (mut is_hidden, mut is_new) = (false, false);
        for (own, before) in [
            (&mut result.damages, earlier.damages),
            (&mut result.blob_damages, earlier.blob_damages),
        ] {
            is_new |= *own > 0 && before == 0;
            is_hidden |= *own == 0 && before > 0;
            if *own == 0 {
                *own = before;
            }
        }
        // The damage of the full verification must not be cleared by the next quick one either.
        result.quick &= !is_hidden;
        (is_new || !is_hidden).then_some(result)
    }

    /// Replaces the stored result atomically, with the slave's owner and mode, unless the
    /// earlier one must stay. Fails if the slave's file system is not mounted.
    pub fn store(&self, paths: &SlavePaths) -> Result<(), Error> {
        let Some(result) = self.after(Self::load(paths).as_ref()) else {
            return Ok(());
        };
        paths.check_is_mounted()?;
        let path = paths.sibling(Sibling::Verified);
        let mut text = serde_json::to_vec_pretty(&result)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        text.push(b'\n');
        replace_small_file(paths, Sibling::VerifiedNew, &path, &text)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(quick: bool, damages: u64, blob_damages: u64) -> Record {
        let file = tempfile::tempfile().unwrap();
        Record {
            time: Timestamp::UNIX_EPOCH,
            file: FileId::of(&file).unwrap(),
            quick,
            damages,
            blob_damages,
            exit_code: 0,
            verdict: String::new(),
        }
    }

    #[test]
    fn a_quick_verification_hides_no_damage_that_a_full_one_has_found() {
        let after = |new: (bool, u64, u64), earlier: (bool, u64, u64)| {
            let [new, earlier] =
                [new, earlier].map(|(quick, log, blobs)| record(quick, log, blobs));
            let result = new.after(Some(&earlier))?;
            Some((result.quick, result.damages, result.blob_damages))
        };
        // A full verification, and one after another quick one, replace any result.
        assert_eq!(after((false, 0, 0), (false, 1, 2)), Some((false, 0, 0)));
        assert_eq!(after((true, 0, 0), (true, 1, 2)), Some((true, 0, 0)));
        assert_eq!(after((true, 0, 0), (false, 0, 0)), Some((true, 0, 0)));
        // Damage of one kind or of both stays.
        for earlier in [(false, 1, 0), (false, 0, 2), (false, 1, 2)] {
            assert_eq!(after((true, 0, 0), earlier), None);
        }
        assert_eq!(after((true, 3, 0), (false, 1, 0)), Some((true, 3, 0)));
        // New damage is added to it.
        assert_eq!(after((true, 3, 0), (false, 0, 2)), Some((false, 3, 2)));
        assert_eq!(after((true, 0, 3), (false, 1, 0)), Some((false, 1, 3)));
    }
}
