//! The configuration of one storage, and how to open its two ends.

mod storage;

pub use self::storage::{
    BlobMode, BlobOptions, DEFAULT_INTERVAL, MasterConfig, Mode, StorageConfig,
};
