//! A system call on the slave's files, as `strace` logs it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The calls at which a process stops: those that read or change files which other processes
/// see. `strace` ignores calls that this architecture does not have.
pub const CALLS: &str = "?openat,?flock,?pread64,?read,?pwrite64,?write,?ftruncate,?rename,\
                         ?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,?fsync,\
                         ?fdatasync,?newfstatat,?statx,?fstat,?fchmod,?fchown,?llistxattr,\
                         ?fremovexattr,?openat2,?mkdir,?mkdirat,?rmdir,?fchownat,?utimensat,\
                         ?syncfs";

/// The calls that change names, or a file or directory itself. An `openat` may also create.
const CHANGES: [&str; 18] = [
    "write",
    "pwrite64",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fchmod",
    "fchown",
    "fchownat",
    "utimensat",
    "fremovexattr",
];

/// A completed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: String,
    /// The call, its arguments with the paths of handles, and its result.
    pub text: String,
}

/// One of the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Step,
    Zodb,
}

/// The effect of a call on a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    Acquired,
    /// Another process holds it.
    Busy,
    Released,
}

impl Call {
    /// Its effect on a lock, if it has one.
    pub fn locking(&self) -> Option<(Lock, Locking)> {
        let text = self.text.strip_prefix("flock(")?;
        let lock = match text.split_once("/Data.fs")?.1.split_once('>')?.0 {
            ".fssync-step" => Lock::Step,
            ".lock" => Lock::Zodb,
            _ => return None,
        };
        let locking = match text.rsplit_once(" = ")?.1 {
            "0" if text.contains("LOCK_UN") => Locking::Released,
            "0" => Locking::Acquired,
            _ => Locking::Busy,
        };
        Some((lock, locking))
    }

    /// Whether it changes the slave's bytes, or replaces the slave.
    pub fn changes_slave(&self) -> bool {
        let is_write = ["write(", "pwrite64(", "ftruncate("]
            .iter()
            .any(|it| self.text.starts_with(it));
        self.succeeds() && (is_write && self.text.contains("/Data.fs>") || self.renames("/Data.fs"))
    }

    /// Whether it removes or replaces the index.
    pub fn changes_index(&self) -> bool {
        self.succeeds() && (self.renames("/Data.fs.index") || self.unlinks("/Data.fs.index"))
    }

    /// Whether it changes something in the blob directory that ZODB uses: not in `.fssync`, and
    /// not a temporary name of fssync's beside it.
    pub fn changes_blobs(&self) -> bool {
        let (name, _) = self.text.split_once('(').unwrap_or_default();
        let is_change = CHANGES.contains(&name) || self.text.contains("O_CREAT");
        is_change && self.succeeds() && self.paths().iter().any(|path| is_zodbs_blob_path(path))
    }

    pub fn is_sync(&self) -> bool {
        let syncs = ["fsync(", "fdatasync(", "syncfs("];
        syncs.iter().any(|it| self.text.starts_with(it))
    }

    /// The paths in its arguments: those of handles, and names together with the handle of their
    /// directory.
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for argument in self.text.split(", ") {
            let name = argument.rsplit('(').next().unwrap_or_default();
            let name = name.strip_prefix('"').and_then(|it| it.split_once('"'));
            let handle = argument.split_once('<').and_then(|it| it.1.split_once('>'));
            match (name, handle) {
                // A name follows the handle of its directory.
                (Some((name, _)), _) => {
                    let directory = paths.pop().unwrap_or_default();
                    paths.push(directory.join(name));
                }
                (None, Some((path, _))) => paths.push(path.into()),
                (None, None) => {}
            }
        }
        paths
    }

    fn renames(&self, to: &str) -> bool {
        let target = self.text.rsplit('"').nth(1).unwrap_or_default();
        self.text.starts_with("rename") && target.ends_with(to)
    }

    fn unlinks(&self, name: &str) -> bool {
        self.text.starts_with("unlink") && self.text.contains(&format!("{name}\""))
    }

    fn succeeds(&self) -> bool {
        !self.text.contains(" = -1 E")
    }
}

/// Whether a path is the blob directory, or below it and not one of fssync's own.
fn is_zodbs_blob_path(path: &Path) -> bool {
    let mut names = path.iter().skip_while(|name| *name != "blobstorage");
    let is_in_blobs = names.next().is_some();
    let is_ours = names
        .next()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b".fssync"));
    is_in_blobs && !is_ours
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.thread, self.text)
    }
}

/// A line in the log of `strace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A call is complete.
    Call(Call),
    /// A thread has stopped.
    Stopped(String),
    Other,
}

/// Reads the lines. A call that is interrupted by calls of other threads has two.
#[derive(Debug, Default)]
pub struct Lines {
    begun: HashMap<String, String>,
}

impl Lines {
    pub fn read(&mut self, line: &str) -> Line {
        let (thread, rest) = line.split_once(' ').expect("a thread and its call");
        let (thread, rest) = (thread.to_owned(), rest.trim_start());
        if rest.starts_with("--- stopped by SIGSTOP") {
            return Line::Stopped(thread);
        }
        if rest.starts_with("---") || rest.starts_with("+++") {
            return Line::Other;
        }
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread, begun.trim_end().to_owned());
            return Line::Other;
        }
        let text = match rest.split_once(" resumed>") {
            Some((_, end)) if rest.starts_with("<... ") => {
                let begun = self.begun.remove(&thread).unwrap_or_default();
                format!("{begun}{end}")
            }
            _ => rest.to_owned(),
        };
        Line::Call(Call { thread, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Call {
        Call {
            thread: "1".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn calls_are_classified() {
        use Locking::{Acquired, Busy, Released};
        let locking = |text: &str| call(text).locking();
        let step = |rest| format!("flock(4</t/Data.fs.fssync-step>, {rest}");
        assert_eq!(
            locking(&step("LOCK_EX|LOCK_NB) = 0")),
            Some((Lock::Step, Acquired))
        );
        assert_eq!(
            locking(&step("LOCK_EX|LOCK_NB) = -1 EAGAIN (Try again)")),
            Some((Lock::Step, Busy))
        );
        assert_eq!(
            locking("flock(6</t/Data.fs.lock>, LOCK_UN) = 0"),
            Some((Lock::Zodb, Released))
        );
        assert_eq!(
            locking("flock(6</t/Data.fs.fssync-pass>, LOCK_UN) = 0"),
            None
        );
        for (text, is_slave, is_index) in [
            ("pwrite64(4</t/Data.fs>, \"\"..., 4, 0) = 4", true, false),
            ("ftruncate(4</t/Data.fs>, 7) = -1 EIO (Error)", false, false),
            (
                "pwrite64(4</t/Data.fs.fssync-tmp>, \"\"..., 4, 0) = 4",
                false,
                false,
            ),
            (
                "rename(\"/t/Data.fs.fssync-tmp\", \"/t/Data.fs\") = 0",
                true,
                false,
            ),
            (
                "rename(\"/t/Data.fs.fssync-tmp\", \"/t/Data.fs.index\") = 0",
                false,
                true,
            ),
            ("unlink(\"/t/Data.fs.index\") = 0", false, true),
            (
                "unlink(\"/t/Data.fs.index\") = -1 ENOENT (No such file)",
                false,
                false,
            ),
        ] {
            let call = call(text);
            let found = (call.changes_slave(), call.changes_index());
            assert_eq!(found, (is_slave, is_index), "{text}");
        }
    }

    #[test]
    fn changes_of_the_blob_directory_are_recognised() {
        let blobs = "/t/blobstorage";
        let tmp = format!("7<{blobs}/.fssync/tmp>");
        for (text, is_change) in [
            (
                format!("renameat2({tmp}, \"a-b\", 8<{blobs}/0x00>, \"0x07.blob\", 1) = 0"),
                true,
            ),
            (
                format!("renameat({tmp}, \"directory\", 8<{blobs}>, \"0x00\") = 0"),
                true,
            ),
            (
                format!("linkat(8<{blobs}/0x00>, \"0x07.blob\", {tmp}, \"a-b\", 0) = 0"),
                true,
            ),
            (
                format!("unlinkat(8<{blobs}/0x00>, \"0x07.blob\", 0) = 0"),
                true,
            ),
            (
                format!("unlinkat(8<{blobs}>, \"0x00\", AT_REMOVEDIR) = -1 ENOTEMPTY (Full)"),
                false,
            ),
            (format!("mkdir(\"{blobs}/0x00\", 0777) = 0"), true),
            (
                format!("mkdirat(8<{blobs}/0x00>, \"0x01\", 0755) = 0"),
                true,
            ),
            (
                format!("rename(\"{blobs}.fssync-new\", \"{blobs}\") = 0"),
                true,
            ),
            (
                format!("mkdirat(AT_FDCWD</>, \"{blobs}.fssync-new\", 0700) = 0"),
                false,
            ),
            (format!("mkdirat({tmp}, \"directory\", 0700) = 0"), false),
            (format!("unlinkat({tmp}, \"a-b\", 0) = 0"), false),
            (format!("mkdirat(8<{blobs}>, \".fssync\", 0700) = 0"), false),
            (
                format!("openat(8<{blobs}>, \"x\", O_RDWR|O_CREAT|O_EXCL, 0600) = 9<{blobs}/x>"),
                true,
            ),
            (
                format!("openat(8<{blobs}>, \"x\", O_RDONLY) = 9<{blobs}/x>"),
                false,
            ),
            (
                format!("utimensat(9<{blobs}/0x00/0x07.blob>, NULL, [UTIME_OMIT, 0], 0) = 0"),
                true,
            ),
            (format!("fsync(9<{blobs}/0x00>) = 0"), false),
        ] {
            assert_eq!(call(&text).changes_blobs(), is_change, "{text}");
        }
    }

    #[test]
    fn the_two_lines_of_a_call_are_joined() {
        let mut lines = Lines::default();
        assert_eq!(lines.read("7 fsync(4</t> <unfinished ...>"), Line::Other);
        assert_eq!(
            lines.read("8   --- stopped by SIGSTOP ---"),
            Line::Stopped("8".to_owned())
        );
        let Line::Call(call) = lines.read("7 <... fsync resumed>) = 0") else {
            panic!("a call")
        };
        assert_eq!(call.to_string(), "7 fsync(4</t>) = 0");
        assert!(call.is_sync());
        assert_eq!(lines.read("7 +++ exited with 0 +++"), Line::Other);
    }
}
