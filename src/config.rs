//! The configuration: the storages, and how to open the two ends of each.
//!
//! A [`StorageConfig`] is made from the command line, or from a configuration file with several
//! storages, a [`Site`]. Both give [`StorageOptions`], of which the command line has priority.

mod alerts;
mod expand;
mod file;
mod name;
mod neighbours;
pub mod options;
mod print;
mod site;
mod storage;
mod storages;
mod topology;
mod zconfig;
mod zeo;

pub use self::alerts::{Event, HookConfig, MetricsConfig, PingConfig, PingStyle};
pub use self::name::{NameError, StorageName};
pub use self::options::StorageOptions;
pub use self::site::{DEFAULT_PATH, NamedStorage, PATH_VARIABLE, Site};
pub use self::storage::{
    BlobMode, BlobOptions, DEFAULT_INTERVAL, MasterConfig, Mode, StorageConfig,
};
pub use self::zeo::{from_zeo, storage_paths};

#[cfg(test)]
mod tests;
