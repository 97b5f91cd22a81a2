//! The time that the disk needs for the minimum that a slave has to write.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::sleep_until;

/// The size of a typical transaction, without its header.
const REST_LEN: usize = 2500;

/// Writes `count` transactions at a steady pace, like batches with their three syncs and
/// nothing else. Returns the time of each, in nanoseconds.
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
