//! Verifies the slave's blobs: the file of each blob that the log refers to. Only reads.
//!
//! 1. *Which blobs:* read the log and collect the blobs that it refers to (`references`). Not
//!    all of them need be there: passes may still be fetching those of older transactions
//!    (`ranges`).
//! 2. *As they were received:* compare size and digest of each file with the blob ledger.
//! 3. *As they are at the master,* if one is given: both ends compute the digests at the same
//!    time, and only digests are sent.
//! 4. *Files that the log does not refer to,* if that is requested ([`orphans`]).
//!
//! Each file is read once for 2 and 3. `judge` decides about a blob from these facts.
//!
//! Blobs are verified in windows of `WINDOW_LEN`, so their number does not affect the memory.
//! The ledger is read once for each window: its entries have no order. For 10 million blobs, that
//! is 40 times, which takes less time than opening the files.
//!
//! | module | responsibility |
//! | --- | --- |
//! | `open` | which blob directory is verified |
//! | `ranges` | the parts of the log whose blobs must be there |
//! | `references` | the blobs that the log refers to, in windows |
//! | `window` | looks at the files of a window, and asks the master for their digests |
//! | `judge` | decides about one blob |
//! | `findings` | reports the decisions |
//! | [`orphans`] | blob files that the log does not refer to |

mod findings;
mod judge;
mod open;
pub mod orphans;
mod ranges;
mod references;
mod window;

use std::path::PathBuf;

pub use self::open::{BlobSelection, BlobsToVerify};

use self::findings::Tally;
use self::orphans::Orphans;
use self::ranges::ranges;
use self::references::References;
use self::window::{MasterBlobs, WindowCheck};
use super::finding::{Finding, Severity};
use super::{SlaveContent, Verified, changed, check_still_same};
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::io::progress::Monitor;
use crate::plan::Continuity;
use crate::plan::outcome::Exit;
use crate::slave::blobs::BlobState;
use crate::slave::snapshot::file::{self, scan_start};
use crate::slave::step::Slave;
use crate::source::Master;

/// The largest number of blobs that are verified together. They take 64 bytes of memory each.
const WINDOW_LEN: usize = 250_000;

/// The result of a verification of blobs.
#[derive(Clone, Debug)]
pub struct VerifiedBlobs {
    /// The slave's blob directory.
    pub directory: PathBuf,
    /// Offset up to which the log was searched for blobs, in bytes.
    pub position: u64,
    /// Why the rest of the log was not searched; `None` if it was.
    pub early_stop: Option<String>,
    /// Numbers of blobs.
    pub counts: BlobCounts,
    /// The comparison with the master; `None` if there was none.
    pub against: Option<BlobComparison>,
    /// Files that the log does not refer to; `None` if they were not searched for, or the whole
    /// log could not be searched.
    pub orphans: Option<Orphans>,
}

/// Numbers of blobs to which the log refers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobCounts {
    /// Files that are there.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Files that must be there, and are not.
    pub missing: u64,
    /// Files that differ from those that the master sent, or has.
    pub different: u64,
    /// Files that cannot be read.
    pub unreadable: u64,
    /// Blobs that the master does not have either.
    pub absent: u64,
    /// Missing files that passes have not copied yet.
    pub not_copied: u64,
    /// Files of which the ledger has no digest, and that were not compared with the master.
    pub unchecked: u64,
}

impl BlobCounts {
    /// Number of findings that are damage.
    #[must_use]
    pub fn damages(&self) -> u64 {
        self.missing + self.different + self.unreadable
    }
}

/// The result of a comparison with the blobs of a master.
#[derive(Clone, Debug, Default)]
pub struct BlobComparison {
    /// The master's blob directory.
    pub directory: String,
    /// Number of files that are equal at both ends.
    pub equal: u64,
    /// Number of files that the slave has as they were sent, and the master has not any more.
    pub master_different: u64,
    /// Number of files that only the slave has.
    pub master_missing: u64,
    /// Number of files that the master has and cannot read.
    pub master_unreadable: u64,
    /// Why the comparison ended early.
    pub failure: Option<ComparisonFailure>,
}

impl BlobComparison {
    /// Number of files that are damaged at the master.
    #[must_use]
    pub fn master_damages(&self) -> u64 {
        self.master_different + self.master_unreadable
    }
}

/// Why the blobs could not be compared with those of the master.
#[derive(Clone, Debug)]
pub struct ComparisonFailure {
    /// The exit code.
    pub exit: Exit,
    /// The cause.
    pub why: String,
    /// Advice for the administrator.
    pub hint: Option<String>,
}

impl From<&Error> for ComparisonFailure {
    fn from(error: &Error) -> Self {
        Self {
            exit: error.exit(),
            why: error.display_chain(),
            hint: error.hint(),
        }
    }
}

impl VerifiedBlobs {
    /// The exit code of the comparison with the master alone.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.against {
            Some(against) if against.master_damages() > 0 => Exit::MasterDamaged,
            Some(BlobComparison {
                failure: Some(failure),
                ..
            }) => failure.exit,
            _ => Exit::Success,
        }
    }
}

/// A blob that the log refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    key: BlobKey,
    /// Whether ZODB may legitimately have no file.
    is_optional: bool,
    /// Whether passes have copied all blobs of its transaction.
    is_due: bool,
    /// The entry of the ledger, if there is one.
    entry: Option<BlobState>,
}

/// How the blobs of a slave are verified.
#[derive(Clone, Copy)]
pub struct BlobVerification<'a> {
    /// The slave.
    pub slave: &'a Slave,
    /// Look only at the sizes of the files, unless they are compared with a master.
    pub quick: bool,
    /// The master with whose blobs they are compared.
    pub master: Option<&'a Master>,
    /// Receives progress and warnings.
    pub monitor: &'a dyn Monitor,
}

impl BlobVerification<'_> {
    /// Verifies the blobs of a slave that was verified, and adds the result to `verified`. Calls
    /// `report` for each finding. Fails if the slave is replaced or truncated meanwhile, or if
    /// its blobs must not be read.
    pub fn run(
        &self,
        blobs: &BlobsToVerify,
        verified: &mut Verified,
        report: &mut dyn FnMut(&Finding),
    ) -> Result<(), Error> {
        let (Some(seen), SlaveContent::FileStorage) = (verified.seen, verified.content) else {
            return Ok(());
        };
        let slave = self.slave;
        let Some((log, stat)) = file::open(&slave.paths)? else {
            return Err(changed(slave, "it was removed"));
        };
        if !stat.is_same_file(&seen) {
            return Err(changed(slave, "another file has replaced it"));
        }
        // If the log cannot be read there, the verification of the log has reported it.
        let compared = scan_start(&log, &blobs.sidecar);
        let continuity = compared.map_or(Continuity::Unknown, |start| start.continuity);
        let ranges = ranges(verified.position, blobs.expectation(continuity));
        let references = References::new(&log.file, slave.paths.data(), ranges);
        let position = verified.position;
        let mut result = self.check_all(blobs, references, position, &mut |finding| {
            match finding.kind.severity() {
                Severity::Damage => verified.damages += 1,
                Severity::Blemish => verified.blemishes += 1,
            }
            report(&finding);
        })?;
        if blobs.wants_orphans && result.early_stop.is_none() {
            let orphans = blobs.search_orphans(slave, position, self.monitor)?;
            result.orphans = Some(orphans);
        }
        check_still_same(slave, seen, position)?;
        verified.blob_damages = result.counts.damages();
        verified.blobs = Some(result);
        Ok(())
    }

    /// Verifies all blobs to which a log that ends at `end` refers.
    fn check_all(
        &self,
        blobs: &BlobsToVerify,
        mut references: References<'_>,
        end: u64,
        report: &mut dyn FnMut(Finding),
    ) -> Result<VerifiedBlobs, Error> {
        let &Self {
            slave,
            quick,
            master,
            monitor,
        } = self;
        let mut check = WindowCheck {
            directory: &blobs.directory,
            slave,
            quick,
            master: master.zip(blobs.root.as_ref()).map(MasterBlobs::of),
            tally: Tally::default(),
            report,
        };
        loop {
            let from = references.position();
            let mut window = references.next_window(WINDOW_LEN, &|at| {
                monitor.progress("searching the log for blobs", at, end);
                slave.check_interrupted()
            })?;
            if window.is_empty() {
                break;
            }
            blobs.look_up(slave, &mut window, monitor);
            let len = references.position() - from;
            check.run(&window, &|done| {
                let share = len * done as u64 / window.len() as u64;
                monitor.progress("verifying blobs", from + share, end);
            })?;
        }
        let WindowCheck {
            master,
            tally,
            report,
            ..
        } = check;
        tally.report_absent(&blobs.directory, report);
        Ok(VerifiedBlobs {
            directory: blobs.directory.path().to_owned(),
            position: references.position(),
            early_stop: references.early_stop().map(str::to_owned),
            counts: tally.counts,
            against: master.map(|it| it.comparison),
            orphans: None,
        })
    }
}
