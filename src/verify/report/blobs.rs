//! The part of the JSON object about blobs. Its keys are API.

use serde::Serialize;

use crate::verify::blobs::{BlobComparison, VerifiedBlobs};

/// The blobs in the JSON object. All values are null if the blobs were not verified.
#[derive(Debug, Default, Serialize)]
pub(super) struct BlobsReport<'a> {
    blob_directory: Option<String>,
    blobs: Option<u64>,
    blob_bytes: Option<u64>,
    blobs_missing: Option<u64>,
    blobs_different: Option<u64>,
    blobs_unreadable: Option<u64>,
    blobs_absent: Option<u64>,
    blobs_not_copied: Option<u64>,
    blobs_unchecked: Option<u64>,
    /// Offset up to which the log was searched for blobs, in bytes.
    blobs_position: Option<u64>,
    blobs_stopped: Option<&'a str>,
    blobs_against: Option<ComparisonReport<'a>>,
    orphans: Option<u64>,
    orphan_bytes: Option<u64>,
    orphan_files: Option<Vec<String>>,
}

/// The comparison with the blobs of a master.
#[derive(Debug, Serialize)]
struct ComparisonReport<'a> {
    directory: &'a str,
    equal: u64,
    master_missing: u64,
    master_different: u64,
    master_unreadable: u64,
    error: Option<&'a str>,
}

impl<'a> BlobsReport<'a> {
    pub(super) fn of(verified: &'a VerifiedBlobs) -> Self {
        let VerifiedBlobs { counts, .. } = verified;
        let orphans = verified.orphans.as_ref();
        let files = orphans.map(|it| it.listed().map(|path| path.display().to_string()));
        Self {
            blob_directory: Some(verified.directory.display().to_string()),
            blobs: Some(counts.files),
            blob_bytes: Some(counts.bytes),
            blobs_missing: Some(counts.missing),
            blobs_different: Some(counts.different),
            blobs_unreadable: Some(counts.unreadable),
            blobs_absent: Some(counts.absent),
            blobs_not_copied: Some(counts.not_copied),
            blobs_unchecked: Some(counts.unchecked),
            blobs_position: Some(verified.position),
            blobs_stopped: verified.early_stop.as_deref(),
            blobs_against: verified.against.as_ref().map(ComparisonReport::of),
            orphans: orphans.map(|it| it.count),
            orphan_bytes: orphans.map(|it| it.bytes),
            orphan_files: files.map(Iterator::collect),
        }
    }
}

impl<'a> ComparisonReport<'a> {
    fn of(against: &'a BlobComparison) -> Self {
        Self {
            directory: &against.directory,
            equal: against.equal,
            master_missing: against.master_missing,
            master_different: against.master_different,
            master_unreadable: against.master_unreadable,
            error: against.failure.as_ref().map(|failure| failure.why.as_str()),
        }
    }
}
