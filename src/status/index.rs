//! ZODB's index beside the slave, as far as it is cheap to tell what it spares.

use std::io::{ErrorKind, Read};

use crate::filestorage::MAGIC_LEN;
use crate::slave::place::{self, Access, Beside, Place};
use crate::stop::Stop;

/// The lowest position that ZODB believes of an index.
const MIN_POSITION: u64 = 100;

/// How much of ZODB's work on opening the index spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// There is none.
    Missing,
    /// There is one, but not for this file.
    Unusable,
    /// It knows the slave up to this position, in bytes.
    UpTo(u64),
}

impl Index {
    /// Looks at the index of a slave with this position.
    pub(super) fn look(place: &Place, position: Option<u64>) -> Result<Self, Stop> {
        let path = place.beside(Beside::ZodbIndex);
        let mut head = Vec::new();
        let read =
            place::open(&path, Access::Read).and_then(|file| file.take(16).read_to_end(&mut head));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Missing),
            read => read.map_err(Stop::io("read", &path))?,
        };
        let usable = MIN_POSITION..=position.unwrap_or(0);
        Ok(match pickled_position(&head) {
            Some(at) if usable.contains(&at) => Self::UpTo(at),
            _ => Self::Unusable,
        })
    }

    /// How many bytes of a slave with this position ZODB reads on opening.
    #[must_use]
    pub fn scan_bytes(self, position: u64) -> u64 {
        let from = match self {
            Self::UpTo(at) => at,
            Self::Missing | Self::Unusable => MAGIC_LEN,
        };
        position.saturating_sub(from)
    }
}

/// The integer that an index starts with: a pickle of its own, of protocol 3
/// (`ZODB/fsIndex.py`).
fn pickled_position(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"\x80\x03")?;
    let (len, rest) = match *rest.first()? {
        b'K' => (1, &rest[1..]),
        b'M' => (2, &rest[1..]),
        b'J' => (4, &rest[1..]),
        b'\x8a' => (usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(len)?;
    let is_negative = digits.last().is_none_or(|&digit| len > 2 && digit >= 0x80);
    if len > 8 || is_negative || rest.first() != Some(&b'.') {
        return None;
    }
    Some(
        digits
            .iter()
            .rev()
            .fold(0, |n, &digit| n << 8 | u64::from(digit)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_read_as_python_pickled_it() {
        // pickle.dumps(n, 3), and what may follow.
        for (pickle, position) in [
            (&b"\x80\x03K\x64."[..], 100),
            (b"\x80\x03M\x10\x27.\x80\x03", 10_000),
            (b"\x80\x03J\x00\x00\x00\x40.", 1 << 30),
            (b"\x80\x03\x8a\x05\x00\x00\x00\x80\x00.", 1 << 31),
            (b"\x80\x03\x8a\x06\x00\x00\x00\x00\x00\x01.", 1 << 40),
        ] {
            assert_eq!(pickled_position(pickle), Some(position));
        }
    }

    #[test]
    fn what_is_no_such_pickle_has_no_position() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"\x80\x03",
            b"\x80\x03K",
            b"\x80\x03K\x64",
            b"\x80\x03K\x64,",
            b"\x80\x02K\x64.",
            b"\x80\x03J\xff\xff\xff\xff.",
            b"\x80\x03\x8a",
            b"\x80\x03\x8a\x00.",
            b"\x80\x03\x8a\xff\x01.",
            b"\x80\x03\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.",
            b"\x80\x03N.",
        ] {
            assert_eq!(pickled_position(bytes), None, "{bytes:?}");
        }
    }
}
