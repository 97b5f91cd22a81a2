//! Renames a file to a name that does not exist yet.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat_with, unlinkat};
use rustix::io::{Errno, Result};

/// Renames a file, given by a name in an open directory. Fails with [`Errno::EXIST`] if the new
/// name exists.
///
/// Some file systems, such as ZFS before 2.2, do not offer such a rename. There the file gets the
/// new name as a second one before it loses the old one. A crash in between leaves both.
pub(super) fn rename_new(
    from: impl AsFd,
    old: impl AsRef<Path>,
    to: impl AsFd,
    new: impl AsRef<Path>,
) -> Result<()> {
    let (old, new) = (old.as_ref(), new.as_ref());
    match renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => link_and_unlink(from, old, to, new),
        renamed => renamed,
    }
}

/// The same for a file system without such a rename.
fn link_and_unlink(from: impl AsFd, old: &Path, to: impl AsFd, new: &Path) -> Result<()> {
    linkat(&from, old, to, new, AtFlags::empty())?;
    unlinkat(from, old, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    type Rename = fn(&File, &Path, &File, &Path) -> Result<()>;

    #[test]
    fn a_name_that_exists_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let handle = File::open(directory.path()).unwrap();
        let ways: [Rename; 2] = [
            |from, old, to, new| rename_new(from, old, to, new),
            |from, old, to, new| link_and_unlink(from, old, to, new),
        ];
        for (n, rename) in ways.into_iter().enumerate() {
            let new = format!("new{n}");
            fs::write(at("old"), "old").unwrap();
            fs::write(at("other"), "other").unwrap();
            rename(&handle, Path::new("old"), &handle, Path::new(&new)).unwrap();
            assert!(!at("old").exists());
            let error = rename(&handle, Path::new("other"), &handle, Path::new(&new));
            assert_eq!(error.unwrap_err(), Errno::EXIST);
            assert_eq!(fs::read(at(&new)).unwrap(), b"old");
            assert_eq!(fs::read(at("other")).unwrap(), b"other");
        }
    }
}
