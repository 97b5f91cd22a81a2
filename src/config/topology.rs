//! Refuses storages that would write to the same files, or read from each other in a circle.
//!
//! The directories of slaves are read, so that symbolic links do not hide that two slaves are
//! the same. Masters are compared by their paths only: reading one could hang.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf, absolute};
use std::rc::Rc;

use super::file::Text;
use super::site::NamedStorage;
use super::storage::BlobMode;
use crate::error::Error;
use crate::filestorage::DATA_FS;
use crate::slave::blobs::BlobDirectory;
use crate::slave::paths::SlavePaths;
use crate::slave::sidecar::Sidecar;
use crate::source::location::{self, Location};

/// A storage, and its place in a file.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) named: NamedStorage,
    pub(super) text: Rc<Text>,
    /// Its section.
    pub(super) section: Range<usize>,
    /// The value of its key `slave`.
    pub(super) slave: Range<usize>,
}

impl Placed {
    /// The file and the line of the section.
    pub(super) fn line(&self) -> String {
        self.text.line_of(self.section.start)
    }

    fn error(&self, why: &str) -> Error {
        self.text.error_at(&self.slave, &why)
    }
}

/// Fails if two storages have the same slave or the same blob directory at the slave, or if
/// their masters form a circle.
pub(super) fn check(placed: &[Placed]) -> Result<(), Error> {
    let slaves: Vec<_> = placed
        .iter()
        .map(|it| SlaveFile::find(&it.named.storage.slave))
        .collect();
    for (n, one) in placed.iter().enumerate() {
        if let Some(other) = (0..n).find(|&other| slaves[other].is_same(&slaves[n])) {
            let (name, other) = (&one.named.name, &placed[other].named.name);
            return Err(one.error(&format!(
                "storages {other} and {name} have the same slave, {}: each needs its own",
                slaves[n].resolved.display()
            )));
        }
    }
    check_blob_directories(placed)?;
    check_circles(placed, &slaves)
}

/// The file that a slave's path means.
struct SlaveFile {
    /// Without symbolic links, as far as the path exists.
    resolved: PathBuf,
    /// The path as it was given, without `.` and `..`.
    given: PathBuf,
    /// Device and inode, if the file exists.
    inode: Option<(u64, u64)>,
}

impl SlaveFile {
    fn find(given: &Path) -> Self {
        let given = normal(given);
        let found = fs::metadata(&given).ok();
        // A path that does not exist counts as a directory, unless its name is that of a file.
        let is_directory = found.as_ref().map_or_else(
            || given.extension().is_none_or(|it| it != "fs"),
            fs::Metadata::is_dir,
        );
        let data = if is_directory {
            given.join(DATA_FS)
        } else {
            given
        };
        let inode = fs::metadata(&data).ok().map(|it| (it.dev(), it.ino()));
        Self {
            resolved: resolve(&data),
            given: data,
            inode,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.resolved == other.resolved || self.inode.is_some() && self.inode == other.inode
    }

    /// Whether a path, of the file or of its directory, means this file.
    fn has_path(&self, path: &Path) -> bool {
        let paths = [path.to_owned(), path.join(DATA_FS)];
        paths.contains(&self.resolved) || paths.contains(&self.given)
    }
}

/// The path without symbolic links, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(resolved) = fs::canonicalize(ancestor) {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            // An empty rest would append a slash.
            return if rest.as_os_str().is_empty() {
                resolved
            } else {
                resolved.join(rest)
            };
        }
    }
    path.to_owned()
}

/// The absolute path without `.` and `..`. No file is read.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .components()
    {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Fails if two storages copy blobs into one directory. Blobs are named by object and
/// transaction, which are not unique in several storages.
fn check_blob_directories(placed: &[Placed]) -> Result<(), Error> {
    let mut found: Vec<(PathBuf, &Placed)> = Vec::new();
    for one in placed {
        let Some(directory) = blob_directory(one) else {
            continue;
        };
        let directory = resolve(&directory);
        // A pack of ZODB also links the blobs of an inner directory.
        let is_within = |(other, _): &&(PathBuf, &Placed)| {
            other.starts_with(&directory) || directory.starts_with(other)
        };
        if let Some((path, other)) = found.iter().find(is_within) {
            let how = if *path == directory {
                format!("the same blob directory, {}", directory.display())
            } else {
                let (a, b) = (path.display(), directory.display());
                format!("blob directories of which one is within the other, {a} and {b}")
            };
            return Err(one.error(&format!(
                "storages {} and {} have {how}: set `blobs = false` for the one without blobs, \
                 or `blobs = {{ slave = \"...\" }}` for both",
                other.named.name, one.named.name,
            )));
        }
        found.push((directory, one));
    }
    Ok(())
}

/// The blob directory of a slave: the configured one, that of earlier passes, or the usual one.
/// `None` if there is none yet; if the slave cannot be read, its passes report it.
fn blob_directory(one: &Placed) -> Option<PathBuf> {
    let BlobMode::On(options) = &one.named.storage.blobs else {
        return None;
    };
    if let Some(directory) = &options.slave {
        return Some(normal(directory));
    }
    let paths = SlavePaths::new(&one.named.storage.slave).ok()?;
    let recorded = Sidecar::load(&paths).ok().and_then(|it| it.blobs);
    match recorded {
        Some(state) => Some(state.directory),
        None => BlobDirectory::locate(&paths, None).ok(),
    }
}

/// Fails if a storage reads, directly or through others, its own slave.
fn check_circles(placed: &[Placed], slaves: &[SlaveFile]) -> Result<(), Error> {
    // For each storage, the one whose slave is its master.
    let masters: Vec<_> = placed
        .iter()
        .map(|it| {
            let path = local_master(it)?;
            slaves.iter().position(|slave| slave.has_path(&path))
        })
        .collect();
    for (start, one) in placed.iter().enumerate() {
        let mut circle = vec![start];
        let mut at = start;
        // Another circle, without this storage, is found from its own members.
        while let Some(next) = masters[at].filter(|_| circle.len() <= placed.len()) {
            if next == start {
                return Err(one.error(&circle_message(placed, &circle)));
            }
            circle.push(next);
            at = next;
        }
    }
    Ok(())
}

fn circle_message(placed: &[Placed], circle: &[usize]) -> String {
    let names: Vec<_> = circle
        .iter()
        .map(|&n| placed[n].named.name.as_str())
        .collect();
    match names[..] {
        [name] => format!("the master and the slave of storage {name} are the same file"),
        _ => format!(
            "the slave of each of these storages is the master of another one, in a circle: {}",
            names.join(", ")
        ),
    }
}

/// The path of a master on this machine.
fn local_master(one: &Placed) -> Option<PathBuf> {
    let master = one.named.storage.master.as_ref()?;
    match location::parse(&master.location) {
        Ok(Location::Path(path)) => Some(normal(&path)),
        _ => None,
    }
}
