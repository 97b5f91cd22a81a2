//! Sets transactions that only the slave has aside, in a FileStorage of their own:
//! `Data.fs.diverged-<first tid>-<last tid>`.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. Write the transactions to `Data.fs.fssync-tmp`; sync it.
//! 2. In a step: link it to its name. Then remove the first name. The caller syncs the directory
//!    before it truncates the slave.
//!
//! 1. *Crash in 1:* a partial file, which the next pass removes.
//! 2. *Crash in 2:* a complete file with its name, without it, or with both. The next pass that sets
//!    the same transactions aside finds the same bytes under the name, and replaces the file by its
//!    own. A file with other bytes is never replaced: the new one gets another name.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::index::CancellableFile;
use super::owner::Owner;
use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::small_file::remove_if_exists;
use super::step::Slave;
use crate::error::Error;
use crate::filestorage::extract::{ExtractError, extract};
use crate::io::file_stat::FileStat;
use crate::io::window::Window;
use crate::plan::RewindPlan;
use crate::plan::switch_on::TransactionRun;

/// How many bytes are read, written and compared at once.
const BUFFER_LEN: usize = 64 * 1024;

/// Transactions that were set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The file that contains them. Its name is not durable before the directory was synced.
    pub path: PathBuf,
    /// Whether it did not exist before.
    pub is_new: bool,
}

/// Sets the transactions of a slave aside that a rewind truncates. `data` is the slave, which must
/// be in the state of `stat`.
pub fn set_aside(
    slave: &Slave,
    data: &File,
    stat: FileStat,
    plan: &RewindPlan,
) -> Result<SetAside, Error> {
    let tmp = slave.paths.sibling(Sibling::Tmp);
    let placed =
        write(slave, data, plan, &tmp).and_then(|()| place(slave, &tmp, stat, plan.fork.own));
    if placed.is_err() {
        remove_if_exists(&tmp)?;
    }
    placed
}

/// The path at which [`set_aside`] would put a file of these transactions, if no other file has
/// the same bytes.
#[must_use]
pub fn free_name(paths: &SlavePaths, own: TransactionRun) -> PathBuf {
    let mut names = (0..).map(|n| paths.diverged_run(own, n));
    let is_free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    names.find(is_free).unwrap_or_default()
}

/// Writes the transactions to a new file, durably.
fn write(slave: &Slave, data: &File, plan: &RewindPlan, to: &Path) -> Result<(), Error> {
    remove_if_exists(to)?;
    let file = Owner::of(&slave.paths)?.create_new(to)?;
    let mut writer = BufWriter::with_capacity(BUFFER_LEN, CancellableFile { slave, file });
    let range = plan.fork.position..plan.position;
    let written = extract(&mut Window::new(data, BUFFER_LEN), range, &mut writer);
    let synced = written.and_then(|_| {
        let flushed = writer.into_inner().map_err(io::Error::from);
        let synced = flushed.and_then(|to| to.file.sync_all());
        synced.map_err(ExtractError::Write)
    });
    synced.map_err(|error| match error {
        ExtractError::Read(error) => Error::io("read", slave.paths.data())(error),
        // The survey has read the same bytes, and they were valid.
        ExtractError::Invalid(at) => Error::SlaveChanged {
            slave: slave.paths.data().to_owned(),
            what: format!("the record at {at} was modified by another program"),
        },
        // A cancellation passes through the writer as an `io::Error`; unwrap it.
        ExtractError::Write(error) => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::io("set transactions aside in", to)(error),
        },
    })
}

/// Gives the new file a name that no other file has, unless that has the same bytes.
fn place(
    slave: &Slave,
    tmp: &Path,
    stat: FileStat,
    own: TransactionRun,
) -> Result<SetAside, Error> {
    let mut n = 0;
    loop {
        let path = slave.paths.diverged_run(own, n);
        let step = slave.step()?;
        step.check_unchanged(Some(stat))?;
        let linked = fs::hard_link(tmp, &path);
        drop(step);
        match linked {
            Ok(()) => {
                remove_if_exists(tmp)?;
                return Ok(SetAside { path, is_new: true });
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if has_same_bytes(&path, tmp).map_err(Error::io("read", &path))? {
                    // An earlier pass may not have made it durable; this one is.
                    fs::rename(tmp, &path).map_err(Error::io("rename", tmp))?;
                    let is_new = false;
                    return Ok(SetAside { path, is_new });
                }
                n += 1;
            }
            Err(error) => return Err(Error::io("link the set-aside to", &path)(error)),
        }
    }
}

/// Whether two regular files have the same bytes.
fn has_same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(one)?.is_file() {
        return Ok(false);
    }
    let [mut one, mut other] = [
        paths::open(one, OpenMode::Read)?,
        paths::open(other, OpenMode::Read)?,
    ];
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]);
    loop {
        let got = one.read(&mut ours)?;
        if got == 0 {
            return Ok(true);
        }
        other.read_exact(&mut theirs[..got])?;
        if ours[..got] != theirs[..got] {
            return Ok(false);
        }
    }
}
