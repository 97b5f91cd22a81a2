//! Writes FileStorages that ZODB opens without a warning, as fast as the disk allows.
//!
//! The content resembles a typical site: 1,000 MB contain about 47,000 transactions of 1 to 8
//! data records with pickles of 120 to 9,000 bytes, for about 150,000 objects. It depends only
//! on the requested sizes, so two files with the same sizes are equal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::BlobKey;
use fssync::filestorage::record::{DATA_HEADER_LEN, TRAILER_LEN, TXN_HEADER_LEN};
use fssync::filestorage::{MAGIC_LEN, Tid};

/// A megabyte, as in the size of disks.
pub(crate) const MB: u64 = 1_000_000;

/// The length of a data record in a sparse file, in bytes.
const HOLE_LEN: u64 = 1000 * MB;

/// The class that every object has, as ZODB pickles it.
const CLASS: &[u8] = b"\x80\x03cpersistent.mapping\nPersistentMapping\n.";

/// The object's state, `{'data': {'b': b'...'}}`: the bytes before the length of the byte
/// string, and those after the byte string.
const STATE: (&[u8], &[u8]) = (
    b"\x80\x03}X\x04\x00\x00\x00data}X\x01\x00\x00\x00bB",
    b"ss.",
);

/// The length of a pickle without its byte string, in bytes.
const PICKLE_FRAME_LEN: u64 = (CLASS.len() + STATE.0.len() + 4 + STATE.1.len()) as u64;

/// The record of a blob, as ZODB pickles it in Python 3. Its state is `None`.
const BLOB: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// The oid of the first blob. Other objects have lower ones.
const FIRST_BLOB: u64 = 1 << 32;

/// A FileStorage that is being written, and the state needed to continue.
#[derive(Debug)]
pub(crate) struct Generator {
    path: PathBuf,
    random: Random,
    /// Just past the last transaction, in bytes.
    position: u64,
    /// When the last transaction was committed, in milliseconds since 2024.
    millis: u64,
    /// The position of the last data record of each oid.
    records: Vec<u64>,
    blobs: u64,
    transactions: u64,
}

impl Generator {
    /// Creates a file without transactions.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        File::create_new(path)?.write_all(b"FS30")?;
        Ok(Self {
            path: path.to_owned(),
            random: Random(0x9e37_79b9_7f4a_7c15),
            position: MAGIC_LEN,
            millis: 0,
            records: Vec::new(),
            blobs: 0,
            transactions: 0,
        })
    }

    /// Just past the last transaction, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Number of transactions.
    pub(crate) fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Number of objects without the blobs.
    pub(crate) fn objects(&self) -> usize {
        self.records.len()
    }

    /// Appends transactions until there are `len` bytes more, and syncs.
    pub(crate) fn append(&mut self, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(&self.path)?;
        let mut out = BufWriter::with_capacity(1024 * 1024, file);
        let end = self.position + len;
        let mut transaction = Vec::new();
        while self.position < end {
            self.transaction(&mut transaction);
            out.write_all(&transaction)?;
            self.position += transaction.len() as u64;
        }
        out.into_inner()?.sync_all()
    }

    /// Appends the records of `count` new blobs in transactions of `per_transaction` blobs, and
    /// syncs. Calls `make_file` with each blob before its transaction is in the file, since ZODB
    /// creates the blob's file first.
    pub(crate) fn append_blobs(
        &mut self,
        count: u64,
        per_transaction: u64,
        mut make_file: impl FnMut(BlobKey) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(&self.path)?;
        let mut out = BufWriter::with_capacity(1024 * 1024, file);
        let end = self.blobs + count;
        while self.blobs < end {
            let mut transaction = self.transaction_header();
            let tid = tid(self.millis);
            for oid in self.blobs..end.min(self.blobs + per_transaction) {
                let oid = FIRST_BLOB + oid;
                make_file(BlobKey { tid: Tid(tid), oid })?;
                self.data_header(&mut transaction, oid, 0, BLOB.len() as u64);
                transaction.extend(BLOB);
                self.blobs += 1;
            }
            let tlen = finish(&mut transaction, 0);
            transaction.extend(tlen.to_be_bytes());
            out.write_all(&transaction)?;
            self.position += transaction.len() as u64;
        }
        out.into_inner()?.sync_all()
    }

    /// Appends one transaction whose only data record has [`HOLE_LEN`] zeros without disk
    /// blocks.
    pub(crate) fn append_hole(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let mut start = self.transaction_header();
        self.records.push(self.position + start.len() as u64);
        self.data_record_header(&mut start, self.records.len() - 1, 0, HOLE_LEN);
        let mut end = STATE.1.to_vec();
        let tlen = finish(&mut start, HOLE_LEN + end.len() as u64);
        end.extend(tlen.to_be_bytes());
        file.write_all_at(&start, self.position)?;
        let position = self.position + start.len() as u64 + HOLE_LEN;
        file.write_all_at(&end, position)?;
        self.position = position + end.len() as u64;
        file.sync_all()
    }

    /// Writes the next transaction to `out`, and discards its previous content.
    fn transaction(&mut self, out: &mut Vec<u8>) {
        *out = self.transaction_header();
        for _ in 0..self.random.between(1, 8) {
            let oid = self.changed_object().unwrap_or_else(|| {
                self.records.push(0);
                self.records.len() - 1
            });
            let here = self.position + out.len() as u64;
            let prev = std::mem::replace(&mut self.records[oid], here);
            let len = self.random.between(120, 9000) - PICKLE_FRAME_LEN;
            self.data_record_header(out, oid, prev, len);
            self.random.fill(out, len as usize);
            out.extend(STATE.1);
        }
        let tlen = finish(out, 0);
        out.extend(tlen.to_be_bytes());
    }

    /// A transaction header with its strings. The length is not set yet.
    fn transaction_header(&mut self) -> Vec<u8> {
        self.millis += self.random.between(1, 5000);
        self.transactions += 1;
        let user = format!(" user-{}", self.random.between(1, 40));
        let description = format!("/site/folder-{}/edit", self.random.between(1, 9999));
        let mut header = Vec::with_capacity(64 * 1024);
        header.extend(tid(self.millis).to_be_bytes());
        header.extend([0; 8]);
        header.push(b' ');
        for len in [user.len(), description.len(), 0] {
            header.extend((len as u16).to_be_bytes());
        }
        debug_assert_eq!(header.len(), TXN_HEADER_LEN);
        header.extend(user.bytes().chain(description.bytes()));
        header
    }

    /// A data record up to the content of its byte string of `len` bytes.
    fn data_record_header(&self, out: &mut Vec<u8>, oid: usize, prev: u64, len: u64) {
        self.data_header(out, oid as u64, prev, PICKLE_FRAME_LEN + len);
        out.extend(CLASS);
        out.extend(STATE.0);
        out.extend((len as u32).to_le_bytes());
    }

    /// The header of a data record with a pickle of `plen` bytes.
    fn data_header(&self, out: &mut Vec<u8>, oid: u64, prev: u64, plen: u64) {
        let start = out.len();
        out.extend(oid.to_be_bytes());
        out.extend(tid(self.millis).to_be_bytes());
        out.extend(prev.to_be_bytes());
        out.extend(self.position.to_be_bytes());
        out.extend([0; 2]);
        out.extend(plen.to_be_bytes());
        debug_assert_eq!(out.len() - start, DATA_HEADER_LEN);
    }

    /// An object of an earlier transaction, in three of ten calls.
    fn changed_object(&mut self) -> Option<usize> {
        if self.records.is_empty() || self.random.between(1, 10) > 3 {
            return None;
        }
        let oid = self.random.between(0, self.records.len() as u64 - 1) as usize;
        (self.records[oid] < self.position).then_some(oid)
    }
}

/// Sets the length in the header of a transaction which lacks `missing` bytes before its
/// trailer. Returns the length.
fn finish(transaction: &mut [u8], missing: u64) -> u64 {
    let tlen = transaction.len() as u64 + missing;
    transaction[8..16].copy_from_slice(&tlen.to_be_bytes());
    tlen
}

/// Writes a sparse file of about `len` bytes.
pub(crate) fn sparse(path: &Path, len: u64) -> io::Result<()> {
    let mut generator = Generator::create(path)?;
    generator.append(MB)?;
    while generator.position() < len {
        generator.append_hole()?;
    }
    generator.append(MB)
}

/// Copies a file from `start` on to a new file, and syncs.
pub(crate) fn copy_from(path: &Path, start: u64, to: &Path) -> io::Result<()> {
    let mut bytes = vec![0; (path.metadata()?.len() - start) as usize];
    File::open(path)?.read_exact_at(&mut bytes, start)?;
    let mut file = File::create_new(to)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// A tid for a time, in milliseconds since 2024. Each month has 28 days.
fn tid(millis: u64) -> u64 {
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let (days, minutes) = (minutes / 1440, minutes % 1440);
    let months = (2024 - 1900) * 12 + days / 28;
    let minutes = (months * 31 + days % 28) * 1440 + minutes;
    (minutes << 32) | ((millis << 32) / 60_000)
}

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled".
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from `least` to `most`, almost uniformly distributed.
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + (self.next() >> 16) % (most - least + 1)
    }

    fn fill(&mut self, out: &mut Vec<u8>, len: usize) {
        let end = out.len() + len;
        while out.len() < end {
            out.extend(self.next().to_le_bytes());
        }
        out.truncate(end);
    }
}

const _: () = assert!(TRAILER_LEN == 8 && PICKLE_FRAME_LEN < 120);
