//! Copies blob files from the master into the slave's blob directory.
//!
//! The log says which blobs are wanted ([`filestorage::blob`](crate::filestorage::blob)). A
//! [`BlobFetcher`] asks the master for them in groups, and gives each group to the slave's blob
//! directory, which makes it durable ([`slave::blobs`](crate::slave::blobs)). A pass fetches the
//! blobs of a batch before it makes the batch visible. [`catch_up`] fetches those of transactions
//! that were copied without them.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`fetch`] | fetches wanted blobs, group by group |
//! | [`catch_up`] | fetches the blobs of transactions that were copied without them |
//! | [`absent`] | asks the master again for blobs that it did not have |
//! | [`digests`] | completes the ledger of digests |
//! | [`remove`] | removes blobs that a pack of the master has removed |
//! | `receive` | one request to the master, and the content that arrives |
//! | `request` | the state of one wanted blob |

pub mod absent;
pub mod catch_up;
pub mod digests;
pub mod fetch;
mod receive;
pub mod remove;
mod request;

pub use self::fetch::{BlobEnds, BlobFetcher, Fetched, GROUP_LEN, LARGE_GROUP_LEN};
pub use self::receive::Received;
