//! A switch beside the slave that is a symbolic link.
//!
//! The slave's directory may belong to another user, who can put a link to any file there. So
//! nothing is written through a link but a switch, and only if the link belongs to this user,
//! to root, or to the owner of that switch.

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

/// Opens the switch that a link leads to, for writing.
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
            "which belongs to another user than uid {owner}"
        )));
    }
    Ok(file)
}

/// Replaces a link by a switch that is off, at once.
pub(super) fn replace(link: &Path, paths: &SlavePaths) -> Result<File, Error> {
    // An empty file is off as well, so that this needs no space on the disk.
    replace_small_file(paths, Sibling::SwitchNew, link, &[])
}
