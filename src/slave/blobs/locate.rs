//! Finds the path of the slave's blob directory. Only reads.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use super::directory::BlobDirectory;
use crate::error::Error;
use crate::filestorage::blob::names;
use crate::slave::paths::{SlavePaths, is_directory};

impl BlobDirectory {
    /// The absolute path of the slave's blob directory. The sidecar records it, and later passes
    /// may have other working directories.
    ///
    /// 1. `given`, if it is not `None`.
    /// 2. The only one of the [usual directories](names::usual_directories) that exists. Several
    ///    are [`Error::Usage`].
    /// 3. If none exists, the first of them.
    pub fn locate(paths: &SlavePaths, given: Option<&Path>) -> Result<PathBuf, Error> {
        if let Some(given) = given {
            return whole(given);
        }
        let candidates = candidates(&whole(paths.directory())?)?;
        let mut found = Vec::new();
        for candidate in &candidates {
            if is_directory(candidate)? {
                found.push(candidate);
            }
        }
        let Some((&first, others)) = found.split_first() else {
            return Ok(candidates[0].clone());
        };
        // One may be a symbolic link to another.
        let resolved = |path: &Path| fs::canonicalize(path).ok();
        match others
            .iter()
            .find(|other| resolved(other) != resolved(first))
        {
            None => Ok(first.clone()),
            Some(other) => Err(Error::Usage(format!(
                "both {} and {} exist: name the slave's blob directory with --slave-blobs",
                first.display(),
                other.display()
            ))),
        }
    }
}

/// The absolute form of a path. Symbolic links remain.
fn whole(path: &Path) -> Result<PathBuf, Error> {
    absolute(path).map_err(Error::io("find the path of", path))
}

/// The possible paths of the blob directory of a slave in `directory`. The first one is the
/// default.
fn candidates(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    // A path such as `..` does not contain the name.
    let directory = match directory.file_name() {
        Some(_) => directory.to_owned(),
        None => fs::canonicalize(directory).map_err(Error::io("find the path of", directory))?,
    };
    Ok(names::usual_directories(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A slave in a directory of this name, and the directory around it.
    fn slave_in(name: &str) -> (TempDir, SlavePaths) {
        let around = tempfile::tempdir().unwrap();
        let directory = around.path().join(name);
        fs::create_dir(&directory).unwrap();
        let paths = SlavePaths::new(&directory.join("Data.fs")).unwrap();
        (around, paths)
    }

    #[test]
    fn the_directory_that_exists_is_found() {
        let (around, paths) = slave_in("filestorage");
        let outside = around.path().join("blobstorage");
        fs::create_dir(around.path().join("filestorage/blobs")).unwrap();
        assert_eq!(BlobDirectory::locate(&paths, None).unwrap(), outside);

        let (around, paths) = slave_in("data");
        let locate = || BlobDirectory::locate(&paths, None);
        let [first, second] =
            ["blobstorage", "blobs"].map(|name| around.path().join("data").join(name));
        assert_eq!(locate().unwrap(), first);
        fs::create_dir(&second).unwrap();
        assert_eq!(locate().unwrap(), second);
        fs::create_dir(&first).unwrap();
        let error = locate().unwrap_err();
        assert_eq!(error.exit(), crate::plan::outcome::Exit::Usage);
        assert!(error.to_string().contains("--slave-blobs"), "{error}");
        let given = Path::new("elsewhere");
        let expected = std::env::current_dir().unwrap().join(given);
        assert_eq!(
            BlobDirectory::locate(&paths, Some(given)).unwrap(),
            expected
        );
    }

    #[test]
    fn blobs_are_beside_a_slave_in_any_other_directory() {
        let (around, paths) = slave_in("data");
        let locate = || BlobDirectory::locate(&paths, None).unwrap();
        fs::create_dir(around.path().join("blobstorage")).unwrap();
        assert_eq!(locate(), around.path().join("data/blobstorage"));
        // A file is not a candidate.
        fs::write(around.path().join("data/blobstorage"), "").unwrap();
        fs::create_dir(around.path().join("data/blobs")).unwrap();
        assert_eq!(locate(), around.path().join("data/blobs"));
    }

    #[test]
    fn a_symbolic_link_between_two_names_is_not_a_choice() {
        let (around, paths) = slave_in("data");
        let at = |name: &str| around.path().join("data").join(name);
        fs::create_dir(at("blobs")).unwrap();
        std::os::unix::fs::symlink("blobs", at("blobstorage")).unwrap();
        let found = BlobDirectory::locate(&paths, None).unwrap();
        assert_eq!(found, at("blobstorage"));
    }

    /// Otherwise the blobs would be copied to another directory while a disk fails.
    #[test]
    fn a_directory_that_cannot_be_examined_is_an_error() {
        let (around, paths) = slave_in("data");
        let at = |name: &str| around.path().join("data").join(name);
        fs::create_dir(at("blobs")).unwrap();
        std::os::unix::fs::symlink("blobstorage", at("blobstorage")).unwrap();
        let error = BlobDirectory::locate(&paths, None).unwrap_err();
        assert_eq!(error.exit(), crate::plan::outcome::Exit::Failure);
        assert!(error.to_string().contains("data/blobstorage"), "{error}");
    }

    #[test]
    fn a_path_without_a_name_is_resolved() {
        let (around, _) = slave_in("filestorage");
        let inside = around.path().join("filestorage/inside");
        fs::create_dir(&inside).unwrap();
        let found = candidates(&inside.join("..")).unwrap();
        let expected = fs::canonicalize(around.path()).unwrap();
        assert_eq!(found[0], expected.join("blobstorage"));
    }
}
