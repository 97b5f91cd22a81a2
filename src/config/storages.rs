//! The sections `[storage.NAME]` of a configuration file, and of the files that it includes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glob::{MatchOptions, Pattern, glob_with};
use toml::Spanned;

use super::file::{IncludedFile, MainFile, StorageKeys, Text, Value, usage};
use super::name::StorageName;
use super::options::StorageOptions;
use super::site::NamedStorage;
use super::topology::{self, Placed};
use crate::error::Error;
use crate::source::CoveredNames;
use crate::source::location::{self, Location};

/// The largest number of included files, and of storages.
const MAX_FILES: usize = 1000;
const MAX_STORAGES: usize = 1000;

/// The commands for which a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Any command.
    Any,
    /// `fssync off`, which needs only the slaves.
    Off,
}

impl Purpose {
    /// The options that it needs.
    fn options(self, keys: &StorageKeys, text: &Text) -> Result<StorageOptions, Error> {
        match self {
            Self::Any => keys.options(text),
            Self::Off => keys.switch_options(text),
        }
    }
}

/// Fails unless one configuration can have the storages in all of these texts.
pub(super) fn check_storages(texts: &[Rc<Text>]) -> Result<(), Error> {
    let options = StorageOptions::default();
    let mut storages = Storages {
        upper: &options,
        defaults: &options,
        purpose: Purpose::Any,
        placed: Vec::new(),
    };
    for text in texts {
        let content: IncludedFile = text.parse()?;
        storages.add_all(text, content.storage)?;
    }
    topology::check(&storages.placed)
}

/// The storages that were found so far.
pub(super) struct Storages<'a> {
    upper: &'a StorageOptions,
    defaults: &'a StorageOptions,
    purpose: Purpose,
    placed: Vec<Placed>,
}

impl Storages<'_> {
    /// Reads the storages of a file, and of those that it includes. Returns its text and the rest
    /// of its content, too.
    pub(super) fn load(
        path: &Path,
        upper: &StorageOptions,
        purpose: Purpose,
    ) -> Result<(Rc<Text>, MainFile, Vec<Placed>), Error> {
        let text = Rc::new(Text::read(path)?);
        let mut main: MainFile = text.parse()?;
        let ends = [&main.defaults.master, &main.defaults.slave];
        if let Some(end) = ends.into_iter().flatten().next() {
            let why = "expected no `master` and no `slave` in [defaults]: each storage has its own";
            return Err(text.error_at(&end.span(), &why));
        }
        let defaults = purpose.options(&main.defaults, &text)?;
        let mut storages = Storages {
            upper,
            defaults: &defaults,
            purpose,
            placed: Vec::new(),
        };
        storages.add_all(&text, mem::take(&mut main.storage))?;
        let directory = text.directory()?;
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
        Ok((text, main, placed))
    }

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
        let missing = |key: &str| {
            let why = format!("storage {name} has no `{key}`: expected `{key} = \"...\"`");
            text.error_at(&keys.span(), &why)
        };
        let span = keys.span();
        let keys = keys.get_ref();
        let given = keys.master.as_ref().ok_or_else(|| missing("master"))?;
        let slave = keys.slave.as_ref().ok_or_else(|| missing("slave"))?;
        let location = match self.purpose {
            Purpose::Any => Some(master_location(text, given)?),
            Purpose::Off => None,
        };
        let own = self.purpose.options(keys, text)?;
        let options = self.upper.clone().or(&own.or(self.defaults));
        let storage = options.storage(location, &text.path(slave)?);
        if let Some(master) = &storage.master {
            let checked = master.check();
            checked.map_err(|error| text.error_at(&given.span(), &error))?;
        }
        Ok(Placed {
            named: NamedStorage {
                name,
                storage,
                covered: CoveredNames::default(),
            },
            text: Rc::clone(text),
            section: span,
            slave: slave.span(),
        })
    }
}

/// The location of a master. A relative path is relative to the directory of the file.
fn master_location(text: &Text, given: &Value) -> Result<OsString, Error> {
    let master = text.value(given)?;
    let parsed = location::parse(master.as_ref());
    match parsed.map_err(|error| text.error_at(&given.span(), &error))? {
        Location::Path(path) => Ok(text.directory()?.join(path).into()),
        Location::Remote(_) => Ok(master.into()),
    }
}

/// The files that a pattern names, sorted.
fn included(text: &Text, directory: &Path, pattern: &Value) -> Result<Vec<PathBuf>, Error> {
    let fail = |why: &dyn std::fmt::Display| text.error_at(&pattern.span(), why);
    let given = text.value(pattern)?;
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
