//! The state of ZODB's index beside the slave, from the head of the file only.

use std::fs;
use std::io::{ErrorKind, Read};

use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::index::pickle::{self, MAX_HEAD_LEN, read_position};
use crate::filestorage::index::sanity::MIN_POSITION;
use crate::slave::paths::{self, OpenMode, Sibling, SlavePaths};

/// Whether ZODB can use the index when it opens the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexStatus {
    /// The file does not exist.
    Missing,
    /// The file is not an index, or belongs to another file.
    Unusable,
    /// The index covers the slave up to this position in bytes.
    UpTo(u64),
}

impl IndexStatus {
    /// Reads the head of the index. `position` is that of the slave.
    pub(super) fn look(paths: &SlavePaths, position: Option<u64>) -> Result<Self, Error> {
        let path = paths.sibling(Sibling::ZodbIndex);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Missing),
            Ok(found) if !found.is_file() => return Ok(Self::Unusable),
            _ => {}
        }
        let file = match paths::open(&path, OpenMode::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Missing),
            opened => opened.map_err(Error::io("read", &path))?,
        };
        let usable = MIN_POSITION..=position.unwrap_or(0);
        match read_position(file.take(MAX_HEAD_LEN as u64)) {
            Ok(at) if usable.contains(&at) => Ok(Self::UpTo(at)),
            Ok(_) | Err(pickle::Error::Foreign { .. } | pickle::Error::Short(_)) => {
                Ok(Self::Unusable)
            }
            Err(pickle::Error::Io(error)) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Number of bytes that ZODB scans when it opens a slave with this position.
    #[must_use]
    pub fn scan_bytes(self, position: u64) -> u64 {
        let from = match self {
            Self::UpTo(at) => at,
            Self::Missing | Self::Unusable => MAGIC_LEN,
        };
        position.saturating_sub(from)
    }
}
