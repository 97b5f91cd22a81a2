//! Fetches the blobs of transactions that were copied without them.
//!
//! A slave has such transactions if passes did not copy blobs at first, or if another program has
//! copied the log. New transactions come with their blobs from the first pass with blobs on. The
//! gap before them is closed here, from the start of the log on, for a limited time in each pass.
//! The sidecar records how far it is closed ([`BlobCoverage`](crate::slave::sidecar::BlobCoverage)).

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{BlobEnds, BlobFetcher, Fetched, LARGE_GROUP_LEN};
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::human::count;
use crate::io::progress::Monitor;
use crate::slave::paths::{self, OpenMode};
use crate::slave::scan::blobs::BlobScan;
use crate::slave::sidecar::Sidecar;

/// How long a pass fetches blobs of older transactions.
pub const PASS_BUDGET: Duration = Duration::from_secs(30);

/// How long a pass of a watch fetches them; the next commit waits meanwhile.
pub const WATCH_BUDGET: Duration = Duration::from_millis(250);

/// Fetches blobs of older transactions for as long as `budget`, but those of one slice of the log
/// at least. Stores the progress in the sidecar. Warns if a part of the log cannot be read.
pub fn catch_up(
    ends: BlobEnds<'_>,
    sidecar: &mut Sidecar,
    is_unproven: bool,
    budget: Duration,
    monitor: &dyn Monitor,
) -> Result<Fetched, Error> {
    let mut total = Fetched::default();
    let Some(state) = &mut sidecar.blobs else {
        return Ok(total);
    };
    if state.is_complete_at(state.until) {
        return Ok(total);
    }
    let paths = &ends.slave.paths;
    let path = paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    if state.complete == MAGIC_LEN {
        let work = if state.rechecks {
            "comparing all blobs with the master's again"
        } else {
            "fetching the blobs of older transactions too"
        };
        tracing::info!("{}: {work}", path.display());
    }
    let (end, is_rechecked) = (state.since, state.rechecks);
    let mut scan = BlobScan::new(&file, path, state.complete, end);
    let progress = LogProgress {
        monitor,
        position: Cell::new(state.complete),
        end,
    };
    let mut fetcher = BlobFetcher::new(ends, LARGE_GROUP_LEN, &progress)
        .comparing_digests(state.rechecks)
        .unproven(is_unproven);
    let started = Instant::now();
    let mut wanted = 0;
    loop {
        ends.slave.check_cancelled()?;
        let slice = scan.next_slice()?;
        progress.advance(scan.position());
        let has_ended = slice.is_none();
        let is_last = has_ended || started.elapsed() >= budget;
        for reference in slice.into_iter().flatten() {
            fetcher.want(reference)?;
            wanted += 1;
        }
        if !is_last && wanted < LARGE_GROUP_LEN {
            continue;
        }
        wanted = 0;
        fetcher.fetch()?;
        let numbers = fetcher.take_fetched();
        total.add(numbers);
        if let Some(state) = &mut sidecar.blobs {
            state.add(numbers.files, numbers.bytes, numbers.absent);
            state.complete_to(scan.position(), numbers.undigested == 0);
            if state.is_complete_at(state.until) {
                tracing::info!("{}: all transactions have their blobs now", path.display());
            }
        }
        sidecar.store(paths)?;
        if !is_last {
            continue;
        }
        let is_at_end = scan.position() == end;
        if is_rechecked && is_at_end {
            let (files, copied) = (count(total.files, "blob"), total.received.files);
            tracing::info!("compared {files} again, and copied {copied}");
        } else if has_ended && !is_at_end {
            monitor.warn(format!(
                "{}: the blobs of transactions beyond {} are not copied, because the log cannot \
                 be read there: run `fssync verify`",
                path.display(),
                scan.position()
            ));
        }
        return Ok(total);
    }
}

/// Shows how far the log is read, instead of the bytes of the blobs that are being received: their
/// total is not known.
struct LogProgress<'a> {
    monitor: &'a dyn Monitor,
    /// The position up to which the log was read, in bytes.
    position: Cell<u64>,
    /// The position at which the search ends.
    end: u64,
}

impl LogProgress<'_> {
    fn advance(&self, position: u64) {
        self.position.set(position);
        self.show();
    }

    fn show(&self) {
        self.monitor
            .progress("fetching older blobs", self.position.get(), self.end);
    }
}

impl Monitor for LogProgress<'_> {
    fn progress(&self, _: &'static str, _: u64, _: u64) {
        self.show();
    }

    fn warn(&self, warning: String) {
        self.monitor.warn(warning);
    }
}
