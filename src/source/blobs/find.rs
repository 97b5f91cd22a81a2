//! Finds the blob directory of a master.
//!
//! The usual directories are those of [`names::usual_directories`]. `Data.fs` may be a symbolic link, or in a directory that
//! is one, so both its name and the file that it leads to count.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf, absolute};

use rustix::fs::fstat;

use super::directory::{BlobDirectory, BlobsFailure};
use super::{BlobRoot, BlobsProblem};
use crate::filestorage::blob::names;
use crate::source::open::Name;

/// Describes the blob directory with this name.
pub(in crate::source) fn describe(name: &Name) -> Result<BlobRoot, BlobsFailure> {
    BlobDirectory::open(name)?.describe()
}

/// Finds the blob directory of the master with this name. `confine` returns the name to open
/// for a path, or `None` if the path may not be opened.
pub(in crate::source) fn find(
    data_fs: &Name,
    confine: impl Fn(&Path) -> Option<Name>,
) -> Result<BlobRoot, BlobsFailure> {
    let usual = usual_directories(&data_fs.path())
        .map_err(|error| BlobsFailure::of("find", &data_fs.path(), error))?;
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    let (mut tried, mut unserved, mut unknown) = (Vec::new(), Vec::new(), None);
    for path in usual {
        let Some(name) = confine(&path) else {
            unserved.push(path.display().to_string());
            continue;
        };
        match BlobDirectory::open(&name) {
            Ok(directory) => {
                // Two paths may lead to the same directory.
                let stat = fstat(&directory.root)
                    .map_err(|error| BlobsFailure::of("stat", &path, error))?;
                if known.insert((stat.st_dev, stat.st_ino)) {
                    found.push(directory);
                }
            }
            Err(failure) if failure.is_not_a_blob_directory() => {
                tried.push(path.display().to_string());
            }
            // It may be the cache of a ZEO client beside the real one.
            Err(BlobsFailure::Problem(problem @ BlobsProblem::UnknownLayout { .. })) => {
                unknown = Some(problem);
            }
            Err(failure) => return Err(failure),
        }
    }
    let problem = match (&found[..], unknown) {
        ([directory], _) => return directory.describe(),
        ([], Some(unknown)) => unknown,
        ([], None) if unserved.is_empty() => BlobsProblem::NotFound { tried },
        ([], None) => BlobsProblem::NotServed {
            directories: unserved,
        },
        (several, _) => BlobsProblem::Ambiguous {
            found: several
                .iter()
                .map(|directory| directory.path.display().to_string())
                .collect(),
        },
    };
    Err(BlobsFailure::Problem(problem))
}

/// The usual blob directories of the `Data.fs` with this path, or of the one in this directory.
/// They may not exist.
pub fn usual_directories(data_fs: &Path) -> io::Result<Vec<PathBuf>> {
    let named = absolute(data_fs)?;
    let named = if named.is_dir() {
        Some(&*named)
    } else {
        named.parent()
    };
    let named = named.ok_or(io::ErrorKind::NotFound)?;
    // During a pack, Data.fs is missing for an instant. Its directory is not.
    let resolved = Name::Trusted(data_fs.to_owned())
        .resolve()
        .ok()
        .and_then(|file| file.parent().map(Path::to_owned))
        .map_or_else(|| named.canonicalize(), Ok)?;
    let mut usual = [named, &resolved].map(names::usual_directories).concat();
    let mut seen = BTreeSet::new();
    usual.retain(|path| seen.insert(path.clone()));
    Ok(usual)
}
