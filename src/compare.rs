//! Comparisons of slave and master. They read both files and write neither.
//!
//! | module | question |
//! | --- | --- |
//! | `digests` | is a range the same in both files? |
//! | `join`, `lists`, `search` | which transactions are in only one file, and which differ? |
//! | [`fork_point`] | the same for the last transactions, backwards from the ends of the files |
//! | `fork` | up to which transaction do both have the same bytes, and which are the slave's own? |
//! | [`blob_sets`] | which blobs are in only one of the old slave's log and its copy? |
//! | [`succession`] | may a copy of the master replace the slave, or would that lose transactions? |

pub mod blob_sets;
pub(crate) mod digests;
pub(crate) mod fork;
pub mod fork_point;
pub(crate) mod join;
pub(crate) mod lists;
mod old_slave;
pub(crate) mod pair;
pub(crate) mod search;
pub mod span;
pub mod succession;
