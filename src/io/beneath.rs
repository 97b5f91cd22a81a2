//! Opens files below a directory that others may write to, through a handle of that directory.
//!
//! No name below it may lead out of it, whatever another process puts there. `openat2` with
//! `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS` guarantees that. If the
//! kernel or a container does not offer `openat2`, each component of the path is opened by itself,
//! with `O_NOFOLLOW`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, retry_on_intr};

/// Flags of every open.
const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);

/// Opens `relative`, which must be below `root`, without following symbolic links. A symbolic link
/// in the path is [`Errno::LOOP`], also as its last part.
pub fn open_beneath(
    root: impl AsFd,
    relative: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let root = root.as_fd();
    let open = || openat2(root, relative, flags | FLAGS, Mode::empty(), resolve);
    match retry_on_intr(open) {
        // Old kernels answer ENOSYS. The filter of a container may answer EPERM.
        Err(Errno::NOSYS | Errno::PERM) => open_each(root, relative, flags),
        opened => opened,
    }
}

/// The same without `openat2`.
fn open_each(root: BorrowedFd<'_>, relative: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut names = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => names.push(name),
            _ => return Err(Errno::XDEV),
        }
    }
    let (last, directories) = names.split_last().ok_or(Errno::INVAL)?;
    let mut directory: Option<OwnedFd> = None;
    for name in directories {
        let at = directory.as_ref().map_or(root, AsFd::as_fd);
        let entered = OFlags::PATH | FLAGS;
        let next = retry_on_intr(|| openat(at, *name, entered, Mode::empty()))?;
        // An open symbolic link cannot be passed through either, but the error would be another.
        if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        directory = Some(next);
    }
    let at = directory.as_ref().map_or(root, AsFd::as_fd);
    retry_on_intr(|| openat(at, *last, flags | FLAGS, Mode::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Open = fn(BorrowedFd<'_>, &Path, OFlags) -> rustix::io::Result<OwnedFd>;

    const WAYS: [Open; 2] = [
        |root, path, flags| open_beneath(root, path, flags),
        open_each,
    ];

    #[test]
    fn files_below_the_root_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/c"), "content").unwrap();
        let root = fs::File::open(directory.path()).unwrap();
        for open in WAYS {
            let open = |path: &str| open(root.as_fd(), Path::new(path), OFlags::RDONLY);
            open("a/b/c").unwrap();
            open("a").unwrap();
            assert_eq!(open("a/x/c").unwrap_err(), Errno::NOENT);
            assert_eq!(open("a/b/c/d").unwrap_err(), Errno::NOTDIR);
        }
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(directory.path().join("secret"), "").unwrap();
        symlink(directory.path(), root.join("a/up")).unwrap();
        symlink("../../secret", root.join("a/file")).unwrap();
        symlink("b", root.join("a/inside")).unwrap();
        let handle = fs::File::open(&root).unwrap();
        for open in WAYS {
            let open = |path: &str| open(handle.as_fd(), Path::new(path), OFlags::RDONLY);
            for path in ["a/up/secret", "a/file", "a/inside"] {
                assert_eq!(open(path).unwrap_err(), Errno::LOOP, "{path}");
            }
            assert!(open("../secret").is_err());
            assert!(open(directory.path().join("secret").to_str().unwrap()).is_err());
        }
    }
}
