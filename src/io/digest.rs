//! Digests of ranges of bytes, by which two files are compared.

use std::fs::File;
use std::ops::Range;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::io::read::{AlignedBuf, read_fully};

/// The BLAKE3 digest of a range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(blake3::Hash);

impl Digest {
    /// Its length in bytes.
    pub const LEN: usize = blake3::OUT_LEN;

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        self.0.as_bytes()
    }

    /// The digest of a range of a file, read in pieces of bounded size; `None`
    /// if the file ends before the range.
    pub fn of_file(file: &File, range: Range<u64>) -> io::Result<Option<Self>> {
        Self::of_range(range, |buffer, offset| read_fully(file, buffer, offset))
    }

    /// The digest of a range, read through `read` in pieces of bounded size.
    /// `read` fills the buffer from an offset on and says how many bytes there
    /// were; `None` if there are fewer than the range has.
    pub fn of_range<E>(
        range: Range<u64>,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Option<Self>, E> {
        const PIECE_LEN: u64 = 1024 * 1024;
        let mut hasher = blake3::Hasher::new();
        let mut piece = AlignedBuf::default();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE_LEN) as usize;
            let got = read(piece.room(len, at), at)?;
            if got == 0 {
                return Ok(None);
            }
            hasher.update(&piece[..got]);
            at += got as u64;
        }
        Ok(Some(Self(hasher.finalize())))
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash)
    }
}

impl From<[u8; Self::LEN]> for Digest {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = blake3::HexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        blake3::Hash::from_hex(text).map(Self)
    }
}
