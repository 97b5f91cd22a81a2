//! Blobs: objects with their data in files outside `Data.fs`.
//!
//! The data record of a blob in `Data.fs` says only that the object is a blob. Its bytes are
//! in a file of its own, named after the object and the transaction. So the log alone determines
//! which blob files a storage needs:
//!
//! | data record | blob file |
//! | --- | --- |
//! | the [pickle](pickle) of a blob | needed |
//! | a back pointer that leads to such a record | needed: an undo copies the file |
//! | a back pointer of 0 (the creation was undone) whose `prev` leads to such a record | [optional](BlobReference::is_optional) |
//!
//! A [`BlobCollector`] finds the data records in a scan that may be blobs, and
//! [`BlobCandidate::resolve`] follows their back pointers. If an object has several records in
//! one transaction, the last one counts. Transactions with status `u` do not count.

pub mod candidate;
pub mod collector;
pub mod layout;
pub mod names;
pub mod pickle;

use serde::{Deserialize, Serialize};

pub use self::candidate::{BlobCandidate, BlobReference, CandidateData};
pub use self::collector::BlobCollector;
pub use self::layout::{LAYOUT_FILE, Layout};
pub use self::pickle::{PICKLE_START_LEN, is_blob_pickle};

use super::Tid;

/// Identifies a blob file: the object, and the transaction of its data record.
///
/// Keys are ordered by their tids, as in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
pub struct BlobKey {
    /// Id of the transaction.
    pub tid: Tid,
    /// Id of the object.
    pub oid: u64,
}

#[cfg(test)]
pub(crate) mod tests;
