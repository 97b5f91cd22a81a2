//! Where the slave lies, and what the files beside it are called.

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

use self::kind::{PathKind, not_found, path_kind};
use self::mount::Mount;
use super::sidecar::Fingerprint;
use crate::error::Error;
use crate::filestorage::{DATA_FS, Tid};
use crate::io::file_stat::FileStat;

/// Whether a file is opened for writing too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Opens the slave or a file beside it. A symlink in the last component is an
/// error, and a FIFO is not waited for.
pub fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .write(mode == OpenMode::ReadWrite)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Suffixes of the names beside the slave; there are no others but
/// [`SlavePaths::diverged`] and ZODB's `.trN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sibling {
    /// What the last pass left.
    Sidecar,
    /// The sidecar while it is replaced.
    SidecarNew,
    /// The switch.
    Switch,
    /// The switch while it replaces a symbolic link.
    SwitchNew,
    /// A full copy under way; then, perhaps, an index or a ledger.
    Tmp,
    /// The lock that lasts a pass.
    PassLock,
    /// The lock that lasts a step.
    StepLock,
    /// Digests of the slave's bytes.
    Ledger,
    /// What the last verification found.
    Verified,
    /// The same while it is replaced.
    VerifiedNew,
    /// ZODB's own lock.
    ZodbLock,
    /// ZODB's index.
    ZodbIndex,
}

impl Sibling {
    fn suffix(self) -> &'static str {
        match self {
            Self::Sidecar => ".fssync",
            Self::SidecarNew => ".fssync-new",
            Self::Switch => ".fssync-switch",
            Self::SwitchNew => ".fssync-switch-new",
            Self::Tmp => ".fssync-tmp",
            Self::PassLock => ".fssync-pass",
            Self::StepLock => ".fssync-step",
            Self::Ledger => ".fssync-ledger",
            Self::Verified => ".fssync-verified",
            Self::VerifiedNew => ".fssync-verified-new",
            Self::ZodbLock => ".lock",
            Self::ZodbIndex => ".index",
        }
    }
}

/// What piles up beside the slave, as nothing removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A slave that was [set aside](SlavePaths::diverged).
    SetAside,
    /// A tail that was [cut](SlavePaths::cut).
    CutTail,
}

/// The slave's place in the file system.
#[derive(Clone, Debug)]
pub struct SlavePaths {
    data: PathBuf,
    directory: PathBuf,
    /// Whether the path was a directory's, or else why it may be a file's.
    kind: PathKind,
    /// The file system that the directory is on.
    mount: Arc<Mount>,
}

impl SlavePaths {
    /// The place that `given` names: a directory, for the `Data.fs` in it, or a file. If
    /// there is nothing of this name, it is a file's only if it ends in `.fs`, or if a
    /// pass has left its sidecar beside it: a directory may be missing because its file
    /// system is not mounted, and no file must take its place then.
    ///
    /// A symlink in the last component is refused, since ZODB's lock lies
    /// beside the *name*: the file could be opened under its other name.
    pub fn new(given: &Path) -> Result<Self, Error> {
        let has_sidecar = || with_suffix(given, Sibling::Sidecar.suffix()).exists();
        let or_else = || has_sidecar().then_some(PathKind::File);
        Self::at(given, or_else)
    }

    /// The same, of the slave of a pass whose master has this file name: that may be the
    /// slave's, too, if [`check_kind`](Self::check_kind) finds that it is a file's. Here a
    /// sidecar does not count.
    pub fn of_pass(given: &Path, masters: Option<&OsStr>) -> Result<Self, Error> {
        let is_masters = || masters.is_some() && given.file_name() == masters;
        let or_else = || is_masters().then_some(PathKind::MasterName);
        Self::at(given, or_else)
    }

    /// The place that `given` names; of a name that leads to nothing and does not end in
    /// `.fs`, `or_else` may know that it is a file's.
    fn at(given: &Path, or_else: impl FnOnce() -> Option<PathKind>) -> Result<Self, Error> {
        let kind = path_kind(given)?
            .or_else(or_else)
            .ok_or_else(|| not_found(given))?;
        let data = match kind {
            PathKind::Directory => given.join(DATA_FS),
            PathKind::File | PathKind::NewFile | PathKind::MasterName => given.to_owned(),
        };
        let usage = |what: &str| Err(Error::Usage(format!("{} {what}", data.display())));
        let directory = match data.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return usage("is no name for a slave"),
        };
        if data.file_name().is_none() {
            return usage("is no name for a slave");
        }
        let device = match found(&directory, fs::metadata(&directory))? {
            Some(found) if found.is_dir() => found.dev(),
            _ => return usage("lies in a directory that does not exist; create it first"),
        };
        match found(&data, fs::symlink_metadata(&data))? {
            Some(found) if found.is_symlink() => {
                usage("is a symbolic link; name the file that it leads to")
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

    /// `Data.fs` itself.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory that it lies in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fails while the directory is on another file system than it was: an empty mount
    /// point is not a place for a slave.
    pub fn check_is_mounted(&self) -> Result<(), Error> {
        match found(&self.directory, fs::metadata(&self.directory))? {
            Some(found) if found.dev() == self.mount.device() => Ok(()),
            _ => Err(Error::Moved {
                directory: self.directory.clone(),
            }),
        }
    }

    /// The same, before a pass; but a file system that has the slave as the last pass left
    /// it is the one that was there, whatever its device number is now.
    pub fn find_mounted(&self) -> Result<(), Error> {
        let moved = match self.check_is_mounted() {
            Err(error @ Error::Moved { .. }) => error,
            checked => return checked,
        };
        if !self.mount.recognise(self) {
            return Err(moved);
        }
        tracing::info!(
            "{} is mounted again, under another device number",
            self.directory.display()
        );
        Ok(())
    }

    /// Notes what a pass left, so that the slave is recognised when its file system was
    /// unmounted and is mounted again.
    pub fn note_left(&self, left: Option<Fingerprint>) {
        self.mount.note_left(left);
    }

    /// Fails if no file can be made in the directory, for want of permission or because
    /// its file system is mounted read-only.
    pub fn check_is_writable(&self) -> Result<(), Error> {
        accessat(CWD, &self.directory, Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|error| Error::io("write to", &self.directory)(error.into()))
    }

    /// A file beside it.
    #[must_use]
    pub fn sibling(&self, what: Sibling) -> PathBuf {
        self.with_suffix(what.suffix())
    }

    /// The `n`th name under which a slave that ends with `last_tid` is set
    /// aside.
    #[must_use]
    pub fn diverged(&self, last_tid: Option<Tid>, n: u32) -> PathBuf {
        let tid = last_tid.unwrap_or(Tid(0));
        match n {
            0 => self.with_suffix(&format!(".diverged-{tid}")),
            n => self.with_suffix(&format!(".diverged-{tid}.{n}")),
        }
    }

    /// The first name under which a slave that ends with `last_tid` can be set aside now.
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

    /// The `n`th name under which ZODB keeps what it cuts from the end.
    #[must_use]
    pub fn cut(&self, n: u32) -> PathBuf {
        self.with_suffix(&format!(".tr{n}"))
    }

    /// What a name in the directory is, of what piles up there.
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

    /// Whether the file was itself set aside, by its name.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        let name = self.data.file_name().map_or(&b""[..], OsStr::as_bytes);
        let mut dots = (1..name.len()).filter(|at| name[*at] == b'.');
        dots.any(|at| is_aside(&name[at..]))
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.data, suffix)
    }

    /// Whether nothing but its name makes the slave a file, and that is the master's.
    #[must_use]
    pub fn is_named_like_the_master(&self) -> bool {
        self.kind == PathKind::MasterName
    }

    /// Whether the path was given as a new file's, and there still is no such file, nor a
    /// sidecar.
    pub fn may_be_mistaken(&self) -> Result<bool, Error> {
        if matches!(self.kind, PathKind::Directory | PathKind::File) {
            return Ok(false);
        }
        let is_there = |path: &Path| found(path, fs::symlink_metadata(path)).map(|it| it.is_some());
        Ok(!is_there(&self.data)? && !is_there(&self.sibling(Sibling::Sidecar))?)
    }

    /// Refuses a slave that does not exist, and would be a file, of a master that is a
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

    /// Makes the directory's entries durable.
    pub fn sync_directory(&self) -> Result<(), Error> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("sync the directory", &self.directory))
    }

    /// Refuses a master that is the slave, under whatever name.
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

    /// The same of a master that has the slave's path, whether there is a file or not.
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
            "{name} is the master itself, under this or another name"
        ))
    }
}

/// Whether a suffix is one of those that [`SlavePaths::diverged`] gives.
fn is_aside(suffix: &[u8]) -> bool {
    let is_tid = |tid: &[u8]| tid.len() == 16 && tid.iter().all(u8::is_ascii_hexdigit);
    let is_number = |n: &[u8]| !n.is_empty() && n.iter().all(u8::is_ascii_digit);
    let Some(name) = suffix.strip_prefix(b".diverged-") else {
        return false;
    };
    match name.iter().position(|&byte| byte == b'.') {
        None => is_tid(name),
        Some(dot) => is_tid(&name[..dot]) && is_number(&name[dot + 1..]),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.to_owned().into();
    name.push(suffix);
    name.into()
}

/// What was found under a name, if there is anything.
fn found(path: &Path, looked: io::Result<Metadata>) -> Result<Option<Metadata>, Error> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_piles_up_is_known_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let name = |path: PathBuf| path.file_name().unwrap().to_owned();
        let tid = Some(Tid(0x0406_0072_f24c_bb52));
        for n in [0, 12] {
            assert_eq!(
                paths.leftover(&name(paths.diverged(tid, n))),
                Some(Leftover::SetAside)
            );
            fs::write(paths.diverged(tid, n), "").unwrap();
            let aside = SlavePaths::new(&paths.diverged(tid, n)).unwrap();
            assert!(aside.is_set_aside() && !paths.is_set_aside());
            for beside in [Sibling::Verified, Sibling::ZodbIndex, Sibling::ZodbLock] {
                assert_eq!(paths.leftover(&name(aside.sibling(beside))), None);
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
        ] {
            assert_eq!(paths.leftover(OsStr::new(other)), None, "{other}");
        }
    }
}
