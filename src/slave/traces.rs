//! Whether there is, or ever was, a slave at a place: what tells its path from one that
//! was mistyped.

use std::fs;
use std::io::ErrorKind;

use super::paths::{self, OpenMode, Sibling, SlavePaths};
use crate::filestorage::{MAGIC_LEN, Magic};
use crate::io::read::read_fully;

/// What there is of a slave at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traces {
    /// Nothing: no pass has ever been made for this path, and there is no FileStorage.
    Nothing,
    /// A file that may be a FileStorage, but no pass has ever been made for this path.
    File,
    /// A pass has been made for this path.
    OfPasses,
}

/// What there is of a slave.
#[must_use]
pub fn traces(paths: &SlavePaths) -> Traces {
    let is_there = |what| fs::symlink_metadata(paths.sibling(what)).is_ok();
    let of_passes = [Sibling::Sidecar, Sibling::PassLock, Sibling::Tmp];
    if of_passes.into_iter().any(is_there) {
        return Traces::OfPasses;
    }
    match paths::open(paths.data(), OpenMode::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => Traces::Nothing,
        Err(_) => Traces::File,
        Ok(file) => {
            let mut magic = [0; MAGIC_LEN as usize];
            let read = read_fully(&file, &mut magic, 0);
            if read.is_ok_and(|len| len > 0 && Magic::decode(&magic[..len]).is_none()) {
                Traces::Nothing
            } else {
                Traces::File
            }
        }
    }
}
