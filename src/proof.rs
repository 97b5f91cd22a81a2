//! Proving by digests that a range has the same bytes on both ends.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::digest::Digest;
use crate::monitor::Monitor;
use crate::source::Master;
use crate::stop::Stop;

/// How many bytes are digested at once: an answer comes in time, and there are
/// signs of progress.
const PIECE_LEN: u64 = 16 * 1024 * 1024;

/// Whether a range of `file`, which lies at `path`, has the same bytes as the
/// master's. Both ends read at the same time; no bytes are sent.
pub(crate) fn is_equal(
    file: &File,
    path: &Path,
    master: &Master,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<bool, Stop> {
    let mut at = range.start;
    while at < range.end {
        let piece = at..range.end.min(at + PIECE_LEN);
        at = piece.end;
        let theirs = master.digest(piece.clone());
        let ours = Digest::of_file(file, piece).map_err(Stop::io("read", path))?;
        let theirs = theirs.wait()?;
        if ours.is_none() || ours != theirs {
            return Ok(false);
        }
        monitor.progress("comparing", at - range.start, range.end - range.start);
    }
    Ok(true)
}
