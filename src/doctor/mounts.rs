//! The mount that contains a file, according to `/proc/self/mountinfo`.

use std::fs;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// The type of the file system, such as `nfs4`.
    pub(super) kind: String,
    /// The options of the mount and of the file system.
    pub(super) options: Vec<String>,
}

impl Mount {
    /// The mount that contains a path without symbolic links.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::find(&table, path)
    }

    fn find(table: &str, path: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(Self::parse);
        let containing = mounts.filter(|mount| path.starts_with(&mount.point));
        // A later mount hides an earlier one at the same place.
        containing.max_by_key(|mount| mount.point.components().count())
    }

    /// Parses a line such as
    /// `277 27 0:63 / /mnt/master ro,relatime shared:1 - nfs4 first:/srv rw,hard`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let point = unescaped(mount.next()?);
        let own = mount.next()?;
        let mut file_system = file_system.split(' ');
        let kind = file_system.next()?.to_owned();
        let of_file_system = file_system.nth(1).unwrap_or_default();
        // Whether it can be written is decided by the mount, so its options come first.
        let options = own.split(',').chain(of_file_system.split(','));
        Some(Self {
            point: point.into(),
            kind,
            options: options.map(str::to_owned).collect(),
        })
    }

    /// Whether an option is among those of the mount or of the file system.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it == option)
    }

    /// Whether files can be written through this mount.
    pub(super) fn is_writable(&self) -> bool {
        !self.has("ro")
    }
}

/// Replaces the escapes of the kernel: a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .into_iter()
        .fold(text.to_owned(), |text, (escape, c)| text.replace(escape, c))
}

#[cfg(test)]
mod tests;
