//! An open blob directory: its layout, its identity, and the blobs in it. Only reads.
//!
//! | name below the blob directory | contents |
//! | --- | --- |
//! | `.layout` | how the blob files are named, as in ZODB |
//! | `.fssync/id` | the id of the directory: 32 lower-case hexadecimal digits |
//! | `.fssync/tmp/` | blobs that are being received, `<oid>-<tid>` |
//! | `.fssync/replaced/` | files that were in the place of a blob of the master |
//! | `.fssync/aside-<tid>/` | the blobs of a slave that was set aside |
//!
//! `.fssync` has mode 0700. ZODB ignores names that start with a dot when it looks for the layout
//! of a directory.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ownership::Ownership;
use super::tree::Tree;
use crate::error::Error;
use crate::filestorage::blob::names::ID_FILE;
use crate::filestorage::blob::{BlobKey, LAYOUT_FILE, Layout};
use crate::io::digest::Digest;
use crate::io::read::read_fully;
use crate::source::blobs::BlobStat;

/// The directory of blobs that are being received.
pub(super) const TMP: &str = ".fssync/tmp";

/// The directory of files that were in the place of a blob.
pub(super) const REPLACED: &str = ".fssync/replaced";

/// Length of an id, in hexadecimal digits.
pub(super) const ID_LEN: usize = 32;

/// How many bytes of a small file are read.
const MAX_SMALL_LEN: u64 = 256;

/// The slave's blob directory. It is opened for one pass: an open handle would keep its file
/// system from being unmounted.
#[derive(Debug)]
pub struct BlobDirectory {
    pub(super) tree: Tree,
    pub(super) ownership: Ownership,
    pub(super) layout: Layout,
    pub(super) id: String,
}

/// A blob file of the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBlob {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

impl PlacedBlob {
    /// Whether size and time of modification are those of the master's file.
    #[must_use]
    pub fn is_like(&self, master: &BlobStat) -> bool {
        (self.size, self.modified) == (master.size, master.modified)
    }
}

impl BlobDirectory {
    /// Opens the blob directory that earlier passes wrote, whose id is `id`. Fails with
    /// [`Error::BlobsMoved`] if another directory, or none, is at `path`.
    pub fn open(path: &Path, id: &str) -> Result<Self, Error> {
        let tree = open_tree(path)?;
        match read_id(&tree)? {
            Some(found) if found == id => {}
            Some(_) => return Err(tree.moved("its .fssync/id is that of another directory")),
            None => return Err(tree.moved("it has no valid .fssync/id")),
        }
        Self::with_id(tree, id.to_owned())
    }

    /// Opens the blob directory at `path`, to read it. It may be one of ZODB that no pass has set
    /// up; its id is empty then. Fails with [`Error::BlobsMoved`] if there is none.
    pub fn open_any(path: &Path) -> Result<Self, Error> {
        let tree = open_tree(path)?;
        let id = read_id(&tree)?.unwrap_or_default();
        Self::with_id(tree, id)
    }

    fn with_id(tree: Tree, id: String) -> Result<Self, Error> {
        let layout = read_layout(&tree)?.ok_or_else(|| tree.moved("its .layout is missing"))?;
        Self::of(tree, layout, id)
    }

    pub(super) fn of(tree: Tree, layout: Layout, id: String) -> Result<Self, Error> {
        let found = tree.root().metadata();
        let found = found.map_err(Error::io("stat", tree.path()))?;
        Ok(Self {
            ownership: Ownership::of(&found),
            tree,
            layout,
            id,
        })
    }

    /// The id of the blob directory at `path`; `None` if no pass has set one up there.
    pub fn id_at(path: &Path) -> Result<Option<String>, Error> {
        match Tree::open(path) {
            Ok(tree) => read_id(&tree),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// The path of the directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    /// How it names its blobs.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The path of a blob, for messages. The file need not exist.
    #[must_use]
    pub fn blob_path(&self, key: BlobKey) -> PathBuf {
        self.path().join(self.layout.path(key))
    }

    /// Fails with [`Error::BlobsMoved`] if another directory, or none, is at the path now. A
    /// blob that is missing proves nothing then.
    pub fn check_in_place(&self) -> Result<(), Error> {
        self.tree.check_in_place()
    }

    /// The state of a blob; `None` if it is not there. Anything but a regular file at its path, and
    /// a symbolic link in the path, is an error.
    pub fn stat(&self, key: BlobKey) -> Result<Option<PlacedBlob>, Error> {
        let found = self.tree.stat(&self.layout.path(key))?;
        Ok(found.map(|found| PlacedBlob {
            size: found.st_size.cast_unsigned(),
            modified: (found.st_mtime, found.st_mtime_nsec as u32),
        }))
    }

    /// Opens a blob for reading; `None` if it is not there. The errors are those of
    /// [`stat`](Self::stat).
    pub fn open_blob(&self, key: BlobKey) -> Result<Option<File>, Error> {
        self.tree.file(&self.layout.path(key))
    }

    /// The digest of a blob; `None` if it is not there. Calls `check_cancelled` before each read,
    /// and stops if that fails.
    pub fn digest(
        &self,
        key: BlobKey,
        check_cancelled: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Option<Digest>, Error> {
        let Some(file) = self.open_blob(key)? else {
            return Ok(None);
        };
        let path = self.blob_path(key);
        let size = file.metadata().map_err(Error::io("stat", &path))?.len();
        Digest::of_range(0..size, |buffer, offset| {
            check_cancelled()?;
            read_fully(&file, buffer, offset)
                .map_err(Error::io(format!("read at {offset} in"), &path))
        })
    }
}

/// Opens the directory at `path`. Fails with [`Error::BlobsMoved`] if there is none.
fn open_tree(path: &Path) -> Result<Tree, Error> {
    Tree::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::BlobsMoved {
            directory: path.to_owned(),
            why: "it does not exist, or is not a directory",
        },
        _ => Error::io("open", path)(error),
    })
}

/// The id of a blob directory; `None` if there is none, or it is invalid.
pub(super) fn read_id(tree: &Tree) -> Result<Option<String>, Error> {
    let text = tree.read(Path::new(ID_FILE), MAX_SMALL_LEN)?;
    let id = text.and_then(|text| String::from_utf8(text.trim_ascii().to_owned()).ok());
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    Ok(id.filter(|id| id.len() == ID_LEN && id.bytes().all(is_digit)))
}

/// The layout of a blob directory; `None` if it has no `.layout`. Fails if the layout is not one
/// of a server's blob directory.
pub(super) fn read_layout(tree: &Tree) -> Result<Option<Layout>, Error> {
    let Some(text) = tree.read(Path::new(LAYOUT_FILE), MAX_SMALL_LEN)? else {
        return Ok(None);
    };
    let unknown = || {
        let name = String::from_utf8_lossy(&text)
            .trim()
            .escape_debug()
            .to_string();
        let path = tree.path().display();
        Error::Usage(match name.as_str() {
            "zeocache" => format!(
                "{path} has the layout \"zeocache\": it is the cache of a ZEO client; name the \
                 blob directory of a server"
            ),
            _ => format!(
                "{path} has the unknown layout \"{name}\" in its .layout: name a blob directory \
                 with the layout bushy or lawn"
            ),
        })
    };
    Layout::parse(&text).map(Some).ok_or_else(unknown)
}
