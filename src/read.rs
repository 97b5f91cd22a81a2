//! Reading an open file by positions.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use crate::filestorage::scan::{Event, Scanner};

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_fully(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Feeds a file to a scanner from where it stands, until it stops or comes to
/// its limit.
pub(crate) fn scan_file(
    file: &File,
    scanner: &mut Scanner,
    visit: &mut impl FnMut(Event),
) -> io::Result<()> {
    const PIECE_LEN: u64 = 1024 * 1024;
    let mut buffer = vec![0; scanner.left().min(PIECE_LEN) as usize];
    while scanner.stopped().is_none() && scanner.left() > 0 {
        let len = scanner.left().min(PIECE_LEN) as usize;
        let got = read_fully(file, &mut buffer[..len], scanner.offset())?;
        if got == 0 {
            break;
        }
        scanner.feed(&buffer[..got], visit);
    }
    Ok(())
}
