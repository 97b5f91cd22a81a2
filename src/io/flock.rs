//! Finds the process that holds a `flock` on a file.
//!
//! Reads `/proc/locks` and never takes a lock itself: if a ZEO starts while we hold even a
//! shared lock, it fails.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// The process that holds a `flock` on the file, if there is one and the kernel lists it.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let [holder] = holders([path]);
    holder
}

/// The same for several files at the same moment.
#[must_use]
pub fn holders<const N: usize>(paths: [&Path; N]) -> [Option<u32>; N] {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let files = paths.map(|path| identifier(path, &mounts));
    let locks = if files.iter().any(Option::is_some) {
        fs::read_to_string("/proc/locks").unwrap_or_default()
    } else {
        String::new()
    };
    files.map(|file| {
        locks
            .lines()
            .find_map(|line| holder_in(line, file.as_ref()?))
    })
}

/// The identifier of a file in /proc/locks, which contains the device of its mounted file
/// system. On btrfs, `stat` returns another device.
fn identifier(path: &Path, mounts: &str) -> Option<String> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let found = statx(CWD, path, AtFlags::empty(), wanted).ok()?;
    let has_mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    let mounted = has_mount.then(|| {
        mounts
            .lines()
            .find_map(|line| device_in(line, found.stx_mnt_id))
    });
    let (major, minor) = mounted
        .flatten()
        .unwrap_or((found.stx_dev_major, found.stx_dev_minor));
    Some(format!("{major:02x}:{minor:02x}:{}", found.stx_ino))
}

/// The device (major, minor) in a line of /proc/self/mountinfo, if the line describes the
/// mount with this number. Such a line is
/// `277 27 0:63 / /srv rw,relatime - btrfs /dev/sda1 rw`.
fn device_in(line: &str, mount: u64) -> Option<(u32, u32)> {
    let mut fields = line.split(' ');
    if fields.next()?.parse() != Ok(mount) {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The process in a line of /proc/locks, if the line describes a `flock` on `file`. Such a
/// line is `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; that of a process that waits for
/// a lock has an arrow before `FLOCK`.
fn holder_in(line: &str, file: &str) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?;
    (fields.next()? == file).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_but_not_a_waiting_process() {
        let file = "fe:00:5678";
        let line = "12: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF";
        assert_eq!(holder_in(line, file), Some(1234));
        assert_eq!(holder_in(line, "fe:00:567"), None);
        for other in [
            "12: -> FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF",
            "12: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF",
            "12: FLOCK",
            "",
        ] {
            assert_eq!(holder_in(other, file), None, "{other}");
        }
    }

    #[test]
    fn the_device_of_a_mount_is_found_by_its_number() {
        let line = "277 27 0:63 / /srv/a\\040b rw,relatime - btrfs /dev/sda1 rw,subvol=/";
        assert_eq!(device_in(line, 277), Some((0, 63)));
        for other in [line, "", "27", "27 27", "27 27 0", "27 27 x:0 / / rw"] {
            assert_eq!(device_in(other, 27), None, "{other}");
        }
    }
}
