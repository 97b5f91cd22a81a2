//! Digests of byte ranges. Two files are compared by them.

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
    /// Length of a digest in bytes.
    pub const LEN: usize = blake3::OUT_LEN;

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// The bytes of the digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        self.0.as_bytes()
    }

    /// The digest of a range of a file, or `None` if the range reaches past the end of the
    /// file. Needs the memory of one read, whatever the length of the range.
    pub fn of_file(file: &File, range: Range<u64>) -> io::Result<Option<Self>> {
        Self::of_range(range, |buffer, offset| read_fully(file, buffer, offset))
    }

    /// The digest of a range that is read by `read`, or `None` if the range reaches past the
    /// end of the data. `read` fills a buffer with the bytes from an offset on, and returns
    /// their number, which is 0 at the end.
    pub fn of_range<E>(
        range: Range<u64>,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Option<Self>, E> {
        const READ_LEN: u64 = 1024 * 1024;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = AlignedBuf::default();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(READ_LEN) as usize;
            let got = read(buffer.room(len, at), at)?;
            if got == 0 {
                return Ok(None);
            }
            hasher.update(&buffer[..got]);
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
