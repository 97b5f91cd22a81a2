//! The slave: the copy of `Data.fs` and the files beside it. Only this module writes them.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`paths`] | the names of the files, and the paths that a slave may have |
//! | [`presence`] | whether a path has, or ever had, a slave |
//! | [`owner`], [`attributes`] | owner, mode and extended attributes of new files |
//! | [`small_file`] | files that may be missing, and atomic replacement of small ones |
//! | [`lock`] | the three locks, and the processes that hold them |
//! | [`running`] | the pass that is running, and its age |
//! | [`switch`] | whether syncing is on |
//! | [`protection`], [`space`] | conditions under which a write would fail, checked before a pass copies anything |
//! | [`step`] | the guard of every change of `Data.fs` |
//! | [`append`] | appends a batch of transactions, which become visible together |
//! | `tail` | truncates and saves unfinished bytes after the slave's position |
//! | [`rewind`], [`set_aside`] | truncates the slave at a fork point; sets the transactions after it aside |
//! | [`replace`] | a full copy, and its rename over the slave |
//! | [`blobs`] | the blob directory: receives, places, keeps and removes blob files |
//! | [`sidecar`] | the state that the last pass left |
//! | [`reminder`] | the trouble that `fssync -q --remind` last reported |
//! | [`snapshot`], [`since_last_pass`] | the state of the slave now, compared with the sidecar |
//! | [`verification`] | the result of the last verification |
//! | [`index`] | ZODB's index, kept complete |
//! | [`ledger`] | checksums of the slave's bytes, for verification without the master |
//! | `sealed` | records with a check, of which the ledgers consist |

pub mod append;
pub mod attributes;
pub mod blobs;
pub(crate) mod fields;
pub mod hook_record;
pub mod index;
pub mod ledger;
pub mod lock;
pub mod owner;
pub mod paths;
pub mod presence;
pub mod probe;
pub mod protection;
pub mod reminder;
pub mod replace;
pub mod rewind;
pub mod running;
pub mod scan;
mod sealed;
pub mod set_aside;
pub mod sidecar;
pub mod since_last_pass;
pub mod small_file;
pub mod snapshot;
pub mod space;
pub mod step;
pub mod switch;
mod tail;
pub mod verification;
