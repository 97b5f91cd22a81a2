//! Converts arguments into values that the library and the other modules here take.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use fssync::config::{BlobMode, BlobOptions, MasterConfig, Mode, StorageConfig};
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;
use fssync::verify;

use super::args::{
    Args, BlobArgs, CommonArgs, ConnectionArgs, OutputArgs, ProgressMode, StatusArgs, Target,
    VerifyArgs,
};

/// Where the results of a command go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// Print one JSON object on standard output.
    pub(super) json: bool,
    /// Whether to show progress.
    pub(super) progress: ProgressMode,
    /// Print nothing, or one line.
    pub(super) quiet: bool,
    /// With `quiet`: how often an outcome that lasts is printed; `None` for after each pass.
    pub(super) remind: Option<Duration>,
}

impl Output {
    pub(super) fn new(args: &OutputArgs, common: &CommonArgs) -> Self {
        Self {
            json: args.json,
            progress: args.progress,
            quiet: common.quiet,
            remind: None,
        }
    }
}

impl Args {
    pub(super) fn storage(&self) -> StorageConfig {
        let slave = self.slave.as_deref().unwrap_or(Path::new(""));
        let to = |master: &OsStr| MasterConfig {
            reads_blobs: matches!(self.blobs.mode(), BlobMode::On(_)),
            blob_directory: self.blobs.master_blobs.clone(),
            ..self.connection.to(master)
        };
        StorageConfig {
            master: self.master.as_deref().map(to),
            interval: self.interval,
            blobs: self.blobs.mode(),
            ..self.common.storage(slave)
        }
    }

    pub(super) fn mode(&self) -> Mode {
        if self.watch {
            return Mode::Watch;
        }
        Mode::Once {
            full: self.full,
            dry_run: self.dry_run,
        }
    }
}

impl BlobArgs {
    fn mode(&self) -> BlobMode {
        let is_on = self.blobs
            || self.master_blobs.is_some()
            || self.slave_blobs.is_some()
            || self.recheck_blobs;
        if self.no_blobs {
            BlobMode::Off
        } else if is_on {
            BlobMode::On(BlobOptions {
                master: self.master_blobs.clone(),
                slave: self.slave_blobs.clone(),
                recheck: self.recheck_blobs,
                keep_packed: self.keep_packed,
            })
        } else {
            BlobMode::Unset
        }
    }
}

/// How long a recorded master may take to respond. If it is down, the state of the slave matters
/// more than the lag.
const RECORDED_TIMEOUT: Duration = Duration::from_secs(5);

impl StatusArgs {
    /// The master that the sidecar records, if it may be asked. ssh must not ask for a password,
    /// because the user did not name this master.
    pub(super) fn recorded_master(&self, slave: &SlavePaths) -> Option<MasterConfig> {
        if self.local || self.against.is_some() {
            return None;
        }
        let location = Sidecar::load(slave).ok()?.master?;
        let mut master = self.connection.to(OsStr::new(&location));
        master.timeout = master.timeout.min(RECORDED_TIMEOUT);
        if master.rsh == "ssh" {
            master.rsh.push_str(" -o BatchMode=yes");
        }
        Some(master)
    }

    pub(super) fn storage(&self, common: &CommonArgs) -> StorageConfig {
        StorageConfig {
            master: self.against.as_deref().map(|it| self.connection.to(it)),
            ..common.storage(&self.slave)
        }
    }
}

impl VerifyArgs {
    pub(super) fn blobs(&self) -> verify::blobs::BlobSelection {
        verify::blobs::BlobSelection {
            slave: self.slave_blobs.clone(),
            master: self.master_blobs.clone(),
            orphans: self.orphans,
        }
    }

    pub(super) fn storage(&self, common: &CommonArgs) -> StorageConfig {
        StorageConfig {
            master: self.against.as_deref().map(|it| self.connection.to(it)),
            ..common.storage(&self.slave)
        }
    }
}

impl Target {
    pub(super) fn storage(&self, common: &CommonArgs) -> StorageConfig {
        common.storage(&self.slave)
    }
}

impl CommonArgs {
    fn storage(&self, slave: &Path) -> StorageConfig {
        StorageConfig {
            status_file: self.status_file.clone(),
            ..StorageConfig::of_slave(slave)
        }
    }
}

impl ConnectionArgs {
    fn to(&self, location: &OsStr) -> MasterConfig {
        MasterConfig {
            location: location.to_owned(),
            rsh: self.rsh.clone(),
            remote_fssync: self.remote_fssync.clone(),
            timeout: self.timeout,
            reads_blobs: false,
            blob_directory: None,
        }
    }
}
