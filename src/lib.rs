//! fssync keeps a byte-identical, always-openable copy of a ZODB FileStorage
//! (`Data.fs`) on a second machine.
//!
//! # The flow of a pass
//!
//! ```text
//!            survey ──────▶ plan ──────▶ apply
//!        reads both ends   decides    carries out
//!           │      │      (pure)       │      │
//!        source  slave               source  slave
//!        (reads) (reads)             (reads) (writes)
//! ```
//!
//! [`pass::run`] makes one pass: it takes the pass lock, [surveys](pass::survey) both ends,
//! has [`plan::decide`] find the row of the decision table, and has [`pass::apply`]
//! carry the plan out. The [`source`] is the master, on a mounted path or through
//! ssh, where [`source::server`] answers in the frames of [`source::protocol`] and decides nothing; the
//! [`slave`] is the copy, and its folder the only code that writes.
//! [`filestorage`] knows what the bytes mean and does no I/O.
//!
//! Behind it, [`upkeep`] keeps ZODB's index ready beside the slave.
//!
//! [`watch::watch`] stays, and makes a pass whenever there is cause.
//! [`status::look`] reports the state of a slave, and changes nothing. [`verify::verify`]
//! checks whether it is sound; its result is noted beside the slave
//! ([`slave::verification`]), for `status` and for later passes. What is around a master
//! ([`source::Surroundings`]) is asked for when the master is another file than before.
//!
//! # Words
//!
//! The *master* is the file that is read, the *slave* the one that is written.
//! A *position* is the byte offset just past a committed transaction; the
//! *tail* of a file is the last bytes before a position. A *switch* is a file
//! that says whether syncing is on. The *sidecar* says what the last pass left.
//! The *index*, ZODB's own, says where the current data record of each object lies.
//! *Transaction*, *data record*, *tid*, *oid*, *back pointer* and *pack* are
//! ZODB's words.
//!
//! # The laws, and where they are argued
//!
//! 1. The slave is openable by ZODB at every instant, power cuts included, and
//!    what ZODB sees is a prefix of the master's committed history:
//!    [`slave::append`], [`slave::replace`].
//! 2. No transaction's only copy is ever destroyed: [`plan`],
//!    [`slave::replace`].
//! 3. The master is never written: [`source`] has no call that could.
//! 4. When `fssync off` has returned, nothing is written to the slave any more:
//!    [`slave::step`].
//! 5. No guess: [`plan::decide`] refuses what it cannot decide.
//! 6. The cost of a pass grows with what is new: [`plan::Question`].
//!
//! Which test proves which of it is told in `docs/proof.md`.
//!
//! # What is assumed
//!
//! - *The slave's file system* is local, keeps `flock`, hard links and atomic
//!   renames, and what `fsync` and `fdatasync` return for is durable. A write
//!   of one byte is not torn. Metadata of a file that is synced with
//!   `fdatasync` includes its size.
//! - *The master* is written by ZODB, which changes committed bytes in two
//!   cases only: a pack, which makes a new file, and `zodbupdate`, which
//!   rewrites the magic. A local master's bytes are read in the order in which
//!   a later write can only follow an earlier one.
//! - *NFS* lets pages be stale and reads be reordered. A batch is therefore
//!   compared with the server once more before it becomes visible
//!   ([`source::Source::confirm`]). Whether what is read is durable on the
//!   server cannot be known over NFS: a power cut there can take back a
//!   transaction that the slave has, which the next pass then refuses as a
//!   master that has fallen behind.

pub mod compare;
pub mod config;
pub mod error;
pub mod filestorage;
pub mod human;
pub mod io;
pub mod pass;
pub mod plan;
pub mod slave;
pub mod source;
pub mod status;
pub mod switch;
pub mod upkeep;
pub mod verify;
pub mod watch;
