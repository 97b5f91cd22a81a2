//! What keeps a slave from being written or replaced although permissions allow it, found
//! before anything is copied.
//!
//! - *A file that is mounted by itself*, as containers do it: no other file can be renamed
//!   over it, and ZODB's lock beside it is not the one that is beside the original.
//! - *A file that was deleted* under its name: what is appended to it is lost.
//! - *The attributes immutable and append-only* (`chattr +i`, `+a`), of the slave or of its
//!   directory.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::paths::SlavePaths;
use crate::error::Error;
use crate::io::file_stat::FileStat;

/// An open slave, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Protection {
    attributes: StatxAttributes,
    links: u32,
}

/// Returns the state of an open file, and what protects it.
pub fn stat(file: &File) -> io::Result<(FileStat, Protection)> {
    let found = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let protection = Protection {
        attributes: found.stx_attributes,
        links: found.stx_nlink,
    };
    Ok((FileStat::of_statx(&found), protection))
}

impl Protection {
    /// Fails if one of them is in the way of the slave, which is at `place`.
    pub fn check(self, paths: &SlavePaths) -> Result<(), Error> {
        let path = paths.data();
        if self.attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Error::Usage(format!(
                "{} is mounted as a single file, which cannot be replaced, and whose locks \
                 other programs do not see: mount its directory",
                path.display()
            )));
        }
        check_attributes(path, self.attributes)?;
        if self.links == 0 {
            return Err(Error::SlaveChanged {
                slave: path.to_owned(),
                what: "it was deleted or replaced".to_owned(),
            });
        }
        Ok(())
    }
}

/// Fails if an attribute of the slave's directory keeps files in it from being replaced.
pub fn check_directory(paths: &SlavePaths) -> Result<(), Error> {
    let directory = paths.directory();
    let found = statx(CWD, directory, AtFlags::empty(), StatxFlags::TYPE)
        .map_err(|error| Error::io("look at", directory)(error.into()))?;
    check_attributes(directory, found.stx_attributes)
}

fn check_attributes(path: &Path, attributes: StatxAttributes) -> Result<(), Error> {
    let known = [
        (StatxAttributes::IMMUTABLE, "immutable", "-i"),
        (StatxAttributes::APPEND, "append-only", "-a"),
    ];
    let found = known.into_iter().find(|it| attributes.contains(it.0));
    found.map_or(Ok(()), |(_, attribute, option)| {
        Err(Error::Protected {
            path: path.to_owned(),
            attribute,
            option,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_deleted_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let file = File::create(paths.data()).unwrap();
        let (_, protection) = stat(&file).unwrap();
        protection.check(&paths).unwrap();
        std::fs::remove_file(paths.data()).unwrap();
        let (_, protection) = stat(&file).unwrap();
        let error = protection.check(&paths).unwrap_err();
        assert!(matches!(error, Error::SlaveChanged { .. }), "{error}");
    }
}
