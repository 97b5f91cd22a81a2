//! The names of blob directories, and of fssync's own files in them.

use std::path::{Path, PathBuf};

/// The directory of `Data.fs` in the usual site of Plone. Its blobs are beside this directory.
const FILESTORAGE: &str = "filestorage";

/// The name of the usual blob directory, also of a new one.
const BLOBSTORAGE: &str = "blobstorage";

/// Another name of a blob directory.
const BLOBS: &str = "blobs";

/// The directory of fssync in a slave's blob directory.
pub const FSSYNC_DIRECTORY: &str = ".fssync";

/// The file with the id of a slave's blob directory, relative to that directory.
pub const ID_FILE: &str = ".fssync/id";

/// The usual blob directories of a `Data.fs` in this directory, which has a name: those of the
/// buildout recipes of Plone. They may not exist. The first one is the default.
///
/// - `../blobstorage`, if the directory is called `filestorage`;
/// - otherwise `blobstorage` and `blobs` in the directory.
#[must_use]
pub fn usual_directories(directory: &Path) -> Vec<PathBuf> {
    if directory.file_name().is_some_and(|it| it == FILESTORAGE) {
        return vec![directory.with_file_name(BLOBSTORAGE)];
    }
    [BLOBSTORAGE, BLOBS].map(|name| directory.join(name)).into()
}
