//! Finds processes that write to a file which had the master's name earlier.
//!
//! If somebody renames another file to `Data.fs` while ZEO is running, ZEO keeps writing to
//! the old file, and the master lacks all of its later transactions. `/proc` reveals this, for
//! the processes that this one is allowed to inspect. There are two cases:
//!
//! 1. A process has a handle for writing, and its file is `Data.fs (deleted)`. ZODB's pack
//!    never causes this, because it closes its handle before it renames.
//! 2. A process has a handle for writing, and its file is now called `Data.fs.SUFFIX`. It
//!    has `Data.fs.lock` open, but not `Data.fs`. ZODB itself opens such files, but only while
//!    it has `Data.fs` open too.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bits of the access mode in the flags of a handle.
const ACCESS_MODE: u32 = 0o3;

/// The access mode of a handle that is only for reading.
const READ_ONLY: u32 = 0o0;

/// A process that writes to a file which had the master's name earlier.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Stray {
    /// Id of the process.
    pub pid: u32,
    /// Number of the handle: `/proc/PID/fd/HANDLE` is the file.
    pub handle: u32,
    /// Name of the file according to the kernel.
    pub file: String,
}

/// Finds these processes. The path of the master must not contain symbolic links.
pub(super) fn find(master: &Path) -> Vec<Stray> {
    let own = std::process::id();
    numbers(Path::new("/proc"))
        .filter(|pid| *pid != own)
        .filter_map(|pid| find_in(Path::new("/proc"), pid, master))
        .collect()
}

/// The stray handle of one process, if it has any.
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

/// The relation of a file to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The master itself.
    Master,
    /// ZODB's lock of the master.
    Lock,
    /// A file that had the master's name and was deleted.
    Deleted,
    /// A file whose name begins with the master's name.
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

/// The entries of a directory whose names are numbers.
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
    fn the_name_of_a_file_decides_its_role() {
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
