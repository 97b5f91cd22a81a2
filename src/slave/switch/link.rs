//! A switch beside the slave that is a symbolic link.
//!
//! The slave's directory may belong to another user, who can create a link to any file there.
//! Therefore a file is written through a link only if
//!
//! 1. it is a switch with valid content, and
//! 2. the link belongs to this user, to root, or to the owner of that switch.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::content::is_switch;
use crate::error::Error;
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::small_file::replace_small_file;

/// Opens the switch that a link points to for writing.
pub(super) fn open(link: &Path) -> io::Result<File> {
    let refuse = |why: String| {
        let target = fs::read_link(link).unwrap_or_default();
        let target = target.display();
        io::Error::other(format!("it is a symbolic link to {target}, {why}"))
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(link)
        .map_err(|error| refuse(format!("which cannot be written ({error})")))?;
    let target = file.metadata()?;
    let owner = fs::symlink_metadata(link)?.uid();
    let is_trusted = [0, geteuid().as_raw(), target.uid()].contains(&owner);
    if !target.is_file() || !is_switch(&file) {
        return Err(refuse("which is not a switch".to_owned()));
    }
    if !is_trusted {
        return Err(refuse(format!(
            "which does not belong to uid {owner}, the owner of the link"
        )));
    }
    Ok(file)
}

/// Atomically replaces a link with a switch that is off.
pub(super) fn replace(link: &Path, paths: &SlavePaths) -> Result<File, Error> {
    // An empty file is off as well, so that this needs no space on the disk.
    replace_small_file(paths, Sibling::SwitchNew, link, &[])
}
