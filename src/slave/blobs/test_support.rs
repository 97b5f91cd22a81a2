//! Helpers of the tests of this module.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::BlobDirectory;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobKey;
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::step::Slave;
use crate::source::blobs::BlobStat;

/// A slave, and the path of its blob directory, which does not exist yet.
pub(super) struct Site {
    pub(super) directory: TempDir,
    pub(super) slave: Slave,
    pub(super) blobs: PathBuf,
}

impl Site {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("Data.fs"), "FS30").unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let slave = Slave::new(paths, None);
        // The lock files, which every step needs.
        drop(slave.step().unwrap());
        Self {
            blobs: directory.path().join("blobs"),
            slave,
            directory,
        }
    }

    pub(super) fn set_up(&self) -> BlobDirectory {
        BlobDirectory::set_up(&self.slave, &self.blobs, None).unwrap()
    }

    pub(super) fn switch_off(&self) {
        let switch = self.slave.paths.sibling(Sibling::Switch);
        fs::write(switch, "SYNCING=0\n").unwrap();
    }

    /// All files and directories of the site, with their modes and inode numbers.
    pub(super) fn listing(&self) -> Vec<(PathBuf, u32, u64)> {
        let mut found = Vec::new();
        list(self.directory.path(), &mut found);
        found
    }

    /// The names in a directory of the blob directory, sorted.
    pub(super) fn names(&self, relative: &str) -> Vec<String> {
        let entries = fs::read_dir(self.blobs.join(relative)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn list(directory: &Path, found: &mut Vec<(PathBuf, u32, u64)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            list(&path, found);
        }
        found.push((path, stat.mode(), stat.ino()));
    }
    found.sort();
}

pub(super) fn key(oid: u64, tid: u64) -> BlobKey {
    BlobKey { oid, tid: Tid(tid) }
}

/// The state of a master's file with this content.
pub(super) fn stat_of(content: &[u8]) -> BlobStat {
    BlobStat {
        size: content.len() as u64,
        modified: (1_600_000_000, 123_456_789),
        mode: 0o444,
    }
}
