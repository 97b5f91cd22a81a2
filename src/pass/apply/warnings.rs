//! Warnings that come up while a plan is applied.

use std::path::{Path, PathBuf};

use super::Apply;
use super::blobs::BlobTransfer;
use crate::filestorage::MAGIC_LEN;
use crate::human::{bytes, count};
use crate::pass::reader::TransactionReader;
use crate::pass::survey::Survey;
use crate::plan::KeepReason;
use crate::plan::switch_on::TransactionRun;
use crate::slave::blobs::BlobsAside;
use crate::slave::sidecar::Sidecar;

/// A slave that a full copy replaces, or would replace.
pub(super) struct Replaced {
    /// Whether this is a dry run.
    pub(super) is_dry_run: bool,
    /// Why it is kept, and under which name; `None` if it is removed.
    pub(super) kept: Option<(KeepReason, PathBuf)>,
}

/// Transactions of the slave's own that a rewind sets aside, or would set aside.
pub(super) struct Own<'a> {
    /// Whether this is a dry run.
    pub(super) is_dry_run: bool,
    /// The transactions.
    pub(super) run: TransactionRun,
    /// The file that contains them.
    pub(super) path: &'a Path,
    /// Their blobs.
    pub(super) blobs: Option<&'a BlobsAside>,
}

impl Apply<'_> {
    /// Warns that transactions of the slave's own are set aside.
    pub(super) fn warn_of_own(&self, own: &Own<'_>) {
        let are = if own.is_dry_run {
            "would be set aside"
        } else {
            "are set aside"
        };
        let (slave, path) = (self.slave.paths.data().display(), own.path.display());
        self.monitor.warn(format!(
            "{slave} had {}, which the master lacks: they {are} in {path}, a FileStorage of their own",
            own.run
        ));
        if let Some(blobs) = own.blobs {
            let (number, path) = (count(blobs.files, "blob"), blobs.path.display());
            self.monitor.warn(format!(
                "the {number} of these transactions are kept in {path}"
            ));
        }
    }

    /// Warns if an old slave is kept, and if the new one is much smaller.
    pub(super) fn warn_of_replacement(
        &self,
        survey: &Survey,
        reader: &TransactionReader<'_>,
        replaced: &Replaced,
    ) {
        let (is_kept, shrinks) = if replaced.is_dry_run {
            ("would be kept", "would shrink")
        } else {
            ("is kept", "shrinks")
        };
        if let Some((reason, name)) = &replaced.kept {
            let name = name.display();
            self.monitor
                .warn(format!("the old slave {is_kept} as {name}: {reason}"));
        }
        let to = reader.position();
        let from = survey.position.filter(|&from| from > MAGIC_LEN);
        if let Some(from) = from.filter(|&from| to < from / 2) {
            let slave = self.slave.paths.data().display();
            let (from, to) = (bytes(from), bytes(to));
            self.monitor.warn(format!(
                "{slave} {shrinks} from {from} to {to}: make sure that the master is the right file"
            ));
        }
    }

    /// Notes that there are blobs, which are not copied. Warns of it once, unless the user has
    /// declined to copy them.
    pub(super) fn warn_of_blobs(&self, blobs: &BlobTransfer<'_>, sidecar: &mut Sidecar) {
        if blobs.ignores_blobs() && !sidecar.reported.blobs {
            sidecar.reported.blobs = true;
            if self.declines_blobs {
                return;
            }
            self.monitor.warn(format!(
                "{} refers to blobs, which this pass does not copy: copy them too with --blobs, \
                 or confirm with --no-blobs that something else does",
                self.master.name()
            ));
        }
    }
}
