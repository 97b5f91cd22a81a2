//! Writes a FileStorage of small data records.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use fssync::filestorage::MAGIC_LEN;

/// The order of oids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oids {
    /// New oids in sequence; in three of ten cases an old one again.
    Usual,
    /// Random 64-bit numbers.
    Random,
}

/// The size of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) len: u64,
    pub(crate) transactions: u64,
    pub(crate) records: u64,
}

/// Writes a file of about `len` bytes: transactions of 1 to 8 data records with pickles of 60
/// to 150 bytes.
pub(crate) fn small_records(path: &Path, len: u64, oids: Oids) -> io::Result<Made> {
    let mut out = BufWriter::with_capacity(1024 * 1024, File::create(path)?);
    out.write_all(b"FS30")?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut made = Made {
        len: MAGIC_LEN,
        transactions: 0,
        records: 0,
    };
    // The position of the last data record of each oid. Unknown for random oids.
    let mut last: Vec<u64> = Vec::new();
    let mut body = Vec::new();
    while made.len < len {
        body.clear();
        let tid = (0x03f0_0000_0000_0000 + made.transactions * 0x1_0000).to_be_bytes();
        for _ in 0..random.between(1, 8) {
            let at = made.len + 23 + body.len() as u64;
            let oid = match oids {
                Oids::Random => random.next(),
                Oids::Usual if random.between(1, 10) > 3 || last.is_empty() => {
                    last.push(0);
                    last.len() as u64 - 1
                }
                Oids::Usual => random.between(0, last.len() as u64 - 1),
            };
            let prev = last
                .get_mut(oid as usize)
                .map_or(0, |prev| std::mem::replace(prev, at));
            let plen = random.between(60, 150);
            body.extend(oid.to_be_bytes());
            body.extend(tid);
            body.extend(prev.to_be_bytes());
            body.extend(made.len.to_be_bytes());
            body.extend([0; 2]);
            body.extend(plen.to_be_bytes());
            body.resize(body.len() + plen as usize, b'x');
            made.records += 1;
        }
        let tlen = (23 + body.len() as u64).to_be_bytes();
        out.write_all(&[&tid[..], &tlen, b" ", &[0; 6], &body, &tlen].concat())?;
        made.len += 23 + body.len() as u64 + 8;
        made.transactions += 1;
    }
    out.into_inner()?.sync_all()?;
    Ok(made)
}

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}
