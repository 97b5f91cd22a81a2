//! Scans a local file.

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
    const READ_LEN: u64 = 1024 * 1024;
    let mut buffer = AlignedBuf::default();
    while scanner.stopped().is_none() && scanner.left() > 0 {
        let len = scanner.left().min(READ_LEN) as usize;
        let offset = scanner.offset();
        check_cancelled(offset)?;
        let got = read_fully(file, buffer.room(len, offset), offset)
            .map_err(Error::io(format!("read at {offset} in"), path))?;
        if got == 0 {
            break;
        }
        let bytes = &buffer[..got];
        scanner.feed(bytes, &mut |event| visitor.event(event));
        visitor.bytes(offset, bytes);
    }
    Ok(())
}
