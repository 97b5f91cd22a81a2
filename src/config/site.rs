//! A configuration file with several storages.
//!
//! Loading reads the file, the files that it includes, and the directories of the slaves. It
//! never touches a master, which may be on a mount that hangs.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::alerts::{HookConfig, MetricsConfig, PingConfig, PingStyle};
use super::file::{HookKeys, PingKeys, Text, usage};
use super::name::StorageName;
use super::neighbours;
use super::options::StorageOptions;
use super::storage::StorageConfig;
use super::storages::{Purpose, Storages};
use super::topology;
use crate::error::Error;
use crate::source::CoveredNames;

/// The file that is used if none is named.
pub const DEFAULT_PATH: &str = "/etc/fssync/fssync.toml";

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "FSSYNC_CONFIG";

/// How long a hook may run, unless configured otherwise.
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a ping is sent, unless configured otherwise.
const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(60);

/// The content of a configuration file.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file.
    pub path: PathBuf,
    /// The storages in the order of the file, then those of the included files. Their names
    /// differ, and so do their slaves and the blob directories of these.
    pub storages: Vec<NamedStorage>,
    /// The storages that [`select`](Self::select) has removed.
    pub others: Vec<NamedStorage>,
    /// Where metrics are written.
    pub metrics: Option<MetricsConfig>,
    /// The commands that are run on events.
    pub hooks: Vec<HookConfig>,
    /// The web addresses that are requested regularly.
    pub pings: Vec<PingConfig>,
}

/// A storage of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedStorage {
    /// Its name, by which commands, metrics and log lines refer to it.
    pub name: StorageName,
    /// Its two ends. It has a master.
    pub storage: StorageConfig,
    /// The other storages in the master's directory that the file describes.
    pub covered: CoveredNames,
}

impl NamedStorage {
    /// Whether both have the same name and the same ends, whatever the other storages are.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.storage) == (&other.name, &other.storage)
    }
}

impl Site {
    /// The path of the file: `given`, or `$FSSYNC_CONFIG`, or [`DEFAULT_PATH`] if that exists.
    #[must_use]
    pub fn find(given: Option<&Path>) -> Option<PathBuf> {
        if let Some(given) = given {
            return Some(given.to_owned());
        }
        let variable = env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty());
        variable.map(PathBuf::from).or_else(|| {
            let path = Path::new(DEFAULT_PATH);
            // A file that cannot be read must not look as if it were missing.
            path.symlink_metadata().is_ok().then(|| path.to_owned())
        })
    }

    /// Reads a file, and the files that it includes. Every error is [`Error::Usage`]; it names
    /// the file, the line and the column.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_with(path, &StorageOptions::default())
    }

    /// The same. The options in `upper`, from the command line, override those of each storage.
    pub fn load_with(path: &Path, upper: &StorageOptions) -> Result<Self, Error> {
        let (text, main, mut placed) = Storages::load(path, upper, Purpose::Any)?;
        topology::check(&placed)?;
        neighbours::note(&mut placed);
        let metrics = main.metrics.as_ref();
        let textfile = metrics.map(|it| text.path(&it.textfile)).transpose()?;
        let hooks = main.hook.into_iter().map(|keys| hook(&text, keys));
        let pings = main.ping.iter().map(|keys| ping(&text, keys));
        Ok(Self {
            path: path.to_owned(),
            storages: placed.into_iter().map(|it| it.named).collect(),
            others: Vec::new(),
            metrics: textfile.map(|textfile| MetricsConfig { textfile }),
            hooks: hooks.collect::<Result<_, _>>()?,
            pings: pings.collect::<Result<_, _>>()?,
        })
    }

    /// Reads a file for `fssync off`, which must work during a failover, whatever else is wrong.
    /// The storages have no masters, and there are no metrics, hooks or pings: their variables need
    /// not be set. It is not an error if two storages have the same slave.
    pub fn load_for_off(path: &Path, upper: &StorageOptions) -> Result<Self, Error> {
        let (_, _, placed) = Storages::load(path, upper, Purpose::Off)?;
        Ok(Self {
            path: path.to_owned(),
            storages: placed.into_iter().map(|it| it.named).collect(),
            others: Vec::new(),
            metrics: None,
            hooks: Vec::new(),
            pings: Vec::new(),
        })
    }

    /// Keeps only the storages with these names; all if there are none. Fails if a name is not
    /// that of a storage.
    pub fn select(&mut self, names: &[StorageName]) -> Result<(), Error> {
        let is_known = |name: &&StorageName| self.storages.iter().any(|it| it.name == **name);
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            let known: Vec<_> = self.storages.iter().map(|it| it.name.as_str()).collect();
            let known = known.join(", ");
            let why = format!("has no storage {unknown}; it has {known}");
            return Err(usage(&self.path, &why));
        }
        if !names.is_empty() {
            let is_other = |it: &mut NamedStorage| !names.contains(&it.name);
            self.others.extend(self.storages.extract_if(.., is_other));
        }
        Ok(())
    }
}

fn hook(text: &Text, keys: Spanned<HookKeys>) -> Result<HookConfig, Error> {
    let span = keys.span();
    let keys = keys.into_inner();
    for (is_empty, why) in [
        (keys.on.is_empty(), "`on` is empty: expected events"),
        (
            keys.command.is_empty(),
            "`command` is empty: expected a program and its arguments",
        ),
    ] {
        if is_empty {
            return Err(text.error_at(&span, &format!("hook: {why}")));
        }
    }
    let command = keys.command.iter();
    let command = command.map(|it| text.value(it).map(str::to_owned));
    Ok(HookConfig {
        on: keys.on,
        command: command.collect::<Result<_, _>>()?,
        after: keys.after.map_or(Duration::ZERO, |it| it.0),
        repeat: keys.repeat.map(|it| it.0),
        timeout: keys.timeout.map_or(DEFAULT_HOOK_TIMEOUT, |it| it.0),
    })
}

fn ping(text: &Text, keys: &PingKeys) -> Result<PingConfig, Error> {
    Ok(PingConfig {
        url: text.value(&keys.url)?.to_owned(),
        style: keys.style.unwrap_or(PingStyle::Plain),
        every: keys.every.map_or(DEFAULT_PING_INTERVAL, |it| it.0),
    })
}
