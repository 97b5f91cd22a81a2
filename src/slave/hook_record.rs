//! The record of hooks, in `Data.fs.fssync-hooks`: which events they have reported.
//!
//! It lets a pass of cron know what the passes before it have reported. Its content belongs to
//! [`hooks`](crate::hooks), and is JSON. The record exists only if hooks are configured. Its loss
//! costs only another report, so it is replaced atomically and not synced.
//!
//! It is written outside of passes. So that nothing is written after `fssync off` has returned,
//! the step lock is held, under which the switches are read (the cases of
//! [`step`](super::step)). The lock also keeps two processes from updating it at the same time.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::paths::Sibling;
use super::small_file::{read_if_exists, replace_small_file};
use super::step::Slave;
use crate::error::Error;

/// Upper limit for the size of the record, in bytes.
const MAX_LEN: u64 = 256 * 1024;

/// Changes the record, and stores it if it differs afterwards. A record that is missing or
/// invalid is `or_else`.
///
/// Returns the new content. Fails with [`Error::Off`] if syncing is off. Fails if no pass was
/// made for this path, so that nothing is created beside a name that was mistyped.
pub fn update<T>(slave: &Slave, or_else: &T, change: impl FnOnce(&mut T)) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned + Clone + PartialEq,
{
    let paths = &slave.paths;
    let _lock = slave.block_steps_of_synced()?;
    slave.switches.check()?;
    let path = paths.sibling(Sibling::Hooks);
    let old = read_if_exists(&path, MAX_LEN)?.and_then(|text| {
        serde_json::from_slice::<T>(&text)
            .inspect_err(|error| tracing::warn!("ignoring {}: {error}", path.display()))
            .ok()
    });
    let mut new = old.clone().unwrap_or_else(|| or_else.clone());
    change(&mut new);
    if old.as_ref() != Some(&new) {
        let mut text = serde_json::to_vec_pretty(&new)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        text.push(b'\n');
        replace_small_file(paths, Sibling::HooksNew, &path, &text)?;
    }
    Ok(new)
}

#[cfg(test)]
mod tests;
