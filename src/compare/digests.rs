//! Proving by digests that a range has the same bytes on both ends.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;
use crate::io::digest::Digest;
use crate::io::progress::Monitor;
use crate::slave::ledger::{LedgerEntry, segment_end};
use crate::source::Master;

/// Whether a range of `file`, which lies at `path`, has the same bytes as the
/// master's: then what the ledger is to say of them. Both ends read at the same time,
/// segment by segment; no bytes are sent.
pub(crate) fn prove_equal(
    file: &File,
    path: &Path,
    master: &Master,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<LedgerEntry>>, Error> {
    let ask = |at: u64| {
        let segment = at..range.end.min(segment_end(at));
        (!segment.is_empty()).then(|| (segment.clone(), master.digest(segment)))
    };
    let mut entries = Vec::new();
    let mut asked = ask(range.start);
    while let Some((segment, theirs)) = asked {
        asked = ask(segment.end);
        let ours = Digest::of_file(file, segment.clone()).map_err(Error::io("read", path))?;
        let (Some(ours), Some(theirs)) = (ours, theirs.wait()?) else {
            return Ok(None);
        };
        if ours != theirs {
            return Ok(None);
        }
        let (done, total) = (segment.end - range.start, range.end - range.start);
        monitor.progress("comparing", done, total);
        entries.push(LedgerEntry {
            range: segment,
            digest: theirs,
        });
    }
    Ok(Some(entries))
}
