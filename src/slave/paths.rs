//! The paths of the slave and of the files beside it.
//!
//! A slave is given as a directory, which contains `Data.fs`, or as a file. This module
//! decides which of them a path means, refuses paths that are not safe, and names all files
//! beside the slave. It only reads, except for [`SlavePaths::sync_directory`].

mod kind;
mod mount;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};

use self::kind::{PathKind, check_is_not_around, not_found, path_kind};
use self::mount::Mount;
use super::sidecar::Fingerprint;
use crate::error::Error;
use crate::filestorage::{DATA_FS, Tid};
use crate::io::file_stat::FileStat;
use crate::plan::switch_on::TransactionRun;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Opens the slave or a file beside it. A symbolic link in the last component is an error,
/// and opening a FIFO does not block.
pub fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .write(mode == OpenMode::ReadWrite)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// The files beside the slave, each with its suffix. The only others are the names of
/// [`SlavePaths::diverged`], [`SlavePaths::diverged_run`] and [`SlavePaths::cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sibling {
    /// The state that the last pass left.
    Sidecar,
    /// The trouble that was last reported.
    Reported,
    /// The new sidecar, before it is renamed.
    SidecarNew,
    /// The switch.
    Switch,
    /// A new switch, before it is renamed over a symbolic link.
    SwitchNew,
    /// An unfinished full copy, index or ledger.
    Tmp,
    /// A new slave without transactions, before it is renamed.
    EmptyNew,
    /// The lock that a pass holds from start to end.
    PassLock,
    /// The lock that is held during a step.
    StepLock,
    /// Checksums of the slave's bytes.
    Ledger,
    /// The result of the last verification.
    Verified,
    /// The new result, before it is renamed.
    VerifiedNew,
    /// Sizes and digests of the slave's blobs.
    Blobs,
    /// Blobs that the slave no longer refers to, until they are removed.
    BlobsGone,
    /// The new list of them, before it is renamed.
    BlobsGoneNew,
    /// The blob ledger while it is being compacted.
    BlobsNew,
    /// The events that hooks have reported.
    Hooks,
    /// The new list of them, before it is renamed.
    HooksNew,
    /// The files of a probe of the file system, which exist only for a moment.
    Probe,
    /// The second one.
    ProbeNew,
    /// ZODB's own lock.
    ZodbLock,
    /// ZODB's index.
    ZodbIndex,
}

impl Sibling {
    fn suffix(self) -> &'static str {
        match self {
            Self::Sidecar => ".fssync",
            Self::Reported => ".fssync-reported",
            Self::SidecarNew => ".fssync-new",
            Self::Switch => ".fssync-switch",
            Self::SwitchNew => ".fssync-switch-new",
            Self::Tmp => ".fssync-tmp",
            Self::EmptyNew => ".fssync-empty-new",
            Self::PassLock => ".fssync-pass",
            Self::StepLock => ".fssync-step",
            Self::Ledger => ".fssync-ledger",
            Self::Verified => ".fssync-verified",
            Self::VerifiedNew => ".fssync-verified-new",
            Self::Blobs => ".fssync-blobs",
            Self::BlobsGone => ".fssync-blobs-gone",
            Self::BlobsGoneNew => ".fssync-blobs-gone-new",
            Self::BlobsNew => ".fssync-blobs-new",
            Self::Hooks => ".fssync-hooks",
            Self::HooksNew => ".fssync-hooks-new",
            Self::Probe => ".fssync-probe",
            Self::ProbeNew => ".fssync-probe-new",
            Self::ZodbLock => ".lock",
            Self::ZodbIndex => ".index",
        }
    }
}

/// A file beside the slave that fssync creates and never removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A slave, or transactions of it, that were [set aside](SlavePaths::diverged).
    SetAside,
    /// A [copy](SlavePaths::cut) of a tail that was truncated.
    CutTail,
}

/// The paths of a slave, and the file system that it is on.
#[derive(Clone, Debug)]
pub struct SlavePaths {
    data: PathBuf,
    directory: PathBuf,
    /// Whether the user named a directory or a file.
    kind: PathKind,
    /// The file system of the directory.
    mount: Arc<Mount>,
}

impl SlavePaths {
    /// Interprets a path that the user gave: a directory, for the `Data.fs` in it, or a file.
    ///
    /// A path that does not exist is a file if it ends in `.fs`, or if a pass has left a
    /// sidecar for it. Otherwise it may be a directory whose file system is not mounted, and
    /// is refused, so that no file is created in its place.
    ///
    /// A symbolic link in the last component is refused. ZODB derives the name of its lock
    /// from the name of the file, so ZODB could open the same file under its other name
    /// without noticing our lock.
    pub fn new(given: &Path) -> Result<Self, Error> {
        let has_sidecar = || with_suffix(given, Sibling::Sidecar.suffix()).exists();
        let or_else = || has_sidecar().then_some(PathKind::File);
        Self::at(given, or_else)
    }

    /// The same for a pass, whose master has the file name `masters`. A path that does not
    /// exist may have this name, too: then [`check_kind`](Self::check_kind) must find later
    /// that the master is a file. A sidecar is not considered.
    pub fn of_pass(given: &Path, masters: Option<&OsStr>) -> Result<Self, Error> {
        let is_masters = || masters.is_some() && given.file_name() == masters;
        let or_else = || is_masters().then_some(PathKind::MasterName);
        Self::at(given, or_else)
    }

    /// Interprets a path. If it does not exist and does not end in `.fs`, `or_else` decides
    /// whether it is a file.
    fn at(given: &Path, or_else: impl FnOnce() -> Option<PathKind>) -> Result<Self, Error> {
        let kind = path_kind(given)?
            .or_else(or_else)
            .ok_or_else(|| not_found(given))?;
        if kind == PathKind::Directory {
            check_is_not_around(given)?;
        }
        let data = match kind {
            PathKind::Directory => given.join(DATA_FS),
            PathKind::File | PathKind::NewFile | PathKind::MasterName => given.to_owned(),
        };
        let usage = |problem: &str| Err(Error::Usage(format!("{} {problem}", data.display())));
        let directory = match data.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return usage("cannot be the name of a slave"),
        };
        if data.file_name().is_none() {
            return usage("cannot be the name of a slave");
        }
        let device = match found(&directory, fs::metadata(&directory))? {
            Some(found) if found.is_dir() => found.dev(),
            _ => return usage("is in a directory that does not exist: create the directory first"),
        };
        match found(&data, fs::symlink_metadata(&data))? {
            Some(found) if found.is_symlink() => {
                usage("is a symbolic link: name the file that it points to")
            }
            Some(found) if !found.is_file() => usage("is not a regular file"),
            _ => Ok(Self {
                data,
                directory,
                kind,
                mount: Arc::new(Mount::new(device)),
            }),
        }
    }

    /// The path of `Data.fs`.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory that contains it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fails if the directory is now on another file system than before, because a file
    /// system was mounted or unmounted. Otherwise a slave could be written to the empty mount
    /// point.
    pub fn check_is_mounted(&self) -> Result<(), Error> {
        match found(&self.directory, fs::metadata(&self.directory))? {
            Some(found) if found.dev() == self.mount.device() => Ok(()),
            _ => Err(Error::Moved {
                directory: self.directory.clone(),
            }),
        }
    }

    /// The same at the start of a pass. A file system with another device number is accepted
    /// if it contains the slave as the last pass left it: it was mounted again.
    pub fn find_mounted(&self) -> Result<(), Error> {
        let moved = match self.check_is_mounted() {
            Err(error @ Error::Moved { .. }) => error,
            checked => return checked,
        };
        if !self.mount.recognise(self) {
            return Err(moved);
        }
        tracing::info!(
            "{} is mounted again, with another device number",
            self.directory.display()
        );
        Ok(())
    }

    /// Remembers the slave as a pass left it, to recognise its file system when it is mounted
    /// again.
    pub fn remember(&self, slave: Option<Fingerprint>) {
        self.mount.remember(slave);
    }

    /// Fails if this process cannot create files in the directory, because it lacks the
    /// permission or the file system is read-only.
    pub fn check_is_writable(&self) -> Result<(), Error> {
        accessat(CWD, &self.directory, Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|error| Error::io("write to", &self.directory)(error.into()))
    }

    /// The path of a file beside the slave.
    #[must_use]
    pub fn sibling(&self, sibling: Sibling) -> PathBuf {
        self.with_suffix(sibling.suffix())
    }

    /// The name for setting aside a slave that ends with `last_tid`. A higher `n` gives
    /// another name.
    #[must_use]
    pub fn diverged(&self, last_tid: Option<Tid>, n: u32) -> PathBuf {
        let tid = last_tid.unwrap_or(Tid(0));
        match n {
            0 => self.with_suffix(&format!(".diverged-{tid}")),
            n => self.with_suffix(&format!(".diverged-{tid}.{n}")),
        }
    }

    /// The name for setting aside the transactions of a slave that the master lacks. A higher `n`
    /// gives another name.
    #[must_use]
    pub fn diverged_run(&self, run: TransactionRun, n: u32) -> PathBuf {
        let TransactionRun { first, last, .. } = run;
        match n {
            0 => self.with_suffix(&format!(".diverged-{first}-{last}")),
            n => self.with_suffix(&format!(".diverged-{first}-{last}.{n}")),
        }
    }

    /// The first unused name for setting aside a slave that ends with `last_tid`.
    #[must_use]
    pub fn free_aside(&self, last_tid: Option<Tid>) -> PathBuf {
        let mut n = 0;
        let mut name = self.diverged(last_tid, n);
        while fs::symlink_metadata(&name).is_ok() {
            n += 1;
            name = self.diverged(last_tid, n);
        }
        name
    }

    /// The `n`th name for a copy of a truncated tail. ZODB uses the same names.
    #[must_use]
    pub fn cut(&self, n: u32) -> PathBuf {
        self.with_suffix(&format!(".tr{n}"))
    }

    /// Whether a file name in the directory is that of a leftover of this slave.
    #[must_use]
    pub fn leftover(&self, name: &OsStr) -> Option<Leftover> {
        let data = self.data.file_name()?.as_bytes();
        let suffix = name.as_bytes().strip_prefix(data)?;
        if is_aside(suffix) {
            return Some(Leftover::SetAside);
        }
        let n = suffix.strip_prefix(b".tr")?;
        (!n.is_empty() && n.iter().all(u8::is_ascii_digit)).then_some(Leftover::CutTail)
    }

    /// Whether the slave's own name is that of a slave that was set aside.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        let name = self.data.file_name().map_or(&b""[..], OsStr::as_bytes);
        let mut dots = (1..name.len()).filter(|at| name[*at] == b'.');
        dots.any(|at| is_aside(&name[at..]))
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.data, suffix)
    }

    /// Whether the slave does not exist, and counts as a file only because its name is the
    /// master's.
    #[must_use]
    pub fn is_named_like_the_master(&self) -> bool {
        self.kind == PathKind::MasterName
    }

    /// Whether the path may have been mistyped: it was given as a new file, and neither the
    /// file nor a sidecar exists yet.
    pub fn may_be_mistaken(&self) -> Result<bool, Error> {
        if matches!(self.kind, PathKind::Directory | PathKind::File) {
            return Ok(false);
        }
        let exists = |path: &Path| found(path, fs::symlink_metadata(path)).map(|it| it.is_some());
        Ok(!exists(&self.data)? && !exists(&self.sibling(Sibling::Sidecar))?)
    }

    /// Refuses a slave that would be created as a file although the master was named by its
    /// directory.
    pub fn check_kind(&self, master_is_directory: bool) -> Result<(), Error> {
        if !master_is_directory || self.kind == PathKind::Directory {
            return Ok(());
        }
        let (name, directory) = (self.data.display(), self.directory.display());
        Err(Error::Usage(match self.kind {
            PathKind::MasterName => not_found(&self.data).display_chain(),
            _ => format!(
                "{name} does not exist, and the master is a directory: name a directory for \
                 both, such as {directory}, or a file for both"
            ),
        }))
    }

    /// Syncs the directory, which makes renames and removals in it durable.
    pub fn sync_directory(&self) -> Result<(), Error> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("sync the directory", &self.directory))
    }

    /// Refuses a master that is the same file as the slave, under whatever name.
    pub fn check_is_not(&self, master: Option<FileStat>) -> Result<(), Error> {
        let Some(found) = found(&self.data, fs::metadata(&self.data))? else {
            return Ok(());
        };
        let slave = FileStat::of(&found);
        if master.is_some_and(|master| master.is_same_file(&slave)) {
            return Err(self.is_the_master());
        }
        Ok(())
    }

    /// Refuses a master that has the slave's path, even if no file exists there.
    pub fn check_is_not_named(&self, master: &Path) -> Result<(), Error> {
        let whole = |path: &Path| absolute(path).ok();
        let slave = whole(&self.data);
        if slave.is_some() && (slave == whole(master) || slave == whole(&master.join(DATA_FS))) {
            return Err(self.is_the_master());
        }
        Ok(())
    }

    fn is_the_master(&self) -> Error {
        let name = self.data.display();
        Error::Usage(format!(
            "{name} is the master itself, under the same or another name"
        ))
    }
}

/// Whether a suffix is one that [`SlavePaths::diverged`] or [`SlavePaths::diverged_run`] appends.
fn is_aside(suffix: &[u8]) -> bool {
    let is_tid = |tid: &[u8]| tid.len() == 16 && tid.iter().all(u8::is_ascii_hexdigit);
    let is_number = |n: &[u8]| !n.is_empty() && n.iter().all(u8::is_ascii_digit);
    let Some(name) = suffix.strip_prefix(b".diverged-") else {
        return false;
    };
    let is_run = |tids: &[u8]| tids.splitn(2, |&byte| byte == b'-').all(is_tid);
    match name.iter().position(|&byte| byte == b'.') {
        None => is_run(name),
        Some(dot) => is_run(&name[..dot]) && is_number(&name[dot + 1..]),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.to_owned().into();
    name.push(suffix);
    name.into()
}

/// Turns the error for a missing file, or for a path through something that is not a
/// directory, into `None`.
fn found(path: &Path, result: io::Result<Metadata>) -> Result<Option<Metadata>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}

/// Whether the path is that of a directory that exists, also through symbolic links. That it
/// cannot be examined is an error, unlike with [`Path::is_dir`].
pub(super) fn is_directory(path: &Path) -> Result<bool, Error> {
    let found = found(path, fs::metadata(path))?;
    Ok(found.is_some_and(|found| found.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_recognised_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let name = |path: PathBuf| path.file_name().unwrap().to_owned();
        let tid = Some(Tid(0x0406_0072_f24c_bb52));
        let run = TransactionRun {
            count: 2,
            first: Tid(0x0406_0072_f24c_bb52),
            last: Tid(0x0406_0072_f24c_bb53),
        };
        for n in [0, 12] {
            for aside in [paths.diverged(tid, n), paths.diverged_run(run, n)] {
                assert_eq!(paths.leftover(&name(aside)), Some(Leftover::SetAside));
            }
            fs::write(paths.diverged(tid, n), "").unwrap();
            let aside = SlavePaths::new(&paths.diverged(tid, n)).unwrap();
            assert!(aside.is_set_aside() && !paths.is_set_aside());
            for sibling in [Sibling::Verified, Sibling::ZodbIndex, Sibling::ZodbLock] {
                assert_eq!(paths.leftover(&name(aside.sibling(sibling))), None);
            }
            assert_eq!(paths.leftover(&name(paths.cut(n))), Some(Leftover::CutTail));
        }
        for other in [
            "Data.fs",
            "Data.fs.tr",
            "Data.fs.trash",
            "Data.fs.index",
            "Other.fs.tr0",
            "Other.fs.diverged-0406",
            "Data.fs.diverged-04060072f24cbb52-",
            "Data.fs.diverged-04060072f24cbb52-04060072f24cbb53-04060072f24cbb54",
        ] {
            assert_eq!(paths.leftover(OsStr::new(other)), None, "{other}");
        }
    }
}
