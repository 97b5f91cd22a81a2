//! Syncs of the whole file system of the blob directory.
//!
//! A sync of a single file or directory makes the disk flush its cache, even if nothing is left to
//! write. Thousands of them take minutes on some disks. `syncfs` does the same with one flush. It
//! replaces the single syncs under these conditions:
//!
//! 1. *The file system is known to write everything that was changed,* and to wait for it: ext4,
//!    XFS or Btrfs. FUSE, for example, does not pass `syncfs` on to the program that implements the
//!    file system.
//! 2. *The kernel reports errors.* Since Linux 5.8, `syncfs` fails if any file of the file system
//!    could not be written back since the blob directory was opened, and since 5.17 if the file
//!    system itself could not be synced. A single sync of the blob directory comes last, which
//!    fails on an older kernel if the journal could not be written.
//! 3. *It succeeds.* If it fails, the error may concern another file. The single syncs follow and
//!    report errors of our files.
//! 4. *None has failed before,* since the blob directory was opened. `syncfs` reports an error once.
//!    While one batch of blobs is synced, files of the next one are being written: the error may
//!    concern one of them, and the next `syncfs` would succeed. A single sync of that file reports
//!    the error, because the file has been open since it was created.
//!
//! Otherwise the single syncs follow in any case, and `syncfs` only saves them from writing.

use std::sync::atomic::Ordering;

use rustix::fs::{FsWord, fstatfs, syncfs};
use rustix::system::uname;

use super::tree::Tree;

/// From how many files or directories on the whole file system is synced. With fewer, single syncs
/// take less time if another program writes to the same disk.
const MIN_COUNT: usize = 64;

/// The types of file systems (`linux/magic.h`) of which a `syncfs` is sufficient: ext2, ext3 and
/// ext4; XFS; Btrfs.
const SUFFICIENT: [FsWord; 3] = [0xef53, 0x5846_5342, 0x9123_683e];

/// The first kernel whose `syncfs` reports files that could not be written back.
const REPORTS_ERRORS: (u32, u32) = (5, 8);

/// The result of a sync of the whole file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WholeSync {
    /// Everything that was written before is durable.
    Durable,
    /// The files and directories must be synced one by one.
    Insufficient,
}

/// Syncs the whole file system if `count` files or directories are to be synced and that saves
/// time.
pub(super) fn sync_whole(tree: &Tree, count: usize) -> WholeSync {
    if count < MIN_COUNT {
        return WholeSync::Insufficient;
    }
    if syncfs(tree.root()).is_err() {
        tree.has_failed_sync.store(true, Ordering::Relaxed);
    }
    if tree.has_failed_sync.load(Ordering::Relaxed) {
        return WholeSync::Insufficient;
    }
    let file_system = fstatfs(tree.root()).map(|found| found.f_type);
    let is_sufficient = file_system.is_ok_and(|it| SUFFICIENT.contains(&it));
    let release = uname();
    let reports_errors = version(&release.release().to_string_lossy()) >= Some(REPORTS_ERRORS);
    if !is_sufficient || !reports_errors {
        return WholeSync::Insufficient;
    }
    if tree.root().sync_all().is_err() {
        tree.has_failed_sync.store(true, Ordering::Relaxed);
        return WholeSync::Insufficient;
    }
    WholeSync::Durable
}

/// The version in a kernel release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn after_a_failure_no_sync_of_the_file_system_is_sufficient() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let file_system = fstatfs(tree.root()).unwrap().f_type;
        let expected = if SUFFICIENT.contains(&file_system) {
            WholeSync::Durable
        } else {
            WholeSync::Insufficient
        };
        assert_eq!(sync_whole(&tree, MIN_COUNT), expected);
        assert_eq!(sync_whole(&tree, MIN_COUNT - 1), WholeSync::Insufficient);
        tree.has_failed_sync.store(true, Ordering::Relaxed);
        assert_eq!(sync_whole(&tree, MIN_COUNT), WholeSync::Insufficient);
        // `syncfs` of procfs proves nothing.
        let proc = Tree::open(Path::new("/proc")).unwrap();
        assert_eq!(sync_whole(&proc, MIN_COUNT), WholeSync::Insufficient);
    }

    #[test]
    fn the_version_of_a_kernel_is_read() {
        for (release, expected) in [
            ("6.1.0-13-amd64", Some((6, 1))),
            ("4.18.0-553.el8_10.x86_64", Some((4, 18))),
            ("5.8", Some((5, 8))),
            ("5.15-rc1", Some((5, 15))),
            ("5", None),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.10.1") > Some(REPORTS_ERRORS));
        assert!(version("5.7.19") < Some(REPORTS_ERRORS) && None < Some(REPORTS_ERRORS));
    }
}
