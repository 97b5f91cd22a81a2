//! The name of a storage.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, absolute};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest number of characters of a name.
const MAX_LEN: usize = 63;

/// The name of a storage: `[a-z0-9][a-z0-9_-]{0,62}`. It is part of file names, units of
/// systemd, labels of metrics and log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageName(String);

/// A text that is not the name of a storage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a storage: expected a letter or a digit, then up to 62 letters, \
     digits, `_` or `-`; letters are lower-case and ASCII"
)]
pub struct NameError(String);

impl StorageName {
    /// A name for a slave that is given by its path: that of the file, or of the site if the file
    /// is `Data.fs`. The usual directories `filestorage` and `var` do not name a site.
    #[must_use]
    pub fn of_slave(slave: &Path) -> Self {
        let whole = absolute(slave).unwrap_or_else(|_| slave.to_owned());
        let own = whole
            .file_stem()
            .filter(|_| whole.extension().is_some_and(|it| it == "fs"));
        let own = own.filter(|stem| !stem.eq_ignore_ascii_case("data"));
        let is_site = |name: &&OsStr| {
            !["filestorage", "var", "Data.fs"]
                .into_iter()
                .any(|usual| *name == usual)
        };
        let site = || whole.ancestors().filter_map(Path::file_name).find(is_site);
        let name = own.or_else(site).unwrap_or_default().to_string_lossy();
        let allowed = name.chars().map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' => c,
            _ => '-',
        });
        let allowed: String = allowed.take(MAX_LEN).collect();
        let allowed = allowed.trim_start_matches(['-', '_']);
        allowed.parse().unwrap_or_else(|_| Self("slave".to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StorageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_allowed = |c: char| is_first(c) || c == '_' || c == '-';
        if text.len() <= MAX_LEN && text.starts_with(is_first) && text.chars().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError(text.chars().take(MAX_LEN + 1).collect()))
    }
}

impl TryFrom<String> for StorageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<StorageName> for String {
    fn from(name: StorageName) -> Self {
        name.0
    }
}

impl Display for StorageName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_contains_only_safe_characters() {
        let longest = "a".repeat(63);
        for name in ["a", "0", "site", "a-b_c9", &longest] {
            assert_eq!(name.parse::<StorageName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(64);
        for name in [
            "", "-a", "_a", "A", "aB", "a.b", "a/b", "a b", "é", "a\n", &too_long,
        ] {
            assert!(name.parse::<StorageName>().is_err(), "{name:?}");
        }
    }
}
