//! Scans a local file.

pub mod blobs;

use std::fs::File;
use std::path::Path;

use crate::error::Error;
use crate::filestorage::scan::{Scanner, Visitor};
use crate::io::read::{AlignedBuf, read_fully};

/// Feeds the file at `path` to a scanner, from the scanner's offset until it stops or reaches
/// its limit. Calls `check_cancelled` with the offset before each read, and stops if that
/// fails. The visitor gets all events, and the bytes after their events.
pub(crate) fn scan_file(
    file: &File,
    path: &Path,
    scanner: &mut Scanner,
    check_cancelled: &dyn Fn(u64) -> Result<(), Error>,
    visitor: &mut impl Visitor,
) -> Result<(), Error> {
    let mut buffer = AlignedBuf::default();
    while scanner.stopped().is_none() && scanner.left() > 0 {
        check_cancelled(scanner.offset())?;
        if !scan_piece(file, path, scanner, &mut buffer, visitor)? {
            break;
        }
    }
    Ok(())
}

/// Feeds the next bytes of the file to a scanner. Returns whether there were any: the scan has
/// ended if it stopped, has reached its limit, or the file is shorter.
fn scan_piece(
    file: &File,
    path: &Path,
    scanner: &mut Scanner,
    buffer: &mut AlignedBuf,
    visitor: &mut impl Visitor,
) -> Result<bool, Error> {
    const READ_LEN: u64 = 1024 * 1024;
    let len = scanner.left().min(READ_LEN) as usize;
    if scanner.stopped().is_some() || len == 0 {
        return Ok(false);
    }
    let offset = scanner.offset();
    let got = read_fully(file, buffer.room(len, offset), offset)
        .map_err(Error::io(format!("read at {offset} in"), path))?;
    let bytes = &buffer[..got];
    scanner.feed(bytes, &mut |event| visitor.event(event));
    visitor.bytes(offset, bytes);
    Ok(got > 0)
}
