//! Conditions under which the slave cannot be written or replaced although its permissions
//! allow it. They are checked before anything is copied. Only reads.
//!
//! 1. *The slave is mounted as a single file*, as containers do it. No other file can be
//!    renamed over it, and programs that open the original file use another `.lock`.
//! 2. *The slave was deleted* or replaced after it was opened. Appended data would be lost.
//! 3. *The slave or its directory is immutable or append-only* (`chattr +i`, `+a`).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::paths::SlavePaths;
use crate::error::Error;
use crate::io::file_stat::FileStat;

/// The properties of an open slave that can prevent writing.
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
    /// Fails if one of the conditions prevents writing or replacing the slave.
    pub fn check(self, paths: &SlavePaths) -> Result<(), Error> {
        let path = paths.data();
        if self.attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Error::Usage(format!(
                "{} is mounted as a single file: it cannot be replaced, and other programs do \
                 not see its locks. Mount its directory instead",
                path.display()
            )));
        }
        check_attributes(path, self.attributes)?;
        if self.links == 0 {
            // It was deleted.
            return Err(Error::SlaveChanged {
                slave: path.to_owned(),
                what: "it was deleted or replaced".to_owned(),
            });
        }
        Ok(())
    }
}

/// Fails if an attribute of the slave's directory prevents replacing files in it.
pub fn check_directory(paths: &SlavePaths) -> Result<(), Error> {
    let directory = paths.directory();
    let found = statx(CWD, directory, AtFlags::empty(), StatxFlags::TYPE)
        .map_err(|error| Error::io("stat", directory)(error.into()))?;
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
