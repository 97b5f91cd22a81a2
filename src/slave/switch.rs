//! Whether syncing is on.
//!
//! A switch is a file with one line, `SYNCING=1` or `SYNCING=0`, as syncPozo
//! had it. Several are honoured, and any off wins:
//!
//! | file | where it is missing |
//! | --- | --- |
//! | the one named by `--status-file` | off: on a tmpfs it is gone after a reboot, and that must turn nothing on |
//! | `Data.fs.fssync-switch` beside the slave | not asked |
//! | `/var/run/fssync.status` | not asked |
//! | `/var/run/syncPozo.status` | not asked |
//!
//! A switch may be a symbolic link to one that several slaves, or machines, share. It is
//! written through the link, so that all of them obey.
//!
//! A switch that cannot be read, or has any other content than `SYNCING=1`, is off.
//! Blanks and line ends behind it do not count. Only `SYNCING=0` and a missing
//! `--status-file` are off on purpose; everything else is worth a warning.

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

/// Switches of the whole machine.
const MACHINE_WIDE: [&str; 2] = ["/var/run/fssync.status", "/var/run/syncPozo.status"];

/// The permission bits that the switch of `--status-file` has at least, whatever the
/// umask: several users may share it.
const NAMED_MODE: u32 = 0o644;

/// The permission bits that a switch beside the slave has at least.
const OWNERS_MODE: u32 = 0o600;

/// The permission bits for reading a file, and for passing through a directory.
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// The switches that a slave obeys.
#[derive(Clone, Debug)]
pub struct Switches {
    named: Option<PathBuf>,
    found: Vec<PathBuf>,
    /// The one that `fssync off` and `fssync on` write.
    own: PathBuf,
    /// Why a wait was ended last.
    wait_ended: Arc<Mutex<Option<OffReason>>>,
}

impl Switches {
    /// The switches of the slave at `place`; `named` is that of
    /// `--status-file`.
    #[must_use]
    pub fn new(paths: &SlavePaths, named: Option<PathBuf>) -> Self {
        let beside = paths.sibling(Sibling::Switch);
        let own = named.clone().unwrap_or_else(|| beside.clone());
        let mut found = vec![beside];
        found.extend(MACHINE_WIDE.map(PathBuf::from));
        Self {
            named,
            found,
            own,
            wait_ended: Arc::default(),
        }
    }

    /// All that are asked, be they there or not.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().chain(&self.found).map(PathBuf::as_path)
    }

    /// Fails with [`Error::Off`] unless all switches say on.
    pub fn check(&self) -> Result<(), Error> {
        match self.why_off() {
            Some(why) => Err(Error::Off(why)),
            None => Ok(()),
        }
    }

    /// Which switch is off, and why; `None` if all are on. A plain `SYNCING=0` explains
    /// everything, so it is named first; then a switch that is not as it should be.
    #[must_use]
    pub fn why_off(&self) -> Option<OffReason> {
        let named = self.named.iter().map(|path| (path, true));
        let found = self.found.iter().map(|path| (path, false));
        let mut why: Option<OffReason> = None;
        for (path, must_exist) in named.chain(found) {
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

    /// Whether a switch is off, so that an answer is not waited for any more. A switch
    /// may be on again a moment later; why it was off is kept, for all clones.
    #[must_use]
    pub fn end_a_wait(&self) -> bool {
        let why = self.why_off();
        let is_off = why.is_some();
        if is_off {
            *self.lock_wait_ended() = why;
        }
        is_off
    }

    /// Why a switch last ended a wait; `None` if none ever did.
    #[must_use]
    pub fn what_ended_a_wait(&self) -> Option<OffReason> {
        self.lock_wait_ended().clone()
    }

    fn lock_wait_ended(&self) -> MutexGuard<'_, Option<OffReason>> {
        self.wait_ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slave's own switch is there and says off.
    #[must_use]
    pub fn own_says_off(&self) -> bool {
        let why = content::why_off(&self.own, false);
        why.is_some_and(|why| !matches!(why, Cause::Unreadable(_) | Cause::OutOfFiles(_)))
    }

    /// Writes the slave's own switch, durably; it never says on before it is to.
    /// Off needs no room on the disk: a switch that is empty is off, too.
    ///
    /// The slave's owner can read what is written. If that cannot be had, on is not
    /// written; off is, with a warning, since an unreadable switch is off.
    pub fn set(&self, on: bool, paths: &SlavePaths) -> Result<&Path, Error> {
        let path = self.own.as_path();
        let fail = |action| Error::io(action, path);
        let warn_if_off = |result: Result<(), Error>| match result {
            Err(error) if !on => {
                tracing::warn!(
                    "{}; passes of that user find syncing off",
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

    /// Opens the slave's own switch for writing; says whether other slaves may share it.
    fn open_own(&self, on: bool, paths: &SlavePaths) -> Result<(File, bool), Error> {
        let path = self.own.as_path();
        if self.named.is_some() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            let file = options.mode(NAMED_MODE).open(path);
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

    /// Lets the slave's owner read the slave's own switch, if it is closed to that user. One
    /// that is shared keeps its owner.
    fn make_readable(&self, file: &File, is_shared: bool, paths: &SlavePaths) -> Result<(), Error> {
        let owner = Owner::of(paths)?;
        let fail = |action| Error::io(action, &self.own);
        let found = file.metadata().map_err(fail("look at"))?;
        let is_readable = || accessat(CWD, &self.own, Access::READ_OK, AtFlags::EACCESS).is_ok();
        if owner.can(READ, &found) || owner.is_this_user() && is_readable() {
            return Ok(());
        }
        let mode = found.permissions().mode() & 0o7777;
        let is_given = !is_shared
            && (owner.with_mode(mode | OWNERS_MODE))
                .own(file, &self.own)
                .is_ok();
        if is_given {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode | NAMED_MODE))
            .map_err(fail("let the slave's owner read"))
    }

    /// Fails if a directory keeps the slave's owner from the switch of `--status-file`.
    fn check_directories(&self, paths: &SlavePaths) -> Result<(), Error> {
        let Some(named) = &self.named else {
            return Ok(());
        };
        let owner = Owner::of(paths)?;
        // The kernel knows more than the permission bits, but of this user only.
        if owner.is_this_user() {
            return Ok(());
        }
        let whole = |path: &Path| fs::canonicalize(path).ok();
        let parent = match named.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
            parent => parent,
        };
        let directory = whole(named)
            .and_then(|file| file.parent().map(Path::to_owned))
            .or_else(|| whole(parent?));
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

/// Writes over what a switch says, which takes no new block of a full disk. What
/// a longer one said makes it say neither until it is cut.
fn write(file: &File, says: &str) -> io::Result<()> {
    let line = format!("{says}\n");
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

/// Whether the disk is full, or the owner's share of it.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
