//! Whether a pass copies blobs, and into which directory.
//!
//! Once a pass has copied blobs, later passes must say whether they do so too. A pass that
//! silently copied only the log would make transactions visible before their blobs.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Job;
use crate::blobs::BlobEnds;
use crate::blobs::fetch::are_one_directory;
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::pass::survey::Survey;
use crate::slave::blobs::{BlobDirectory, BlobLedger};
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::sidecar::{BlobCoverage, Sidecar};
use crate::slave::step::Slave;
use crate::source::{Master, MasterStat};

/// Whether passes copy blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BlobMode {
    /// Nobody has decided. This is an error if earlier passes copied blobs.
    #[default]
    Unset,
    /// Passes copy only the log.
    Off,
    /// Passes copy the blobs too.
    On(BlobOptions),
}

/// How blobs are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobOptions {
    /// The master's blob directory. If `None`, it is found beside the master.
    pub master: Option<String>,
    /// The slave's blob directory. If `None`, it is the one of earlier passes, or is found
    /// beside the slave.
    pub slave: Option<PathBuf>,
    /// Compare every blob with the master again.
    pub recheck: bool,
    /// How long the slave keeps blobs that a pack of the master has removed.
    pub keep_packed: Duration,
}

/// The slave's blob directory, open for a pass that copies blobs.
#[derive(Debug)]
pub struct OpenBlobs {
    /// The slave's blob directory.
    pub directory: BlobDirectory,
    /// How blobs are copied.
    pub options: BlobOptions,
    /// Whether no pass has found a blob at the master yet.
    pub is_unproven: bool,
}

/// The work of a pass on blobs.
#[derive(Debug, Default)]
pub(super) struct BlobWork {
    /// The slave's blob directory, if the pass copies blobs.
    pub(super) open: Option<OpenBlobs>,
    /// Whether every blob is to be compared again, and that was not noted yet.
    pub(super) must_recheck: bool,
    /// Whether the next pass can fetch more blobs of older transactions.
    pub(super) are_due: bool,
}

impl BlobWork {
    /// The work of a pass that has not begun.
    pub(super) fn of(mode: &BlobMode) -> Self {
        Self {
            must_recheck: matches!(mode, BlobMode::On(options) if options.recheck),
            ..Self::default()
        }
    }
}

impl OpenBlobs {
    /// The two ends between which this pass copies blobs.
    pub(super) fn ends<'a>(
        &'a self,
        slave: &'a Slave,
        master: &'a Master,
        master_stat: &'a MasterStat,
    ) -> BlobEnds<'a> {
        BlobEnds {
            slave,
            directory: &self.directory,
            master,
            master_stat,
            master_directory: self.options.master.as_deref(),
        }
    }
}

/// Fails if earlier passes copied blobs, and nobody has decided whether this one does. The sidecar
/// records it; if that is lost, the slave's blob directory shows it.
pub(super) fn check_is_decided(job: &Job, sidecar: &Sidecar) -> Result<(), Error> {
    if job.blobs != BlobMode::Unset {
        return Ok(());
    }
    let paths = &job.slave.paths;
    let directory = match &sidecar.blobs {
        Some(state) if state.is_on => Some(state.directory.clone()),
        // The sidecar says nothing about blobs or about the last sync: it may have been lost.
        None if sidecar.last_sync.is_none() => traces(paths),
        _ => None,
    };
    directory.map_or(Ok(()), |directory| {
        Err(Error::Usage(format!(
            "earlier passes copied the blobs of {} to {}: give --blobs, or --no-blobs to copy \
             only the log from now on",
            paths.data().display(),
            directory.display()
        )))
    })
}

/// The slave's blob directory, if a pass has set one up beside this slave.
pub(crate) fn traces(paths: &SlavePaths) -> Option<PathBuf> {
    let directory = BlobDirectory::locate(paths, None).ok()?;
    let has_id = matches!(BlobDirectory::id_at(&directory), Ok(Some(_)));
    (has_id || paths.sibling(Sibling::Blobs).exists()).then_some(directory)
}

/// The slave's blob directory before it is opened.
struct Located<'a> {
    options: &'a BlobOptions,
    path: PathBuf,
    /// Whether no pass has set it up yet, or it was replaced on purpose.
    is_new: bool,
}

/// Finds the slave's blob directory; `None` if this pass does not copy blobs.
fn locate<'a>(job: &'a Job, sidecar: &Sidecar) -> Result<Option<Located<'a>>, Error> {
    let BlobMode::On(options) = &job.blobs else {
        return Ok(None);
    };
    let known = sidecar.blobs.as_ref();
    let given = (options.slave.as_deref()).or(known.map(|state| state.directory.as_path()));
    let path = BlobDirectory::locate(&job.slave.paths, given)?;
    let is_new = known.is_none_or(|state| options.recheck && is_replaced(&path, &state.id));
    Ok(Some(Located {
        options,
        path,
        is_new,
    }))
}

/// Fails if [`open`] would refuse the blob directories. Nothing is written. Returns whether this
/// pass copies blobs.
pub(super) fn check(job: &Job, sidecar: &Sidecar, survey: &Survey) -> Result<bool, Error> {
    let Some(located) = locate(job, sidecar)? else {
        return Ok(false);
    };
    match &sidecar.blobs {
        Some(state) if !located.is_new => {
            BlobDirectory::open(&located.path, &state.id)?;
        }
        _ => check_new(job, &located, survey)?,
    }
    Ok(true)
}

/// Opens the slave's blob directory, and creates it in the first pass that copies blobs. Returns
/// `None` if this pass does not copy blobs, or if a dry run would have to create the directory.
pub(super) fn open(
    job: &Job,
    sidecar: &mut Sidecar,
    survey: &Survey,
) -> Result<Option<OpenBlobs>, Error> {
    if job.blobs == BlobMode::Off
        && let Some(state) = &mut sidecar.blobs
    {
        state.is_on = false;
    }
    let Some(located) = locate(job, sidecar)? else {
        return Ok(None);
    };
    let position = survey.position.unwrap_or(MAGIC_LEN);
    if located.is_new {
        check_new(job, &located, survey)?;
        if job.dry_run {
            return Ok(None);
        }
        sidecar.blobs = Some(set_up(job, &located, position)?);
    }
    let Some(state) = &mut sidecar.blobs else {
        return Ok(None);
    };
    let directory = BlobDirectory::open(&located.path, &state.id)?;
    state.is_on = true;
    state.directory.clone_from(&located.path);
    state.adapt_to(position);
    if !survey.has_continuity() {
        // The slave may be another file, to which the recorded positions do not apply.
        state.start_over();
    }
    Ok(Some(OpenBlobs {
        directory,
        options: located.options.clone(),
        is_unproven: state.files == 0,
    }))
}

/// Whether another directory than that of earlier passes is at `path`, or none. An administrator
/// who wants to use it gives `--recheck-blobs`.
fn is_replaced(path: &Path, id: &str) -> bool {
    let opened = BlobDirectory::open(path, id);
    matches!(opened, Err(Error::BlobsMoved { .. }))
}

/// Whether transactions lack blobs.
pub(super) fn are_due(sidecar: &Sidecar) -> bool {
    let state = sidecar.blobs.as_ref();
    state.is_some_and(|state| !state.is_complete_at(state.until))
}

/// The position before which no transaction lacks a blob, in bytes.
pub(super) fn complete(sidecar: &Sidecar) -> u64 {
    sidecar.blobs.as_ref().map_or(0, |state| state.complete)
}

/// Fails if the master has no blob directory, or if the slave's cannot be set up there.
fn check_new(job: &Job, located: &Located<'_>, survey: &Survey) -> Result<(), Error> {
    let Located { options, path, .. } = located;
    let root = job.master.blob_root(options.master.clone())?;
    let is_local = survey.master_stat.local.is_some();
    let is_same = if is_local {
        is_same_directory(path, Path::new(&root.directory))?
    } else {
        root.slave_id.is_some() && root.slave_id == BlobDirectory::id_at(path)?
    };
    if is_same {
        return Err(are_one_directory(&root, path));
    }
    let known_id = known_id(job, options)?;
    BlobDirectory::check_set_up(&job.slave, path, known_id.as_deref())
}

/// The id of the slave's blob directory if the sidecar is lost: the blob ledger contains it.
fn known_id(job: &Job, options: &BlobOptions) -> Result<Option<String>, Error> {
    if options.recheck {
        return Ok(None);
    }
    BlobLedger::id(&job.slave.paths)
}

/// Sets up the slave's blob directory. Returns its state.
fn set_up(job: &Job, located: &Located<'_>, position: u64) -> Result<BlobCoverage, Error> {
    let Located { options, path, .. } = located;
    let known_id = known_id(job, options)?;
    let directory = BlobDirectory::set_up(&job.slave, path, known_id.as_deref())?;
    // On another machine, only a new id proves that both are one directory: inode numbers and
    // times are the same in a cloned disk, too.
    let root = job.master.blob_root(options.master.clone())?;
    if root.slave_id.as_deref() == Some(directory.id()) {
        directory.undo_set_up(&job.slave)?;
        return Err(are_one_directory(&root, path));
    }
    let id = directory.id().to_owned();
    Ok(BlobCoverage::new(
        path.clone(),
        id,
        root.directory,
        position,
    ))
}

/// Whether the slave's blob directory is the master's, which can be read here.
fn is_same_directory(slave: &Path, master: &Path) -> Result<bool, Error> {
    let of_slave = match fs::metadata(slave) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found.map_err(Error::io("stat", slave))?,
    };
    // It was opened a moment ago. If it is gone, the next request to the master fails.
    let of_master = fs::metadata(master).ok();
    let identity = |found: &Metadata| (found.dev(), found.ino());
    Ok(of_master.is_some_and(|it| identity(&it) == identity(&of_slave)))
}
