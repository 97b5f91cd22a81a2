//! Creates the slave's blob directory, or adopts one that exists.
//!
//! # Order of writes, and the state after a crash
//!
//! Each creation is made in a step. Each step can be repeated. There is a `Data.fs` before the first
//! of them: without one, a ZEO that is started too early would remove the blob directory.
//!
//! 1. *The directory itself,* under a temporary name: create it, give it its owner and mode, rename
//!    it; sync its parent.
//!
//!    *Crash:* no directory, one under the temporary name, which the next pass uses, or an empty
//!    one. ZODB and the next pass choose the layout for an empty directory.
//! 2. *`.layout`:* write a hidden file; sync it; rename it without replacing; sync the directory.
//!
//!    *Crash:* no `.layout` and no other visible name, or the complete `.layout`. If another
//!    name was there before `.layout` was durable, ZODB would take the directory for a lawn. If
//!    `.layout` was empty, ZODB could not open the directory.
//! 3. *`.fssync`, `.fssync/tmp`:* create them; then write `.fssync/id` as in 2.
//!
//!    *Crash:* no id. The next pass makes one. The sidecar gets the id only once it is durable.
//!
//! A directory that somebody copied here, or that ZODB made, starts at 3. Its `.layout` is synced
//! as well, because nobody may have done so.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::directory::{BlobDirectory, ID_LEN, TMP, read_id, read_layout};
use super::ownership::{INITIAL_DIRECTORY_MODE, INITIAL_FILE_MODE, Ownership};
use super::rename::rename_new;
use super::steps::take_step;
use super::tree::{Tree, entries, open_in, sync_handle};
use crate::error::Error;
use crate::filestorage::blob::names::{FSSYNC_DIRECTORY, ID_FILE};
use crate::filestorage::blob::{LAYOUT_FILE, Layout};
use crate::io::flock::holder;
use crate::slave::paths::{Sibling, is_directory};
use crate::slave::step::Slave;

/// The layout of a new blob directory, as ZODB chooses it.
const NEW_LAYOUT: Layout = Layout::Bushy;

/// The temporary name of a small file. It is hidden, so ZODB ignores it.
const NEW_FILE: &str = ".fssync-new";

impl BlobDirectory {
    /// Opens the blob directory in the first pass with blobs, and creates whatever is missing.
    /// `known_id` is the id that the sidecar or the blob ledger contains: a directory with another
    /// id, or without one, is then refused with [`Error::BlobsMoved`]. A directory of another kind
    /// is [`Error::Usage`]. All of these errors are also those of [`Self::check_set_up`].
    pub fn set_up(slave: &Slave, path: &Path, known_id: Option<&str>) -> Result<Self, Error> {
        if let Some(id) = known_id {
            check_known(path, id)?;
        }
        let tree = open_or_create(slave, path)?;
        let layout = match layout_unless_empty(slave, &tree)? {
            Some(layout) => layout,
            None => create_layout(slave, &tree)?,
        };
        sync_root(&tree)?;
        let found = read_id(&tree)?;
        let mut directory = Self::of(tree, layout, found.clone().unwrap_or_default())?;
        for name in [FSSYNC_DIRECTORY, TMP] {
            directory.open_or_create_ours(slave, Path::new(name))?;
        }
        if found.is_none() {
            directory.id = new_id().map_err(Error::io("make an id for", path))?;
            directory.create_id(slave)?;
        }
        directory.sync_ours()?;
        Ok(directory)
    }

    /// Removes the id and the empty directories that [`set_up`](Self::set_up) has created in a
    /// directory that proved to be the master's.
    pub fn undo_set_up(self, slave: &Slave) -> Result<(), Error> {
        let fail = |action| self.tree.fail(action, Path::new(FSSYNC_DIRECTORY));
        let ours = self.ours()?;
        let _step = take_step(slave, &self.tree)?;
        unlinkat(&ours, "id", AtFlags::empty()).map_err(fail("remove the id in"))?;
        for name in [TMP, FSSYNC_DIRECTORY] {
            match unlinkat(self.tree.root(), name, AtFlags::REMOVEDIR) {
                // Something else was there before.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => {}
                Err(error) => return Err(self.tree.fail("remove", Path::new(name))(error)),
            }
        }
        Ok(())
    }

    /// Fails if [`Self::set_up`] would refuse the directory at `path`. Nothing is written.
    pub fn check_set_up(slave: &Slave, path: &Path, known_id: Option<&str>) -> Result<(), Error> {
        if let Some(id) = known_id {
            check_known(path, id)?;
        }
        match open_existing(path)? {
            Some(tree) => layout_unless_empty(slave, &tree).map(drop),
            None => place_of_new(path).map(drop),
        }
    }

    /// Opens a directory below `.fssync`, or `.fssync` itself. If it does not exist, it is created
    /// in a step, with mode 0700. Its parent must exist.
    pub(super) fn open_or_create_ours(
        &self,
        slave: &Slave,
        relative: &Path,
    ) -> Result<OwnedFd, Error> {
        if let Some(found) = self.tree.directory(relative)? {
            return Ok(found);
        }
        let fail = |action| self.tree.fail(action, relative);
        let missing = || fail("create")(Errno::NOENT);
        let name = relative.file_name().ok_or_else(missing)?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        let parent = self.tree.directory(parent)?.ok_or_else(missing)?;
        let _step = take_step(slave, &self.tree)?;
        mkdirat(parent, name, INITIAL_DIRECTORY_MODE).map_err(fail("create"))?;
        let created = self.tree.directory(relative)?.ok_or_else(missing)?;
        let mode = INITIAL_DIRECTORY_MODE.bits();
        let path = self.path().join(relative);
        self.ownership.own(&created, mode, &path)?;
        Ok(created)
    }

    /// Writes `.fssync/id`. An invalid one is replaced.
    fn create_id(&self, slave: &Slave) -> Result<(), Error> {
        let ours = self.ours()?;
        let name = Path::new(FSSYNC_DIRECTORY).join(NEW_FILE);
        let content = format!("{}\n", self.id);
        write_new(
            slave,
            &self.tree,
            &ours,
            &name,
            &content,
            0o600,
            &self.ownership,
        )?;
        let _step = take_step(slave, &self.tree)?;
        renameat(&ours, NEW_FILE, &ours, "id").map_err(self.tree.fail("create", Path::new(ID_FILE)))
    }

    /// Makes `.fssync` and the names in it durable.
    fn sync_ours(&self) -> Result<(), Error> {
        let ours = self.ours()?;
        let sync =
            |at: &OwnedFd, name| sync_handle(at).map_err(self.tree.fail("sync", Path::new(name)));
        if let Some(tmp) = self.tree.directory(Path::new(TMP))? {
            sync(&tmp, TMP)?;
        }
        if let Some(id) = self.tree.file(Path::new(ID_FILE))? {
            sync(&id.into(), ID_FILE)?;
        }
        sync(&ours, FSSYNC_DIRECTORY)?;
        sync_root(&self.tree)
    }

    /// The handle of `.fssync`.
    pub(super) fn ours(&self) -> Result<OwnedFd, Error> {
        let missing = || self.tree.moved("its directory .fssync is missing");
        self.tree
            .directory(Path::new(FSSYNC_DIRECTORY))?
            .ok_or_else(missing)
    }
}

/// Fails unless the directory at `path` has this id.
fn check_known(path: &Path, id: &str) -> Result<(), Error> {
    let why = match BlobDirectory::id_at(path)? {
        Some(found) if found == id => return Ok(()),
        Some(_) => "its .fssync/id is that of another directory",
        None => "it does not exist, or has no valid .fssync/id",
    };
    Err(Error::BlobsMoved {
        directory: path.to_owned(),
        why,
    })
}

/// Opens the blob directory, or creates an empty one.
fn open_or_create(slave: &Slave, path: &Path) -> Result<Tree, Error> {
    if let Some(tree) = open_existing(path)? {
        return Ok(tree);
    }
    let NewRoot { parent, new } = place_of_new(path)?;
    create_root(slave, path, &new)?;
    File::open(&parent)
        .and_then(|parent| parent.sync_all())
        .map_err(Error::io("sync the directory", &parent))?;
    Tree::open(path).map_err(Error::io("open", path))
}

/// Opens the blob directory; `None` if it does not exist.
fn open_existing(path: &Path) -> Result<Option<Tree>, Error> {
    match Tree::open(path) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(usage(path, "is not a directory: name a blob directory"))
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("open", path)(error)),
        // It may also be a directory that another program has just created.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink()) => Err(usage(
            path,
            "is a symbolic link to a directory that does not exist: mount its file system, or \
             create the directory",
        )),
        Err(_) => Ok(None),
    }
}

/// A blob directory that is to be created.
struct NewRoot {
    /// The directory that will contain it, which exists.
    parent: PathBuf,
    /// The path under which it is created.
    new: PathBuf,
}

fn place_of_new(path: &Path) -> Result<NewRoot, Error> {
    let parent = parent_of(path);
    let exists = parent.as_deref().map_or(Ok(false), is_directory)?;
    let (Some(parent), Some(name), true) = (parent, path.file_name(), exists) else {
        return Err(usage(
            path,
            "cannot be created, because its parent does not exist: create the parent, or mount \
             its file system",
        ));
    };
    let mut new_name = name.to_owned();
    new_name.push(NEW_FILE);
    let new = parent.join(new_name);
    Ok(NewRoot { parent, new })
}

fn usage(path: &Path, problem: &str) -> Error {
    Error::Usage(format!("{} {problem}", path.display()))
}

/// Creates the blob directory under the name `new`, and renames it to `path`.
fn create_root(slave: &Slave, path: &Path, new: &Path) -> Result<(), Error> {
    let ownership = Ownership::of_new_root(&slave.paths)?;
    let _step = slave.step()?;
    match mkdirat(CWD, new, INITIAL_DIRECTORY_MODE) {
        // A pass that was killed may have created it.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Error::io("create", path)(error.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let created = open_in(CWD, new, flags, Mode::empty());
    let created = created.map_err(|error| Error::io("open", new)(error.into()))?;
    ownership.own(&created, ownership.directory_mode, new)?;
    // A rename replaces a directory that another program has just created only if it is empty.
    let is_taken = |kind| {
        matches!(
            kind,
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
        )
    };
    match fs::rename(new, path) {
        Err(error) if is_taken(error.kind()) => {
            fs::remove_dir(new).map_err(Error::io("remove", new))?;
            // The next attempt adopts it.
            Err(Error::SlaveChanged {
                slave: path.to_owned(),
                what: "another program created it".to_owned(),
            })
        }
        renamed => renamed.map_err(Error::io("create", path)),
    }
}

/// The parent of a path, which is `.` for a single name.
fn parent_of(path: &Path) -> Option<PathBuf> {
    path.parent().map(|parent| match parent.as_os_str() {
        empty if empty.is_empty() => PathBuf::from("."),
        parent => parent.into(),
    })
}

/// The layout of a blob directory; `None` if the directory is empty, apart from hidden names.
fn layout_unless_empty(slave: &Slave, tree: &Tree) -> Result<Option<Layout>, Error> {
    let found = read_layout(tree).and_then(|layout| {
        if layout.is_none() {
            check_is_empty(tree)?;
        }
        Ok(layout)
    });
    let Err(error) = found else {
        return found;
    };
    // ZODB may be setting the directory up: it creates `tmp`, then an empty `.layout`, and writes
    // that. It holds its lock meanwhile.
    if let pid @ Some(_) = holder(&slave.paths.sibling(Sibling::ZodbLock)) {
        let slave = slave.paths.data().to_owned();
        return Err(Error::InUse { slave, pid });
    }
    read_layout(tree)?.map(Some).ok_or(error)
}

/// Writes `.layout` in a directory that is empty, apart from hidden names.
fn create_layout(slave: &Slave, tree: &Tree) -> Result<Layout, Error> {
    let found = tree.root().metadata();
    let ownership = Ownership::of(&found.map_err(Error::io("stat", tree.path()))?);
    let root = tree.root();
    let (name, content) = (Path::new(NEW_FILE), NEW_LAYOUT.as_str());
    let mode = ownership.marker_mode();
    write_new(slave, tree, root, name, content, mode, &ownership)?;
    let _step = take_step(slave, tree)?;
    match rename_new(root, NEW_FILE, root, LAYOUT_FILE) {
        Ok(()) => Ok(NEW_LAYOUT),
        // ZODB has just created it. The next attempt adopts it.
        Err(Errno::EXIST) => Err(Error::SlaveChanged {
            slave: tree.path().to_owned(),
            what: "its .layout was created".to_owned(),
        }),
        Err(error) => Err(tree.fail("create", Path::new(LAYOUT_FILE))(error)),
    }
}

/// Fails if the blob directory contains a name that is not hidden.
fn check_is_empty(tree: &Tree) -> Result<(), Error> {
    let fail = |error: Errno| Error::io("list", tree.path())(error.into());
    for entry in entries(tree.root()).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if !name.starts_with(b".") {
            return Err(Error::Usage(format!(
                "{} contains {} but no .layout, so it is not a blob directory: name the blob \
                 directory, or an empty directory",
                tree.path().display(),
                String::from_utf8_lossy(name).escape_debug()
            )));
        }
    }
    Ok(())
}

/// Writes a small file with this content to the temporary name at the end of `relative`, in
/// `directory`. The file is durable, its name is not.
fn write_new(
    slave: &Slave,
    tree: &Tree,
    directory: impl AsFd,
    relative: &Path,
    content: &str,
    mode: u32,
    ownership: &Ownership,
) -> Result<(), Error> {
    let step = take_step(slave, tree)?;
    // An earlier pass may have been killed here.
    match unlinkat(&directory, NEW_FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(tree.fail("remove", relative)(error)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let created = open_in(&directory, NEW_FILE, flags, INITIAL_FILE_MODE);
    let mut file = File::from(created.map_err(tree.fail("create", relative))?);
    let path = tree.path().join(relative);
    file.write_all(content.as_bytes())
        .map_err(Error::io("write", &path))?;
    ownership.own(&file, mode, &path)?;
    drop(step);
    file.sync_all().map_err(Error::io("sync", &path))
}

/// Makes `.layout` and the names in the blob directory durable, and the name of the directory.
fn sync_root(tree: &Tree) -> Result<(), Error> {
    if let Some(layout) = tree.file(Path::new(LAYOUT_FILE))? {
        layout
            .sync_all()
            .map_err(Error::io("sync", &tree.path().join(LAYOUT_FILE)))?;
    }
    let sync = |directory: &File, path: &Path| {
        directory
            .sync_all()
            .map_err(Error::io("sync the directory", path))
    };
    sync(tree.root(), tree.path())?;
    if let Some(path) = parent_of(tree.path()) {
        let parent = File::open(&path).map_err(Error::io("open", &path))?;
        sync(&parent, &path)?;
    }
    Ok(())
}

/// A random id.
fn new_id() -> io::Result<String> {
    let mut bytes = [0; ID_LEN / 2];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(digits.collect())
}

#[cfg(test)]
mod tests;
