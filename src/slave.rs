//! The slave: the copy, and all that lies beside it. The only code that writes.
//!
//! | part | duty |
//! | --- | --- |
//! | [`paths`] | what the files are called, and where a slave may lie |
//! | [`owner`] | whom they belong to |
//! | [`lock`] | the three locks, and who holds them |
//! | [`running`] | the pass at work, and since when |
//! | [`switch`] | whether syncing is on |
//! | [`step`] | the door: every change of `Data.fs` passes through it |
//! | [`sidecar`] | what the last pass left |
//! | [`append`] | a batch of new transactions, visible at once |
//! | [`verification`] | what the last verification found |
//! | [`space`] | whether there is space for it |
//! | [`replace`] | a full copy, put in the slave's place |
//! | [`index`] | ZODB's index, kept ready |
//! | [`ledger`] | digests of the slave's bytes, to verify it by |

pub mod append;
pub mod attributes;
pub(crate) mod fields;
pub mod index;
pub mod ledger;
pub mod lock;
pub mod owner;
pub mod paths;
pub mod presence;
pub mod protection;
pub mod replace;
pub mod running;
pub(crate) mod scan;
pub mod sidecar;
pub mod since_last_pass;
pub mod small_file;
pub mod snapshot;
pub mod space;
pub mod step;
pub mod switch;
pub mod verification;
