//! Processes that write to a file which had the master's name before.
//!
//! A file that is renamed into the master's place leaves the old one to whoever has it
//! open. A ZEO goes on writing there, and nothing that it commits is in the master. `/proc`
//! shows it, for processes that this one may look at:
//!
//! 1. A handle for writing whose file is `Data.fs (deleted)`. A pack of ZODB's closes its
//!    handle before it renames, so it leaves none.
//! 2. A handle for writing whose file is now `Data.fs.SUFFIX`, of a process that has
//!    `Data.fs.lock` open and not `Data.fs`. ZODB's own files beside it do not count: while
//!    it has those, it has `Data.fs` too.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The access mode in a handle's flags, and the one for reading only.
const ACCESS_MODE: u32 = 0o3;
const READ_ONLY: u32 = 0o0;

/// A process that writes to a file which had the master's name before.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Stray {
    /// The process.
    pub pid: u32,
    /// Its handle: `/proc/PID/fd/HANDLE` is the file.
    pub handle: u32,
    /// What the kernel calls the file.
    pub file: String,
}

/// Finds them, for the master at this path, which has no links in it.
pub(super) fn find(master: &Path) -> Vec<Stray> {
    let own = std::process::id();
    numbers(Path::new("/proc"))
        .filter(|pid| *pid != own)
        .filter_map(|pid| find_in(Path::new("/proc"), pid, master))
        .collect()
}

/// The one of a process, if it has one.
fn find_in(proc: &Path, pid: u32, master: &Path) -> Option<Stray> {
    let process = proc.join(pid.to_string());
    let mut has_master = false;
    let mut has_lock = false;
    let mut deleted = None;
    let mut renamed = None;
    for handle in numbers(&process.join("fd")) {
        let Ok(file) = fs::read_link(process.join(format!("fd/{handle}"))) else {
            continue;
        };
        let stray = || Stray {
            pid,
            handle,
            file: file.display().to_string(),
        };
        match Role::of(&file, master) {
            Some(Role::Master) => has_master = true,
            Some(Role::Lock) => has_lock = true,
            Some(Role::Deleted) if may_write(&process, handle) => deleted = Some(stray()),
            Some(Role::Renamed) if may_write(&process, handle) => renamed = Some(stray()),
            Some(Role::Deleted | Role::Renamed) | None => {}
        }
    }
    deleted.or(renamed.filter(|_| has_lock && !has_master))
}

/// What a file is to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It is the master.
    Master,
    /// ZODB's lock of the master.
    Lock,
    /// It had the master's name, and has none any more.
    Deleted,
    /// It has a name that begins with the master's.
    Renamed,
}

impl Role {
    fn of(file: &Path, master: &Path) -> Option<Self> {
        let rest = file
            .as_os_str()
            .as_bytes()
            .strip_prefix(master.as_os_str().as_bytes())?;
        match rest {
            b"" => Some(Self::Master),
            b".lock" => Some(Self::Lock),
            b" (deleted)" => Some(Self::Deleted),
            [b'.' | b'~' | b'-' | b'_', suffix @ ..] if !suffix.contains(&b'/') => {
                Some(Self::Renamed)
            }
            _ => None,
        }
    }
}

/// Whether a handle is open for writing.
fn may_write(process: &Path, handle: u32) -> bool {
    let info = fs::read_to_string(process.join(format!("fdinfo/{handle}")));
    let flags = info.ok().and_then(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    });
    flags.is_some_and(|flags| flags & ACCESS_MODE != READ_ONLY)
}

/// The names in a directory that are numbers.
fn numbers(directory: &Path) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).ok();
    let names = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())));
    names.filter_map(|name| name.as_os_str().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_file_is_judged_by_its_name() {
        let master = Path::new("/srv/Data.fs");
        for (file, role) in [
            ("/srv/Data.fs", Some(Role::Master)),
            ("/srv/Data.fs.lock", Some(Role::Lock)),
            ("/srv/Data.fs (deleted)", Some(Role::Deleted)),
            ("/srv/Data.fs.before-failback", Some(Role::Renamed)),
            ("/srv/Data.fs.2026/x", None),
            ("/srv/Data.fsx", None),
            ("/srv/Other.fs (deleted)", None),
            ("/srv2/Data.fs (deleted)", None),
        ] {
            assert_eq!(Role::of(OsStr::new(file).as_ref(), master), role, "{file}");
        }
    }
}
