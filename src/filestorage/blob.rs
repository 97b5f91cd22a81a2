//! Blobs: objects with their data in files outside `Data.fs`.
//!
//! The data record of a blob in `Data.fs` says only that the object is a blob. Its bytes are
//! in a file of its own, named after the object and the transaction: see [`layout`].

pub mod layout;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

pub use self::layout::{LAYOUT_FILE, Layout};

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

/// The class of blobs in a pickle, in all protocols that ZODB has ever used.
const CLASS: &[u8] = b"cZODB.blob\nBlob\n";

/// Searches bytes for the class of blobs. The bytes may come in pieces.
#[derive(Debug)]
pub struct BlobSearch {
    finder: Finder<'static>,
    found: bool,
    /// The last bytes so far, fewer than the class has: it may continue in the next piece.
    end: Vec<u8>,
}

impl Default for BlobSearch {
    fn default() -> Self {
        Self {
            finder: Finder::new(CLASS),
            found: false,
            end: Vec::new(),
        }
    }
}

impl BlobSearch {
    /// Searches the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.found {
            return;
        }
        let overlap = CLASS.len() - 1;
        self.end.extend(&bytes[..bytes.len().min(overlap)]);
        self.found = self.finder.find(&self.end).is_some() || self.finder.find(bytes).is_some();
        if bytes.len() >= overlap {
            self.end.clear();
            self.end.extend(&bytes[bytes.len() - overlap..]);
        } else {
            let surplus = self.end.len().saturating_sub(overlap);
            self.end.drain(..surplus);
        }
    }

    /// Whether the class of blobs was found.
    #[must_use]
    pub fn has_found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_found_across_pieces() {
        let bytes = [b"\x80\x03".as_slice(), CLASS, b"q\x01."].concat();
        for piece_len in 1..=bytes.len() {
            let mut search = BlobSearch::default();
            for piece in bytes.chunks(piece_len) {
                search.take(piece);
            }
            assert!(search.has_found(), "in pieces of {piece_len}");
        }
    }

    #[test]
    fn another_class_is_not_a_blob() {
        let mut search = BlobSearch::default();
        search.take(b"cZODB.blob\nBlo");
        search.take(b"ck\ncmyapp\nBlob\n");
        assert!(!search.has_found());
    }
}
