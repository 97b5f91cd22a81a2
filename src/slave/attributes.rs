//! Extended attributes of the slave, which are copied to the files beside it.
//!
//! | attribute | meaning |
//! | --- | --- |
//! | `system.posix_acl_access` | access rights beyond owner and mode |
//! | `system.nfs4_acl`, `system.nfs4_acl_xdr`, `system.richacl` | the same, on file systems that have them |
//! | `security.*` | mandatory access control, for example the label of SELinux |
//! | `user.*` | anything that a user has set |
//!
//! All others are not copied, nor are `security.ima` and `security.evm`, which depend on the
//! content of the file.
//!
//! If a file has a POSIX ACL, the group bits of its mode are the mask of the ACL. A file with
//! the same mode but without the ACL could grant its group more than the ACL does. If the ACL
//! cannot be set, the mode is therefore reduced to the permissions that the ACL grants to
//! every user of a class.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

const POSIX_ACL: &CStr = c"system.posix_acl_access";
const OTHER_ACLS: [&CStr; 3] = [
    c"system.nfs4_acl",
    c"system.nfs4_acl_xdr",
    c"system.richacl",
];
const CONTENT_DEPENDENT: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// Maximum length of a list of names or of a value, in bytes (Linux's `XATTR_LIST_MAX`).
const MAX_LEN: usize = 64 * 1024;

/// Initial size of the buffer, in bytes.
const USUAL_LEN: usize = 1024;

/// The attributes of a file that are copied.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<(CString, Vec<u8>)>);

/// The result of setting attributes on a file.
#[derive(Debug)]
pub struct Applied {
    /// Permission bits that the file may have.
    pub mode: u32,
    /// Attributes that could not be set, with the errors.
    pub lost: Vec<(CString, io::Error)>,
}

impl Attributes {
    /// Reads the attributes of a file, without following a symbolic link. A missing file, or
    /// one on a file system without attributes, has none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let names = match read(|buffer| llistxattr(path, buffer)) {
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOENT) => return Ok(Self::default()),
            names => names?,
        };
        let mut found = Vec::new();
        for name in names.split_inclusive(|&byte| byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            if !is_copied(name) {
                continue;
            }
            match read(|buffer| lgetxattr(path, name, buffer)) {
                Ok(value) => found.push((name.to_owned(), value)),
                Err(error) if is_acl(name) && error != Errno::NODATA => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(Self(found))
    }

    /// Sets the attributes on a file to which nobody else has access yet, and removes an ACL
    /// that it inherited from its directory. `mode` are the permission bits of the file that
    /// the attributes were read from.
    pub fn apply(&self, file: &File, mode: u32) -> io::Result<Applied> {
        let mut applied = Applied {
            mode,
            lost: Vec::new(),
        };
        if !self.0.iter().any(|(name, _)| **name == *POSIX_ACL) {
            remove_acl(file)?;
        }
        for (name, value) in &self.0 {
            let set = fsetxattr(file, &**name, value, XattrFlags::empty());
            let Err(error) = set else {
                continue;
            };
            // The kernel may have set the same label itself, for example SELinux.
            let has_it = read(|buffer| fgetxattr(file, &**name, buffer));
            if has_it.is_ok_and(|found| found == *value) {
                continue;
            }
            if **name == *POSIX_ACL {
                remove_acl(file)?;
                applied.mode &= granted_to_all(value);
            } else if is_acl(name) {
                applied.mode &= OWNERS;
            }
            applied.lost.push((name.clone(), error.into()));
        }
        Ok(applied)
    }
}

fn is_acl(name: &CStr) -> bool {
    name == POSIX_ACL || OTHER_ACLS.contains(&name)
}

fn is_copied(name: &CStr) -> bool {
    let is_in = |space: &[u8]| name.to_bytes().starts_with(space);
    is_acl(name) || is_in(b"user.") || is_in(b"security.") && !CONTENT_DEPENDENT.contains(&name)
}

fn remove_acl(file: &File) -> io::Result<()> {
    match fremovexattr(file, POSIX_ACL) {
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Reads a list or a value with a buffer that is large enough.
fn read(read_into: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; USUAL_LEN];
    let len = match read_into(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_LEN, 0);
            read_into(&mut buffer)?
        }
        len => len?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

/// The bits of a mode that apply to the owner.
const OWNERS: u32 = 0o7700;

/// Lengths of an ACL's header and of each entry, in bytes.
const ACL_HEADER_LEN: usize = 4;
const ACL_ENTRY_LEN: usize = 8;
const ACL_VERSION: u32 = 2;

/// Tags of the entries.
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The permission bits with which a file without an ACL grants nobody more than a file with
/// this ACL. An ACL that cannot be decoded grants access to the owner only.
///
/// Format, all integers little-endian: a version (4 bytes), then entries of a tag (2),
/// permissions (2) and an id (4).
fn granted_to_all(acl: &[u8]) -> u32 {
    let Some((version, entries)) = acl.split_first_chunk::<ACL_HEADER_LEN>() else {
        return OWNERS;
    };
    let (entries, rest) = entries.as_chunks::<ACL_ENTRY_LEN>();
    if u32::from_le_bytes(*version) != ACL_VERSION || !rest.is_empty() {
        return OWNERS;
    }
    let entries: Vec<(u16, u32)> = entries
        .iter()
        .map(|&[tag0, tag1, low, high, ..]| {
            let permissions = u16::from_le_bytes([low, high]);
            (u16::from_le_bytes([tag0, tag1]), u32::from(permissions))
        })
        .collect();
    // The permissions that every entry with one of these tags grants.
    let all = |tags: &[u16]| {
        let granted = entries.iter().filter(|(tag, _)| tags.contains(tag));
        granted.fold(0o7, |all, (_, permissions)| all & permissions)
    };
    // Without the ACL, a named user counts as a member of the group if he is one. All other
    // named users, and the members of named groups, count as others.
    OWNERS | all(&[USER, GROUP_OBJ, MASK]) << 3 | all(&[USER, GROUP, MASK, OTHER])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut acl = ACL_VERSION.to_le_bytes().to_vec();
        for (tag, permissions) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(u32::MAX.to_le_bytes());
        }
        acl
    }

    /// User `u`, named user `n`, group `g`, named group `m`, mask `k`, others `o`.
    fn granted(entries: &[(char, u16)]) -> u32 {
        let tag = |of: char| match of {
            'u' => 0x01,
            'n' => 0x02,
            'g' => 0x04,
            'm' => 0x08,
            'k' => 0x10,
            _ => 0x20,
        };
        let entries: Vec<_> = entries.iter().map(|&(of, may)| (tag(of), may)).collect();
        granted_to_all(&acl(&entries)) & 0o777
    }

    #[test]
    fn a_mode_grants_nobody_more_than_the_acl() {
        let named_user = [('u', 6), ('n', 4), ('g', 0), ('k', 4), ('o', 0)];
        assert_eq!(granted(&named_user), 0o700);
        let denied_user = [('u', 6), ('n', 0), ('g', 4), ('k', 4), ('o', 4)];
        assert_eq!(granted(&denied_user), 0o700);
        let denied_group = [('u', 6), ('g', 6), ('m', 0), ('k', 6), ('o', 4)];
        assert_eq!(granted(&denied_group), 0o760);
        let masked = [('u', 6), ('g', 6), ('m', 6), ('k', 4), ('o', 0)];
        assert_eq!(granted(&masked), 0o740);
    }

    #[test]
    fn an_acl_that_cannot_be_read_grants_the_owner_alone() {
        let whole = acl(&[(1, 7), (4, 7), (0x20, 7)]);
        assert_eq!(granted_to_all(&whole) & 0o777, 0o777);
        for len in [0, 3, 5, whole.len() - 1] {
            assert_eq!(granted_to_all(&whole[..len]), OWNERS, "{len}");
        }
        let mut newer = whole;
        newer[0] = 3;
        assert_eq!(granted_to_all(&newer), OWNERS);
    }
}
