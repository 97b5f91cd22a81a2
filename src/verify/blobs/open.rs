//! Finds and opens the blob directories of a verification.

use std::path::PathBuf;

use super::Wanted;
use super::ranges::Expectation;
use crate::error::Error;
use crate::error::retry::Retry;
use crate::io::progress::Monitor;
use crate::plan::Continuity;
use crate::slave::blobs::{BlobDirectory, BlobLedger};
use crate::slave::paths::{OpenMode, SlavePaths};
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;
use crate::source::Master;
use crate::source::blobs::BlobRoot;

/// Which blobs are verified, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobSelection {
    /// The slave's blob directory. If `None`, it is the one into which passes copy blobs.
    pub slave: Option<PathBuf>,
    /// The master's blob directory. If `None`, it is found beside the master.
    pub master: Option<String>,
    /// Search for blob files to which the log does not refer.
    pub orphans: bool,
}

/// The blobs of a slave, ready to be verified.
#[derive(Debug)]
pub struct BlobsToVerify {
    pub(super) directory: BlobDirectory,
    pub(super) sidecar: Sidecar,
    /// Whether the caller named the directory.
    is_given: bool,
    /// The master's blob directory, if the blobs are compared with it.
    pub(super) root: Option<BlobRoot>,
    pub(super) wants_orphans: bool,
}

impl BlobsToVerify {
    /// Opens the slave's blob directory:
    ///
    /// 1. the one that the options name; or
    /// 2. the one into which passes copy blobs, according to the sidecar; or
    /// 3. if the sidecar knows nothing about blobs, the usual one, if a pass has set it up.
    ///
    /// Returns `None` if passes do not copy blobs.
    pub fn open(slave: &Slave, options: &BlobSelection) -> Result<Option<Self>, Error> {
        let sidecar = Sidecar::load(&slave.paths)?;
        let directory = match (&options.slave, &sidecar.blobs) {
            (Some(given), _) => Some(BlobDirectory::open_any(given)?),
            (None, Some(state)) if state.is_on => {
                Some(BlobDirectory::open(&state.directory, &state.id)?)
            }
            (None, Some(_)) => None,
            (None, None) => find(&slave.paths)?,
        };
        if directory.is_none() && options.orphans {
            return Err(Error::Usage(format!(
                "passes do not copy the blobs of {}: name its blob directory with --slave-blobs",
                slave.paths.data().display()
            )));
        }
        Ok(directory.map(|directory| Self {
            directory,
            sidecar,
            is_given: options.slave.is_some(),
            root: None,
            wants_orphans: options.orphans,
        }))
    }

    /// Finds the master's blob directory, with which the blobs will be compared. Fails if there
    /// is none, or if it is the slave's own.
    pub fn find_master(&mut self, master: &Master, options: &BlobSelection) -> Result<(), Error> {
        let mut retry = Retry::default();
        let root = loop {
            // The usual directories are relative to the file that was opened last.
            let stat = master.stat(Vec::new());
            match stat.and_then(|_| master.blob_root(options.master.clone())) {
                Ok(root) => break root,
                Err(error) => retry.wait_if_transient(error.into())?,
            }
        };
        // The log is verified first, which may take hours.
        master.close();
        let id = self.directory.id();
        if !id.is_empty() && root.slave_id.as_deref() == Some(id) {
            return Err(Error::Usage(format!(
                "{}, the master's blob directory, is the slave's: name another one with \
                 --master-blobs",
                root.directory
            )));
        }
        self.root = Some(root);
        Ok(())
    }

    /// Which blobs must be there, in a slave that agrees with the sidecar this far.
    pub(super) fn expectation(&self, continuity: Continuity) -> Expectation<'_> {
        let state = self.sidecar.blobs.as_ref();
        let is_of_directory = |id: &str| !id.is_empty() && id == self.directory.id();
        match (state.filter(|state| is_of_directory(&state.id)), continuity) {
            (Some(state), Continuity::UpTo(_)) => Expectation::Copied(state),
            // Somebody has named a directory of which no pass has recorded anything.
            (None, _) if self.is_given => Expectation::All,
            _ => Expectation::Unknown,
        }
    }

    /// Finds the entries of the ledger for the blobs of a window, which is sorted by key. If a
    /// blob has several entries, the last one is valid. A ledger that cannot be read is reported;
    /// its blobs have no digest then.
    pub(super) fn look_up(&self, slave: &Slave, window: &mut [Wanted], monitor: &dyn Monitor) {
        if let Err(error) = self.try_look_up(&slave.paths, window) {
            let why = error.display_chain();
            monitor.warn(format!("{why}; blobs are not compared with their digests"));
        }
    }

    fn try_look_up(&self, paths: &SlavePaths, window: &mut [Wanted]) -> Result<(), Error> {
        let id = self.directory.id();
        let ([first, .., last] | [first @ last]) = &*window else {
            return Ok(());
        };
        let keys = first.key..=last.key;
        let Some(ledger) = BlobLedger::open(paths, id, OpenMode::Read)? else {
            return Ok(());
        };
        for entry in ledger.entries() {
            let entry = entry?;
            // The entries are nearly sorted, so most of them belong to another window.
            if !keys.contains(&entry.key) {
                continue;
            }
            if let Ok(at) = window.binary_search_by_key(&entry.key, |wanted| wanted.key) {
                window[at].entry = Some(entry.state);
            }
        }
        Ok(())
    }
}

/// The usual blob directory of a slave, if a pass has set it up. Fails if the ledger shows that
/// one has, and the directory is missing.
fn find(paths: &SlavePaths) -> Result<Option<BlobDirectory>, Error> {
    let Ok(path) = BlobDirectory::locate(paths, None) else {
        return Ok(None);
    };
    let id = match BlobDirectory::id_at(&path) {
        Ok(None) => BlobLedger::id(paths)?,
        found => found?,
    };
    id.map(|id| BlobDirectory::open(&path, &id)).transpose()
}
