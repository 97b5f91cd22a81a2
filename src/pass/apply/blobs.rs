//! The blobs of the transactions that are being copied.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::Apply;
use crate::blobs::{BlobFetcher, Fetched};
use crate::error::Error;
use crate::filestorage::blob::{BlobCandidate, BlobReference, CandidateData};
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::slave::sidecar::Sidecar;

/// The number of blobs in a batch at which it ends, at the next transaction boundary. A pass that
/// is interrupted later keeps the transactions of the batch.
const MAX_IN_BATCH: u64 = 4096;

/// Follows the blobs of the transactions that are being copied. If the pass copies blobs, it
/// fetches them; otherwise it only notices that there are some.
pub(super) struct BlobTransfer<'a> {
    fetcher: Option<BlobFetcher<'a>>,
    has_met_blobs: bool,
    /// Number of blobs since the last batch.
    in_batch: u64,
    /// Totals over all batches.
    fetched: Fetched,
}

impl BlobTransfer<'_> {
    /// Takes the candidates of complete transactions whose bytes are in `file`, the slave or a
    /// copy at `path`. Fetches blobs once there are enough for a group.
    pub(super) fn take(
        &mut self,
        candidates: Vec<BlobCandidate>,
        file: &File,
        path: &Path,
    ) -> Result<(), Error> {
        for reference in self.resolve(candidates, file, path)? {
            self.want(reference)?;
        }
        Ok(())
    }

    /// The blobs among these candidates. If the pass does not copy blobs, only notes whether there
    /// are some, and returns none.
    pub(super) fn resolve(
        &mut self,
        candidates: Vec<BlobCandidate>,
        file: &File,
        path: &Path,
    ) -> Result<Vec<BlobReference>, Error> {
        let is_blob = |candidate: &BlobCandidate| candidate.data == CandidateData::Pickle;
        self.has_met_blobs |= candidates.iter().any(is_blob);
        if self.fetcher.is_none() {
            return Ok(Vec::new());
        }
        let resolved = candidates
            .into_iter()
            .map(|candidate| resolve(candidate, file, path));
        resolved.filter_map(Result::transpose).collect()
    }

    /// Takes a blob that the log refers to.
    pub(super) fn want(&mut self, reference: BlobReference) -> Result<(), Error> {
        self.in_batch += 1;
        self.fetcher
            .as_mut()
            .map_or(Ok(()), |fetcher| fetcher.want(reference))
    }

    /// Whether the pass copies blobs.
    pub(super) fn copies(&self) -> bool {
        self.fetcher.is_some()
    }

    /// Whether there are blobs that the pass does not copy.
    pub(super) fn ignores_blobs(&self) -> bool {
        self.has_met_blobs && self.fetcher.is_none()
    }

    /// Whether the batch has so many blobs that it must end at the next boundary.
    pub(super) fn is_full(&self) -> bool {
        self.fetcher.is_some() && self.in_batch >= MAX_IN_BATCH
    }

    /// Fetches the rest of the blobs. All of them are durable afterwards.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.in_batch = 0;
        self.fetcher.as_mut().map_or(Ok(()), BlobFetcher::fetch)
    }

    /// Records in the sidecar that the slave has the blobs of all transactions since the last
    /// batch, up to `position`.
    pub(super) fn record_batch(&mut self, sidecar: &mut Sidecar, position: u64) {
        let Some(fetched) = self.take_fetched() else {
            return;
        };
        if let Some(state) = &mut sidecar.blobs {
            state.append_to(position, fetched.undigested == 0);
            state.add(fetched.files, fetched.bytes, fetched.absent);
        }
    }

    /// Numbers of blobs since the last call; `None` if the pass does not copy blobs.
    pub(super) fn take_fetched(&mut self) -> Option<Fetched> {
        let fetched = self.fetcher.as_mut()?.take_fetched();
        self.fetched.add(fetched);
        Some(fetched)
    }

    /// Sets the numbers of blobs in a report: those of all calls of
    /// [`take_fetched`](Self::take_fetched).
    pub(super) fn add_to(&self, copied: &mut Copied) {
        copied.blobs = self.fetched.received.files;
        copied.blob_bytes = self.fetched.received.bytes;
        copied.blobs_absent = self.fetched.absent;
    }
}

/// Decides whether a candidate is a blob, by following its back pointers.
///
/// This is not in a step: `fssync off`, or a ZODB that opens the slave, may truncate the batch that
/// contains the candidate. That is [`Error::SlaveChanged`], after which the survey starts again.
fn resolve(
    candidate: BlobCandidate,
    file: &File,
    path: &Path,
) -> Result<Option<BlobReference>, Error> {
    let mut file = file;
    candidate
        .resolve(&mut file)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::SlaveChanged {
                slave: path.to_owned(),
                what: "it was truncated".to_owned(),
            },
            _ => Error::io(format!("read before {} in", candidate.position), path)(error),
        })
}

impl<'a> Apply<'a> {
    /// Follows the blobs of the transactions that this pass copies. They become durable in groups
    /// of this length. Files that are in place are compared by their digests if this pass, or an
    /// interrupted one, has `--recheck-blobs`.
    pub(super) fn blob_transfer(
        &self,
        survey: &'a Survey,
        sidecar: &Sidecar,
        group_len: usize,
    ) -> BlobTransfer<'a> {
        let is_begun = sidecar.blobs.as_ref().is_some_and(|state| state.rechecks);
        let fetcher = self.blobs.map(|blobs| {
            let ends = blobs.ends(self.slave, self.master, &survey.master_stat);
            BlobFetcher::new(ends, group_len, self.monitor)
                .in_batches(self.tuning.blob_batch_len)
                .comparing_digests(is_begun || blobs.options.recheck)
                .unproven(blobs.is_unproven)
        });
        BlobTransfer {
            fetcher,
            has_met_blobs: false,
            in_batch: 0,
            fetched: Fetched::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filestorage::Tid;
    use crate::filestorage::blob::BlobKey;

    #[test]
    fn a_candidate_in_a_truncated_batch_starts_a_new_survey() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Data.fs");
        std::fs::write(&path, b"FS30").unwrap();
        let candidate = BlobCandidate {
            key: BlobKey {
                tid: Tid(9),
                oid: 1,
            },
            position: 200,
            data: CandidateData::Back(40),
        };
        let file = File::open(&path).unwrap();
        let error = resolve(candidate, &file, &path).unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
}
