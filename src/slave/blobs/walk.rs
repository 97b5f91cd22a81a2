//! Walks through the blob directory and finds all blob files in it. Only reads.
//!
//! Directories are read piece by piece and are open only while they are being read, so the
//! memory does not depend on their sizes. Links are not followed, and names that the layout does
//! not use are skipped: `.fssync`, `tmp`, and files of other programs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, DirEntry, FileType, OFlags, fstat};

use super::directory::BlobDirectory;
use crate::error::Error;
use crate::filestorage::blob::{BlobKey, Layout};

/// How the names of directories and blob files start.
const NAME_START: &[u8] = b"0x";

/// Receives the results of a walk.
pub trait BlobVisitor {
    /// A blob file. An error ends the walk.
    fn blob(&mut self, key: BlobKey) -> Result<(), Error>;

    /// A directory that cannot be read, or not to its end. The walk continues with the next one.
    fn unreadable(&mut self, error: Error);
}

impl BlobDirectory {
    /// Visits each blob file, in the order in which the file system returns the names. Files that
    /// appear or disappear meanwhile may be missed.
    pub fn walk(&self, visitor: &mut dyn BlobVisitor) -> Result<(), Error> {
        let levels = match self.layout {
            Layout::Bushy => 8,
            Layout::Lawn => 1,
        };
        self.walk_below(Path::new(""), levels, visitor)
    }

    /// Walks through a directory above `levels` levels of directories.
    fn walk_below(
        &self,
        relative: &Path,
        levels: usize,
        visitor: &mut dyn BlobVisitor,
    ) -> Result<(), Error> {
        let wanted = match levels {
            0 => FileType::RegularFile,
            _ => FileType::Directory,
        };
        let opened = self.tree.directory(relative).and_then(|directory| {
            let entries = directory.map(Dir::new).transpose();
            entries.map_err(self.tree.fail("read", relative))
        });
        let entries = match opened {
            Ok(Some(entries)) => entries,
            // It was removed meanwhile.
            Ok(None) => return Ok(()),
            Err(error) => {
                visitor.unreadable(error);
                return Ok(());
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    visitor.unreadable(self.tree.fail("read", relative)(error));
                    return Ok(());
                }
            };
            let name = entry.file_name().to_bytes();
            if !name.starts_with(NAME_START) {
                continue;
            }
            let path = relative.join(OsStr::from_bytes(name));
            if self.file_type(&entry, &path) != Some(wanted) {
                continue;
            }
            if levels > 0 {
                self.walk_below(&path, levels - 1, visitor)?;
            } else if let Some(key) = self.layout.key(&path) {
                visitor.blob(key)?;
            }
        }
        Ok(())
    }

    /// The type of a directory entry. Some file systems return it only with the file's state.
    fn file_type(&self, entry: &DirEntry, relative: &Path) -> Option<FileType> {
        match entry.file_type() {
            FileType::Unknown => {
                let found = self.tree.open_if_exists(relative, OFlags::PATH, "stat");
                let found = fstat(found.ok()??).ok()?;
                Some(FileType::from_raw_mode(found.st_mode))
            }
            known => Some(known),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::filestorage::Tid;
    use crate::filestorage::blob::LAYOUT_FILE;

    #[derive(Default)]
    struct Found {
        keys: BTreeSet<BlobKey>,
        unreadable: usize,
    }

    impl BlobVisitor for Found {
        fn blob(&mut self, key: BlobKey) -> Result<(), Error> {
            assert!(self.keys.insert(key), "{key:?} was visited twice");
            Ok(())
        }

        fn unreadable(&mut self, _: Error) {
            self.unreadable += 1;
        }
    }

    fn key(oid: u64, tid: u64) -> BlobKey {
        BlobKey { tid: Tid(tid), oid }
    }

    /// A directory of this layout with these blobs.
    fn directory(layout: Layout, keys: &BTreeSet<BlobKey>) -> (tempfile::TempDir, BlobDirectory) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(LAYOUT_FILE), layout.as_str()).unwrap();
        for key in keys {
            let path = root.path().join(layout.path(*key));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "content").unwrap();
        }
        let directory = BlobDirectory::open_any(root.path()).unwrap();
        (root, directory)
    }

    #[test]
    fn all_blobs_are_visited_once_and_other_files_are_skipped() {
        let keys = BTreeSet::from([key(0, 7), key(1, 7), key(1, 8), key(0x1234, 9), key(!0, !0)]);
        for layout in [Layout::Bushy, Layout::Lawn] {
            let (root, directory) = directory(layout, &keys);
            let at = |name: &str| root.path().join(name);
            fs::create_dir_all(at(".fssync/tmp/0x01")).unwrap();
            fs::write(at(".fssync/tmp/0x01/0x09.blob"), "").unwrap();
            fs::create_dir_all(at("tmp/0x01")).unwrap();
            fs::write(at("tmp/0x01/0x09.blob"), "").unwrap();
            let beside = at(layout.path(key(1, 7)).to_str().unwrap());
            fs::write(beside.with_file_name("notes"), "").unwrap();
            fs::write(beside.with_file_name("0x09.blob.lock"), "").unwrap();
            fs::create_dir(beside.with_file_name("0x0a.blob")).unwrap();
            symlink(&beside, beside.with_file_name("0x0b.blob")).unwrap();
            symlink(root.path(), at("0x77")).unwrap();
            let mut found = Found::default();
            directory.walk(&mut found).unwrap();
            assert_eq!((found.keys, found.unreadable), (keys.clone(), 0));
        }
    }
}
