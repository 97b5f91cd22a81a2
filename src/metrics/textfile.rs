//! The textfile of node_exporter's textfile collector.
//!
//! The file is replaced in these steps, so that node_exporter never reads a part of it:
//!
//! 1. The text is written to a new file in the same directory. Its name does not end in `.prom`,
//!    so node_exporter ignores it.
//! 2. The new file gets mode 0644, because node_exporter runs as a user of its own.
//! 3. It is renamed over the old file.
//!
//! Nothing is synced: the next pass writes the file again.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use super::exposition::{self, Sample};
use crate::config::{MasterConfig, Site, StorageConfig, StorageName};
use crate::error::Error;
use crate::io::progress::Silent;
use crate::status;

/// The textfile of some storages.
#[derive(Clone, Debug)]
pub struct Textfile {
    path: PathBuf,
    storages: Vec<Storage>,
    with_version: bool,
}

/// A storage, and its name in metrics.
#[derive(Clone, Debug)]
pub struct Storage {
    name: StorageName,
    config: StorageConfig,
}

impl Storage {
    /// A storage of a configuration file.
    #[must_use]
    pub fn new(name: &StorageName, config: &StorageConfig) -> Self {
        Self {
            name: name.clone(),
            config: config.clone(),
        }
    }

    /// A storage from the command line. Its name is derived from the path of the slave.
    #[must_use]
    pub fn of_slave(config: &StorageConfig) -> Self {
        Self {
            name: StorageName::of_slave(&config.slave),
            config: config.clone(),
        }
    }

    /// Reads the status of the slave. An error is logged, and the sample has no status then.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let config = &self.config;
        let looked = config
            .slave()
            .and_then(|slave| status::look(&slave, None, &Silent));
        let status = looked
            .inspect_err(|error| {
                tracing::debug!("no metrics of {}: {}", self.name, error.display_chain());
            })
            .ok();
        let recorded = status.as_ref().and_then(|it| it.recorded_master.clone());
        Sample {
            storage: self.name.to_string(),
            master: config.master.as_ref().map(MasterConfig::name).or(recorded),
            slave: config.slave_name(),
            status,
        }
    }
}

impl Textfile {
    /// The textfile of all storages of a configuration file, if it names one.
    #[must_use]
    pub fn of_site(site: &Site) -> Option<Self> {
        let all = site.storages.iter().chain(&site.others);
        let storages = all.map(|named| Storage::new(&named.name, &named.storage));
        site.metrics.as_ref().map(|metrics| Self {
            path: metrics.textfile.clone(),
            storages: storages.collect(),
            with_version: true,
        })
    }

    /// The textfile of one storage from the command line. It lacks `fssync_build_info`, because
    /// node_exporter reports an error if the textfiles of two storages contain it.
    #[must_use]
    pub fn of_slave(path: &Path, config: &StorageConfig) -> Self {
        Self {
            path: path.to_owned(),
            storages: vec![Storage::of_slave(config)],
            with_version: false,
        }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the status of each storage, and replaces the file.
    pub fn write(&self) -> Result<(), Error> {
        let samples: Vec<_> = self.storages.iter().map(Storage::sample).collect();
        let text = exposition::text(&samples, self.with_version)
            .map_err(io::Error::other)
            .map_err(Error::io("write", &self.path))?;
        replace(&self.path, &text)
    }
}

/// Replaces a textfile.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut new = OsString::from(path);
    // Another process may replace the file at the same time.
    new.push(format!(".{}.new", process::id()));
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        // A failure to remove the file would hide the first error.
        let _ = fs::remove_file(&new);
        Error::io("write", path)(error)
    })
}
