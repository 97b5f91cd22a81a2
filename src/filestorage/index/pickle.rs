//! The format of `Data.fs.index`: a sequence of pickles of protocol 3, as `fsIndex.save` of
//! ZODB 5 and 6 writes them on Python 3.
//!
//! | bytes | content |
//! | --- | --- |
//! | `80 03`, number, `2e` | position of the index |
//! | `80 03`, `43 06`, prefix, bucket, `86 2e` | for each oid prefix of 6 bytes, in rising order: its objects |
//! | `80 03 4e 2e` | end |
//!
//! A bucket has up to 65,536 objects. It starts with `43` and its length in 1 byte if that is
//! less than 256, otherwise with `42` and its length in 4 bytes. Then come the last 2 bytes of
//! each oid, in rising order, and then the positions, 6 bytes each in the same order. A number
//! is `4b` and 1 byte, `4d` and 2 bytes, `4a` and 4 bytes, or `8a`, a length in 1 byte, and that
//! many bytes. The first of these forms that can represent the signed number is used. Numbers
//! and lengths are little-endian. Prefixes, suffixes and positions are big-endian.
//!
//! All other forms are foreign and rejected, even if ZODB can load them: those of Python 2,
//! which ZODB 6 loads only if all bytes are ASCII, and the dictionaries from before 2010. A
//! file that is read and written again is identical.

use std::cmp::Ordering;
use std::io::{self, BufReader, ErrorKind, Read, Write};

use super::Index;
use super::leaf::{Packed, pack, unpack};
use crate::filestorage::record::{DATA_HEADER_LEN, MAGIC_LEN, TXN_HEADER_LEN};

const PROTO_3: [u8; 2] = [0x80, 3];
const BININT: u8 = b'J';
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const LONG1: u8 = 0x8a;
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';
const TUPLE2: u8 = 0x86;
const NONE: u8 = b'N';
const STOP: u8 = b'.';

const END: [u8; 4] = [PROTO_3[0], PROTO_3[1], NONE, STOP];
const BUCKET: [u8; 4] = [PROTO_3[0], PROTO_3[1], SHORT_BINBYTES, PREFIX_LEN];

const PREFIX_LEN: u8 = 6;
const SUFFIX_LEN: usize = 2;
const POSITION_LEN: usize = size_of::<Packed>();
const OBJECT_LEN: usize = SUFFIX_LEN + POSITION_LEN;

/// The number of bits in the suffix of an oid.
const SUFFIX_BITS: u32 = 16;

/// The maximum number of objects with the same prefix.
const MAX_BUCKET_LEN: usize = 1 << SUFFIX_BITS;

/// The maximum length of the first pickle, which contains the position, in bytes.
pub const MAX_HEAD_LEN: usize = PROTO_3.len() + 2 + 8 + 1;

/// The minimum length of a data record in a `Data.fs`, in bytes.
const MIN_RECORD_LEN: u64 = DATA_HEADER_LEN as u64 + 1;

/// The bytes are not a valid index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the index cannot be read")]
    Io(#[source] io::Error),
    /// The file is truncated at this offset.
    #[error("the index is truncated at {0}")]
    Short(u64),
    /// The bytes are not in the format of ZODB on Python 3, or impossible for the file.
    #[error("at {offset} in the index: {what}")]
    Foreign {
        /// Offset in the index.
        offset: u64,
        /// Description of the deviation.
        what: &'static str,
    },
}

impl Index {
    /// Writes the same file that ZODB would write for an index of `position`. Needs memory for
    /// the objects of one prefix in addition: half a megabyte at most.
    pub fn write(&self, position: u64, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&head(position))?;
        let (mut suffixes, mut positions) = (Vec::new(), Vec::new());
        let mut prefix = 0;
        // The objects come sorted by oid, so those of one prefix are adjacent.
        for (oid, position) in self.iter() {
            if oid >> SUFFIX_BITS != prefix {
                write_bucket(prefix, &mut suffixes, &mut positions, to)?;
                prefix = oid >> SUFFIX_BITS;
            }
            suffixes.extend((oid as u16).to_be_bytes());
            positions.extend(pack(position));
        }
        write_bucket(prefix, &mut suffixes, &mut positions, to)?;
        to.write_all(&END)
    }

    /// Reads such a file. Returns the index and its position. The file may be hostile, so the
    /// memory is limited: a position greater than `max_position` is an error, and so are more
    /// objects than a `Data.fs` of that length can contain.
    pub fn read(from: impl Read, max_position: u64) -> Result<(Self, u64), Error> {
        let mut reader = Reader::open(from)?;
        let position = reader.position();
        if position > max_position {
            return Err(reader.foreign("its position is beyond the end of the file"));
        }
        let mut index = Self::default();
        let mut least_prefix = 0;
        while let Some(bucket) = reader.next()? {
            if bucket.prefix < least_prefix {
                return Err(reader.foreign("prefixes are not sorted"));
            }
            least_prefix = bucket.prefix + 1;
            // Each object needs a data record before the position. This limits the memory that a
            // hostile file can cause.
            let room = (position / MIN_RECORD_LEN).saturating_sub(index.len as u64);
            if bucket.len() as u64 > room {
                return Err(reader.foreign("more objects than the file can hold"));
            }
            let added = index.add_bucket(&bucket, position);
            added.map_err(|what| reader.foreign(what))?;
        }
        Ok((index, position))
    }

    /// Adds the objects of one prefix, which is greater than all earlier ones.
    fn add_bucket(&mut self, bucket: &Bucket, position: u64) -> Result<(), &'static str> {
        let mut least = 0;
        for IndexEntry {
            oid, position: at, ..
        } in bucket.entries()
        {
            let suffix = u32::from(oid as u16);
            if suffix < least {
                return Err("oids are not sorted");
            }
            least = suffix + 1;
            if at < MAGIC_LEN + TXN_HEADER_LEN as u64 || at >= position {
                return Err("the position of an object is outside the file");
            }
            self.insert(oid, at);
        }
        Ok(())
    }
}

/// Reads an index file prefix by prefix. Checks only the format, not the oids and positions.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<BufReader<R>>,
    position: u64,
}

/// The objects of one prefix in an index file.
#[derive(Debug)]
pub struct Bucket {
    prefix: u64,
    bytes: Vec<u8>,
    /// Offset of the bytes in the file.
    offset: u64,
}

/// An object in an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Object id.
    pub oid: u64,
    /// Position of its current data record, according to the index.
    pub position: u64,
    /// Offset of this position in the index file.
    pub offset: u64,
}

impl<R: Read> Reader<R> {
    /// Starts to read, up to the position.
    pub fn open(from: R) -> Result<Self, Error> {
        const BUFFER_LEN: usize = 64 * 1024;
        let from = BufReader::with_capacity(BUFFER_LEN, from);
        let mut input = Input { from, at: 0 };
        let position = input.position()?;
        Ok(Self { input, position })
    }

    /// Position of the index.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of bytes read so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.input.at
    }

    /// The objects of the next prefix, or `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "it may fail")]
    pub fn next(&mut self) -> Result<Option<Bucket>, Error> {
        self.input.bucket()
    }

    fn foreign(&self, what: &'static str) -> Error {
        self.input.foreign(what)
    }
}

impl Bucket {
    /// Number of objects.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len() / OBJECT_LEN
    }

    /// Whether an oid has this prefix.
    #[must_use]
    pub fn holds(&self, oid: u64) -> bool {
        oid >> SUFFIX_BITS == self.prefix
    }

    /// The position that ZODB finds for an oid with this prefix. Like ZODB, assumes that the
    /// objects are sorted.
    #[must_use]
    pub fn get(&self, oid: u64) -> Option<u64> {
        let (suffixes, positions) = self.bytes.split_at(self.len() * SUFFIX_LEN);
        let suffixes = suffixes.as_chunks::<SUFFIX_LEN>().0;
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match u16::from_be_bytes(suffixes[middle]).cmp(&(oid as u16)) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => {
                    return Some(unpack(positions.as_chunks::<POSITION_LEN>().0[middle]));
                }
            }
        }
        None
    }

    /// The objects, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry> {
        let (suffixes, positions) = self.bytes.split_at(self.len() * SUFFIX_LEN);
        let start = self.offset + suffixes.len() as u64;
        let suffixes = suffixes.as_chunks::<SUFFIX_LEN>().0.iter();
        let positions = positions.as_chunks::<POSITION_LEN>().0.iter();
        let offsets = (start..).step_by(POSITION_LEN);
        suffixes
            .zip(positions)
            .zip(offsets)
            .map(|((&suffix, &position), offset)| IndexEntry {
                oid: self.prefix << SUFFIX_BITS | u64::from(u16::from_be_bytes(suffix)),
                position: unpack(position),
                offset,
            })
    }
}

/// Reads only the position of an index, from the first bytes of its file. [`MAX_HEAD_LEN`] are
/// always enough.
pub fn read_position(from: impl Read) -> Result<u64, Error> {
    Input { from, at: 0 }.position()
}

/// The pickle of the position.
fn head(position: u64) -> Vec<u8> {
    let bytes = position.to_le_bytes();
    let mut head = PROTO_3.to_vec();
    match position {
        0..0x100 => head.extend([BININT1, bytes[0]]),
        0x100..0x1_0000 => head.extend([BININT2, bytes[0], bytes[1]]),
        0x1_0000..0x8000_0000 => {
            head.push(BININT);
            head.extend(&bytes[..4]);
        }
        _ => {
            // One more bit than the number has, for its sign.
            let len = (u64::BITS - position.leading_zeros()) as usize / 8 + 1;
            head.extend([LONG1, len as u8]);
            head.extend([bytes.as_slice(), &[0]].concat().iter().take(len));
        }
    }
    head.push(STOP);
    head
}

/// Writes the objects of one prefix, if there are any, and clears the buffers.
fn write_bucket(
    prefix: u64,
    suffixes: &mut Vec<u8>,
    positions: &mut Vec<u8>,
    to: &mut impl Write,
) -> io::Result<()> {
    let len = suffixes.len() + positions.len();
    if len == 0 {
        return Ok(());
    }
    to.write_all(&BUCKET)?;
    to.write_all(&pack(prefix))?;
    if let Ok(len) = u8::try_from(len) {
        to.write_all(&[SHORT_BINBYTES, len])?;
    } else {
        to.write_all(&[BINBYTES])?;
        to.write_all(&(len as u32).to_le_bytes())?;
    }
    to.write_all(suffixes)?;
    to.write_all(positions)?;
    to.write_all(&[TUPLE2, STOP])?;
    suffixes.clear();
    positions.clear();
    Ok(())
}

/// An index file that is being read.
#[derive(Debug)]
struct Input<R> {
    from: R,
    /// Number of bytes read so far.
    at: u64,
}

impl<R: Read> Input<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.from.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Error::Short(self.at)),
            Err(error) => Err(Error::Io(error)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn position(&mut self) -> Result<u64, Error> {
        let [a, b, opcode] = self.take()?;
        let len = match opcode {
            BININT1 => 1,
            BININT2 => 2,
            BININT => 4,
            LONG1 => usize::from(self.take::<1>()?[0]),
            _ => return Err(self.foreign("it does not start with a position")),
        };
        let mut bytes = [0; 8];
        let Some(number) = bytes.get_mut(..len) else {
            return Err(self.foreign("the position is too large"));
        };
        self.fill(number)?;
        let position = u64::from_le_bytes(bytes);
        let [stop] = self.take()?;
        // Every number has exactly one form. Encoding it again rejects all others, including
        // negative numbers, whose encoding would be longer.
        let form = head(position);
        if [a, b] != PROTO_3 || stop != STOP || form.len() as u64 != self.at || form[2] != opcode {
            return Err(self.foreign("the position has a foreign form"));
        }
        Ok(position)
    }

    /// The objects of the next prefix, or `None` at the end.
    fn bucket(&mut self) -> Result<Option<Bucket>, Error> {
        match self.take()? {
            END => return self.end().map(|()| None),
            BUCKET => {}
            _ => return Err(self.foreign("expected a prefix or the end")),
        }
        let prefix = unpack(self.take()?);
        let len = match self.take()? {
            [SHORT_BINBYTES] => usize::from(self.take::<1>()?[0]),
            // A short length must use the short form: each bucket has exactly one form.
            [BINBYTES] => match u32::from_le_bytes(self.take()?) {
                0..256 => return Err(self.foreign("the length has a foreign form")),
                len => len as usize,
            },
            _ => return Err(self.foreign("expected the objects of a prefix")),
        };
        if len == 0 || len % OBJECT_LEN != 0 || len / OBJECT_LEN > MAX_BUCKET_LEN {
            return Err(self.foreign("impossible length of the objects"));
        }
        let mut bytes = vec![0; len];
        let offset = self.at;
        self.fill(&mut bytes)?;
        if self.take()? != [TUPLE2, STOP] {
            return Err(self.foreign("expected the end of the objects"));
        }
        Ok(Some(Bucket {
            prefix,
            bytes,
            offset,
        }))
    }

    fn end(&mut self) -> Result<(), Error> {
        let mut rest = Vec::new();
        let read = self.from.by_ref().take(1).read_to_end(&mut rest);
        match read.map_err(Error::Io)? {
            0 => Ok(()),
            _ => Err(self.foreign("there are bytes after its end")),
        }
    }

    fn foreign(&self, what: &'static str) -> Error {
        Error::Foreign {
            offset: self.at,
            what,
        }
    }
}
