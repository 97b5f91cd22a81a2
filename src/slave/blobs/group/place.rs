//! Syncs the finished blobs of a group, moves them into place, and syncs the found ones: phases 3
//! to 5.

use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, linkat, renameat, statat};
use rustix::io::Errno;

use super::staged::{Finished, set_modified};
use super::{BlobRecord, Found};
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::filestorage::blob::names::FSSYNC_DIRECTORY;
use crate::slave::blobs::directory::{BlobDirectory, REPLACED};
use crate::slave::blobs::rename::rename_new;
use crate::slave::blobs::steps::change_in_steps;
use crate::slave::blobs::tmp::{TmpDirectory, tmp_name};
use crate::slave::blobs::touched::Touched;
use crate::slave::blobs::tree::sync_handle;
use crate::slave::blobs::whole_sync::{WholeSync, sync_whole};
use crate::slave::step::Slave;

/// Places blobs. Knows the directories whose names are not durable yet.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    directory: &'a BlobDirectory,
    slave: &'a Slave,
    touched: Touched,
    /// The blobs that were placed since the last call of [`sync_names`](Self::sync_names).
    placed: Vec<BlobRecord>,
}

/// Makes the content of these files durable, and closes them: phase 3.
pub(super) fn sync_files(directory: &BlobDirectory, files: &mut [Finished]) -> Result<(), Error> {
    // Their threads may still be writing, or may have failed.
    for file in files.iter_mut() {
        file.join()?;
    }
    let unsynced = files.iter().filter(|file| file.is_unsynced()).count();
    let whole = sync_whole(&directory.tree, unsynced);
    files.iter_mut().try_for_each(|file| file.sync(whole))
}

/// The file of a blob: its path below the blob directory, and its name in its directory.
struct Place {
    relative: PathBuf,
    name: PathBuf,
}

impl Place {
    /// The directory of the file.
    fn directory(&self) -> &Path {
        self.relative.parent().unwrap_or(Path::new(""))
    }
}

impl<'a> Placer<'a> {
    pub(super) fn new(directory: &'a BlobDirectory, slave: &'a Slave) -> Self {
        Self {
            directory,
            slave,
            touched: Touched::default(),
            placed: Vec::new(),
        }
    }

    /// The number of blobs that were placed and whose names may not be durable yet.
    pub(super) fn len(&self) -> usize {
        self.placed.len()
    }

    /// Takes over what another placer has placed.
    pub(super) fn append(&mut self, other: Self) {
        self.touched.append(other.touched);
        self.placed.extend(other.placed);
    }

    /// Makes the content of blobs durable and moves them into place: phases 3 and 4.
    pub(super) fn place(
        &mut self,
        tmp: &TmpDirectory<'_>,
        mut blobs: Vec<Finished>,
    ) -> Result<(), Error> {
        sync_files(self.directory, &mut blobs)?;
        self.rename(tmp, &blobs)?;
        self.placed
            .extend(blobs.into_iter().map(|blob| blob.record));
        Ok(())
    }

    /// Makes the names of all placed and found blobs durable: phase 5. Returns the records of the
    /// placed ones.
    pub(super) fn sync_names(&mut self) -> Result<Vec<BlobRecord>, Error> {
        let synced = &self.slave.synced_directories;
        self.touched.sync(&self.directory.tree, synced)?;
        Ok(mem::take(&mut self.placed))
    }

    /// Moves files into place, in steps.
    fn rename(&mut self, tmp: &TmpDirectory<'_>, blobs: &[Finished]) -> Result<(), Error> {
        let mut touched = Vec::new();
        let mut occupied = Vec::new();
        self.change(blobs, |blob: &Finished| {
            let key = blob.record.key;
            let place = self.place_of(key);
            let parent = tmp.open_or_create_place(place.directory())?;
            touched.push(place.directory().to_owned());
            match rename_new(&tmp.handle, tmp_name(key), &parent, &place.name) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => {
                    occupied.push(key);
                    Ok(())
                }
                Err(error) => Err(self.fail("create", &place.relative)(error)),
            }
        })?;
        if !occupied.is_empty() {
            self.keep_replaced(&occupied)?;
            self.replace(tmp, &occupied)?;
        }
        for directory in touched {
            self.touched.add(&directory);
        }
        Ok(())
    }

    /// Gives the files that are in the place of these blobs a second name in `.fssync/replaced`,
    /// durably. They differ from the master's files, and nobody may have another copy of them.
    fn keep_replaced(&self, keys: &[BlobKey]) -> Result<(), Error> {
        let relative = Path::new(REPLACED);
        let replaced = self.directory.open_or_create_ours(self.slave, relative)?;
        self.change(keys, |&key| self.keep_one(&replaced, key))?;
        for &key in keys {
            let place = self.place_of(key);
            if let Some(file) = self.directory.open_blob(key)? {
                sync_handle(file).map_err(self.fail("sync", &place.relative))?;
            }
        }
        sync_handle(&replaced).map_err(self.fail("sync the directory", relative))?;
        let ours = self.directory.ours()?;
        sync_handle(ours).map_err(self.fail("sync the directory", Path::new(FSSYNC_DIRECTORY)))
    }

    /// Links the file of a blob to the first free name in `.fssync/replaced`.
    fn keep_one(&self, replaced: &OwnedFd, key: BlobKey) -> Result<(), Error> {
        let place = self.place_of(key);
        // Anything but a regular file is an error.
        let Some(found) = self.directory.tree.stat(&place.relative)? else {
            return Ok(());
        };
        let parent = self.open_parent(&place)?;
        let mut n = 0;
        loop {
            let name = match n {
                0 => tmp_name(key),
                n => format!("{}.{n}", tmp_name(key)),
            };
            match linkat(&parent, &place.name, replaced, &name, AtFlags::empty()) {
                Err(Errno::EXIST) => {}
                linked => return linked.map_err(self.fail("keep", &place.relative)),
            }
            // A pass that was killed may have linked the same file.
            let kept = statat(replaced, &name, AtFlags::SYMLINK_NOFOLLOW);
            if kept.is_ok_and(|it| (it.st_dev, it.st_ino) == (found.st_dev, found.st_ino)) {
                return Ok(());
            }
            n += 1;
        }
    }

    /// Renames the finished files of these blobs over the files that are in their place.
    fn replace(&self, tmp: &TmpDirectory<'_>, keys: &[BlobKey]) -> Result<(), Error> {
        self.change(keys, |&key| {
            let place = self.place_of(key);
            let parent = self.open_parent(&place)?;
            renameat(&tmp.handle, tmp_name(key), parent, &place.name)
                .map_err(self.fail("replace", &place.relative))?;
            tracing::warn!(
                "{}: it differs from the master's file and was replaced; the old file is in \
                 {}",
                self.directory.path().join(&place.relative).display(),
                self.directory.path().join(REPLACED).display()
            );
            Ok(())
        })
    }

    /// Sets the times of the adopted blobs, and makes all found blobs durable.
    pub(super) fn sync_found(&mut self, blobs: &[Found]) -> Result<(), Error> {
        self.change(blobs, |found: &Found| match &found.adopted {
            None => Ok(()),
            Some(adopted) => {
                let (file, path) = self.open_found(found.key)?;
                set_modified(&file, adopted.modified).map_err(Error::io("set the time of", &path))
            }
        })?;
        let whole = sync_whole(&self.directory.tree, blobs.len());
        for found in blobs {
            let (file, path) = self.open_found(found.key)?;
            if whole == WholeSync::Insufficient {
                file.sync_all().map_err(Error::io("sync", &path))?;
            }
            let place = self.directory.layout.directory(found.key.oid);
            self.touched.add(&place);
        }
        Ok(())
    }

    fn open_found(&self, key: BlobKey) -> Result<(File, PathBuf), Error> {
        let path = self.directory.blob_path(key);
        match self.directory.open_blob(key)? {
            Some(file) => Ok((file, path)),
            None => Err(removed(path)),
        }
    }

    /// Makes a change for each item, in steps.
    fn change<'i, T: 'i>(
        &self,
        items: impl IntoIterator<Item = &'i T>,
        change: impl FnMut(&'i T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        change_in_steps(self.slave, &self.directory.tree, items, |_| Ok(()), change)
    }

    fn place_of(&self, key: BlobKey) -> Place {
        let relative = self.directory.layout.path(key);
        let name = relative.file_name().unwrap_or_default().into();
        Place { relative, name }
    }

    /// Opens the directory of a blob, which must exist.
    fn open_parent(&self, place: &Place) -> Result<OwnedFd, Error> {
        let parent = place.directory();
        let missing = || removed(self.directory.path().join(parent));
        self.directory.tree.directory(parent)?.ok_or_else(missing)
    }

    fn fail(&self, action: &str, relative: &Path) -> impl FnOnce(Errno) -> Error + use<> {
        self.directory.tree.fail(action, relative)
    }
}

/// The error for a file or directory that another program removed.
fn removed(path: PathBuf) -> Error {
    Error::SlaveChanged {
        slave: path,
        what: "it was removed".to_owned(),
    }
}
