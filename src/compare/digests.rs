//! Compares ranges of the slave with the master by their digests, without sending their bytes.
//! It reads both files and writes neither.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;
use crate::io::digest::Digest;
use crate::io::progress::Monitor;
use crate::slave::ledger::{LedgerEntry, segment_end};
use crate::source::{Master, Pending};

/// The digest of a range of the slave, and the pending digest of the same range of the master.
pub(crate) struct DigestPair {
    slave: Option<Digest>,
    master: Pending<Option<Digest>>,
}

impl DigestPair {
    /// A digest is `None` if its file does not contain the whole range.
    pub(crate) fn new(slave: Option<Digest>, master: Pending<Option<Digest>>) -> Self {
        Self { slave, master }
    }

    /// Waits for the master. Returns the digest if it is the same in both files, else `None`.
    pub(crate) fn common(self) -> Result<Option<Digest>, Error> {
        let master = self.master.wait()?;
        Ok(self.slave.filter(|slave| master.as_ref() == Some(slave)))
    }
}

/// A segment, or a part of one, that was compared.
pub(crate) struct Segment {
    /// Its offsets in both files, in bytes.
    pub(crate) range: Range<u64>,
    /// Its digest if the bytes are equal, else `None`.
    pub(crate) digest: Option<Digest>,
}

/// Compares a range in the segments of the ledger. The digest of the next segment is requested
/// before this one is read, so that both machines read at the same time.
pub(crate) struct Segments<'a> {
    master: &'a Master,
    remaining: Range<u64>,
    requested: Option<(Range<u64>, Pending<Option<Digest>>)>,
}

impl<'a> Segments<'a> {
    /// Requests the digest of the first segment of `range`.
    pub(crate) fn new(master: &'a Master, range: Range<u64>) -> Self {
        let mut segments = Self {
            master,
            remaining: range,
            requested: None,
        };
        segments.requested = segments.request();
        segments
    }

    /// Compares the next segment, whose digest `slave_digest` computes from the slave. Returns
    /// `None` at the end of the range.
    pub(crate) fn next(
        &mut self,
        slave_digest: impl FnOnce(Range<u64>) -> Result<Option<Digest>, Error>,
    ) -> Result<Option<Segment>, Error> {
        let Some((range, master)) = self.requested.take() else {
            return Ok(None);
        };
        self.requested = self.request();
        let slave = slave_digest(range.clone())?;
        let digest = DigestPair::new(slave, master).common()?;
        Ok(Some(Segment { range, digest }))
    }

    fn request(&mut self) -> Option<(Range<u64>, Pending<Option<Digest>>)> {
        let Range { start, end } = self.remaining;
        if start >= end {
            return None;
        }
        let segment = start..end.min(segment_end(start));
        self.remaining.start = segment.end;
        Some((segment.clone(), self.master.digest(segment)))
    }
}

/// Proves that a range of `file` has the same bytes as the master. Returns the digests for the
/// ledger, or `None` at the first segment that differs. `path` is for errors.
pub(crate) fn prove_equal(
    file: &File,
    path: &Path,
    master: &Master,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<LedgerEntry>>, Error> {
    let (start, end) = (range.start, range.end);
    let entries = prove_prefix(file, path, master, range, monitor)?;
    let proven = entries.last().map_or(start, |last| last.range.end);
    Ok((proven >= end).then_some(entries))
}

/// Compares a range of `file` with the master up to the first segment that differs. Returns the
/// digests of the segments before it. `path` is for errors.
pub(crate) fn prove_prefix(
    file: &File,
    path: &Path,
    master: &Master,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<Vec<LedgerEntry>, Error> {
    let mut entries = Vec::new();
    let mut segments = Segments::new(master, range.clone());
    let digest = |range| Digest::of_file(file, range).map_err(Error::io("read", path));
    while let Some(Segment { range: at, digest }) = segments.next(digest)? {
        let Some(digest) = digest else {
            break;
        };
        monitor.progress("comparing", at.end - range.start, range.end - range.start);
        entries.push(LedgerEntry { range: at, digest });
    }
    Ok(entries)
}
