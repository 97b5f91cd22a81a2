//! Switches: files that say whether syncing is on.
//!
//! A switch is a file with one line, `SYNCING=1` or `SYNCING=0`, as syncPozo had it. Several
//! switches are read, and syncing is off if any of them is off:
//!
//! | file | meaning if it is missing |
//! | --- | --- |
//! | the file named by `--status-file` | off: on a tmpfs the file is lost at a reboot, which must not switch syncing on |
//! | `Data.fs.fssync-switch` beside the slave | ignored |
//! | `/var/run/fssync.status` | ignored |
//! | `/var/run/syncPozo.status` | ignored |
//!
//! A switch may be a symbolic link to a switch that several slaves or machines share. It is
//! written through the link, so that all of them obey it.
//!
//! A switch that cannot be read, or that contains anything but `SYNCING=1`, is off; white space
//! at the end is ignored. Only `SYNCING=0` and a missing `--status-file` are an intended off.
//! Every other cause is reported as a warning.

mod content;
mod link;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::owner::Owner;
use super::paths::{Sibling, SlavePaths};
use crate::error::Error;
use crate::error::off::{Cause, OFF, ON, OffReason};

/// Switches for all slaves of the machine.
const MACHINE_WIDE: [&str; 2] = ["/var/run/fssync.status", "/var/run/syncPozo.status"];

/// The permission bits that the switch of `--status-file` has at least, because several users
/// may share it.
const SHARED_MODE: u32 = 0o644;

/// The permission bits that a switch beside the slave has at least.
const OWNER_MODE: u32 = 0o600;

/// The permission bits for reading a file and for searching a directory.
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// The switches of a slave.
#[derive(Clone, Debug)]
pub struct Switches {
    /// The file named by `--status-file`. It must exist.
    named: Option<PathBuf>,
    /// The files that are read if they exist.
    optional: Vec<PathBuf>,
    /// The switch that `fssync off` and `fssync on` write.
    own: PathBuf,
    /// The cause for which a switch last ended a wait.
    wait_ended: Arc<Mutex<Option<OffReason>>>,
}

impl Switches {
    /// The switches of a slave; `named` is the file of `--status-file`.
    #[must_use]
    pub fn new(paths: &SlavePaths, named: Option<PathBuf>) -> Self {
        let sibling = paths.sibling(Sibling::Switch);
        let own = named.clone().unwrap_or_else(|| sibling.clone());
        let mut optional = vec![sibling];
        optional.extend(MACHINE_WIDE.map(PathBuf::from));
        Self {
            named,
            optional,
            own,
            wait_ended: Arc::default(),
        }
    }

    /// The paths of all switches, whether they exist or not.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.named
            .iter()
            .chain(&self.optional)
            .map(PathBuf::as_path)
    }

    /// Fails with [`Error::Off`] unless all switches are on.
    pub fn check(&self) -> Result<(), Error> {
        match self.why_off() {
            Some(why) => Err(Error::Off(why)),
            None => Ok(()),
        }
    }

    /// Returns the switch that is off, and the cause; `None` if all are on. If several are off,
    /// `SYNCING=0` takes precedence, then an invalid switch, then a missing one.
    #[must_use]
    pub fn why_off(&self) -> Option<OffReason> {
        let named = self.named.iter().map(|path| (path, true));
        let optional = self.optional.iter().map(|path| (path, false));
        let mut why: Option<OffReason> = None;
        for (path, must_exist) in named.chain(optional) {
            let Some(cause) = content::why_off(path, must_exist) else {
                continue;
            };
            let is_plain = cause == Cause::SwitchedOff;
            if is_plain || why.as_ref().is_none_or(|why| why.cause == Cause::Missing) {
                let switch = path.clone();
                why = Some(OffReason { switch, cause });
            }
            if is_plain {
                break;
            }
        }
        why
    }

    /// Whether a switch is off, so that a wait for the master must end. The cause is kept for
    /// all clones, because the switch may be on again a moment later.
    #[must_use]
    pub fn ends_wait(&self) -> bool {
        let why = self.why_off();
        let is_off = why.is_some();
        if is_off {
            *self.lock_wait_ended() = why;
        }
        is_off
    }

    /// The cause for which a switch last ended a wait; `None` if that never happened.
    #[must_use]
    pub fn cause_of_ended_wait(&self) -> Option<OffReason> {
        self.lock_wait_ended().clone()
    }

    fn lock_wait_ended(&self) -> MutexGuard<'_, Option<OffReason>> {
        self.wait_ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slave's own switch exists and is off.
    #[must_use]
    pub fn own_is_off(&self) -> bool {
        let why = content::why_off(&self.own, false);
        why.is_some_and(|why| !matches!(why, Cause::Unreadable(_) | Cause::OutOfFiles(_)))
    }

    /// Writes the slave's own switch durably, and returns its path.
    ///
    /// 1. The slave's owner must be able to read the switch. If that cannot be achieved, on
    ///    fails. Off only logs a warning, because an unreadable switch is off.
    /// 2. The line is written over the old one, which needs no new block on a full disk. If even
    ///    that fails, off truncates the file: an empty switch is off.
    /// 3. The file is synced, and its directory if the switch is beside the slave.
    pub fn set(&self, on: bool, paths: &SlavePaths) -> Result<&Path, Error> {
        let path = self.own.as_path();
        let fail = |action| Error::io(action, path);
        let warn_if_off = |result: Result<(), Error>| match result {
            Err(error) if !on => {
                tracing::warn!(
                    "{}: for passes of that user, syncing is off",
                    error.display_chain()
                );
                Ok(())
            }
            result => result,
        };
        warn_if_off(self.check_directories(paths))?;
        let (file, is_shared) = self.open_own(on, paths)?;
        warn_if_off(self.make_readable(&file, is_shared, paths))?;
        match write(&file, if on { ON } else { OFF }) {
            Err(error) if is_full(&error) && !on => file.set_len(0),
            written => written,
        }
        .map_err(fail("write"))?;
        file.sync_all().map_err(fail("sync"))?;
        if self.named.is_none() {
            paths.sync_directory()?;
        }
        Ok(path)
    }

    /// Opens the slave's own switch for writing. Returns whether other slaves may share it.
    fn open_own(&self, on: bool, paths: &SlavePaths) -> Result<(File, bool), Error> {
        let path = self.own.as_path();
        if self.named.is_some() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            let file = options.mode(SHARED_MODE).open(path);
            return Ok((file.map_err(Error::io("open", path))?, true));
        }
        match Owner::open_or_create_for(paths, path) {
            Err(Error::Io { source, .. }) if content::is_link(&source) => match link::open(path) {
                Ok(file) => Ok((file, true)),
                Err(error) if on => Err(Error::io("write", path)(error)),
                Err(error) => {
                    tracing::warn!("{}: {error}; a file replaces it", path.display());
                    Ok((link::replace(path, paths)?, false))
                }
            },
            opened => Ok((opened?, false)),
        }
    }

    /// Gives the slave's owner permission to read the switch, if that user lacks it. A shared
    /// switch keeps its owner.
    fn make_readable(&self, file: &File, is_shared: bool, paths: &SlavePaths) -> Result<(), Error> {
        let owner = Owner::of(paths)?;
        let fail = |action| Error::io(action, &self.own);
        let found = file.metadata().map_err(fail("stat"))?;
        let is_readable = || accessat(CWD, &self.own, Access::READ_OK, AtFlags::EACCESS).is_ok();
        if owner.can(READ, &found) || owner.is_this_user() && is_readable() {
            return Ok(());
        }
        let mode = found.permissions().mode() & 0o7777;
        // Prefer giving the file to the slave's owner over letting everybody read it.
        let is_given = !is_shared
            && (owner.with_mode(mode | OWNER_MODE))
                .own(file, &self.own)
                .is_ok();
        if is_given {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode | SHARED_MODE))
            .map_err(fail("let the slave's owner read"))
    }

    /// Fails if the slave's owner cannot reach the switch of `--status-file` because of a
    /// directory's permissions.
    fn check_directories(&self, paths: &SlavePaths) -> Result<(), Error> {
        let Some(named) = &self.named else {
            return Ok(());
        };
        let owner = Owner::of(paths)?;
        // The process has reached the file itself; permission bits may be incomplete.
        if owner.is_this_user() {
            return Ok(());
        }
        let canonical = |path: &Path| fs::canonicalize(path).ok();
        let parent = match named.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
            parent => parent,
        };
        let directory = canonical(named)
            .and_then(|file| file.parent().map(Path::to_owned))
            .or_else(|| canonical(parent?));
        // A directory that does not exist is reported when the switch is opened.
        let Some(directory) = directory else {
            return Ok(());
        };
        let is_closed = |directory: &&Path| {
            fs::metadata(directory).is_ok_and(|found| !owner.can(SEARCH, &found))
        };
        let Some(closed) = directory.ancestors().find(is_closed) else {
            return Ok(());
        };
        let why = format!(
            "that user has no access to {}: give it access, or run this as that user",
            closed.display()
        );
        let error = io::Error::new(ErrorKind::PermissionDenied, why);
        Err(Error::io("let the slave's owner read", &self.own)(error))
    }
}

/// Writes a line over the content of a switch, which needs no new block on a full disk. Until
/// a longer content is truncated, the switch is invalid, and therefore off.
fn write(file: &File, line: &str) -> io::Result<()> {
    let line = format!("{line}\n");
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

/// Whether the disk is full or the quota is used up.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
