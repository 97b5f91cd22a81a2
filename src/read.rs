//! Reading an open file by positions.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::filestorage::backward::ReadAt;
use crate::filestorage::scan::{Event, Scanner};
use crate::stop::Stop;

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

impl ReadAt for &File {
    type Error = io::Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(*self, buffer, offset)
    }
}

/// Feeds a file, which lies at `path`, to a scanner from where it stands, until
/// the scanner stops or comes to its limit, as long as `may_go_on` says so.
pub(crate) fn scan_file(
    file: &File,
    path: &Path,
    scanner: &mut Scanner,
    may_go_on: &dyn Fn() -> Result<(), Stop>,
    visit: &mut impl FnMut(Event),
) -> Result<(), Stop> {
    const PIECE_LEN: u64 = 1024 * 1024;
    let mut buffer = vec![0; scanner.left().min(PIECE_LEN) as usize];
    while scanner.stopped().is_none() && scanner.left() > 0 {
        may_go_on()?;
        let len = scanner.left().min(PIECE_LEN) as usize;
        let offset = scanner.offset();
        let got = read_fully(file, &mut buffer[..len], offset)
            .map_err(Stop::io(format!("read at {offset} in"), path))?;
        if got == 0 {
            break;
        }
        scanner.feed(&buffer[..got], visit);
    }
    Ok(())
}
