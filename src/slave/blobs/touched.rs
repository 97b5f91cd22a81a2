//! The directories whose names must become durable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::fsync;

use super::tree::Tree;
use super::whole_sync::{WholeSync, sync_whole};
use crate::error::Error;

/// Directories below the blob directory in which names were created or found.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeSet<PathBuf>);

impl Touched {
    /// Adds a directory and all directories above it, up to the blob directory. Another pass may
    /// have created one of them and been killed before it was synced.
    pub(super) fn add(&mut self, directory: &Path) {
        for above in directory.ancestors() {
            // The ancestors of a directory in the set are in the set.
            if !self.0.insert(above.to_owned()) {
                break;
            }
        }
    }

    /// Makes the names in these directories durable, and forgets them.
    pub(super) fn sync(&mut self, tree: &Tree) -> Result<(), Error> {
        if sync_whole(tree, self.0.len()) == WholeSync::Durable {
            self.0.clear();
            return Ok(());
        }
        for relative in &self.0 {
            let Some(directory) = tree.directory(relative)? else {
                return Err(Error::SlaveChanged {
                    slave: tree.path().join(relative),
                    what: "the directory was removed".to_owned(),
                });
            };
            fsync(directory).map_err(tree.fail("sync the directory", relative))?;
        }
        self.0.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_directories_up_to_the_root_are_synced_once() {
        let mut touched = Touched::default();
        for directory in ["a/b/c", "a/b/d", "a/b/c", "e"] {
            touched.add(Path::new(directory));
        }
        let found: Vec<_> = touched.0.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(found, ["", "a", "a/b", "a/b/c", "a/b/d", "e"]);
    }
}
