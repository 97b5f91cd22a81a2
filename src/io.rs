//! Small parts that read, digest, flush and notify, for both ends.

pub mod digest;
pub mod file_stat;
pub mod flock;
pub(crate) mod flush;
pub(crate) mod notify;
pub mod pipe;
pub mod progress;
pub mod rate;
pub mod read;
