//! A configuration file with several storages.
//!
//! Loading reads the file, the files that it includes, and the directories of the slaves. It
//! never touches a master, which may be on a mount that hangs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use glob::{MatchOptions, Pattern, glob_with};
use toml::Spanned;

use super::alerts::{HookConfig, MetricsConfig, PingConfig, PingStyle};
use super::file::{Expanded, HookKeys, IncludedFile, MainFile, PingKeys, StorageKeys, Text, usage};
use super::name::StorageName;
use super::options::StorageOptions;
use super::storage::StorageConfig;
use super::topology::{self, Placed};
use crate::error::Error;
use crate::source::location::{self, Location};

/// The file that is used if none is named.
pub const DEFAULT_PATH: &str = "/etc/fssync/fssync.toml";

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "FSSYNC_CONFIG";

/// The largest number of included files, and of storages.
const MAX_FILES: usize = 1000;
const MAX_STORAGES: usize = 1000;

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
        let text = Rc::new(Text::read(path)?);
        let main: MainFile = text.parse()?;
        let ends = [&main.defaults.master, &main.defaults.slave];
        if let Some(end) = ends.into_iter().flatten().next() {
            let why = "expected no `master` and no `slave` in [defaults]: each storage has its own";
            return Err(text.error_at(&end.span(), &why));
        }
        let directory = text.directory()?;
        let defaults = main.defaults.options(&directory);
        let mut storages = Storages {
            upper,
            defaults: &defaults,
            placed: Vec::new(),
        };
        storages.add_all(&text, main.storage)?;
        for pattern in &main.include {
            for file in included(&text, &directory, pattern)? {
                let included = Rc::new(Text::read(&file)?);
                let content: IncludedFile = included.parse()?;
                storages.add_all(&included, content.storage)?;
            }
        }
        let placed = storages.placed;
        if placed.is_empty() {
            let why = "contains no storage: expected at least one section [storage.NAME]";
            return Err(usage(path, &why));
        }
        topology::check(&placed)?;
        let hooks = main.hook.into_iter().map(|keys| hook(&text, keys));
        Ok(Self {
            path: path.to_owned(),
            storages: placed.into_iter().map(|it| it.named).collect(),
            others: Vec::new(),
            metrics: main.metrics.map(|keys| MetricsConfig {
                textfile: directory.join(keys.textfile.0),
            }),
            hooks: hooks.collect::<Result<_, _>>()?,
            pings: main.ping.into_iter().map(ping).collect(),
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

/// Fails unless one configuration can have the storages in all of these texts.
pub(super) fn check_storages(texts: &[Rc<Text>]) -> Result<(), Error> {
    let options = StorageOptions::default();
    let mut storages = Storages {
        upper: &options,
        defaults: &options,
        placed: Vec::new(),
    };
    for text in texts {
        let content: IncludedFile = text.parse()?;
        storages.add_all(text, content.storage)?;
    }
    topology::check(&storages.placed)
}

/// The storages that were found so far.
struct Storages<'a> {
    upper: &'a StorageOptions,
    defaults: &'a StorageOptions,
    placed: Vec<Placed>,
}

impl Storages<'_> {
    /// Adds the storages of a file, in the order in which it has them.
    fn add_all(
        &mut self,
        text: &Rc<Text>,
        found: BTreeMap<StorageName, Spanned<StorageKeys>>,
    ) -> Result<(), Error> {
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(_, keys)| keys.span().start);
        for (name, keys) in found {
            let same_name = self.placed.iter().find(|it| it.named.name == name);
            if let Some(other) = same_name {
                let why = format!("storage {name} exists already, in {}", other.line());
                return Err(text.error_at(&keys.span(), &why));
            }
            if self.placed.len() == MAX_STORAGES {
                let why = format!("more than {MAX_STORAGES} storages");
                return Err(text.error_at(&keys.span(), &why));
            }
            let placed = self.place(text, name, &keys)?;
            self.placed.push(placed);
        }
        Ok(())
    }

    fn place(
        &self,
        text: &Rc<Text>,
        name: StorageName,
        keys: &Spanned<StorageKeys>,
    ) -> Result<Placed, Error> {
        let directory = text.directory()?;
        let missing = |key: &str| {
            let why = format!("storage {name} has no `{key}`: expected `{key} = \"...\"`");
            text.error_at(&keys.span(), &why)
        };
        let span = keys.span();
        let keys = keys.get_ref();
        let given = keys.master.as_ref().ok_or_else(|| missing("master"))?;
        let slave = keys.slave.as_ref().ok_or_else(|| missing("slave"))?;
        let fail = |error: &dyn std::fmt::Display| text.error_at(&given.span(), error);
        let master = given.get_ref().0.as_str();
        let location = location::parse(master.as_ref()).map_err(|error| fail(&error))?;
        let location: OsString = match location {
            Location::Path(path) => directory.join(path).into(),
            Location::Remote(_) => master.into(),
        };
        let own = keys.options(&directory);
        let options = self.upper.clone().or(&own.or(self.defaults));
        let storage = options.storage(Some(location), &directory.join(&slave.get_ref().0));
        if let Some(master) = &storage.master {
            master.check().map_err(|error| fail(&error))?;
        }
        Ok(Placed {
            named: NamedStorage { name, storage },
            text: Rc::clone(text),
            section: span,
            slave: slave.span(),
        })
    }
}

/// The files that a pattern names, sorted.
fn included(
    text: &Text,
    directory: &Path,
    pattern: &Spanned<Expanded>,
) -> Result<Vec<PathBuf>, Error> {
    let fail = |why: &dyn std::fmt::Display| text.error_at(&pattern.span(), why);
    let given = pattern.get_ref().0.as_str();
    if given.contains("**") {
        return Err(fail(
            &"`**` is not allowed in the pattern of included files",
        ));
    }
    let directory = directory
        .to_str()
        .ok_or_else(|| fail(&"cannot include files, since the path of this file is not UTF-8"))?;
    let whole = if given.starts_with('/') {
        given.to_owned()
    } else {
        format!("{}/{given}", Pattern::escape(directory))
    };
    // Temporary files of editors start with a dot.
    let options = MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        ..MatchOptions::default()
    };
    let found = glob_with(&whole, options).map_err(|error| fail(&error))?;
    let mut files = Vec::new();
    for file in found {
        files.push(file.map_err(|error| fail(&error))?);
        if files.len() > MAX_FILES {
            return Err(fail(&format!("includes more than {MAX_FILES} files")));
        }
    }
    let has_wildcard = given.contains(['*', '?', '[']);
    if files.is_empty() && !has_wildcard {
        return Err(fail(&format!("there is no file {given}")));
    }
    files.sort();
    Ok(files)
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
    Ok(HookConfig {
        on: keys.on,
        command: keys.command.into_iter().map(|it| it.0).collect(),
        after: keys.after.map_or(Duration::ZERO, |it| it.0),
        repeat: keys.repeat.map(|it| it.0),
        timeout: keys.timeout.map_or(DEFAULT_HOOK_TIMEOUT, |it| it.0),
    })
}

fn ping(keys: PingKeys) -> PingConfig {
    PingConfig {
        url: keys.url.0,
        style: keys.style.unwrap_or(PingStyle::Plain),
        every: keys.every.map_or(DEFAULT_PING_INTERVAL, |it| it.0),
    }
}
