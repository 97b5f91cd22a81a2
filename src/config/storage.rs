//! One storage: its two ends, and how to open them.
//!
//! A [`StorageConfig`] is a plain value: it names the master and the slave and says how
//! to reach the master. Nothing is read or connected before a method opens one of the two ends.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::pass::Job;
use crate::pass::apply::Tuning;
pub use crate::pass::blobs::{BlobMode, BlobOptions};
use crate::plan::Policy;
use crate::slave::paths::SlavePaths;
use crate::slave::sidecar::Unrecorded;
use crate::slave::step::Slave;
use crate::source::location::{self, Location, Remote, ServedBlobs};
use crate::source::path::MountedPath;
use crate::source::ssh::{Process, Ssh, Target};
use crate::source::{Deadline, Heartbeat, Master, Source};

/// How often a watch polls the master unless configured otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a watch may omit recording that nothing has changed.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// One storage: the two files, and how they are kept in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// The master, unless the command needs only the slave.
    pub master: Option<MasterConfig>,
    /// The slave's `Data.fs`, or the directory that contains it.
    pub slave: PathBuf,
    /// A switch that must exist and contain `SYNCING=1`, besides those at fixed paths.
    pub status_file: Option<PathBuf>,
    /// How often a watch polls the master.
    pub interval: Duration,
    /// Whether blob files are copied.
    pub blobs: BlobMode,
}

/// A master, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterConfig {
    /// A path, `[user@]host:/path` or `ssh://[user@]host[:port]/path`.
    pub location: OsString,
    /// The program that connects to another host, with its arguments.
    pub rsh: String,
    /// The command that runs fssync on the other host.
    pub remote_fssync: String,
    /// How long the master may take to respond before it counts as unreachable.
    pub timeout: Duration,
    /// Whether its blobs are read too.
    pub reads_blobs: bool,
    /// Its blob directory, if that is not a usual one.
    pub blob_directory: Option<String>,
}

/// How passes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A single pass.
    Once {
        /// Make the slave the master's, whatever it contains.
        full: bool,
        /// The same, and copy every byte.
        whole: bool,
        /// Report what the pass would do, and write nothing.
        dry_run: bool,
    },
    /// One pass after the other, until a signal arrives.
    Watch,
}

impl StorageConfig {
    /// A configuration without a master, with the defaults for everything else.
    #[must_use]
    pub fn of_slave(slave: &Path) -> Self {
        Self {
            master: None,
            slave: slave.to_owned(),
            status_file: None,
            interval: DEFAULT_INTERVAL,
            blobs: BlobMode::Unset,
        }
    }

    /// The location of the master as it was given, for messages.
    #[must_use]
    pub fn master_name(&self) -> String {
        self.master
            .as_ref()
            .map(MasterConfig::name)
            .unwrap_or_default()
    }

    /// The location of the slave as it was given, for messages.
    #[must_use]
    pub fn slave_name(&self) -> String {
        self.slave.display().to_string()
    }

    /// The slave, for a command that no signal handler interrupts.
    pub fn slave(&self) -> Result<Slave, Error> {
        Ok(self.slave_at(SlavePaths::new(&self.slave)?))
    }

    /// A pass from the master to the slave. It ends early once `interrupted` is set.
    /// While it waits for the master, `alive` is called several times a second. The
    /// program that connects to another host is registered in `process`.
    ///
    /// Fails if no master is configured, or if one of the two locations is invalid.
    pub fn job(
        &self,
        mode: Mode,
        interrupted: Arc<AtomicBool>,
        process: &Process,
        alive: impl Fn() + Send + Sync + 'static,
    ) -> Result<Job, Error> {
        let Some(master) = &self.master else {
            return Err(Error::Usage("MASTER is missing".to_owned()));
        };
        let location = location::parse(&master.location)?;
        let paths = SlavePaths::of_pass(&self.slave, location.file_name())?;
        if let Location::Path(master) = &location {
            paths.check_is_not_named(master)?;
        }
        let slave = Slave {
            interrupted: Arc::clone(&interrupted),
            ..self.slave_at(paths)
        };
        let switches = slave.switches.clone();
        let halt = move || {
            alive();
            interrupted.load(Ordering::Relaxed) || switches.ends_wait()
        };
        let (policy, dry_run) = match mode {
            Mode::Once {
                full,
                whole,
                dry_run,
            } => {
                let full = full || whole;
                (Policy { full, whole }, dry_run)
            }
            Mode::Watch => (Policy::default(), false),
        };
        let is_watch = mode == Mode::Watch;
        Ok(Job {
            master: master.open(process, halt)?,
            location: master.recorded_location(&location),
            slave,
            policy,
            tuning: Tuning::default(),
            blobs: self.blobs.clone(),
            dry_run,
            note_every: if is_watch { NOTE_EVERY } else { Duration::ZERO },
            index_waits: is_watch,
            unrecorded: Unrecorded::default(),
        })
    }

    fn slave_at(&self, paths: SlavePaths) -> Slave {
        Slave::new(paths, self.status_file.clone())
    }
}

impl MasterConfig {
    /// The location as it was given, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.location.display().to_string()
    }

    /// The location for the sidecar: a path is made absolute. `None` if it is not UTF-8.
    fn recorded_location(&self, location: &Location) -> Option<String> {
        match location {
            Location::Path(path) => absolute(path).ok()?.into_os_string().into_string().ok(),
            Location::Remote(_) => self.location.to_str().map(str::to_owned),
        }
    }

    /// Whether the location is valid and on another host.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(location::parse(&self.location), Ok(Location::Remote(_)))
    }

    /// Fails if the location is invalid, or the program that connects to it.
    pub fn check(&self) -> Result<(), Error> {
        match location::parse(&self.location)? {
            Location::Path(_) => Ok(()),
            Location::Remote(remote) => self.target(&remote).map(drop),
        }
    }

    /// The master. A request to it is abandoned once `halt` returns true. The program
    /// that connects to another host is registered in `process`.
    pub fn open(
        &self,
        process: &Process,
        halt: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Master, Error> {
        let heartbeat = Heartbeat::default();
        let supervised = process.clone();
        let halt = move || {
            supervised.supervise();
            halt()
        };
        let deadline = Deadline::new(self.timeout, heartbeat.clone(), halt);
        let remote = match location::parse(&self.location)? {
            Location::Path(path) => {
                let open = move || -> Box<dyn Source> { Box::new(MountedPath::new(path.clone())) };
                return Ok(Master::new(self.name(), deadline, Box::new(open)));
            }
            Location::Remote(remote) => remote,
        };
        let target = self.target(&remote)?;
        let (name, connection) = (self.name(), process.clone());
        let open = move || -> Box<dyn Source> {
            let (target, connection) = (target.clone(), connection.clone());
            Box::new(Ssh::new(
                name.clone(),
                target,
                heartbeat.clone(),
                connection,
            ))
        };
        let process = process.clone();
        let deadline = deadline.or_else(move || process.end());
        Ok(Master::new(self.name(), deadline, Box::new(open)))
    }
    fn target(&self, remote: &Remote) -> Result<Target, Error> {
        let blobs = match &self.blob_directory {
            Some(directory) => ServedBlobs::At(directory),
            None if self.reads_blobs => ServedBlobs::Usual,
            None => ServedBlobs::None,
        };
        Ok(remote.target(&self.rsh, &self.remote_fssync, blobs)?)
    }
}
