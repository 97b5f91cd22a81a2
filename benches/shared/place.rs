//! Where a bench's files lie.

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
    /// Makes the directories; neither file is there yet.
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

    /// What did not do the work needs no time.
    pub(crate) fn assert_equal(&self) -> io::Result<()> {
        must(&vec![
            "cmp".to_owned(),
            text(&self.master),
            text(&self.slave),
        ])
    }
}

/// A directory below the target directory, for as long as it is held.
pub(crate) fn temporary(prefix: &str) -> io::Result<TempDir> {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(temporary)?;
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(temporary)
}
