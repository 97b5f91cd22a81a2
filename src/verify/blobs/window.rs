//! Looks at the files of a window of blobs, and asks the master for their digests.
//!
//! The master computes its digests while the slave's files are read here.

use std::io::ErrorKind;
use std::iter;

use super::findings::{self, Tally};
use super::judge::{Judgement, Ours, Theirs, judge};
use super::{BlobComparison, ComparisonFailure, Wanted};
use crate::error::retry::Retry;
use crate::error::{Error, is_out_of_files};
use crate::filestorage::blob::BlobKey;
use crate::slave::blobs::{BlobDirectory, BlobState};
use crate::slave::step::Slave;
use crate::source::blobs::{BlobDigestAnswer, BlobFailure, BlobRoot, MAX_WANTS};
use crate::source::{self, Master, Pending};
use crate::verify::finding::Finding;

/// The total size of the files of one request to the master, in bytes, except for a file that is
/// larger by itself. An interruption does not wait for more than one request.
const BATCH_LEN: u64 = 256 * 1024 * 1024;

/// The master's blobs, with which the slave's are compared.
pub(super) struct MasterBlobs<'a> {
    master: &'a Master,
    root: BlobRoot,
    pub(super) comparison: BlobComparison,
}

impl<'a> MasterBlobs<'a> {
    /// The blobs of a master in this directory.
    pub(super) fn of((master, root): (&'a Master, &BlobRoot)) -> Self {
        Self {
            master,
            root: root.clone(),
            comparison: BlobComparison {
                directory: root.directory.clone(),
                ..BlobComparison::default()
            },
        }
    }

    /// Requests the digests of these blobs, unless an earlier request has failed.
    fn request(&self, keys: &[BlobKey]) -> Option<PendingDigests> {
        let is_usable = self.comparison.failure.is_none() && !keys.is_empty();
        is_usable.then(|| self.master.blob_digests(self.root.clone(), keys.to_vec()))
    }

    /// Waits for the answer to a request, and repeats the request after a transient error. The
    /// blobs are not compared any more after another error, except that an interruption is
    /// returned.
    fn answer(&mut self, request: PendingDigests, keys: &[BlobKey]) -> Result<Vec<Theirs>, Error> {
        let mut retry = Retry::default();
        let mut answer = request.wait();
        loop {
            let error = match answer {
                Ok(answers) => match self.read(answers) {
                    Ok(theirs) => return Ok(theirs),
                    Err(error) => error,
                },
                Err(source::Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => error.into(),
            };
            if let Err(error) = retry.wait_if_transient(error) {
                self.comparison.failure = Some(ComparisonFailure::from(&error));
                return Ok(Vec::new());
            }
            let request = self.master.blob_digests(self.root.clone(), keys.to_vec());
            answer = request.wait();
        }
    }

    /// The state of the master's files. A file that cannot be read is a finding. Fails if the
    /// reader may not read a file, or if one has changed while it was read.
    fn read(&self, answers: Vec<BlobDigestAnswer>) -> Result<Vec<Theirs>, Error> {
        let theirs = answers.into_iter().map(|answer| match answer {
            BlobDigestAnswer::Absent => Ok(Theirs::Missing),
            BlobDigestAnswer::Digested(digest) => Ok(Theirs::Present(digest)),
            BlobDigestAnswer::Failed {
                kind: BlobFailure::Unreadable,
                why,
            } => Ok(Theirs::Unreadable(why)),
            BlobDigestAnswer::Failed { kind, why } => {
                Err(Error::of_blob(self.master.name(), kind, why))
            }
        });
        theirs.collect()
    }

    /// Counts the result of one comparison.
    fn count(&mut self, judgement: &Judgement, theirs: &Theirs) {
        let counts = &mut self.comparison;
        match (theirs, judgement) {
            (Theirs::Unknown, _) => {}
            (Theirs::Unreadable(_), _) => counts.master_unreadable += 1,
            (_, Judgement::Sound { .. }) => counts.equal += 1,
            (_, Judgement::OnlyHere) => counts.master_missing += 1,
            (_, Judgement::MasterShorter { .. } | Judgement::MasterChanged { .. }) => {
                counts.master_different += 1;
            }
            _ => {}
        }
    }
}

type PendingDigests = Pending<Vec<BlobDigestAnswer>>;

/// Verifies the blobs of one window after the other.
pub(super) struct WindowCheck<'a> {
    pub(super) directory: &'a BlobDirectory,
    pub(super) slave: &'a Slave,
    /// Whether the content of the files is not read, unless it is compared with the master.
    pub(super) quick: bool,
    pub(super) master: Option<MasterBlobs<'a>>,
    pub(super) tally: Tally,
    pub(super) report: &'a mut dyn FnMut(Finding),
}

impl WindowCheck<'_> {
    /// Verifies the blobs of a window. Calls `progress` with the number of those that are done.
    pub(super) fn run(&mut self, window: &[Wanted], progress: &dyn Fn(usize)) -> Result<(), Error> {
        let mut done = 0;
        while done < window.len() {
            let files = self.look_at(&window[done..])?;
            let batch = &window[done..done + files.len()];
            self.verify_batch(batch, files)?;
            done += batch.len();
            progress(done);
        }
        Ok(())
    }

    /// Looks at the files of the next batch, without reading them.
    fn look_at(&self, window: &[Wanted]) -> Result<Vec<Ours>, Error> {
        let mut files = Vec::new();
        let mut len = 0;
        for wanted in window.iter().take(MAX_WANTS) {
            self.slave.check_interrupted()?;
            files.push(match self.directory.stat(wanted.key) {
                Ok(None) => Ours::Missing,
                Ok(Some(found)) => {
                    len += found.size;
                    let (size, digest) = (found.size, None);
                    Ours::Present { size, digest }
                }
                Err(error) => unreadable(error)?,
            });
            if len >= BATCH_LEN {
                break;
            }
        }
        Ok(files)
    }

    fn verify_batch(&mut self, batch: &[Wanted], mut files: Vec<Ours>) -> Result<(), Error> {
        let keys: Vec<BlobKey> = batch.iter().map(|wanted| wanted.key).collect();
        let request = self.master.as_ref().and_then(|it| it.request(&keys));
        let is_compared = request.is_some();
        for (wanted, file) in batch.iter().zip(&mut files) {
            self.digest(wanted, file, is_compared)?;
        }
        // A blob directory that was unmounted meanwhile has lost no blob.
        if files.contains(&Ours::Missing) {
            self.directory.check_in_place()?;
        }
        let theirs = match (request, &mut self.master) {
            (Some(request), Some(master)) => master.answer(request, &keys)?,
            _ => Vec::new(),
        };
        let theirs = theirs.into_iter().chain(iter::repeat(Theirs::Unknown));
        for ((wanted, ours), theirs) in batch.iter().zip(files).zip(theirs) {
            self.tally.add_file(&ours);
            let judgement = judge(wanted, ours, &theirs);
            if let Some(master) = &mut self.master {
                master.count(&judgement, &theirs);
            }
            self.tally
                .add(judgement, wanted.key, self.directory, self.report);
            if let Theirs::Unreadable(why) = theirs {
                findings::report_master_unreadable(why, wanted.key, self.directory, self.report);
            }
        }
        Ok(())
    }

    /// Reads a file and adds its digest, if that is needed.
    fn digest(&self, wanted: &Wanted, file: &mut Ours, is_compared: bool) -> Result<(), Error> {
        let Ours::Present { size, digest } = file else {
            return Ok(());
        };
        let is_of_other_size = matches!(
            wanted.entry,
            Some(BlobState::Present { size: expected, .. }) if expected != *size
        );
        if is_of_other_size || (self.quick && !is_compared) {
            return Ok(());
        }
        let check_cancelled = || self.slave.check_interrupted();
        *file = match self.directory.digest(wanted.key, &check_cancelled) {
            Ok(Some(found)) => {
                *digest = Some(found);
                return Ok(());
            }
            Ok(None) if self.directory.stat(wanted.key)?.is_none() => Ours::Missing,
            Ok(None) => Ours::Unreadable("it was truncated while it was read".to_owned()),
            Err(error) => unreadable(error)?,
        };
        Ok(())
    }
}

/// A file that cannot be read. Fails if the file is not the cause: the verification was
/// interrupted, may not read the files, or has too many open.
fn unreadable(error: Error) -> Result<Ours, Error> {
    let is_of_file = match &error {
        Error::Io { source, .. } => {
            source.kind() != ErrorKind::PermissionDenied && !is_out_of_files(source)
        }
        _ => false,
    };
    if is_of_file {
        Ok(Ours::Unreadable(error.display_chain()))
    } else {
        Err(error)
    }
}
