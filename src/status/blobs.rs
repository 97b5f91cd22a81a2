//! The state of the slave's blobs: from the sidecar and the gone list, without a walk through the
//! blob directory.
//!
//! The sidecar records which parts of the log have all their blobs. If a part is missing that is
//! short, such as the batch of a pass that is running, it is scanned and its blobs are looked up.

use std::path::PathBuf;

use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::pass::blobs;
use crate::slave::blobs::{BlobDirectory, GoneList};
use crate::slave::paths::SlavePaths;
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::{BlobCoverage, Sidecar};
use crate::slave::snapshot::SlaveSnapshot;
use crate::slave::step::Slave;

/// The length in bytes up to which a part of the log without recorded blobs is scanned.
const MAX_SCANNED_LEN: u64 = 16 * 1024 * 1024;

/// How many blobs are looked up. The others count as missing.
const MAX_LOOKED_UP: u64 = 2_000;

/// Whether passes copy blobs, and which of them the slave has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobStatus {
    /// No pass has met a blob.
    NoneMet,
    /// The log refers to blobs, and passes do not copy them.
    NotReplicated,
    /// Passes have copied blobs to this directory, but the sidecar does not record which.
    Unrecorded(PathBuf),
    /// Passes copy blobs.
    Replicated(ReplicatedBlobs),
}

/// The blobs of a slave whose passes copy them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicatedBlobs {
    /// The slave's blob directory.
    pub directory: PathBuf,
    /// Why that directory cannot be used, for example because it is not mounted.
    pub problem: Option<String>,
    /// Number of blob files.
    pub files: u64,
    /// Their total size in bytes.
    pub bytes: u64,
    /// Number of blobs that the master itself lacks.
    pub absent: u64,
    /// Number of entries in the gone list: blobs that a pack has removed at the master, and that
    /// the slave still keeps.
    pub to_remove: u64,
    /// The part of the log whose blobs were not all copied; `None` if all transactions have their
    /// blobs.
    pub gap: Option<BlobGap>,
}

/// A part of the log whose blobs were not all copied. New transactions are appended after it with
/// their blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobGap {
    /// Its start in bytes: all transactions before it have their blobs.
    pub from: u64,
    /// Its end in bytes.
    pub to: u64,
    /// Whether its blobs were copied, and are being compared with the master again.
    pub is_recheck: bool,
    /// The blobs that are missing; `None` if it is too long to be scanned here.
    pub missing: Option<MissingBlobs>,
}

/// Blobs that the slave lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingBlobs {
    /// Their number.
    pub count: u64,
    /// Whether some of them were not looked up, so that fewer may be missing.
    pub is_upper_bound: bool,
}

impl BlobGap {
    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to - self.from
    }
}

impl BlobStatus {
    /// The blobs, if passes copy them.
    #[must_use]
    pub fn replicated(&self) -> Option<&ReplicatedBlobs> {
        match self {
            Self::Replicated(blobs) => Some(blobs),
            _ => None,
        }
    }

    /// Reads the state of the blobs of a slave in the state of `sample`.
    pub(super) fn look(
        slave: &Slave,
        sidecar: &Sidecar,
        sample: &SlaveSnapshot,
    ) -> Result<Self, Error> {
        let paths = &slave.paths;
        match &sidecar.blobs {
            Some(state) if state.is_on => {
                ReplicatedBlobs::look(slave, state, sample).map(Self::Replicated)
            }
            Some(_) => Ok(Self::NotReplicated),
            None => Ok(match blobs::traces(paths) {
                Some(directory) => Self::Unrecorded(directory),
                None if sidecar.reported.blobs => Self::NotReplicated,
                None => Self::NoneMet,
            }),
        }
    }
}

impl ReplicatedBlobs {
    /// The largest number of blobs that may be missing, apart from those that the master lacks;
    /// `None` if it is not known.
    #[must_use]
    pub fn missing(&self) -> Option<u64> {
        match (&self.problem, self.gap) {
            (Some(_), _) => None,
            (None, None) => Some(0),
            (None, Some(gap)) => gap.missing.map(|missing| missing.count),
        }
    }

    fn look(slave: &Slave, state: &BlobCoverage, sample: &SlaveSnapshot) -> Result<Self, Error> {
        let opened = BlobDirectory::open(&state.directory, &state.id);
        let gap = match (sample.position(), &opened) {
            (Some(position), Ok(directory)) => find_gap(slave, state, sample, position, directory)?,
            _ => None,
        };
        Ok(Self {
            directory: state.directory.clone(),
            problem: opened.err().map(|error| error.display_chain()),
            files: state.files,
            bytes: state.bytes,
            absent: state.absent,
            to_remove: to_remove(&slave.paths)?,
            gap,
        })
    }
}

/// Number of entries in the gone list.
fn to_remove(paths: &SlavePaths) -> Result<u64, Error> {
    Ok(GoneList::open(paths)?.map_or(0, |list| list.len()))
}

/// The part of the log before `position` whose blobs are not all there.
fn find_gap(
    slave: &Slave,
    state: &BlobCoverage,
    sample: &SlaveSnapshot,
    position: u64,
    directory: &BlobDirectory,
) -> Result<Option<BlobGap>, Error> {
    let mut state = state.clone();
    // A pass may have appended transactions since it stored the sidecar.
    state.adapt_to(position);
    if position <= MAGIC_LEN || state.is_complete_at(position) {
        return Ok(None);
    }
    let mut gap = BlobGap {
        from: state.complete,
        to: state.since,
        is_recheck: state.rechecks,
        missing: None,
    };
    let Some(opened) = sample.file.as_ref() else {
        return Ok(Some(gap));
    };
    if gap.bytes() <= MAX_SCANNED_LEN {
        let scan = BlobScan::new(&opened.file, slave.paths.data(), gap.from, gap.to);
        let missing = find_missing(slave, scan, directory)?;
        if missing.count == 0 {
            return Ok(None);
        }
        gap.missing = Some(missing);
    }
    Ok(Some(gap))
}

/// Looks up the blobs of a part of the log.
fn find_missing(
    slave: &Slave,
    mut scan: BlobScan<'_>,
    directory: &BlobDirectory,
) -> Result<MissingBlobs, Error> {
    let mut missing = MissingBlobs::default();
    let mut looked_up = 0;
    while let Some(references) = scan.next_slice()? {
        slave.check_interrupted()?;
        for reference in references.iter().filter(|it| !it.is_optional) {
            if looked_up == MAX_LOOKED_UP {
                missing.count += 1;
                missing.is_upper_bound = true;
                continue;
            }
            looked_up += 1;
            // A file that cannot be opened is missing for ZODB as well.
            if !matches!(directory.stat(reference.key), Ok(Some(_))) {
                missing.count += 1;
            }
        }
    }
    Ok(missing)
}
