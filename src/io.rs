//! I/O that several modules share: positional reads, opens below a directory, digests, flushing,
//! locks, change notifications, programs with a time limit, and progress. Nothing here decides,
//! and only `flush` writes.

pub mod beneath;
pub(crate) mod children;
pub mod digest;
pub mod file_stat;
pub mod flock;
pub(crate) mod flush;
pub(crate) mod notify;
pub mod pipe;
pub mod process;
pub mod progress;
pub mod rate;
pub mod read;
pub(crate) mod window;
