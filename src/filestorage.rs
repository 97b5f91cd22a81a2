//! The FileStorage format: decodes and checks the bytes of a `Data.fs` and of its index.
//!
//! This module does no I/O of its own. Callers pass bytes to [`scan::Scanner::feed`], or
//! provide [`backward::ReadAt`] or, for an index, [`std::io::Read`].
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`record`] | fields of transaction and data records |
//! | [`scan`] | finds the committed transactions, from the start to the end |
//! | [`backward`] | finds them from the end to the start |
//! | [`resync`] | finds the next valid transaction after damage |
//! | [`check`] | checks references between records |
//! | [`extract`] | copies a run of transactions into a FileStorage of its own |
//! | [`index`] | the index of objects, and the format of `Data.fs.index` |
//! | [`blob`] | recognises data records of blobs |
//!
//! The facts come from ZODB 6.4 (`ZODB/FileStorage/format.py`, `FileStorage.py`, `fspack.py`).
//! All integers are big-endian.
//!
//! | offset | size | content |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `FS21` (written by Python 2) or `FS30` (Python 3) |
//! | 4 | … | transactions, one after the other, to the end of the file |
//!
//! A *position* is the byte offset just past a committed transaction, or 4 in
//! a file that has none.

pub mod backward;
pub mod blob;
pub mod check;
pub mod extract;
pub mod index;
pub mod record;
pub mod resync;
pub mod scan;
mod tid;

/// The file name that is used if only the directory is given.
pub const DATA_FS: &str = "Data.fs";

pub use record::{MAGIC_LEN, Magic, TxnHeader, TxnStatus};
pub use tid::Tid;
