//! The walk through a `Data.fs`: reads it in windows, has each record checked, and
//! goes on behind what is damaged (`scan_end`).

mod scan_end;

use std::fs::File;

use self::scan_end::ScanEnd;
use super::conversion::of_flaw;
use super::digests::DigestState;
use super::finding::{Finding, Kind};
use super::index::{IndexCheck, IndexState};
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

/// How little is read at once, in bytes, where long pickles are passed over.
const MIN_WINDOW_LEN: u64 = 4 * 1024;

/// What is worth passing over, in bytes: less is read sooner than another call is
/// made.
const LONG_PICKLE_LEN: u64 = 16 * 1024;

/// How much is read at once, in bytes, where there are none.
const MAX_WINDOW_LEN: u64 = 1024 * 1024;

/// What is walked.
#[derive(Clone, Copy)]
pub(super) struct WalkInput<'a> {
    /// Where it lies.
    pub(super) paths: &'a SlavePaths,
    /// It, open for reading.
    pub(super) file: &'a File,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Whether pickles are passed over.
    pub(super) quick: bool,
    /// Up to where the ledger has digests of it, if there is one.
    pub(super) digests_end: Option<u64>,
}

/// A walk, and whom it tells.
pub(super) struct Walk<'a> {
    input: WalkInput<'a>,
    reader: LossyReader<'a>,
    index: Option<IndexCheck>,
    monitor: &'a dyn Monitor,
    report: &'a mut dyn FnMut(Finding),
    scanner: Scanner,
    checker: Checker,
    /// Up to where the file is read: its size, as last seen.
    limit: u64,
    window_len: u64,
    /// Up to where flaws were found.
    flaws_to: u64,
    /// Flaws before it were told, when their transaction was read before.
    reported_to: u64,
    /// Where something wrong was looked at again, how often, and what the file was before.
    reread: Option<(u64, usize, FileStat)>,
    /// The file as it stayed while something wrong was looked at again as often as may be.
    settled: Option<FileStat>,
    /// How often anything was.
    rereads: usize,
}

impl<'a> Walk<'a> {
    /// A walk that has not begun.
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

    /// What the file is, by its first bytes. What is no FileStorage is not walked.
    pub(super) fn content(&mut self) -> Result<SlaveContent, Error> {
        if self.limit == 0 {
            return Ok(SlaveContent::Missing);
        }
        if self.limit < MAGIC_LEN + MIN_TXN_LEN {
            return Ok(SlaveContent::TooShort);
        }
        self.reader.read(0..MAGIC_LEN, self.report)?;
        let head = self.reader.piece();
        if Magic::decode(head).is_some() || !self.reader.is_whole() {
            return Ok(SlaveContent::FileStorage);
        }
        let found = format!("'{}'", head.escape_ascii());
        (self.report)(Finding::new(Kind::Magic, 0, "'FS21' or 'FS30'", found));
        Ok(SlaveContent::Foreign)
    }

    /// Walks to the end; returns what lies behind the last committed transaction.
    pub(super) fn run(&mut self) -> Result<Option<UnfinishedTail>, Error> {
        loop {
            let is_cut = self.scan()?;
            if is_cut && self.read_again()? {
                continue;
            }
            if let ScanEnd::End(unfinished) = self.handle_scan_end()? {
                self.read_up_to(self.limit)?;
                return Ok(unfinished);
            }
        }
    }

    /// What came of it.
    pub(super) fn finish(mut self, unfinished: Option<UnfinishedTail>) -> Result<Verified, Error> {
        if !self.report_if_lost(unfinished) {
            self.compare_with_left()?;
        }
        let digests = match self.reader.take_digests() {
            Some(digests) => digests.finish(self.reader.fields(), self.report)?,
            None if self.input.quick => DigestState::Unasked,
            None => DigestState::NoLedger,
        };
        let index = match self.index {
            Some(index) => index.finish(self.limit, self.reader.fields(), self.report)?,
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

    /// Tells if the file has lost what the ledger has digests of.
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
                format!("committed bytes up to {lost}, of which the ledger has digests"),
                "an end",
            ));
        }
        lost.is_some()
    }

    /// Tells if the file is shorter than the last pass left it.
    fn compare_with_left(&mut self) -> Result<(), Error> {
        let Some(left) = self.sidecar().last_sync else {
            return Ok(());
        };
        // What was appended meanwhile is in the file by now.
        let size = self.seen()?.size;
        if left.slave.position > size {
            (self.report)(Finding::new(
                Kind::Shortened,
                self.scanner.position(),
                format!("{} bytes, as the last pass left it", left.slave.position),
                format!("{size} bytes"),
            ));
        }
        Ok(())
    }

    /// Scans until the scanner stops, or the limit; says whether the file ended
    /// before.
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
            self.scanner.feed(self.reader.piece(), &mut |event| {
                checker.take(event, &mut fields, &mut report);
            });
            self.compare_index()?;
        }
        Ok(false)
    }

    /// Where the next window starts: behind a pickle, where that is not read.
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

    /// Where a window ends: with a page, and where the index is of.
    fn window_end(&self, offset: u64) -> u64 {
        let end = (offset + self.window_len).next_multiple_of(MIN_WINDOW_LEN);
        let end = end.min(self.limit);
        match self.index.as_ref().and_then(IndexCheck::fingerprint) {
            Some(fingerprint) if offset < fingerprint => fingerprint.min(end),
            _ => end,
        }
    }

    /// Reads what the scan passes over, unless pickles are passed over too.
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

    /// Compares the index, once the walk is where it is of.
    fn compare_index(&mut self) -> Result<(), Error> {
        let Some(index) = &mut self.index else {
            return Ok(());
        };
        let at = self.scanner.position();
        if index.fingerprint() == Some(at) && self.scanner.offset() == at {
            let walked = (&self.checker, self.limit);
            index.compare(walked, self.reader.fields(), self.report)?;
        }
        Ok(())
    }

    /// What the last pass left; nothing if that cannot be read.
    fn sidecar(&self) -> Sidecar {
        Sidecar::load(self.input.paths).unwrap_or_else(|error| {
            tracing::warn!("{}", error.display_chain());
            Sidecar::default()
        })
    }

    /// The file as it is now.
    fn seen(&self) -> Result<FileStat, Error> {
        let found = self.input.file.metadata();
        let found = found.map_err(Error::io("look at", self.input.paths.data()))?;
        Ok(FileStat::of(&found))
    }
}
