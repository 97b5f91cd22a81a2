//! What the disk takes for the least that a slave has to do.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::sleep_until;

/// A transaction of the size that the master's have, less its header.
const REST_LEN: usize = 2500;

/// Writes `count` transactions at a steady pace, each in the order of a batch and
/// with its three syncs, and nothing else; how long each took, in nanoseconds.
pub(crate) fn write(path: &Path, count: u32, pace: Duration) -> io::Result<Vec<i64>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut end = file.metadata()?.len();
    let start = Instant::now();
    let mut times = Vec::new();
    for number in 0..count {
        sleep_until(start, pace * number);
        let begun = Instant::now();
        file.write_all_at(&[b'c'; 23], end)?;
        file.sync_data()?;
        file.write_all_at(&[0; REST_LEN], end + 23)?;
        file.sync_data()?;
        file.write_all_at(b" ", end + 16)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_nanos() as i64);
        end += 23 + REST_LEN as u64;
    }
    Ok(times)
}
