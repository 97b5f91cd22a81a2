//! How much longer a scan takes if it looks for blobs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use fssync::filestorage::blob::BlobCollector;
use fssync::filestorage::scan::{Event, Scanner, Visitor};
use fssync::io::read::AlignedBuf;
use rustix::time::{ClockId, clock_gettime};

use crate::Options;
use crate::shared::generate::{Generator, MB};
use crate::shared::times::{Times, show, verdict};

/// The size of the scanned log, which has no blobs.
const LOG_LEN: u64 = 300 * MB;

/// The length of a piece, as in a pass.
const PIECE_LEN: u64 = 1024 * 1024;

/// The target: the time with recognition, divided by the time without it.
const MAX_RATIO: f64 = 1.02;

/// Counts the records, as the least that a scan is for.
#[derive(Default)]
struct Count(u64);

impl Visitor for Count {
    fn event(&mut self, event: Event) {
        self.0 += u64::from(matches!(event, Event::Record { .. }));
    }
}

/// The same, and collects blobs.
#[derive(Default)]
struct CountAndCollect {
    count: Count,
    collector: BlobCollector,
    blobs: u64,
}

impl Visitor for CountAndCollect {
    fn event(&mut self, event: Event) {
        self.count.event(event);
        self.collector.event(event);
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        self.collector.bytes(offset, bytes);
        self.blobs += self.collector.take().len() as u64;
    }
}

/// Scans a log in turn with and without recognition, and prints both times.
pub(crate) fn measure(options: &Options, directory: &Path) -> io::Result<()> {
    let path = directory.join("log.fs");
    let mut generator = Generator::create(&path)?;
    generator.append(LOG_LEN)?;
    let file = File::open(&path)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut records = 0;
    for round in 0..options.arguments.rounds(31) {
        // The order changes in each round.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let mut count = Count::default();
                without.push(scan(&file, generator.position(), &mut count)?);
                records = count.0;
            } else {
                let mut both = CountAndCollect::default();
                with.push(scan(&file, generator.position(), &mut both)?);
                if both.blobs > 0 {
                    return Err(io::Error::other("the log has no blobs"));
                }
            }
        }
    }
    // Other programs on the machine only add time.
    let (without, with) = (Times::of(without), Times::of(with));
    let ratio = with.min.as_secs_f64() / without.min.as_secs_f64();
    println!(
        "\nrecognition of blobs in a scan of {} MB with {records} records, processor time \
         (min / median / max)",
        LOG_LEN / MB
    );
    println!("  without {} ms", without.in_short());
    println!("  with    {} ms", with.in_short());
    println!(
        "  {} more, ratio of the minimums {ratio:.3}, target <= {MAX_RATIO} {}",
        show(with.min.saturating_sub(without.min)),
        verdict(Some(ratio <= MAX_RATIO))
    );
    Ok(())
}

/// Scans the whole file, and returns the processor time.
fn scan(file: &File, len: u64, visitor: &mut impl Visitor) -> io::Result<Duration> {
    let started = processor_time();
    let mut scanner = Scanner::new(len);
    let mut buffer = AlignedBuf::default();
    while scanner.left() > 0 && scanner.stopped().is_none() {
        let offset = scanner.offset();
        let piece = scanner.left().min(PIECE_LEN) as usize;
        file.read_exact_at(buffer.room(piece, offset), offset)?;
        scanner.feed(&buffer[..piece], &mut |event| visitor.event(event));
        visitor.bytes(offset, &buffer[..piece]);
    }
    if scanner.position() != len {
        return Err(io::Error::other("the scan did not reach the end"));
    }
    Ok(processor_time().saturating_sub(started))
}

/// The processor time of this process, which does not include waiting for other programs.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
