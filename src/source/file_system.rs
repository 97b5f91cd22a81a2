//! The file systems that a master may lie on, as far as it matters.

use std::fmt;

use serde::{Deserialize, Serialize};

/// File systems whose files another machine can change behind the kernel's
/// back, with their `statfs` types (`linux/magic.h`).
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

/// File systems in a program, which may number inodes as they like.
const FUSE: u64 = 0x6573_5546;

/// A kind of file system, known by the type that `statfs` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileSystem(pub u64);

impl FileSystem {
    /// Whether pages cached here may be stale over there, and the kernel does
    /// not tell of changes made there.
    #[must_use]
    pub fn is_network(self) -> bool {
        self.name().is_some()
    }

    /// Whether a file may have another inode number at each mount.
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
