//! The text of a configuration file: its keys, and errors with their line and column.
//!
//! The format is [TOML 1.1](https://toml.io/en/v1.1.0). `docs/configuration.md` describes the
//! keys. Every string may contain [variables](super::expand).

use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Display, Formatter};
use std::fs::OpenOptions;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::alerts::{Event, PingStyle};
use super::expand::{ExpandError, expand};
use super::name::StorageName;
use super::options::{self, StorageOptions};
use crate::error::Error;

/// The largest size of a file, in bytes.
pub(super) const MAX_LEN: u64 = 1024 * 1024;

/// A file, and its text.
#[derive(Debug)]
pub(super) struct Text {
    path: PathBuf,
    content: String,
    /// For text that is made from a part of another file: this part, for messages.
    made_from: Option<String>,
}

impl Text {
    /// Reads a file. Fails if it is not a regular file of UTF-8, or too large.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let fail = |why: &dyn Display| usage(path, why);
        // Opening a FIFO must not block.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|error| fail(&error))?;
        let found = file.metadata().map_err(|error| fail(&error))?;
        if !found.is_file() {
            return Err(fail(&"is not a regular file"));
        }
        let mut bytes = Vec::new();
        // The size is not trusted: the file may be growing.
        file.take(MAX_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| fail(&error))?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(fail(&format!("is larger than {MAX_LEN} bytes")));
        }
        let content = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].split(|&byte| byte == b'\n').count();
            fail(&format!("line {line}: is not UTF-8"))
        })?;
        Ok(Self {
            path: path.to_owned(),
            content,
            made_from: None,
        })
    }

    /// Text that is made from a part of a file. `place` names the part, in every error.
    pub(super) fn made(path: &Path, place: &str, content: String) -> Self {
        Self {
            path: path.to_owned(),
            content,
            made_from: Some(place.to_owned()),
        }
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.content
    }

    /// Its lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.content.lines()
    }

    /// Its content as `T`.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(&self.content).map_err(|error| {
            let message = error.message().split_whitespace().collect::<Vec<_>>();
            let message = message.join(" ");
            match error.span() {
                Some(span) => self.error_at(&span, &message),
                None => usage(&self.path, &message),
            }
        })
    }

    /// A string of the file. Fails if it is empty, or its variables cannot be expanded.
    pub(super) fn value<'v>(&self, value: &'v Value) -> Result<&'v str, Error> {
        match &value.get_ref().0 {
            Ok(text) => Ok(text),
            Err(why) => Err(self.error_at(&value.span(), why)),
        }
    }

    /// A path. A relative one is relative to the directory of the file.
    pub(super) fn path(&self, value: &Value) -> Result<PathBuf, Error> {
        Ok(self.directory()?.join(self.value(value)?))
    }

    /// A usage error about a part of the file.
    pub(super) fn error_at(&self, span: &Range<usize>, why: &dyn Display) -> Error {
        if let Some(place) = &self.made_from {
            return Error::Usage(format!("{place}: {why}"));
        }
        let place = Place::of(&self.content, span.start);
        usage(&self.path, &format!("{place}: {why}"))
    }

    /// The file, and the line of an offset, for messages about two places.
    pub(super) fn line_of(&self, offset: usize) -> String {
        if let Some(place) = &self.made_from {
            return place.clone();
        }
        let line = Place::of(&self.content, offset).line;
        format!("{}, line {line}", self.path.display())
    }

    /// The directory of the file. Relative paths in the file are relative to it.
    pub(super) fn directory(&self) -> Result<PathBuf, Error> {
        let whole = absolute(&self.path).map_err(|error| usage(&self.path, &error))?;
        Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
    }
}

/// A usage error about a file.
pub(super) fn usage(path: &Path, why: &dyn Display) -> Error {
    Error::Usage(format!("{}: {why}", path.display()))
}

/// A place in a text. The first line and the first column have the number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    /// In characters.
    column: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The main file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MainFile {
    #[serde(default)]
    pub(super) include: Vec<Value>,
    #[serde(default)]
    pub(super) defaults: StorageKeys,
    #[serde(default)]
    pub(super) storage: BTreeMap<StorageName, Spanned<StorageKeys>>,
    pub(super) metrics: Option<MetricsKeys>,
    #[serde(default)]
    pub(super) hook: Vec<Spanned<HookKeys>>,
    #[serde(default)]
    pub(super) ping: Vec<PingKeys>,
}

/// A file that the main file includes.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncludedFile {
    #[serde(default)]
    pub(super) storage: BTreeMap<StorageName, Spanned<StorageKeys>>,
}

/// The keys of a storage. Those of `[defaults]` are the same, without `master` and `slave`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StorageKeys {
    pub(super) master: Option<Value>,
    pub(super) slave: Option<Value>,
    rsh: Option<Value>,
    remote_fssync: Option<Value>,
    timeout: Option<Seconds>,
    interval: Option<Interval>,
    status_file: Option<Value>,
    blobs: Option<BlobKeys>,
    keep_packed: Option<Days>,
}

impl StorageKeys {
    /// The options that these keys in `text` set. Relative paths are relative to its directory.
    pub(super) fn options(&self, text: &Text) -> Result<StorageOptions, Error> {
        let value = |it: Option<&Value>| it.map(|it| text.value(it).map(str::to_owned)).transpose();
        let blobs = self.blobs.as_ref();
        let slave_blobs = blobs.and_then(|it| it.slave.as_ref());
        let switch = self.switch_options(text)?;
        Ok(StorageOptions {
            rsh: value(self.rsh.as_ref())?,
            remote_fssync: value(self.remote_fssync.as_ref())?,
            timeout: self.timeout.map(|it| it.0),
            interval: self.interval.map(|it| it.0),
            blobs: blobs.map(|it| it.are_copied),
            master_blobs: value(blobs.and_then(|it| it.master.as_ref()))?,
            slave_blobs: slave_blobs.map(|it| text.path(it)).transpose()?,
            recheck_blobs: false,
            keep_packed: self.keep_packed.map(|it| it.0),
            ..switch
        })
    }

    /// Only the options that `fssync off` needs.
    pub(super) fn switch_options(&self, text: &Text) -> Result<StorageOptions, Error> {
        let status_file = self.status_file.as_ref();
        Ok(StorageOptions {
            status_file: status_file.map(|it| text.path(it)).transpose()?,
            ..StorageOptions::default()
        })
    }
}

/// The value of `blobs`.
#[derive(Debug)]
struct BlobKeys {
    are_copied: bool,
    master: Option<Value>,
    slave: Option<Value>,
}

impl<'de> Deserialize<'de> for BlobKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;
        impl<'de> Visitor<'de> for BlobVisitor {
            type Value = BlobKeys;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a table with `master` and `slave`")
            }

            fn visit_bool<E>(self, are_copied: bool) -> Result<BlobKeys, E> {
                Ok(BlobKeys {
                    are_copied,
                    master: None,
                    slave: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BlobKeys, A::Error> {
                let table = BlobTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(BlobKeys {
                    are_copied: true,
                    master: table.master,
                    slave: table.slave,
                })
            }
        }
        deserializer.deserialize_any(BlobVisitor)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BlobTable {
    master: Option<Value>,
    slave: Option<Value>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsKeys {
    pub(super) textfile: Value,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookKeys {
    pub(super) on: Vec<Event>,
    pub(super) command: Vec<Value>,
    pub(super) after: Option<Seconds>,
    pub(super) repeat: Option<Seconds>,
    pub(super) timeout: Option<Seconds>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PingKeys {
    pub(super) url: Value,
    pub(super) style: Option<PingStyle>,
    pub(super) every: Option<Seconds>,
}

/// A string of a file. [`Text::value`] returns it with its variables expanded.
pub(super) type Value = Spanned<Expanded>;

/// A string that is not empty, with its variables expanded, or the reason why that is impossible.
/// A command fails only if it needs the value.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(from = "String")]
pub(super) struct Expanded(Result<String, String>);

impl From<String> for Expanded {
    fn from(text: String) -> Self {
        let variable = |name: &str| env::var(name);
        let expanded = expand(&text, variable).map_err(|error: ExpandError| error.to_string());
        Self(expanded.and_then(|it| match it.as_str() {
            "" => Err("the value is empty".to_owned()),
            text if text.contains('\0') => Err("the value contains a NUL character".to_owned()),
            _ => Ok(it),
        }))
    }
}

/// An integer or a float.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            #[allow(clippy::cast_precision_loss, reason = "no sensible time is that large")]
            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// A positive time in seconds.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(try_from = "Number")]
pub(super) struct Seconds(pub(super) Duration);

impl TryFrom<Number> for Seconds {
    type Error = &'static str;

    fn try_from(Number(number): Number) -> Result<Self, &'static str> {
        options::seconds(number).map(Self)
    }
}

/// The interval of a watch in seconds.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(try_from = "Number")]
struct Interval(Duration);

impl TryFrom<Number> for Interval {
    type Error = &'static str;

    fn try_from(Number(number): Number) -> Result<Self, &'static str> {
        options::interval(number).map(Self)
    }
}

/// A time in days.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(try_from = "Number")]
struct Days(Duration);

impl TryFrom<Number> for Days {
    type Error = &'static str;

    fn try_from(Number(number): Number) -> Result<Self, &'static str> {
        options::days(number).map(Self)
    }
}
