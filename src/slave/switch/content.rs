//! Reads the content of a switch and interprets it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::is_out_of_files;
use crate::error::off::{Cause, MAX_LEN, OFF, ON};

/// Time that a shell needs, on an idle machine, between truncating a switch and writing it.
const WRITE_DELAY: Duration = Duration::from_millis(10);

/// Returns the cause for which a switch is off; `None` if it is on, or if it is missing and
/// optional. A symbolic link to a missing file is off in any case: otherwise, removing a
/// switch that several slaves share would switch them on.
pub(super) fn why_off(switch: &Path, must_exist: bool) -> Option<Cause> {
    let mut content = read(switch, must_exist);
    if content.as_ref().is_ok_and(Vec::is_empty) {
        // `echo SYNCING=1 > FILE` truncates the file before it writes it.
        thread::sleep(WRITE_DELAY);
        content = read(switch, must_exist);
    }
    match content {
        Err(error) if error.kind() == ErrorKind::NotFound => must_exist.then_some(Cause::Missing),
        content => interpret(content),
    }
}

fn read(path: &Path, must_exist: bool) -> io::Result<Vec<u8>> {
    // With NOFOLLOW, the error distinguishes a symbolic link from a missing file.
    let flags = if must_exist {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let file = match open(path, flags) {
        Err(error) if is_link(&error) => open(path, OFlags::empty()).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                io::Error::other("it is a symbolic link to a file that does not exist")
            } else {
                error
            }
        })?,
        opened => opened?,
    };
    read_from(&file)
}

/// Opens a switch for reading. Opening a FIFO does not block.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | flags;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Whether opening a file failed because it is a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Whether an open file contains a valid switch.
pub(super) fn is_switch(file: &File) -> bool {
    let content = read_from(file);
    matches!(interpret(content), None | Some(Cause::SwitchedOff))
}

fn read_from(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut content)?;
    if content.is_empty() && !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(content)
}

/// Returns the cause for which a switch with this content is off.
fn interpret(content: io::Result<Vec<u8>>) -> Option<Cause> {
    let content = match content {
        Ok(content) => content,
        Err(error) if is_out_of_files(&error) => {
            return Some(Cause::OutOfFiles(error.to_string()));
        }
        Err(error) => return Some(Cause::Unreadable(error.to_string())),
    };
    // The rest was not read.
    if content.len() as u64 == MAX_LEN {
        return Some(Cause::TooLong);
    }
    // Accept the line end of Windows, and blanks before the end of the line.
    match content.trim_ascii_end() {
        line if line == ON.as_bytes() => None,
        line if line == OFF.as_bytes() => Some(Cause::SwitchedOff),
        [] => Some(Cause::Empty),
        line => Some(Cause::Unexpected(line.escape_ascii().to_string())),
    }
}
