//! The surroundings of a master: other storages in its directory, the sidecar of a slave, and
//! the processes that serve the master or a file that it replaced.
//!
//! A pass asks for them only if the master is another file than in the last pass;
//! `fssync status` always asks. The search runs on the machine that reads the master: an NFS
//! client sees the files, but not the processes of the server. In a container, only its own
//! processes are visible.

mod strays;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::strays::Stray;

use super::open::Name;
use super::{EntryKind, FileId};
use crate::io::flock;

/// The maximum number of names, and of processes, in a report.
const MAX_REPORTED: usize = 20;

/// The maximum number of directory lists to search for names.
const MAX_LISTS: usize = 20;

/// The maximum length of a sidecar, in bytes.
const MAX_SIDECAR_LEN: u64 = 64 * 1024;

/// The part of a slave's sidecar that names the slave's master.
#[derive(Deserialize)]
struct Sidecar {
    #[serde(rename = "left")]
    last_sync: Option<LastSync>,
}

/// The part of [`Sidecar`] that the last pass wrote.
#[derive(Deserialize)]
struct LastSync {
    master: FileId,
}

/// The surroundings of a master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Surroundings {
    /// Names of the other files in its directory that end in `.fs`, sorted.
    pub storages: Vec<String>,
    /// The file that it was copied from, if it is itself a slave: the master in its sidecar.
    pub copied_from: Option<FileId>,
    /// Id of the process that serves it: the one that holds ZODB's lock.
    pub served_by: Option<u32>,
    /// Processes that write to a file which had the master's name earlier.
    pub strays: Vec<Stray>,
}

/// Storages beside a master that passes of their own copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoveredNames {
    /// Their names, if the name of the master is that of a file.
    pub of_file: BTreeSet<String>,
    /// Their names, if it is that of a directory with a `Data.fs`.
    pub of_directory: BTreeSet<String>,
}

impl Surroundings {
    /// Describes the surroundings of a file; with `beside`, also the files in its directory.
    pub(super) fn of(name: &Name, beside: bool) -> io::Result<Self> {
        let path = name.resolve()?;
        let mut found = Self {
            served_by: flock::holder(&with_suffix(&path, ".lock")),
            strays: strays::find(&path),
            ..Self::default()
        };
        found.strays.truncate(MAX_REPORTED);
        if let (true, Some(own)) = (beside, path.file_name().and_then(|own| own.to_str())) {
            found.storages = storages(name, own)?;
            found.copied_from = copied_from(name, own);
        }
        Ok(found)
    }

    /// The same, limited to the lengths of an honest report: it came from the other end of a
    /// connection.
    pub(super) fn bounded(mut self) -> Self {
        self.storages.truncate(MAX_REPORTED);
        self.strays.truncate(MAX_REPORTED);
        self
    }
}

/// The names of the other storages in the master's directory.
fn storages(name: &Name, own: &str) -> io::Result<Vec<String>> {
    let directory = name.beside(Path::new(""))?;
    let mut storages = Vec::new();
    let mut last: Option<String> = None;
    for _ in 0..MAX_LISTS {
        let entries = directory.list(last.as_deref())?;
        let Some(end) = entries.last() else {
            break;
        };
        last = Some(end.name.clone());
        let others = entries.into_iter().filter(|entry| {
            let is_storage = Path::new(&entry.name)
                .extension()
                .is_some_and(|it| it == "fs");
            is_storage && entry.kind == EntryKind::File && entry.name != own
        });
        storages.extend(others.map(|entry| entry.name));
        if storages.len() >= MAX_REPORTED {
            storages.truncate(MAX_REPORTED);
            break;
        }
    }
    Ok(storages)
}

/// The master that a valid sidecar beside this file names.
fn copied_from(name: &Name, own: &str) -> Option<FileId> {
    let file: File = name
        .beside(Path::new(&format!("{own}.fssync")))
        .ok()?
        .open()
        .ok()?
        .file;
    let mut text = Vec::new();
    file.take(MAX_SIDECAR_LEN).read_to_end(&mut text).ok()?;
    let sidecar: Sidecar = serde_json::from_slice(&text).ok()?;
    Some(sidecar.last_sync?.master)
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
