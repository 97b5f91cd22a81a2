//! Completes the blob ledger.
//!
//! The ledger gets a digest when a blob arrives, or is compared by its digest. A blob that was
//! recognised by its size and time has none, and a power cut can lose the last entries. The master
//! is asked for those: it computes the digests that the files should have, whatever the slave has.
//!
//! A blob that the master cannot read gets no entry, and does not keep the others from theirs.
//!
//! The log is searched for such blobs in windows, for a limited time in each pass. The sidecar
//! records up to which position that is done, so each part of the log is searched once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::BlobEnds;
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::io::progress::Monitor;
use crate::slave::blobs::{BlobEntry, BlobLedger, BlobState};
use crate::slave::paths::{self, OpenMode};
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::Sidecar;
use crate::source::Master;
use crate::source::blobs::{BlobDigestAnswer, BlobRoot};

/// How long a pass asks for digests.
pub const PASS_BUDGET: Duration = Duration::from_secs(1);

/// How long a pass of a watch asks for digests; the next commit waits meanwhile.
pub const WATCH_BUDGET: Duration = Duration::from_millis(50);

/// How many blobs are looked up in the ledger at once. They take some 40 bytes of memory each.
const WINDOW_LEN: usize = 100_000;

/// How many digests are requested at once.
const REQUEST_LEN: usize = 64;

/// Asks the master for digests that the ledger lacks, for as long as `budget`. Stores the progress
/// in the sidecar.
pub fn complete(
    ends: BlobEnds<'_>,
    sidecar: &mut Sidecar,
    budget: Duration,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let Some(state) = &mut sidecar.blobs else {
        return Ok(());
    };
    if state.digested >= state.complete {
        return Ok(());
    }
    let started = Instant::now();
    let paths = &ends.slave.paths;
    let path = paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut scan = BlobScan::new(&file, path, state.digested, state.complete);
    let mut ledger = BlobLedger::open_or_create(ends.slave, ends.directory)?;
    let mut window = BTreeSet::new();
    let has_ended = loop {
        ends.slave.check_cancelled()?;
        let Some(references) = scan.next_slice()? else {
            break true;
        };
        window.extend(references.iter().map(|it| it.key));
        if window.len() >= WINDOW_LEN {
            break false;
        }
    };
    strike_out_recorded(ends, &mut window)?;
    let (number, mut done) = (window.len() as u64, 0);
    let keys: Vec<BlobKey> = window.into_iter().collect();
    let root = match keys.first() {
        Some(_) => ends
            .master
            .blob_root(ends.master_directory.map(str::to_owned))?,
        None => return store(sidecar, ends, scan.position(), has_ended),
    };
    for some in keys.chunks(REQUEST_LEN) {
        // At least one request is made, so that each pass makes some progress.
        if done > 0 && started.elapsed() >= budget {
            return Ok(());
        }
        ends.slave.check_cancelled()?;
        ledger.append(ends.slave, &ask(ends.master, &root, some, monitor)?)?;
        done += some.len() as u64;
        monitor.progress("asking for digests of blobs", done, number);
    }
    store(sidecar, ends, scan.position(), has_ended)
}

/// Asks the master for the digests of these blobs. Warns of those that it cannot read.
fn ask(
    master: &Master,
    root: &BlobRoot,
    keys: &[BlobKey],
    monitor: &dyn Monitor,
) -> Result<Vec<BlobEntry>, Error> {
    let answers = master.blob_digests(root.clone(), keys.to_vec()).wait()?;
    let mut entries = Vec::with_capacity(answers.len());
    for (&key, answer) in keys.iter().zip(answers) {
        let state = match answer {
            BlobDigestAnswer::Absent => BlobState::Absent,
            BlobDigestAnswer::Digested(it) => BlobState::Present {
                size: it.size,
                digest: (&it.digest).into(),
            },
            BlobDigestAnswer::Failed { kind, why } => {
                match Error::of_blob(master.name(), kind, why) {
                    error @ Error::BlobUnreadable { .. } => monitor.warn(format!(
                        "{}; the slave has this blob: compare the two machines with `fssync \
                         verify --against`",
                        error.display_chain()
                    )),
                    error => return Err(error),
                }
                continue;
            }
        };
        entries.push(BlobEntry { key, state });
    }
    Ok(entries)
}

/// Removes blobs from a window that the ledger has, or that the slave does not have.
fn strike_out_recorded(ends: BlobEnds<'_>, window: &mut BTreeSet<BlobKey>) -> Result<(), Error> {
    let (paths, id) = (&ends.slave.paths, ends.directory.id());
    if let Some(ledger) = BlobLedger::open(paths, id, OpenMode::Read)? {
        for entry in ledger.entries() {
            window.remove(&entry?.key);
        }
    }
    for key in ends.missing(window.iter().copied())? {
        window.remove(&key);
    }
    Ok(())
}

/// Records the position up to which the ledger has all digests.
fn store(
    sidecar: &mut Sidecar,
    ends: BlobEnds<'_>,
    position: u64,
    has_ended: bool,
) -> Result<(), Error> {
    if let Some(state) = &mut sidecar.blobs {
        // A part of the log that cannot be read is not searched again in each pass.
        let is_at_end = has_ended && position < state.complete;
        state.digested = if is_at_end { state.complete } else { position };
    }
    sidecar.store(&ends.slave.paths)
}
