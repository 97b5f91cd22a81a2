//! Makes FileStorages that ZODB opens without a warning, as fast as the disk
//! takes them.
//!
//! What is made is like the file of `peers.md`: 1,000 MB hold some 47,000
//! transactions of 1 to 8 data records with pickles of 120 to 9,000 bytes, over
//! some 150,000 objects. It depends on nothing but the sizes that are asked
//! for, so two files made alike are equal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::record::{DATA_HEADER_LEN, TRAILER_LEN, TXN_HEADER_LEN};

/// A megabyte, as disks count.
pub(crate) const MB: u64 = 1_000_000;

/// How many bytes of zeros a data record of a sparse file has.
const HOLE_LEN: u64 = 1000 * MB;

/// The class that every object has, as ZODB pickles it.
const CLASS: &[u8] = b"\x80\x03cpersistent.mapping\nPersistentMapping\n.";

/// The object's state, `{'data': {'b': b'...'}}`: what precedes the length of
/// the byte string, and what follows the byte string.
const STATE: (&[u8], &[u8]) = (
    b"\x80\x03}X\x04\x00\x00\x00data}X\x01\x00\x00\x00bB",
    b"ss.",
);

/// The length of a pickle without its byte string, in bytes.
const PICKLE_FRAME_LEN: u64 = (CLASS.len() + STATE.0.len() + 4 + STATE.1.len()) as u64;

/// A growing FileStorage, and what is needed to go on.
#[derive(Debug)]
pub(crate) struct Generator {
    path: PathBuf,
    random: Random,
    /// Just past the last transaction, in bytes.
    position: u64,
    /// When the last transaction was committed, in milliseconds since 2024.
    millis: u64,
    /// Where the last data record of each oid is.
    records: Vec<u64>,
    transactions: u64,
}

impl Generator {
    /// Begins a file that holds nothing yet.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        File::create_new(path)?.write_all(b"FS30")?;
        Ok(Self {
            path: path.to_owned(),
            random: Random(0x9e37_79b9_7f4a_7c15),
            position: MAGIC_LEN,
            millis: 0,
            records: Vec::new(),
            transactions: 0,
        })
    }

    /// Just past the last transaction, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How many transactions there are.
    pub(crate) fn transactions(&self) -> u64 {
        self.transactions
    }

    /// How many objects there are.
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

    /// Appends one transaction whose only data record has [`HOLE_LEN`] zeros,
    /// for which the file has no blocks.
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

    /// The next transaction, in place of what `out` held.
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

    /// A transaction header and its strings; the length is still to come.
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

    /// A data record as far as the contents of its byte string of `len` bytes.
    fn data_record_header(&self, out: &mut Vec<u8>, oid: usize, prev: u64, len: u64) {
        let start = out.len();
        out.extend((oid as u64).to_be_bytes());
        out.extend(tid(self.millis).to_be_bytes());
        out.extend(prev.to_be_bytes());
        out.extend(self.position.to_be_bytes());
        out.extend([0; 2]);
        out.extend((PICKLE_FRAME_LEN + len).to_be_bytes());
        debug_assert_eq!(out.len() - start, DATA_HEADER_LEN);
        out.extend(CLASS);
        out.extend(STATE.0);
        out.extend((len as u32).to_le_bytes());
    }

    /// An object of an earlier transaction, in three of ten cases.
    fn changed_object(&mut self) -> Option<usize> {
        if self.records.is_empty() || self.random.between(1, 10) > 3 {
            return None;
        }
        let oid = self.random.between(0, self.records.len() as u64 - 1) as usize;
        (self.records[oid] < self.position).then_some(oid)
    }
}

/// Sets the length in the header of a transaction that lacks its last
/// `missing` bytes before the trailer. Returns it.
fn finish(transaction: &mut [u8], missing: u64) -> u64 {
    let tlen = transaction.len() as u64 + missing;
    transaction[8..16].copy_from_slice(&tlen.to_be_bytes());
    tlen
}

/// Makes a file of `len` bytes, more or less, nearly all of which are holes.
pub(crate) fn sparse(path: &Path, len: u64) -> io::Result<()> {
    let mut generator = Generator::create(path)?;
    generator.append(MB)?;
    while generator.position() < len {
        generator.append_hole()?;
    }
    generator.append(MB)
}

/// Copies the bytes of a file from `start` on to a new file, and syncs.
pub(crate) fn cut_out(path: &Path, start: u64, to: &Path) -> io::Result<()> {
    let mut bytes = vec![0; (path.metadata()?.len() - start) as usize];
    File::open(path)?.read_exact_at(&mut bytes, start)?;
    let mut file = File::create_new(to)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// The tid of a moment, in milliseconds since 2024; every month has 28 days.
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

    /// A number from `least` to `most`, nearly evenly.
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
