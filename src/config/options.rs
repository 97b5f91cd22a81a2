//! The options of a storage, each of which may be missing: a storage has some from the
//! command line, some from its section of the configuration file, and some from the defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::storage::{BlobMode, BlobOptions, DEFAULT_INTERVAL, MasterConfig, StorageConfig};

/// How long a master may take to respond, unless configured otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a slave keeps packed blobs, unless configured otherwise.
pub const DEFAULT_KEEP_PACKED: Duration = Duration::from_secs(7 * 86_400);

/// The shortest and the longest interval of a watch.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// Options of a storage. `None` means that the option was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// See [`MasterConfig::rsh`].
    pub rsh: Option<String>,
    /// See [`MasterConfig::remote_fssync`].
    pub remote_fssync: Option<String>,
    /// See [`MasterConfig::timeout`].
    pub timeout: Option<Duration>,
    /// See [`StorageConfig::interval`].
    pub interval: Option<Duration>,
    /// See [`StorageConfig::status_file`].
    pub status_file: Option<PathBuf>,
    /// Whether blob files are copied.
    pub blobs: Option<bool>,
    /// See [`BlobOptions::master`].
    pub master_blobs: Option<String>,
    /// See [`BlobOptions::slave`].
    pub slave_blobs: Option<PathBuf>,
    /// See [`BlobOptions::recheck`].
    pub recheck_blobs: bool,
    /// See [`BlobOptions::keep_packed`].
    pub keep_packed: Option<Duration>,
}

impl StorageOptions {
    /// These options. Options that were not given are taken from `lower`.
    #[must_use]
    pub fn or(self, lower: &Self) -> Self {
        Self {
            rsh: self.rsh.or_else(|| lower.rsh.clone()),
            remote_fssync: self.remote_fssync.or_else(|| lower.remote_fssync.clone()),
            timeout: self.timeout.or(lower.timeout),
            interval: self.interval.or(lower.interval),
            status_file: self.status_file.or_else(|| lower.status_file.clone()),
            blobs: self.blobs.or(lower.blobs),
            master_blobs: self.master_blobs.or_else(|| lower.master_blobs.clone()),
            slave_blobs: self.slave_blobs.or_else(|| lower.slave_blobs.clone()),
            recheck_blobs: self.recheck_blobs || lower.recheck_blobs,
            keep_packed: self.keep_packed.or(lower.keep_packed),
        }
    }

    /// A storage with these options, and built-in values for those that were not given.
    #[must_use]
    pub fn storage(&self, master: Option<OsString>, slave: &Path) -> StorageConfig {
        StorageConfig {
            master: master.map(|location| self.master(location)),
            slave: slave.to_owned(),
            status_file: self.status_file.clone(),
            interval: self.interval.unwrap_or(DEFAULT_INTERVAL),
            blobs: self.blob_mode(),
        }
    }

    fn master(&self, location: OsString) -> MasterConfig {
        let text = |given: &Option<String>, built_in: &str| {
            given.clone().unwrap_or_else(|| built_in.to_owned())
        };
        let reads_blobs = self.blobs == Some(true);
        MasterConfig {
            location,
            rsh: text(&self.rsh, "ssh"),
            remote_fssync: text(&self.remote_fssync, "fssync"),
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            reads_blobs,
            blob_directory: self.master_blobs.clone().filter(|_| reads_blobs),
        }
    }

    fn blob_mode(&self) -> BlobMode {
        match self.blobs {
            None => BlobMode::Unset,
            Some(false) => BlobMode::Off,
            Some(true) => BlobMode::On(BlobOptions {
                master: self.master_blobs.clone(),
                slave: self.slave_blobs.clone(),
                recheck: self.recheck_blobs,
                keep_packed: self.keep_packed.unwrap_or(DEFAULT_KEEP_PACKED),
            }),
        }
    }
}

/// A positive time in seconds.
pub fn seconds(number: f64) -> Result<Duration, &'static str> {
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be a positive number of seconds"),
    }
}

/// The interval of a watch in seconds.
pub fn interval(number: f64) -> Result<Duration, &'static str> {
    Duration::try_from_secs_f64(number)
        .ok()
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or("must be a number of seconds from 0.01 to 86400")
}

/// A time in days, which may be 0.
pub fn days(number: f64) -> Result<Duration, &'static str> {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    Duration::try_from_secs_f64(number * SECONDS_PER_DAY)
        .map_err(|_| "must be a number of days, 0 or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_taken_from_the_first_that_gives_it() {
        let upper = StorageOptions {
            timeout: Some(Duration::from_secs(5)),
            blobs: Some(false),
            ..StorageOptions::default()
        };
        let lower = StorageOptions {
            timeout: Some(Duration::from_secs(50)),
            rsh: Some("ssh -p 22".to_owned()),
            blobs: Some(true),
            master_blobs: Some("/blobs".to_owned()),
            ..StorageOptions::default()
        };
        let storage = upper
            .or(&lower)
            .storage(Some("m:/d".into()), Path::new("s"));
        let master = storage.master.unwrap();
        assert_eq!(master.timeout, Duration::from_secs(5));
        assert_eq!(master.rsh, "ssh -p 22");
        assert_eq!(master.remote_fssync, "fssync");
        assert_eq!(storage.blobs, BlobMode::Off);
        assert_eq!((master.reads_blobs, master.blob_directory), (false, None));
        assert_eq!(storage.interval, DEFAULT_INTERVAL);
    }

    #[test]
    fn times_have_limits() {
        for number in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(seconds(number).is_err(), "{number}");
            assert!(interval(number).is_err(), "{number}");
        }
        assert!(interval(86_401.0).is_err() && interval(0.01).is_ok());
        assert_eq!(days(0.5), Ok(Duration::from_secs(43_200)));
        assert!(days(-0.1).is_err() && days(f64::NAN).is_err() && days(0.0).is_ok());
    }
}
