//! Unfinished bytes after the slave's position: their truncation, and the copy that is kept of them.
//!
//! Truncates `Data.fs` in steps, and writes `Data.fs.trN`. Nothing else is changed.
//!
//! [`append`](super::append) argues why they are truncated in two stages.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::owner::Owner;
use super::paths::{self, OpenMode};
use super::step::{DataFile, Slave, Step};
use crate::error::Error;
use crate::filestorage::TxnStatus;
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN};
use crate::human::bytes;

/// The length to which a tail is truncated first, in bytes: less than a header.
pub(super) const STUB_LEN: u64 = TXN_HEADER_LEN as u64 - 1;

/// How many bytes of a tail are read and saved at once.
const COPY_LEN: usize = 64 * 1024;

/// Truncates the slave at `position`, after which nothing is committed. The first step leaves
/// less than a header, durably. The second one, which is returned, removes that.
pub(super) fn truncate_tail<'a>(
    data: &mut DataFile<'a>,
    mut step: Step<'a>,
    position: u64,
    take_step: impl FnOnce(&DataFile<'a>) -> Result<Step<'a>, Error>,
) -> Result<Step<'a>, Error> {
    let stub_end = position + STUB_LEN;
    if data.stat().size > stub_end {
        data.truncate(&step, stub_end)?;
        // The sync may take long. No step may last that long.
        drop(step);
        data.sync()?;
        step = take_step(data)?;
    }
    data.truncate(&step, position)?;
    Ok(step)
}

/// Writes the `c` of a rewind that was interrupted again, durably, if it covers more than the stub.
/// A pass that was killed may not have synced it, and without it the first truncation could leave
/// zeros after a header with its true status. Returns another step, for the truncation.
pub(super) fn mark_again<'a>(
    data: &mut DataFile<'a>,
    step: Step<'a>,
    from: u64,
    take_step: impl FnOnce(&DataFile<'a>) -> Result<Step<'a>, Error>,
) -> Result<Step<'a>, Error> {
    if data.stat().size <= from + STUB_LEN {
        return Ok(step);
    }
    data.write(&step, &[TxnStatus::VOTED.0], from + STATUS_OFFSET)?;
    drop(step);
    data.sync()?;
    take_step(data)
}

/// Saves the bytes after `position` as `Data.fs.trN`, durably. Returns the file's path if it is
/// new. An earlier attempt may have saved the same bytes without truncating them; they are not
/// saved again, because each copy would take more of the disk.
pub(super) fn save_tail(
    slave: &Slave,
    data: &DataFile<'_>,
    position: u64,
) -> Result<Option<PathBuf>, Error> {
    // Check first that the slave may be written: otherwise nothing will be truncated.
    drop(data.step(position, &[])?);
    let found = find_saved(slave, data, position)?;
    let is_new = found.is_none();
    let path = found.map_or_else(|| save_to_new_file(slave, data, position), Ok)?;
    tracing::warn!(
        "{}: truncating {} of unfinished transaction at {position}; saved as {}",
        data.path().display(),
        bytes(data.stat().size - position),
        path.display()
    );
    Ok(is_new.then_some(path))
}

/// The last `Data.fs.trN`, if it contains exactly the bytes after `position`; makes it durable.
/// Its bytes are written again for that, because an earlier sync of them may have failed.
fn find_saved(slave: &Slave, data: &DataFile<'_>, position: u64) -> Result<Option<PathBuf>, Error> {
    let names = (0..).map(|n| slave.paths.cut(n));
    let Some(path) = names.take_while(|it| it.symlink_metadata().is_ok()).last() else {
        return Ok(None);
    };
    let opened =
        paths::open(&path, OpenMode::ReadWrite).and_then(|file| Ok((file.metadata()?, file)));
    let Ok((found, file)) = opened else {
        return Ok(None);
    };
    // With a second name, it may be any file, and must not be written.
    let is_ours_alone = found.is_file() && found.nlink() == 1;
    let mut is_same = is_ours_alone && found.len() == data.stat().size - position;
    if !is_same {
        return Ok(None);
    }
    let mut found = vec![0; COPY_LEN];
    read_tail(data, position, |piece, offset| {
        let found = &mut found[..piece.len()];
        is_same = is_same
            && file.read_exact_at(found, offset).is_ok()
            && found == piece
            && file.write_all_at(found, offset).is_ok();
        Ok(())
    })?;
    if !is_same {
        return Ok(None);
    }
    file.sync_all().map_err(Error::io("sync", &path))?;
    slave.paths.sync_directory()?;
    Ok(Some(path))
}

/// Saves the bytes after `position` in the first free `Data.fs.trN`, durably. Returns its path.
fn save_to_new_file(slave: &Slave, data: &DataFile<'_>, position: u64) -> Result<PathBuf, Error> {
    let (file, path) = create_tail_file(slave)?;
    let saved = copy_tail(data, position, &file, &path).and_then(|()| slave.paths.sync_directory());
    if let Err(error) = saved {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        return Err(error);
    }
    Ok(path)
}

/// Copies the bytes after `position` to a file, durably. Uses reads and writes that are checked:
/// a copy by the kernel can end early without an error.
fn copy_tail(data: &DataFile<'_>, position: u64, to: &File, path: &Path) -> Result<(), Error> {
    read_tail(data, position, |piece, offset| {
        to.write_all_at(piece, offset)
            .map_err(Error::io("save the slave's tail in", path))
    })?;
    to.sync_all().map_err(Error::io("sync", path))
}

/// Passes the bytes after `position` to `take`, piece by piece, each with its offset from there.
fn read_tail(
    data: &DataFile<'_>,
    position: u64,
    mut take: impl FnMut(&[u8], u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; COPY_LEN];
    let size = data.stat().size;
    for at in (position..size).step_by(COPY_LEN) {
        let piece = &mut buffer[..(size - at).min(COPY_LEN as u64) as usize];
        data.read(piece, at)?;
        take(piece, at - position)?;
    }
    Ok(())
}

/// Creates the first `Data.fs.trN` that does not exist.
fn create_tail_file(slave: &Slave) -> Result<(File, PathBuf), Error> {
    let owner = Owner::of(&slave.paths)?;
    let mut n = 0;
    loop {
        let path = slave.paths.cut(n);
        match owner.create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error),
        }
    }
}
