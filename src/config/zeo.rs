//! Makes a configuration file from a `zeo.conf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use super::expand::escape;
use super::file::{MAX_LEN, Text, usage};
use super::name::StorageName;
use super::storages::check_storages;
use super::zconfig::{self, Section};
use crate::error::Error;
use crate::source::location::{self, Location};

/// The text of a configuration file with a storage for each `<filestorage>` and `<blobstorage>` of
/// a `zeo.conf`, or of a `zope.conf` that has them. The master of each has the path from the file,
/// after the prefix `master`, such as `zope@first:`; the slave has the same path. Reads the file,
/// those that it includes, and the directories of the slaves. Every error is [`Error::Usage`]. If no
/// configuration can have all of the storages, it names the line of the first one that is refused.
pub fn from_zeo(path: &Path, master: &str) -> Result<String, Error> {
    check_prefix(master)?;
    let whole = zconfig::read(path)?;
    let mut storages = Vec::new();
    for section in &whole.sections {
        let Some(storage) = storage_in(section)? else {
            continue;
        };
        let keys = BTreeMap::from([(name_of(section)?, storage.keys(master))]);
        let keys = BTreeMap::from([("storage", keys)]);
        // Strings and tables can always be written.
        let text = toml::to_string(&keys).unwrap_or_default();
        storages.push(Rc::new(Text::made(path, &section.place, text)));
    }
    if storages.is_empty() {
        return Err(usage(
            path,
            &"contains neither <filestorage> nor <blobstorage>",
        ));
    }
    check_storages(&storages)?;
    // A comment contains no control character.
    let origin = path.display().to_string().replace(char::is_control, "?");
    let sections = storages.iter().map(|it| format!("\n{}", it.as_str()));
    let text = format!("# Made from {origin}\n{}", sections.collect::<String>());
    if text.len() as u64 > MAX_LEN {
        let why = format!("is too long: the configuration would be larger than {MAX_LEN} bytes");
        return Err(usage(path, &why));
    }
    Ok(text)
}

/// Fails unless masters with this prefix are on a host, or have an absolute path.
fn check_prefix(master: &str) -> Result<(), Error> {
    match location::parse(format!("{master}/Data.fs").as_ref()) {
        Ok(Location::Path(path)) if path.is_relative() => Err(Error::Usage(format!(
            "{master} is neither a host nor an absolute path: expected a prefix of the masters, \
             such as zope@first: or /mnt/first"
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Usage(error.to_string())),
    }
}

/// The paths of the storages in a `zeo.conf`, or in a `zope.conf` that has them.
pub fn storage_paths(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let whole = zconfig::read(path)?;
    let storages = whole.sections.iter().map(storage_in);
    let storages = storages.filter_map(Result::transpose);
    storages.map(|it| Ok(PathBuf::from(it?.path))).collect()
}

/// A storage of the server.
struct Storage<'a> {
    path: &'a str,
    blobs: Option<&'a str>,
}

#[derive(Serialize)]
struct Keys {
    master: String,
    slave: String,
    blobs: BlobKeys,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BlobKeys {
    None(bool),
    At { master: String, slave: String },
}

impl Storage<'_> {
    fn keys(&self, master: &str) -> Keys {
        let blobs = self.blobs.map(|directory| BlobKeys::At {
            master: escape(directory),
            slave: escape(directory),
        });
        Keys {
            master: escape(&format!("{master}{}", self.path)),
            slave: escape(self.path),
            blobs: blobs.unwrap_or(BlobKeys::None(false)),
        }
    }
}

/// The storage in a section, which may be a wrapper such as `<blobstorage>` or `<zlibstorage>`.
fn storage_in(section: &Section) -> Result<Option<Storage<'_>>, Error> {
    let blobs = absolute(section, "blob-dir")?;
    if section.kind == "filestorage" {
        let why = format!("{}: <filestorage> has no path", section.place);
        let path = absolute(section, "path")?.ok_or(Error::Usage(why))?;
        return Ok(Some(Storage { path, blobs }));
    }
    let mut found: Option<Storage<'_>> = None;
    for inner in &section.sections {
        let Some(storage) = storage_in(inner)? else {
            continue;
        };
        if found.is_some() {
            let (place, kind) = (&section.place, &section.kind);
            let why = format!("{place}: <{kind}> contains several storages");
            return Err(Error::Usage(why));
        }
        found = Some(storage);
    }
    Ok(found.map(|storage| Storage {
        blobs: blobs.or(storage.blobs),
        ..storage
    }))
}

/// The value of a key, which must be an absolute path.
fn absolute<'a>(section: &'a Section, key: &str) -> Result<Option<&'a str>, Error> {
    match section.values.get(key) {
        None => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(path)),
        Some(path) => Err(Error::Usage(format!(
            "{}: {key} {path} is not an absolute path",
            section.place
        ))),
    }
}

/// The name of a section as that of a storage. Characters that it cannot contain become `-`.
/// Without a name, ZEO calls a storage `1`.
fn name_of(section: &Section) -> Result<StorageName, Error> {
    let name = section.name.as_deref().unwrap_or("1");
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let replaced: String = name
        .chars()
        .map(|c| if is_allowed(c) { c } else { '-' })
        .collect();
    let name = replaced.trim_start_matches(['-', '_']).parse();
    name.map_err(|error| Error::Usage(format!("{}: {error}", section.place)))
}

#[cfg(test)]
mod tests;
