//! Why a blob directory cannot be used. The server sends these to the slave as they are.

use serde::{Deserialize, Serialize};

/// The maximum number of paths in a problem: two for each directory of `Data.fs`.
const MAX_PATHS: usize = 4;

/// The maximum length of a text from the other end of a connection, in characters.
const MAX_TEXT_LEN: usize = 500;

/// Why a blob directory of the master cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, thiserror::Error)]
pub enum BlobsProblem {
    /// None was given, and the usual directories are not blob directories.
    #[error("no blob directory was found: {} has no .layout", tried.join(", and "))]
    NotFound {
        /// The directories that were tried.
        tried: Vec<String>,
    },
    /// None was given, and several of the usual directories are blob directories.
    #[error("several blob directories were found: {}", found.join(", "))]
    Ambiguous {
        /// These directories.
        found: Vec<String>,
    },
    /// The directory does not exist.
    #[error("the blob directory {directory} does not exist")]
    Missing {
        /// The directory.
        directory: String,
    },
    /// The directory has no file `.layout`.
    #[error("{directory} is not a blob directory, since it has no .layout")]
    NoLayout {
        /// The directory.
        directory: String,
    },
    /// The layout is not one of a server.
    #[error("the blob directory {directory} has the layout {layout:?}, not bushy or lawn")]
    UnknownLayout {
        /// The directory.
        directory: String,
        /// The start of the content of its `.layout`.
        layout: String,
    },
    /// `fssync serve` does not serve the directory.
    #[error("the blob directory {} is not served there", directories.join(" or "))]
    NotServed {
        /// The directory; if none was given, the usual ones.
        directories: Vec<String>,
    },
    /// The reader may not read the directory.
    #[error("permission to read {path} is denied")]
    Denied {
        /// The directory, or the file in it.
        path: String,
    },
    /// The directory was a blob directory, and is not any more, or has another layout. Its
    /// file system may have been unmounted.
    #[error("the blob directory {directory} has lost or changed its .layout (unmounted?)")]
    Vanished {
        /// The directory.
        directory: String,
    },
}

impl BlobsProblem {
    /// The same, limited to the lengths of an honest report: it came from the other end of a
    /// connection.
    pub(in crate::source) fn bounded(self) -> Self {
        let short = |text: String| text.chars().take(MAX_TEXT_LEN).collect();
        let few = |paths: Vec<String>| paths.into_iter().take(MAX_PATHS).map(short).collect();
        match self {
            Self::NotFound { tried } => Self::NotFound { tried: few(tried) },
            Self::Ambiguous { found } => Self::Ambiguous { found: few(found) },
            Self::NotServed { directories } => Self::NotServed {
                directories: few(directories),
            },
            Self::Missing { directory } => Self::Missing {
                directory: short(directory),
            },
            Self::NoLayout { directory } => Self::NoLayout {
                directory: short(directory),
            },
            Self::UnknownLayout { directory, layout } => Self::UnknownLayout {
                directory: short(directory),
                layout: short(layout),
            },
            Self::Denied { path } => Self::Denied { path: short(path) },
            Self::Vanished { directory } => Self::Vanished {
                directory: short(directory),
            },
        }
    }

    /// Whether another configuration of the slave or of the server is needed.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Denied { .. } | Self::Vanished { .. })
    }

    /// Advice for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Ambiguous { .. } => {
                "name the master's blob directory with --master-blobs"
            }
            Self::Missing { .. } | Self::NoLayout { .. } => {
                "name the directory that contains .layout; if it is on a file system of its \
                 own, is that mounted?"
            }
            Self::UnknownLayout { .. } => {
                "a zeocache is the cache of a ZEO client: name the blob directory of the ZEO \
                 server"
            }
            Self::NotServed { .. } => {
                "on the master, serve a directory that contains both Data.fs and the blobs, as \
                 in `fssync serve /srv/plone/var`, or name both: `fssync serve DATA.FS BLOBS`"
            }
            Self::Denied { .. } => {
                "read the master as the user that runs its ZEO server, also with `fssync serve`"
            }
            Self::Vanished { .. } => "is its file system mounted? The next pass will try again",
        }
    }
}
