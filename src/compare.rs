//! Comparing the transactions of slave and master.

pub(crate) mod digests;
pub(crate) mod join;
pub(crate) mod lists;
mod old_slave;
pub(crate) mod pair;
pub(crate) mod search;
pub mod span;
pub mod succession;
pub mod tails;
