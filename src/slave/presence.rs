//! Whether a path has, or ever had, a slave. This distinguishes the path of a slave from one
//! that was mistyped. Only reads.

use std::fs;

use super::paths::{OpenMode, Sibling, SlavePaths};
use super::small_file::open_if_exists;
use crate::filestorage::{MAGIC_LEN, Magic};
use crate::io::read::read_fully;

/// How much of a slave exists at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No FileStorage, and no pass was ever made for this path.
    Nothing,
    /// A file that may be a FileStorage, but no pass was ever made for this path.
    File,
    /// A pass was made for this path.
    Synced,
}

impl Presence {
    /// Checks for files that passes leave, and then for a FileStorage. A file that cannot be
    /// read counts as [`Presence::File`].
    #[must_use]
    pub fn of(paths: &SlavePaths) -> Self {
        let exists = |sibling| fs::symlink_metadata(paths.sibling(sibling)).is_ok();
        let left_by_passes = [Sibling::Sidecar, Sibling::PassLock, Sibling::Tmp];
        if left_by_passes.into_iter().any(exists) {
            return Self::Synced;
        }
        match open_if_exists(paths.data(), OpenMode::Read) {
            Ok(None) => Self::Nothing,
            Err(_) => Self::File,
            Ok(Some(file)) => {
                let mut magic = [0; MAGIC_LEN as usize];
                let read = read_fully(&file, &mut magic, 0);
                // An empty file may become a slave; one with other magic is not one.
                if read.is_ok_and(|len| len > 0 && Magic::decode(&magic[..len]).is_none()) {
                    Self::Nothing
                } else {
                    Self::File
                }
            }
        }
    }
}
