//! What is around a master: other storages, a slave's sidecar, and the processes that
//! serve it or should.
//!
//! Asked for when the master is another file than before, and by `fssync status`; never by
//! a pass that follows. It is found where the master's disk is: a client of NFS sees the
//! files, but not the server's processes. In a container, only its own processes are seen.

mod strays;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::strays::Stray;

use super::open::Name;
use super::{EntryKind, FileId};
use crate::io::flock;

/// The most names, and the most processes, that are reported.
const MAX_REPORTED: usize = 20;

/// The most lists of a directory that are searched for names.
const MAX_LISTS: usize = 20;

/// The most bytes of a sidecar that are read.
const MAX_SIDECAR_LEN: u64 = 64 * 1024;

/// The part of a slave's sidecar that names the slave's master.
#[derive(Deserialize)]
struct Sidecar {
    #[serde(rename = "left")]
    last_sync: Option<LastSync>,
}

/// See [`Sidecar`].
#[derive(Deserialize)]
struct LastSync {
    master: FileId,
}

/// What is around a master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Surroundings {
    /// The other files in its directory with names that end in `.fs`, sorted.
    pub storages: Vec<String>,
    /// The file that it was copied from, if it is itself a slave whose sidecar says so.
    pub copied_from: Option<FileId>,
    /// The process that has it open as ZODB does.
    pub served_by: Option<u32>,
    /// Processes that write to a file which had the master's name before.
    pub strays: Vec<Stray>,
}

impl Surroundings {
    /// What is around the file of this name; with `beside`, the files in its directory too.
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

    /// The same within bounds: the other end of a connection may have sent anything.
    pub(super) fn bounded(mut self) -> Self {
        self.storages.truncate(MAX_REPORTED);
        self.strays.truncate(MAX_REPORTED);
        self
    }
}

/// The names of storages in the master's directory, but for its own.
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

/// The file that the sidecar beside the master names as its own master, if there is one
/// that makes sense.
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
