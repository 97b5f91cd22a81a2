//! Walks through a `Data.fs`: reads it in windows, passes each record to the checker, and
//! continues after damage (`scan_end`). It only reads.

mod scan_end;

use std::fs::File;

use self::scan_end::ScanEnd;
use super::conversion::of_flaw;
use super::digests::DigestState;
use super::finding::{Finding, Kind};
use super::index::{IndexCheck, IndexState, SlaveData};
use super::lossy_reader::LossyReader;
use super::{SlaveContent, UnfinishedTail, Verified};
use crate::error::Error;
use crate::filestorage::check::{Checker, Flaw};
use crate::filestorage::record::MIN_TXN_LEN;
use crate::filestorage::scan::Scanner;
use crate::filestorage::{MAGIC_LEN, Magic};
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::paths::SlavePaths;
use crate::slave::sidecar::Sidecar;

/// Length of a window while long pickles are skipped, in bytes.
const MIN_WINDOW_LEN: u64 = 4 * 1024;

/// Length of a pickle that is worth skipping, in bytes: reading a shorter one takes less time than
/// another call.
const LONG_PICKLE_LEN: u64 = 16 * 1024;

/// Length of a window if there is nothing to skip, in bytes.
const MAX_WINDOW_LEN: u64 = 1024 * 1024;

/// The file of a walk, and how to walk through it.
#[derive(Clone, Copy)]
pub(super) struct WalkInput<'a> {
    /// Paths of the slave and the files beside it.
    pub(super) paths: &'a SlavePaths,
    /// The slave, open for reading.
    pub(super) file: &'a File,
    /// Size of the slave in bytes.
    pub(super) size: u64,
    /// Whether pickles are skipped.
    pub(super) quick: bool,
    /// Offset up to which the ledger has digests, in bytes; `None` if there is no ledger.
    pub(super) digests_end: Option<u64>,
}

/// A walk in progress.
pub(super) struct Walk<'a> {
    input: WalkInput<'a>,
    reader: LossyReader<'a>,
    index: Option<IndexCheck>,
    monitor: &'a dyn Monitor,
    report: &'a mut dyn FnMut(Finding),
    scanner: Scanner,
    checker: Checker,
    /// Offset up to which the file is read: its size when it was last determined, in bytes.
    limit: u64,
    window_len: u64,
    /// Offset up to which flaws were found, in bytes.
    flaws_to: u64,
    /// Flaws before this offset were reported when their transaction was read before.
    reported_to: u64,
    /// The last position that was read again because it looked wrong.
    reread: Option<Reread>,
    /// The state of the file, if it did not change while a position was read again.
    settled: Option<FileStat>,
    /// Number of times that any position was read again.
    rereads: usize,
}

/// A position that is read again because it looked wrong.
#[derive(Clone, Copy)]
struct Reread {
    /// Offset in bytes.
    position: u64,
    /// Number of times that it was read again.
    times: usize,
    /// State of the file before the first time.
    before: FileStat,
}

impl<'a> Walk<'a> {
    /// A walk at the start of the file.
    pub(super) fn new(
        input: WalkInput<'a>,
        reader: LossyReader<'a>,
        index: Option<IndexCheck>,
        monitor: &'a dyn Monitor,
        report: &'a mut dyn FnMut(Finding),
    ) -> Self {
        Self {
            input,
            reader,
            index,
            monitor,
            report,
            scanner: Scanner::new(input.size),
            checker: Checker::default(),
            limit: input.size,
            window_len: MIN_WINDOW_LEN,
            flaws_to: 0,
            reported_to: 0,
            reread: None,
            settled: None,
            rereads: 0,
        }
    }

    /// Determines from the first bytes whether the file is a FileStorage.
    pub(super) fn content(&mut self) -> Result<SlaveContent, Error> {
        if self.limit == 0 {
            return Ok(SlaveContent::Missing);
        }
        if self.limit < MAGIC_LEN + MIN_TXN_LEN {
            return Ok(SlaveContent::TooShort);
        }
        self.reader.read(0..MAGIC_LEN, self.report)?;
        let head = self.reader.window();
        if Magic::decode(head).is_some() || !self.reader.is_whole() {
            return Ok(SlaveContent::FileStorage);
        }
        let found = format!("'{}'", head.escape_ascii());
        (self.report)(Finding::new(Kind::Magic, 0, "'FS21' or 'FS30'", found));
        Ok(SlaveContent::Foreign)
    }

    /// Walks to the end. Returns the tail after the last committed transaction, if there is one.
    pub(super) fn run(&mut self) -> Result<Option<UnfinishedTail>, Error> {
        loop {
            let is_cut = self.scan()?;
            // The file became shorter than `limit`, so ZODB or a pass truncates its tail.
            if is_cut && self.read_again()? {
                continue;
            }
            if let ScanEnd::End(unfinished) = self.handle_scan_end()? {
                self.read_up_to(self.limit)?;
                return Ok(unfinished);
            }
        }
    }

    /// Compares the end of the file, the digests and the index, and returns the result.
    pub(super) fn finish(mut self, unfinished: Option<UnfinishedTail>) -> Result<Verified, Error> {
        if !self.report_if_lost(unfinished) {
            self.report_if_shortened()?;
        }
        let digests = match self.reader.take_digests() {
            Some(digests) => digests.finish(self.reader.fields(), self.report)?,
            None if self.input.quick => DigestState::Skipped,
            None => DigestState::NoLedger,
        };
        let slave = SlaveData {
            fields: self.reader.fields(),
            size: self.limit,
        };
        let index = match self.index {
            Some(index) => index.finish(slave, self.report)?,
            None => IndexState::Missing,
        };
        Ok(Verified {
            size: self.limit,
            position: self.scanner.position(),
            last_tid: self.scanner.last_tid(),
            transactions: self.checker.transactions(),
            records: self.checker.records(),
            objects: self.checker.objects(),
            bytes: self.reader.bytes_read(),
            unfinished,
            digests,
            index,
            ..Verified::nothing(self.input.paths, SlaveContent::FileStorage)
        })
    }

    /// Reports whether the file has lost bytes of which the ledger has digests.
    fn report_if_lost(&mut self, unfinished: Option<UnfinishedTail>) -> bool {
        let position = self.scanner.position();
        let end = match unfinished {
            Some(_) => position,
            None => self.limit,
        };
        let lost = self.input.digests_end.filter(|&it| it > end);
        if let Some(lost) = lost {
            (self.report)(Finding::new(
                Kind::Lost,
                position,
                format!("committed bytes up to {lost}, because the ledger has their digests"),
                "the end of the file",
            ));
        }
        lost.is_some()
    }

    /// Reports whether the file is shorter than the last pass left it.
    fn report_if_shortened(&mut self) -> Result<(), Error> {
        let Some(last_sync) = self.sidecar().last_sync else {
            return Ok(());
        };
        // A pass may have appended since the walk began, and then updated the sidecar: so the size
        // is read after the sidecar.
        let size = self.file_stat()?.size;
        if last_sync.slave.position > size {
            (self.report)(Finding::new(
                Kind::Shortened,
                self.scanner.position(),
                format!(
                    "{} bytes, as the last pass left it",
                    last_sync.slave.position
                ),
                format!("{size} bytes"),
            ));
        }
        Ok(())
    }

    /// Scans until the scanner stops, or up to the limit. Returns whether the file ended before.
    fn scan(&mut self) -> Result<bool, Error> {
        while self.scanner.stopped().is_none() && self.scanner.left() > 0 {
            let offset = self.window_start();
            let window = offset..self.window_end(offset);
            self.monitor.progress("verifying", offset, self.limit);
            if self.reader.read(window, self.report)? == 0 {
                return Ok(true);
            }
            let mut fields = self.reader.fields();
            let mut report = |flaw: Flaw| {
                if flaw.position >= self.reported_to {
                    self.flaws_to = flaw.position + 1;
                    (self.report)(of_flaw(flaw));
                }
            };
            let checker = &mut self.checker;
            self.scanner.feed(self.reader.window(), &mut |event| {
                checker.take(event, &mut fields, &mut report);
            });
            self.compare_index()?;
        }
        Ok(false)
    }

    /// Start of the next window: after a pickle, if pickles are skipped. Adapts the length of the
    /// window to the pickles.
    fn window_start(&mut self) -> u64 {
        let before = self.scanner.offset();
        if self.input.quick {
            self.scanner.skip();
        }
        let offset = self.scanner.offset();
        self.window_len = if offset - before > LONG_PICKLE_LEN {
            self.window_len / 2
        } else {
            self.window_len * 2
        }
        .clamp(MIN_WINDOW_LEN, MAX_WINDOW_LEN);
        offset
    }

    /// End of a window: at the end of a page, or at the position of the index, so that the index
    /// can be compared there.
    fn window_end(&self, offset: u64) -> u64 {
        let end = (offset + self.window_len).next_multiple_of(MIN_WINDOW_LEN);
        let end = end.min(self.limit);
        match self.index.as_ref().and_then(IndexCheck::position) {
            Some(position) if offset < position => position.min(end),
            _ => end,
        }
    }

    /// Reads bytes that the scan skipped, so that they are digested; with `quick`, does nothing.
    fn read_up_to(&mut self, to: u64) -> Result<(), Error> {
        while !self.input.quick && self.reader.read_to() < to {
            let from = self.reader.read_to();
            self.monitor.progress("verifying", from, self.limit);
            let window = from..to.min(from + MAX_WINDOW_LEN);
            if self.reader.read(window, self.report)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Compares the index, once the walk has reached its position.
    fn compare_index(&mut self) -> Result<(), Error> {
        let Some(index) = &mut self.index else {
            return Ok(());
        };
        let at = self.scanner.position();
        if index.position() == Some(at) && self.scanner.offset() == at {
            let slave = SlaveData {
                fields: self.reader.fields(),
                size: self.limit,
            };
            index.compare(&self.checker, slave, self.report)?;
        }
        Ok(())
    }

    /// The sidecar of the last pass; an empty one if it cannot be read.
    fn sidecar(&self) -> Sidecar {
        Sidecar::load(self.input.paths).unwrap_or_else(|error| {
            tracing::warn!("{}", error.display_chain());
            Sidecar::default()
        })
    }

    /// The current state of the file.
    fn file_stat(&self) -> Result<FileStat, Error> {
        let found = self.input.file.metadata();
        let found = found.map_err(Error::io("look at", self.input.paths.data()))?;
        Ok(FileStat::of(&found))
    }
}
