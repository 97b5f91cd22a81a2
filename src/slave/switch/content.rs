//! What a switch contains, and what that means.

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

/// How long it takes at most, on an idle machine, to write a switch that was emptied.
const WRITING: Duration = Duration::from_millis(10);

/// Why a switch is off; `None` if it is on, or if it is missing and need not exist. A link
/// to a file that does not exist is missing only if the switch must exist: else it would be on.
pub(super) fn why_off(switch: &Path, must_exist: bool) -> Option<Cause> {
    let mut content = read(switch, must_exist);
    if content.as_ref().is_ok_and(Vec::is_empty) {
        // A shell empties it before `echo` writes it.
        thread::sleep(WRITING);
        content = read(switch, must_exist);
    }
    match content {
        Err(error) if error.kind() == ErrorKind::NotFound => must_exist.then_some(Cause::Missing),
        content => judge(content),
    }
}

fn read(path: &Path, must_exist: bool) -> io::Result<Vec<u8>> {
    // One call tells a missing file from a link.
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

/// Opens a switch for reading. A FIFO is not waited for.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | flags;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Whether a file was not opened because it is a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Whether an open file is a switch that says on or off.
pub(super) fn is_switch(file: &File) -> bool {
    let content = read_from(file);
    matches!(judge(content), None | Some(Cause::SwitchedOff))
}

fn read_from(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut content)?;
    if content.is_empty() && !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(content)
}

/// Why a switch with this content is not on.
fn judge(content: io::Result<Vec<u8>>) -> Option<Cause> {
    let content = match content {
        Ok(content) => content,
        Err(error) if is_out_of_files(&error) => {
            return Some(Cause::OutOfFiles(error.to_string()));
        }
        Err(error) => return Some(Cause::Unreadable(error.to_string())),
    };
    // More was not read, and may say something else.
    if content.len() as u64 == MAX_LEN {
        return Some(Cause::TooLong);
    }
    // An editor may end the line as on Windows, and `echo` may leave blanks.
    match content.trim_ascii_end() {
        line if line == ON.as_bytes() => None,
        line if line == OFF.as_bytes() => Some(Cause::SwitchedOff),
        [] => Some(Cause::Empty),
        line => Some(Cause::Unexpected(line.escape_ascii().to_string())),
    }
}
