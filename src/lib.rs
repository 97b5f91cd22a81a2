//! fssync keeps a byte-identical, always-openable copy of a ZODB FileStorage
//! (`Data.fs`) on a second machine.
//!
//! # A pass
//!
//! ```text
//!            survey ──────▶ plan ──────▶ apply
//!        reads both ends   decides    executes
//!           │      │      (pure)       │      │
//!        source  slave               source  slave
//!        (reads) (reads)             (reads) (writes)
//! ```
//!
//! [`pass::run`] makes one pass. It takes the pass lock, then
//! [surveys](pass::survey) the ends of both files, lets [`plan::decide`] choose the action
//! from the decision table, and [applies](pass::apply) the action. Last, it brings ZODB's
//! index and the ledger of digests up to date ([`upkeep`]).
//!
//! [`watch::watch`] makes a pass whenever the master changes. [`status::look`] reports
//! the state of a slave and what a failover would lose. [`verify::verify`] checks every
//! record of a slave. [`switch::off`] and [`switch::on`] turn syncing off and on.
//!
//! # Modules
//!
//! A module uses only modules further down in this table; a test checks it.
//!
//! | module | responsibility |
//! | --- | --- |
//! | `cli` | the `fssync` program: arguments, log, reports, signals; one file for each subcommand |
//! | [`doctor`] | examines the set-up of a storage |
//! | [`hooks`] | runs programs that report how passes ended: hooks and pings |
//! | [`metrics`] | metrics of storages, as text and as a textfile |
//! | [`config`] | the storages, from the command line or a configuration file, and how to open their two ends |
//! | [`watch`] | waits for changes and makes passes |
//! | [`status`] | reports the state of a slave, without locks or writes |
//! | [`pass`] | one pass: survey, plan, apply |
//! | [`verify`] | checks every record, the digests and the index of a slave |
//! | [`switch`] | switches syncing off and on |
//! | [`upkeep`] | keeps ZODB's index and the ledger of digests up to date |
//! | [`compare`] | compares two files: by digests, by tid, back to the fork point |
//! | [`blobs`] | copies blob files from the master into the slave's blob directory |
//! | [`slave`] | the slave and the files beside it; the only code that writes |
//! | [`error`] | why a pass stopped, its exit code, and retries |
//! | [`plan`] | decisions and outcomes, without I/O |
//! | [`source`] | the master, read-only: on a mounted path, or through ssh and `fssync serve` |
//! | [`io`] | reading, opening below a directory, digests, write-back, notifications, file locks, processes, progress |
//! | [`filestorage`] | the format of `Data.fs` and of its index, without I/O |
//! | [`human`] | times, sizes and counts as text |
//!
//! # Terms
//!
//! - *Master*: the file that is read. *Slave*: the file that is written.
//! - *Position*: the offset just after the last committed transaction of a file. *Tail*: the
//!   bytes after the position, such as an unfinished transaction.
//! - *Fingerprint*: digests of the first bytes of a file and of the last ones before a position.
//! - *Continuity*: whether the slave is as the last pass left it, has grown since, or has changed.
//! - *Kin*: two files with a common transaction, after which only the master went on.
//! - *Fork point*: the last transaction boundary up to which two files have the same bytes. *Own
//!   transactions*: those of the slave after it, which the master lacks.
//! - *Rewind*: to set the own transactions aside and truncate the slave at the fork point.
//! - *Switch*: a file that turns syncing on or off.
//! - *Sidecar*: the file beside the slave in which a pass records the state it left.
//! - *Ledger*: the file beside the slave with digests of the bytes that were received.
//! - *Index*: ZODB's own file with the position of each object's current data record.
//! - *Step*: a change of `Data.fs` under the step lock and ZODB's lock.
//! - *Batch*: transactions that become visible to ZODB together.
//! - *Blemish*: a defect that does not affect the data.
//! - *Surroundings*: other storages beside the master, and the processes that have it open.
//! - *Transaction*, *data record*, *tid*, *oid*, *back pointer*, *pack*: as in ZODB.
//!
//! # Laws, and where they are argued
//!
//! 1. ZODB can open the slave at any time, even after a power cut, and then sees a prefix
//!    of the master's committed history: [`slave::append`], [`slave::replace`], [`slave::rewind`].
//! 2. The only copy of a transaction is never destroyed: [`plan`], [`slave::replace`],
//!    [`slave::rewind`].
//! 3. The master is never written: [`source`] contains no call that could do it.
//! 4. After `fssync off` has returned, nothing is written to the slave: [`slave::step`].
//! 5. fssync does not guess: [`plan::decide`] refuses cases that it cannot decide.
//! 6. The cost of a pass depends on the new data, not on the size of the files:
//!    [`plan::Question`].
//! 7. If passes copy blobs, a transaction becomes visible in the slave only once each blob that
//!    it refers to, and that the master has, is durable there: [`slave::blobs`].
//!
//! `docs/proof.md` lists the tests that prove each law.
//!
//! # Assumptions
//!
//! - *The slave's file system* is local. It supports `flock`, hard links and atomic
//!   renames. Data is durable once `fsync` or `fdatasync` has returned. `fdatasync` includes
//!   the size of the file. A write of one byte is never torn.
//! - *The master* is written by ZODB. ZODB changes committed bytes in two cases only: a pack
//!   creates a new file, and `zodbupdate` rewrites the magic. Reads of a local master are
//!   ordered: if a read returns a write, later reads return the writes before it.
//! - *NFS* may return stale pages and reorder reads. A batch is therefore compared with
//!   the server again before it becomes visible ([`source::Source::confirm`]). A client
//!   cannot know whether data is durable on the server. A power cut there can therefore
//!   undo a transaction that the slave already has; the next pass then refuses, since the
//!   master is older than the slave.

pub mod config;
pub mod metrics;
pub mod pass;
pub mod status;
pub mod switch;
pub mod verify;
pub mod watch;

// The rest of the interface: the types in the signatures of the modules above.
pub use error::Error;
pub use filestorage::Tid;
pub use io::progress::{Monitor, Silent};
pub use plan::outcome::{Action, Copied, Exit, Outcome};
pub use slave::step::Slave;
pub use source::Master;
pub use source::ssh::Process;

// Public for the tests, the benchmarks and the fuzz targets only.
#[doc(hidden)]
pub mod blobs;
#[doc(hidden)]
pub mod compare;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod filestorage;
#[doc(hidden)]
pub mod hooks;
#[doc(hidden)]
pub mod human;
#[doc(hidden)]
pub mod io;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod slave;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod upkeep;
