//! Walking through a file of this machine with a scanner.

use std::fs::File;
use std::path::Path;

use crate::error::Error;
use crate::filestorage::scan::{Scanner, Visitor};
use crate::io::read::{AlignedBuf, read_fully};

/// Feeds a file, which lies at `path`, to a scanner from where it stands, until
/// the scanner stops or comes to its limit, as long as `may_go_on`, which is
/// told the offset, says so.
pub(crate) fn scan_file(
    file: &File,
    path: &Path,
    scanner: &mut Scanner,
    check_cancelled: &dyn Fn(u64) -> Result<(), Error>,
    visitor: &mut impl Visitor,
) -> Result<(), Error> {
    const PIECE_LEN: u64 = 1024 * 1024;
    let mut piece = AlignedBuf::default();
    while scanner.stopped().is_none() && scanner.left() > 0 {
        let len = scanner.left().min(PIECE_LEN) as usize;
        let offset = scanner.offset();
        check_cancelled(offset)?;
        let got = read_fully(file, piece.room(len, offset), offset)
            .map_err(Error::io(format!("read at {offset} in"), path))?;
        if got == 0 {
            break;
        }
        let bytes = &piece[..got];
        scanner.feed(bytes, &mut |event| visitor.event(event));
        visitor.bytes(offset, bytes);
    }
    Ok(())
}
