//! Joins the entries of a segment, in the way in which a binary counter carries.
//!
//! Two neighbours are joined if the first is less than twice as long as the second. Each entry is
//! therefore at least twice as long as the next one: a segment has few entries, however small the
//! commits are, and a byte is hashed again about twenty times at most before its segment is
//! complete.

use std::fs::File;

use super::{LedgerEntry, segment_end};
use crate::error::Error;
use crate::io::digest::Digest;
use crate::io::read::{AlignedBuf, read_fully};
use crate::slave::paths::SlavePaths;

/// Consecutive entries that become one.
struct Run(Vec<LedgerEntry>);

impl Run {
    fn start(&self) -> u64 {
        self.0.first().map_or(0, |first| first.range.start)
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |last| last.range.end)
    }

    fn len(&self) -> u64 {
        self.end() - self.start()
    }

    /// Whether this run and the next one become one: in a complete segment always.
    fn joins(&self, next: &Self) -> bool {
        let segment_end = segment_end(self.start());
        segment_end == self::segment_end(next.start())
            && (next.end() == segment_end || self.len() < 2 * next.len())
    }
}

/// Joins consecutive entries of `data`, which is the slave. The bytes are read back and checked:
/// if they have changed, their entries are kept, so that `verify` finds the damage.
pub(super) fn join(
    data: &File,
    paths: &SlavePaths,
    entries: Vec<LedgerEntry>,
) -> Result<Vec<LedgerEntry>, Error> {
    let mut runs: Vec<Run> = Vec::new();
    for entry in entries {
        let mut run = Run(vec![entry]);
        while let Some(mut before) = runs.pop_if(|before| before.joins(&run)) {
            before.0.append(&mut run.0);
            run = before;
        }
        runs.push(run);
    }
    let mut joined = Vec::new();
    for run in runs {
        match &run.0[..] {
            [_] => joined.extend(run.0),
            _ => match digest(data, paths, &run)? {
                Some(digest) => joined.push(LedgerEntry {
                    range: run.start()..run.end(),
                    digest,
                }),
                None => joined.extend(run.0),
            },
        }
    }
    Ok(joined)
}

/// The digest of all bytes of a run. `None`, with a warning in the log, if they do not match the
/// entries.
fn digest(data: &File, paths: &SlavePaths, run: &Run) -> Result<Option<Digest>, Error> {
    let start = run.start();
    let mut piece = AlignedBuf::default();
    let room = piece.room(run.len() as usize, start);
    let got = read_fully(data, room, start)
        .map_err(Error::io(format!("read back at {start} in"), paths.data()))?;
    for LedgerEntry { range, digest } in &run.0 {
        let bytes = (range.start - start) as usize..(range.end - start) as usize;
        if got < bytes.end || Digest::of(&piece[bytes]) != *digest {
            tracing::warn!(
                "{}: bytes {} to {} have changed since they were written; run `fssync verify`",
                paths.data().display(),
                range.start,
                range.end
            );
            return Ok(None);
        }
    }
    Ok(Some(Digest::of(&piece)))
}
