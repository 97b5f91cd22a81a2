//! The textfile of node_exporter's textfile collector.
//!
//! The path comes from an administrator, who may mistype it. Only a file that fssync has written
//! before, or an empty one, is replaced: never a `Data.fs`, a device, or the textfile of another
//! program.
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
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::OFlags;

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

/// The start of each textfile of fssync.
const START: &[u8] = b"# HELP fssync_";

/// Fails if another kind of file is at this path.
fn check_replaceable(path: &Path) -> io::Result<()> {
    // Opening a FIFO must not block.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it exists, and is not a regular file"));
    }
    let mut start = Vec::new();
    file.take(START.len() as u64).read_to_end(&mut start)?;
    if start.is_empty() || start == START {
        return Ok(());
    }
    Err(io::Error::other(
        "it exists, and is not a textfile of fssync; name another file, or remove it",
    ))
}

/// Replaces a textfile.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    check_replaceable(path).map_err(Error::io("write", path))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP fssync_state The state.\n";

    #[test]
    fn only_an_own_or_an_empty_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for own in ["", "# HELP fssync_build_info The version.\n"] {
            fs::write(at("own.prom"), own).unwrap();
            replace(&at("own.prom"), TEXT).unwrap();
            assert_eq!(fs::read_to_string(at("own.prom")).unwrap(), TEXT);
        }
        replace(&at("new.prom"), TEXT).unwrap();
        for other in ["FS30\u{3}data", "# HELP apt_upgrades Pending.\n", "#"] {
            fs::write(at("Data.fs"), other).unwrap();
            let error = replace(&at("Data.fs"), TEXT).unwrap_err().display_chain();
            assert!(error.contains("not a textfile of fssync"), "{error}");
            assert_eq!(fs::read_to_string(at("Data.fs")).unwrap(), other);
        }
        let fifo = at("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o644.into()).unwrap();
        std::os::unix::fs::symlink("Data.fs", at("link")).unwrap();
        for place in [at("fifo"), directory.path().to_owned(), at("link")] {
            assert!(replace(&place, TEXT).is_err(), "{place:?}");
        }
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(names.len(), 5, "nothing is left: {names:?}");
    }
}
