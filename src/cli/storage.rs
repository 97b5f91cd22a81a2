//! Converts arguments into values that the library and the other modules here take.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fssync::config::{
    BlobMode, DEFAULT_PATH, MasterConfig, Mode, NamedStorage, PATH_VARIABLE, Site, StorageConfig,
    StorageName, StorageOptions,
};
use fssync::error::Error;
use fssync::metrics::Textfile;
use fssync::pass::Job;
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;
use fssync::source::CoveredNames;
use fssync::source::ssh::Process;
use fssync::verify;

use super::args::{
    Args, BlobArgs, CommonArgs, ConnectionArgs, DoctorArgs, OutputArgs, ProgressMode, SiteArgs,
    StatusArgs, Target, VerifyArgs,
};
use super::signals::{self, Connections, ExitSignals};

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

/// The storages that a command works on.
#[derive(Debug)]
pub(super) enum Selected {
    /// The one whose paths are on the command line.
    Paths(StorageConfig),
    /// Those of a configuration file.
    Site(Site),
}

/// One of the storages that a command works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    /// Its name in the configuration file; `None` if its paths are on the command line.
    pub(super) name: Option<&'a StorageName>,
    pub(super) config: &'a StorageConfig,
    /// The other storages in its master's directory that the configuration file describes.
    pub(super) covered: Option<&'a CoveredNames>,
}

impl Selected {
    /// The textfile for metrics, if there is one: that of the configuration file, or the given
    /// one.
    pub(super) fn textfile(&self, given: Option<&Path>) -> Option<Textfile> {
        match self {
            Self::Paths(config) => given.map(|path| Textfile::of_slave(path, config)),
            Self::Site(site) => Textfile::of_site(site),
        }
    }

    /// The storages in their order.
    pub(super) fn storages(&self) -> Vec<Selection<'_>> {
        match self {
            Self::Paths(config) => vec![Selection::of_paths(config)],
            Self::Site(site) => site.storages.iter().map(Selection::of).collect(),
        }
    }

    /// Handles the signals that end a command that reads the masters of these storages: see
    /// [`signals::listen`].
    pub(super) fn listen(&self, connections: &Connections) -> Result<Arc<AtomicBool>, Error> {
        let storages = self.storages();
        let masters = storages.iter().filter_map(|it| it.config.master.as_ref());
        let exit_signals = ExitSignals::for_masters(masters);
        signals::listen(connections, exit_signals, &[], None)
    }
}

impl<'a> Selection<'a> {
    pub(super) fn of(named: &'a NamedStorage) -> Self {
        Self {
            name: Some(&named.name),
            config: &named.storage,
            covered: Some(&named.covered),
        }
    }

    pub(super) fn of_paths(config: &'a StorageConfig) -> Self {
        Self {
            name: None,
            config,
            covered: None,
        }
    }

    /// A pass: see [`StorageConfig::job`].
    pub(super) fn job(
        self,
        mode: Mode,
        interrupted: Arc<AtomicBool>,
        process: &Process,
        alive: impl Fn() + Send + Sync + 'static,
    ) -> Result<Job, Error> {
        let job = self.config.job(mode, interrupted, process, alive)?;
        let covered = self.covered.cloned().unwrap_or_default();
        Ok(Job {
            master: job.master.beside(covered),
            ..job
        })
    }

    /// The span in which its lines are logged.
    pub(super) fn span(self) -> tracing::Span {
        match self.name {
            Some(name) => tracing::error_span!("site", storage = %name),
            None => tracing::Span::none(),
        }
    }
}

/// The path of the configuration file.
pub(super) fn find_config(given: Option<&Path>) -> Result<PathBuf, Error> {
    Site::find(given).ok_or_else(|| {
        Error::Usage(format!(
            "there is neither a path nor a configuration file: name the files on the command \
             line (see `fssync --help`), or describe the storages in {DEFAULT_PATH}, or in a \
             file that --config or ${PATH_VARIABLE} names"
        ))
    })
}

impl SiteArgs {
    /// The storage whose paths were given, or else those of the configuration file. The options
    /// override those in the file.
    fn select(
        &self,
        master: Option<&OsStr>,
        slave: Option<&Path>,
        options: &StorageOptions,
    ) -> Result<Selected, Error> {
        if let Some(slave) = slave {
            let master = master.map(OsStr::to_owned);
            return Ok(Selected::Paths(options.storage(master, slave)));
        }
        self.select_from(|path| Site::load_with(path, options))
    }

    /// The storages of the configuration file, which `load` reads.
    fn select_from(
        &self,
        load: impl FnOnce(&Path) -> Result<Site, Error>,
    ) -> Result<Selected, Error> {
        let mut site = load(&find_config(self.config.as_deref())?)?;
        site.select(&self.storage)?;
        Ok(Selected::Site(site))
    }
}

impl Args {
    pub(super) fn storages(&self) -> Result<Selected, Error> {
        let options = StorageOptions {
            interval: self.interval,
            ..self.blobs.options()
        }
        .or(&self.connection.options())
        .or(&self.common.options());
        let (master, slave) = (self.master.as_deref(), self.slave.as_deref());
        self.site.select(master, slave, &options)
    }

    pub(super) fn mode(&self) -> Mode {
        if self.watch {
            return Mode::Watch;
        }
        Mode::Once {
            full: self.extent.full,
            whole: self.extent.whole,
            dry_run: self.dry_run,
        }
    }
}

impl BlobArgs {
    fn options(&self) -> StorageOptions {
        let are_wanted = self.blobs
            || self.master_blobs.is_some()
            || self.slave_blobs.is_some()
            || self.recheck_blobs;
        StorageOptions {
            blobs: (are_wanted || self.no_blobs).then_some(!self.no_blobs),
            master_blobs: self.master_blobs.clone(),
            slave_blobs: self.slave_blobs.clone(),
            recheck_blobs: self.recheck_blobs,
            keep_packed: self.keep_packed,
            ..StorageOptions::default()
        }
    }
}

/// How long a master may take to respond if the user did not name it on the command line. If it is
/// down, the state of the slave matters more than the lag.
const BRIEF_TIMEOUT: Duration = Duration::from_secs(5);

/// A master that the user did not name on the command line: it has less time to respond, and ssh
/// must not ask for a password.
pub(super) fn briefly(mut master: MasterConfig) -> MasterConfig {
    master.timeout = master.timeout.min(BRIEF_TIMEOUT);
    if master.rsh == "ssh" {
        master.rsh.push_str(" -o BatchMode=yes");
    }
    master
}

impl StatusArgs {
    /// The master that the sidecar records, if it may be asked.
    pub(super) fn recorded_master(&self, slave: &SlavePaths) -> Option<MasterConfig> {
        if self.local || self.against.is_some() {
            return None;
        }
        let location = Sidecar::load(slave).ok()?.master?;
        let storage = self
            .connection
            .options()
            .storage(Some(location.into()), slave.data());
        storage.master.map(briefly)
    }

    pub(super) fn storages(&self, common: &CommonArgs) -> Result<Selected, Error> {
        let options = self.connection.options().or(&common.options());
        let (master, slave) = (self.against.as_deref(), self.slave.as_deref());
        self.site.select(master, slave, &options)
    }
}

impl VerifyArgs {
    /// The master is `None` unless the slave is compared with it.
    pub(super) fn storages(&self, common: &CommonArgs) -> Result<Selected, Error> {
        let options = self.connection.options().or(&common.options());
        let (master, slave) = (self.against.as_deref(), self.slave.as_deref());
        let mut selected = self.site.select(master, slave, &options)?;
        if let Selected::Site(site) = &mut selected
            && !self.compare
        {
            for named in &mut site.storages {
                named.storage.master = None;
            }
        }
        Ok(selected)
    }

    /// Which blobs of a storage are verified. Options of the command line come first.
    pub(super) fn blobs(&self, storage: &StorageConfig) -> verify::blobs::BlobSelection {
        let configured = match &storage.blobs {
            BlobMode::On(options) => Some(options),
            BlobMode::Unset | BlobMode::Off => None,
        };
        let slave = configured.and_then(|it| it.slave.clone());
        let master = configured.and_then(|it| it.master.clone());
        verify::blobs::BlobSelection {
            slave: self.slave_blobs.clone().or(slave),
            master: self.master_blobs.clone().or(master),
            orphans: self.orphans,
        }
    }
}

impl DoctorArgs {
    pub(super) fn storages(&self, common: &CommonArgs) -> Result<Selected, Error> {
        let options = StorageOptions {
            blobs: (self.blobs || self.no_blobs).then_some(self.blobs),
            ..StorageOptions::default()
        }
        .or(&self.connection.options())
        .or(&common.options());
        let (master, slave) = (self.master.as_deref(), self.slave.as_deref());
        self.site.select(master, slave, &options)
    }
}

impl Target {
    pub(super) fn storages(&self, common: &CommonArgs) -> Result<Selected, Error> {
        let slave = self.slave.as_deref();
        self.site.select(None, slave, &common.options())
    }

    /// The storages to switch off. Only their slaves are needed.
    pub(super) fn storages_to_switch_off(&self, common: &CommonArgs) -> Result<Selected, Error> {
        let options = common.options();
        match &self.slave {
            Some(slave) => Ok(Selected::Paths(options.storage(None, slave))),
            None => self
                .site
                .select_from(|path| Site::load_for_off(path, &options)),
        }
    }
}

impl CommonArgs {
    fn options(&self) -> StorageOptions {
        StorageOptions {
            status_file: self.status_file.clone(),
            ..StorageOptions::default()
        }
    }
}

impl ConnectionArgs {
    fn options(&self) -> StorageOptions {
        StorageOptions {
            rsh: self.rsh.clone(),
            remote_fssync: self.remote_fssync.clone(),
            timeout: self.timeout,
            ..StorageOptions::default()
        }
    }
}
