//! Any bytes as the start of a data record, and as a log with blobs.
//!
//! The first byte of the input chooses: an even one takes the rest for the pickle of a data
//! record, an odd one for a `Data.fs`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::backward::ReadAt;
use fssync::filestorage::blob::{
    BlobCollector, BlobKey, BlobReference, PICKLE_START_LEN, is_blob_pickle,
};
use fssync::filestorage::record::{DATA_HEADER_LEN, DataHeader};
use fssync::filestorage::scan::{Event, Scanner, Visitor};

use super::scene::fixtures;
use super::storage::Scanned;

/// Recognises the blobs in two ways.
///
/// # Panics
///
/// If the results differ, or if too much is read.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((choice, rest)) if choice % 2 == 0 => compare_pickle(rest),
        Some((_, rest)) => compare_log(rest),
        None => {}
    }
}

fn compare_pickle(record: &[u8]) {
    let start = &record[..record.len().min(PICKLE_START_LEN)];
    let is_blob = value(start) == Some(Value::class("ZODB.blob", "Blob"));
    assert_eq!(is_blob_pickle(start), is_blob, "{}", start.escape_ascii());
    assert_eq!(is_blob_pickle(record), is_blob, "the rest does not matter");
}

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(Vec<u8>),
    Class(Vec<u8>, Vec<u8>),
}

impl Value {
    fn class(module: &str, name: &str) -> Self {
        Self::Class(module.into(), name.into())
    }
}

/// The only value of a pickle, which a stack machine computes. `None` if the pickle contains
/// other opcodes than those of a class, if it does not end, or if it leaves several values.
fn value(pickle: &[u8]) -> Option<Value> {
    let mut rest = pickle;
    let mut stack = Vec::new();
    loop {
        match take(&mut rest, 1)?[0] {
            b'\x80' => {
                if take(&mut rest, 1)?[0] > 5 {
                    return None;
                }
            }
            b'\x95' => drop(take(&mut rest, 8)?),
            b'c' => {
                let module = line(&mut rest)?;
                stack.push(Value::Class(module, line(&mut rest)?));
            }
            b'\x8c' | b'U' => {
                let len = take(&mut rest, 1)?[0];
                stack.push(Value::Text(take(&mut rest, usize::from(len))?.to_vec()));
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?);
                stack.push(Value::Text(take(&mut rest, len as usize)?.to_vec()));
            }
            b'\x93' => {
                let (Some(Value::Text(name)), Some(Value::Text(module))) =
                    (stack.pop(), stack.pop())
                else {
                    return None;
                };
                stack.push(Value::Class(module, name));
            }
            b'.' => return stack.pop().filter(|_| stack.is_empty()),
            opcode => {
                // Only a value can be stored in the memo.
                stack.last()?;
                memoize(opcode, &mut rest)?;
            }
        }
    }
}

/// Reads the argument of an opcode that stores a value in the memo.
fn memoize(opcode: u8, rest: &mut &[u8]) -> Option<()> {
    match opcode {
        b'q' => take(rest, 1).map(drop),
        b'r' => take(rest, 4).map(drop),
        b'\x94' => Some(()),
        b'p' => {
            let index = line(rest)?;
            let is_number = !index.is_empty() && index.iter().all(u8::is_ascii_digit);
            is_number.then_some(())
        }
        _ => None,
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn line(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = rest.iter().position(|&byte| byte == b'\n')?;
    let line = take(rest, len)?.to_vec();
    *rest = &rest[1..];
    Some(line)
}

/// The blobs of a log must be the same in pieces of any size, and according to a model that has
/// all records in memory.
fn compare_log(file: &[u8]) {
    if file.len() < MAGIC_LEN as usize {
        return;
    }
    let (found, read) = collect(file, usize::MAX);
    assert!(read <= 200 * file.len(), "{read} bytes");
    assert_eq!(found, collect(file, 7).0);
    // Two transactions may have the same tid.
    let found: BTreeMap<_, _> = found.iter().map(|it| (it.key, it.is_optional)).collect();
    assert_eq!(found, model(file));
}

struct Bytes<'a> {
    file: &'a [u8],
    read: usize,
}

impl ReadAt for Bytes<'_> {
    type Error = Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Infallible> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.file[start..start + buffer.len()]);
        self.read += buffer.len();
        Ok(())
    }
}

/// The blobs that the collector finds, and the number of bytes that were read to resolve them.
fn collect(file: &[u8], piece_len: usize) -> (Vec<BlobReference>, usize) {
    let mut collector = BlobCollector::default();
    let mut scanner = Scanner::new(file.len() as u64);
    let mut offset = MAGIC_LEN;
    for piece in file[MAGIC_LEN as usize..].chunks(piece_len) {
        scanner.feed(piece, &mut |event| collector.event(event));
        collector.bytes(offset, piece);
        offset += piece.len() as u64;
    }
    let mut bytes = Bytes { file, read: 0 };
    let resolved = collector.take().into_iter().filter_map(|candidate| {
        let Ok(resolved) = candidate.resolve(&mut bytes);
        resolved
    });
    let found = resolved.collect();
    (found, bytes.read)
}

/// The blobs of the complete transactions, and whether each is optional.
fn model(file: &[u8]) -> BTreeMap<BlobKey, bool> {
    let mut found = BTreeMap::new();
    let mut current = BTreeMap::new();
    for event in &Scanned::of(file, usize::MAX).events {
        match *event {
            Event::Begun { .. } => current.clear(),
            Event::Record {
                header, position, ..
            } => {
                let (tid, oid) = (header.tid, header.oid);
                let key = BlobKey { tid, oid };
                current.insert(key, is_optional(file, position, file.len() as u64));
            }
            Event::Transaction(_) => {
                let blobs = std::mem::take(&mut current).into_iter();
                found.extend(blobs.filter_map(|(key, it)| Some((key, it?))));
            }
            Event::Blemish { .. } => {}
        }
    }
    found
}

/// Whether the record at `at`, which must end before `before`, leads to a blob; and then whether
/// the creation was undone on the way.
fn is_optional(file: &[u8], at: u64, before: u64) -> Option<bool> {
    let record = file.get(at as usize..before as usize)?;
    let header = DataHeader::decode(record.first_chunk()?);
    let body = &record[DATA_HEADER_LEN..];
    if at < MAGIC_LEN + 23 || header.version_len != 0 || header.body_len() > body.len() as u64 {
        return None;
    }
    if header.plen > 0 {
        let pickle = &body[..header.plen as usize];
        return is_blob_pickle(pickle).then_some(false);
    }
    match u64::from_be_bytes(*body.first_chunk()?) {
        0 => is_optional(file, header.prev, at).map(|_| true),
        back => is_optional(file, back, at),
    }
}

/// Pickles of blobs, and the fixtures.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let pickles = [
        b"cZODB.blob\nBlob\nq\x01.N.".as_slice(),
        b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.",
        b"cZODB.blob\nBlob\np0\n.",
        b"\x80\x02cZODB.blob\nBlob\nr\x00\x01\x00\x00.",
        b"\x80\x04\x95\x18\0\0\0\0\0\0\0\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.",
        b"X\x09\0\0\0ZODB.blobU\x04Blob\x93.",
        b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.",
    ];
    let pickles = pickles.iter().map(|it| [b"\0", *it].concat());
    let logs = fixtures()
        .into_iter()
        .map(|(_, it)| [b"\x01", &it[..]].concat());
    pickles.chain(logs).collect()
}
