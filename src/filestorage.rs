//! The FileStorage format: what the bytes of a `Data.fs` mean.
//!
//! Pure: nothing here opens, writes or waits. Bytes come in through
//! [`scan::Scanner::feed`], through [`backward::ReadAt`] or, an index's, through
//! [`std::io::Read`].
//!
//! The facts are those of ZODB 6.4 (`ZODB/FileStorage/format.py`,
//! `FileStorage.py`, `fspack.py`). All integers are big-endian.
//!
//! | offset | size | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `FS21` (written by Python 2) or `FS30` (Python 3) |
//! | 4 | … | transactions, one after the other, to the end of the file |
//!
//! A *position* is the byte offset just past a committed transaction, or 4 in
//! a file that has none.

pub mod backward;
pub mod blob;
pub mod check;
pub mod index;
pub mod record;
pub mod resync;
pub mod scan;
mod tid;

/// What ZODB's file is called where only its directory is named.
pub const DATA_FS: &str = "Data.fs";

pub use record::{MAGIC_LEN, Magic, TxnHeader, TxnStatus};
pub use tid::Tid;
