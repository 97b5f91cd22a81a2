//! Finds the storages of a file whose masters are in the same directory.
//!
//! A pass warns of storages beside its master that nobody copies. Before the first pass of another
//! storage of the file, only the file shows that it will be copied. Locations are compared as text:
//! reading a master could hang.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::topology::{Placed, normal};
use crate::filestorage::DATA_FS;
use crate::source::CoveredNames;
use crate::source::location::{self, Location};

/// Notes in each storage which storages beside its master have passes of their own.
pub(super) fn note(placed: &mut [Placed]) {
    let masters: Vec<_> = placed.iter().map(location).collect();
    for (n, one) in placed.iter_mut().enumerate() {
        let Some(own) = &masters[n] else {
            continue;
        };
        let others = masters.iter().enumerate().filter(|(other, _)| *other != n);
        let others: Vec<_> = others
            .filter_map(|(_, other)| other.as_ref())
            .filter(|other| own.is_on_same_machine(other))
            .map(|other| normal(other.path()))
            .collect();
        one.named.covered = names(&normal(own.path()), &others);
    }
}

fn location(placed: &Placed) -> Option<Location> {
    let master = placed.named.storage.master.as_ref()?;
    location::parse(&master.location).ok()
}

/// The names under which these masters are beside a master.
fn names(own: &Path, others: &[PathBuf]) -> CoveredNames {
    let parent = own.parent().unwrap_or(own);
    CoveredNames {
        of_file: names_in(parent, others),
        of_directory: names_in(own, others),
    }
}

/// The names of those masters that are in a directory. A master that is the directory itself means
/// its `Data.fs`.
fn names_in(directory: &Path, masters: &[PathBuf]) -> BTreeSet<String> {
    let name = |master: &PathBuf| {
        if master == directory {
            return Some(DATA_FS.to_owned());
        }
        let is_inside = master.parent() == Some(directory);
        let name = master.file_name().filter(|_| is_inside)?;
        name.to_str().map(str::to_owned)
    };
    masters.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests;
