//! Gives the blobs of a slave that is set aside a second name (Law 2).
//!
//! If a full copy replaces a slave with other transactions, the old log remains under a second name
//! ([`replace`](crate::slave::replace)). If the slave is truncated at a fork point, the transactions
//! after it remain in a file of their own ([`rewind`](crate::slave::rewind)). Their blobs get second
//! names, too: hard links in `.fssync/aside-<tid>` or `.fssync/aside-<first>-<last>`, which is a blob
//! directory by itself. If the blobs had their first names only, the next pack of ZODB would remove
//! them, because the new log does not refer to them.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. In steps: create the directory, and link `.layout` into it.
//! 2. For each group of blobs: create directories and links, in steps; sync the files and all
//!    directories up to the blob directory.
//! 3. The caller replaces or truncates the log only when [`AsideLinker::finish`] has returned.
//!
//! *Crash before 3:* some links, and the old log under its first name. The pass that replaces it
//! continues with the same directory, whose name follows from the transactions.
//! Links that exist are synced again. If no pass replaces the log, the links remain; they take
//! no space while the blobs have their first names.
//!
//! The files are synced although the log already refers to them: ZODB, which wrote them after a
//! failover, does not sync blobs.

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat, linkat, statat};
use rustix::io::Errno;

use super::directory::BlobDirectory;
use super::steps::{change_in_steps, take_step};
use super::tmp::TmpDirectory;
use super::touched::Touched;
use super::tree::sync_handle;
use super::whole_sync::{WholeSync, sync_whole};
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::blob::names::FSSYNC_DIRECTORY;
use crate::filestorage::blob::{BlobKey, LAYOUT_FILE};
use crate::plan::switch_on::TransactionRun;
use crate::slave::step::Slave;

/// How many blobs are linked before they are synced.
const GROUP_LEN: usize = 512;

/// Links the blobs of a slave that is set aside.
#[derive(Debug)]
pub struct AsideLinker<'a> {
    directory: &'a BlobDirectory,
    slave: &'a Slave,
    tmp: TmpDirectory<'a>,
    /// The directory of the links, below the blob directory.
    relative: PathBuf,
    /// Blobs that were not linked yet.
    keys: Vec<BlobKey>,
    result: BlobsAside,
}

/// The transactions whose blobs are set aside. The name of the directory follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobsOf {
    /// All of a slave that ends with this one.
    Slave(Option<Tid>),
    /// Those that a rewind truncates.
    Run(TransactionRun),
}

impl BlobsOf {
    fn directory(self) -> String {
        match self {
            Self::Slave(last_tid) => format!("aside-{}", last_tid.unwrap_or(Tid(0))),
            Self::Run(TransactionRun { first, last, .. }) => format!("aside-{first}-{last}"),
        }
    }
}

/// The blobs that were set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobsAside {
    /// The directory that contains them: a complete blob directory for the log that was set aside.
    pub path: PathBuf,
    /// Number of blobs in it.
    pub files: u64,
    /// Number of blobs that the blob directory does not have, so they could not be set aside.
    pub missing: u64,
}

impl<'a> AsideLinker<'a> {
    /// Begins to set the blobs of these transactions aside.
    pub fn begin(
        directory: &'a BlobDirectory,
        slave: &'a Slave,
        of: BlobsOf,
    ) -> Result<Self, Error> {
        let relative = Path::new(FSSYNC_DIRECTORY).join(of.directory());
        let aside = directory.open_or_create_ours(slave, &relative)?;
        let set_aside = Self {
            tmp: TmpDirectory::open(directory, slave)?,
            result: BlobsAside {
                path: directory.path().join(&relative),
                files: 0,
                missing: 0,
            },
            keys: Vec::new(),
            relative,
            directory,
            slave,
        };
        let step = take_step(slave, &directory.tree)?;
        set_aside.link(Path::new(LAYOUT_FILE), &aside)?;
        drop(step);
        Ok(set_aside)
    }

    /// Adds a blob of the log.
    pub fn add(&mut self, key: BlobKey) -> Result<(), Error> {
        self.keys.push(key);
        if self.keys.len() >= GROUP_LEN {
            self.link_group()?;
        }
        Ok(())
    }

    /// Links the remaining blobs. All are durable when it returns.
    pub fn finish(mut self) -> Result<BlobsAside, Error> {
        self.link_group()?;
        Ok(self.result)
    }

    /// Links the collected blobs, and makes them and the layout durable.
    fn link_group(&mut self) -> Result<(), Error> {
        let keys = mem::take(&mut self.keys);
        let (tree, layout) = (&self.directory.tree, self.directory.layout);
        let mut linked = Vec::new();
        change_in_steps(
            self.slave,
            tree,
            &keys,
            |_| Ok(()),
            |&key| {
                let place = layout.path(key);
                // Anything but a regular file is an error, and no file is not.
                if tree.stat(&place)?.is_some() {
                    let parent = place.parent().unwrap_or(Path::new(""));
                    let parent = self.tmp.open_or_create_place(&self.relative.join(parent))?;
                    self.link(&place, &parent)?;
                    linked.push(place);
                }
                Ok(())
            },
        )?;
        self.result.files += linked.len() as u64;
        self.result.missing += (keys.len() - linked.len()) as u64;
        let mut touched = Touched::default();
        touched.add(&self.relative);
        let whole = sync_whole(tree, linked.len());
        for place in linked
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new(LAYOUT_FILE)])
        {
            let aside = self.relative.join(place);
            let missing = || tree.fail("sync", &aside)(Errno::NOENT);
            let file = tree.file(&aside)?.ok_or_else(missing)?;
            if whole == WholeSync::Insufficient {
                sync_handle(file).map_err(tree.fail("sync", &aside))?;
            }
            touched.add(aside.parent().unwrap_or(Path::new("")));
        }
        touched.sync(tree, &self.slave.synced_directories)?;
        Ok(())
    }

    /// Links a file of the blob directory to the same name in `to`, in a step.
    fn link(&self, relative: &Path, to: &OwnedFd) -> Result<(), Error> {
        let tree = &self.directory.tree;
        let fail = |error| tree.fail("set aside", relative)(error);
        let name = relative.file_name().unwrap_or_default();
        let parent = tree.directory(relative.parent().unwrap_or(Path::new("")))?;
        let parent = parent.ok_or(Errno::NOENT).map_err(fail)?;
        match linkat(&parent, name, to, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {}
            linked => return linked.map_err(fail),
        }
        // An earlier pass may have linked the same file.
        let stat = |at: &OwnedFd| statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail);
        let (ours, theirs) = (stat(&parent)?, stat(to)?);
        let is_same =
            |one: &Stat, other: &Stat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
        if is_same(&ours, &theirs) {
            return Ok(());
        }
        let other = io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} contains another file of this name: move that directory away",
                self.result.path.display()
            ),
        );
        Err(Error::io("set aside", &tree.path().join(relative))(other))
    }
}

#[cfg(test)]
mod tests;
