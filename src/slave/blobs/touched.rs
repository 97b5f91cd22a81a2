//! The directories whose names must become durable.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::mem;
use std::path::Path;

use rustix::fs::fstat;

use super::synced::{SyncedDirectories, seconds_now};
use super::tree::{Tree, sync_handle};
use super::whole_sync::{WholeSync, sync_whole};
use crate::error::Error;

/// Directories below the blob directory in which names were created or found. Their paths are
/// compared as strings: a comparison of paths takes each component by itself.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeSet<OsString>);

impl Touched {
    /// Adds a directory and all directories above it, up to the blob directory. Another pass may
    /// have created one of them and been killed before it was synced.
    pub(super) fn add(&mut self, directory: &Path) {
        for above in directory.ancestors() {
            // The ancestors of a directory in the set are in the set.
            if !self.0.insert(above.as_os_str().to_owned()) {
                break;
            }
        }
    }

    /// Adds the directories of another set.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Makes the names in these directories durable, and forgets them. Returns how many
    /// directories were synced one by one.
    pub(super) fn sync(&mut self, tree: &Tree, synced: &SyncedDirectories) -> Result<usize, Error> {
        let touched = mem::take(&mut self.0);
        if sync_whole(tree, touched.len()) == WholeSync::Durable {
            return Ok(0);
        }
        let mut count = 0;
        for relative in &touched {
            let relative = Path::new(relative);
            let Some(directory) = tree.directory(relative)? else {
                return Err(Error::SlaveChanged {
                    slave: tree.path().join(relative),
                    what: "the directory was removed".to_owned(),
                });
            };
            let found = fstat(&directory).map_err(tree.fail("stat", relative))?;
            if synced.contains(&found) {
                continue;
            }
            let began = seconds_now();
            sync_handle(directory).map_err(tree.fail("sync the directory", relative))?;
            synced.insert(&found, began);
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn all_directories_up_to_the_root_are_synced_once() {
        let mut touched = Touched::default();
        for directory in ["a/b/c", "a/b/d", "a/b/c", "e"] {
            touched.add(Path::new(directory));
        }
        let found: Vec<_> = touched.0.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(found, ["", "a", "a/b", "a/b/c", "a/b/d", "e"]);
    }

    #[test]
    fn directories_that_did_not_change_are_synced_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        let synced = SyncedDirectories::default();
        let sync = || {
            let mut touched = Touched::default();
            touched.add(Path::new("a/b/c"));
            touched.sync(&tree, &synced).unwrap()
        };
        assert_eq!(sync(), 4);
        // They changed only just before: a further change could leave the same time.
        assert_eq!(sync(), 4);
        thread::sleep(Duration::from_millis(3100));
        assert_eq!(sync(), 4);
        assert_eq!(sync(), 0);
        fs::write(root.path().join("a/b/new"), "").unwrap();
        assert_eq!(sync(), 1);
    }
}
