//! Makes a configuration file from a `zeo.conf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::expand::escape;
use super::file::usage;
use super::name::StorageName;
use super::zconfig::{self, Section};
use crate::error::Error;

/// The text of a configuration file with a storage for each `<filestorage>` and `<blobstorage>` of
/// a `zeo.conf`, or of a `zope.conf` that has them. The master of each has the path from the file,
/// after the prefix `master`, such as `zope@first:`; the slave has the same path. Nothing but the
/// file and those that it includes is read.
pub fn from_zeo(path: &Path, master: &str) -> Result<String, Error> {
    let whole = zconfig::read(path)?;
    let mut text = format!("# Made from {}\n", path.display());
    let mut names: Vec<StorageName> = Vec::new();
    for section in &whole.sections {
        let Some(storage) = storage_in(section)? else {
            continue;
        };
        let name = name_of(section)?;
        if names.contains(&name) {
            let why = format!("a second storage with the name {name}");
            return Err(Error::Usage(format!("{}: {why}", section.place)));
        }
        let section = BTreeMap::from([(&name, storage.keys(master))]);
        let section = BTreeMap::from([("storage", section)]);
        // Strings and tables can always be written.
        text += "\n";
        text += &toml::to_string(&section).unwrap_or_default();
        names.push(name);
    }
    if names.is_empty() {
        return Err(usage(
            path,
            &"contains neither <filestorage> nor <blobstorage>",
        ));
    }
    Ok(text)
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
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{BlobMode, Site};

    const ZEO_CONF: &str = "
        %define INSTANCE /srv/plone
        %define var $instance/var
        %import some.package
        # <filestorage commented>
        <zeo>
          address 127.0.0.1:8100
          read-only false
        </zeo>
        <filestorage 1>
          PATH ${var}/filestorage/Data.fs
          blob-dir $VAR/blobstorage
        </filestorage>
        <BlobStorage Catalog>
          blob-dir $(CARGO_PKG_NAME)/../../x
        </BlobStorage>
        %include more.conf
        <eventlog/>
    ";

    /// The file that is made from these files.
    fn made(zeo_conf: &str, more: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zeo.conf");
        fs::write(directory.path().join("more.conf"), more).unwrap();
        fs::write(&path, zeo_conf).unwrap();
        let prefix = format!("{}/", directory.path().display());
        from_zeo(&path, "zope@first:").map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn a_storage_is_made_for_each_storage_of_the_server() {
        let zeo_conf = ZEO_CONF.replace(
            "blob-dir $(CARGO_PKG_NAME)/../../x\n",
            "blob-dir /srv/$(CARGO_PKG_NAME)/$$\n<filestorage>\npath /srv/c.fs\n</filestorage>\n",
        );
        let more = "<zlibstorage My.Zip>\n<filestorage>\npath $var/zip.fs\n</filestorage>\n\
                    </zlibstorage>\n";
        let text = made(&zeo_conf, more).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fssync.toml");
        fs::write(&path, &text).unwrap();
        let site = Site::load(&path).unwrap_or_else(|error| panic!("{error}: {text}"));
        let found: Vec<_> = site
            .storages
            .iter()
            .map(|it| {
                let blobs = match &it.storage.blobs {
                    BlobMode::On(blobs) => blobs.slave.clone(),
                    BlobMode::Off => None,
                    BlobMode::Unset => panic!("{it:?}"),
                };
                let master = it.storage.master_name();
                (it.name.as_str(), master, it.storage.slave_name(), blobs)
            })
            .collect();
        let expected = [
            (
                "1",
                "/srv/plone/var/filestorage/Data.fs",
                Some("/srv/plone/var/blobstorage"),
            ),
            ("catalog", "/srv/c.fs", Some("/srv/fssync/$")),
            ("my-zip", "/srv/plone/var/zip.fs", None),
        ]
        .map(|(name, path, blobs)| {
            let master = format!("zope@first:{path}");
            (name, master, path.to_owned(), blobs.map(Into::into))
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_file_that_zconfig_would_refuse_is_refused() {
        let one = "<filestorage 1>\npath /d\n</filestorage>\n";
        for (text, expected) in [
            ("", "zeo.conf: contains neither"),
            ("<zeo>\n</zeo>\n", "zeo.conf: contains neither"),
            (
                "<filestorage 1>\npath /d\n",
                "zeo.conf, line 1: section <filestorage> is not ended",
            ),
            (
                "<filestorage 1>\n</zeo>\n",
                "zeo.conf, line 2: this does not end",
            ),
            ("</zeo>\n", "zeo.conf, line 1: this does not end"),
            (
                "<filestorage 1\n",
                "zeo.conf, line 1: not the start of a section",
            ),
            (
                "<filestorage a b>\n",
                "zeo.conf, line 1: not the start of a section",
            ),
            ("<>\n", "zeo.conf, line 1: not the start of a section"),
            ("(x) y\n", "zeo.conf, line 1: not a key"),
            (
                "%define 1a b\n",
                "zeo.conf, line 1: 1a is not the name of a variable",
            ),
            ("%define\n", "zeo.conf, line 1: %define has no argument"),
            ("%frob x\n", "zeo.conf, line 1: %frob is not a directive"),
            ("%include zeo.conf\n", "zeo.conf: too many files"),
            ("%include none.conf\n", "none.conf: No such file"),
            (
                "%include http://x/y\n",
                "zeo.conf, line 1: cannot include http://x/y",
            ),
            ("a $b\n", "zeo.conf, line 1: the variable b is not defined"),
            (
                "a $(FSSYNC_UNSET_)\n",
                "zeo.conf, line 1: the environment variable FSSYNC_UNSET_",
            ),
            ("a $(b\n", "zeo.conf, line 1: the environment variable b"),
            ("a $\n", "zeo.conf, line 1: a dollar sign"),
            (
                "<filestorage>\n</filestorage>\n",
                "zeo.conf, line 1: <filestorage> has no path",
            ),
            (
                "<filestorage>\npath var/d\n</filestorage>\n",
                "zeo.conf, line 1: path var/d is not",
            ),
            (
                &one.repeat(2),
                "zeo.conf, line 4: a second storage with the name 1",
            ),
            (
                &format!("<demostorage>\n{one}{one}</demostorage>\n"),
                "zeo.conf, line 1: <demostorage>",
            ),
            (&"<a>\n".repeat(1000), "zeo.conf, line 21: too many nested"),
            (
                &one.replace(" 1>", " é>"),
                "zeo.conf, line 1: \"\" is not the name",
            ),
        ] {
            let message = made(text, "").unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
