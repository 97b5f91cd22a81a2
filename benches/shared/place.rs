//! The directories of a bench.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::command::{must, text};
use tempfile::TempDir;

/// A master and a slave, in directories of their own.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) master: PathBuf,
    pub(crate) slave: PathBuf,
}

impl Place {
    /// Creates the directories. The files do not exist yet.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        for name in ["master", "slave"] {
            fs::create_dir_all(directory.join(name))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            master: directory.join("master/Data.fs"),
            slave: directory.join("slave/Data.fs"),
        })
    }

    /// Fails if the two differ: a time counts only if the work was done.
    pub(crate) fn assert_equal(&self) -> io::Result<()> {
        must(&vec![
            "cmp".to_owned(),
            text(&self.master),
            text(&self.slave),
        ])
    }
}

/// A temporary directory below the target directory.
pub(crate) fn temporary(prefix: &str) -> io::Result<TempDir> {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(temporary)?;
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(temporary)
}
