//! Properties of the file system that contains the master or its blobs.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::fstatfs;
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};

/// File systems whose files another machine can change without the kernel of this one
/// noticing, with their `statfs` types (`linux/magic.h`).
const NETWORK: [(u64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (FUSE, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// File systems that are implemented by a program, which chooses the inode numbers.
const FUSE: u64 = 0x6573_5546;

/// A kind of file system: the type that `statfs` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileSystem(pub u64);

impl FileSystem {
    /// The file system of an open file or directory.
    pub(super) fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        let found = retry_on_intr(|| fstatfs(&file))?;
        Ok(Self(found.f_type.cast_unsigned()))
    }

    /// Whether another machine may change a file without the kernel of this one noticing:
    /// cached pages may be stale, and there are no change notifications.
    #[must_use]
    pub fn is_network(self) -> bool {
        self.name().is_some()
    }

    /// Whether a file may get another inode number with each mount.
    #[must_use]
    pub fn renumbers_inodes(self) -> bool {
        self.0 == FUSE
    }

    fn name(self) -> Option<&'static str> {
        let found = NETWORK.iter().find(|(kind, _)| *kind == self.0);
        found.map(|(_, name)| *name)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (statfs type {:#x})", self.0),
            None => write!(f, "a local file system (statfs type {:#x})", self.0),
        }
    }
}
