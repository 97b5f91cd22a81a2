//! The walk through a `Data.fs`: reads it in windows, has each record checked, and
//! goes on behind what is damaged.
//!
//! A file that is written meanwhile grows behind its last committed transaction,
//! or is cut there. So what looks wrong there is looked at again before it counts;
//! where whole transactions follow, nobody is writing.

use std::fs::File;
use std::ops::Range;
use std::thread;

use super::finding::{Finding, Kind};
use super::index::{IndexCheck, IndexState};
use super::reading::{Reading, Tap};
use super::{Asked, Content, Unfinished, Verified};
use crate::filestorage::backward::ReadAt;
use crate::filestorage::behind::{end_of, is_cut, is_transaction, search};
use crate::filestorage::check::{Checker, Flaw, What};
use crate::filestorage::record::{
    DATA_HEADER_LEN, DataHeader, MIN_TXN_LEN, STATUS_OFFSET, TXN_HEADER_LEN, TxnHeader,
};
use crate::filestorage::scan::{Cause, Damage, Record, Scanner, Tail};
use crate::filestorage::{MAGIC_LEN, Magic, Status};
use crate::monitor::Monitor;
use crate::retry::LOOK_AGAIN_AFTER;
use crate::slave::place::Place;
use crate::slave::sidecar::Sidecar;
use crate::stop::Stop;

/// How little is read at once, in bytes, where long pickles are passed over.
const MIN_WINDOW_LEN: u64 = 4 * 1024;

/// How much is read at once, in bytes, where they are not.
const MAX_WINDOW_LEN: u64 = 1024 * 1024;

/// A walk, and whom it serves.
pub(super) struct Walk<'a> {
    place: &'a Place,
    file: &'a File,
    reading: Reading<'a>,
    monitor: &'a dyn Monitor,
    tell: &'a mut dyn FnMut(Finding),
    /// Whether pickles are passed over.
    quick: bool,
    tap: Option<&'a mut dyn Tap>,
    index: Option<IndexCheck>,
    scanner: Scanner,
    checker: Checker,
    /// Up to where the file is read: its size, as last seen.
    limit: u64,
    /// Up to where it was read.
    read_to: u64,
    bytes_read: u64,
    window_len: u64,
    /// Up to where flaws were found.
    flaws_to: u64,
    /// Flaws before it were told, when their transaction was read before.
    told_to: u64,
    /// Where something wrong was looked at again, and how often.
    looked_again: (u64, usize),
}

/// How the walk goes on.
enum Next {
    /// From where the scanner stands now.
    On,
    /// Not at all.
    End(Option<Unfinished>),
}

impl<'a> Walk<'a> {
    /// A walk through a file of `size` bytes.
    pub(super) fn new(
        (place, file, size): (&'a Place, &'a File, u64),
        asked: Asked<'a>,
        index: Option<IndexCheck>,
        reading: Reading<'a>,
        monitor: &'a dyn Monitor,
        tell: &'a mut dyn FnMut(Finding),
    ) -> Self {
        Self {
            place,
            file,
            reading,
            monitor,
            tell,
            quick: asked.quick,
            tap: asked.tap,
            index,
            scanner: Scanner::new(size),
            checker: Checker::default(),
            limit: size,
            read_to: 0,
            bytes_read: 0,
            window_len: MIN_WINDOW_LEN,
            flaws_to: 0,
            told_to: 0,
            looked_again: (0, 0),
        }
    }

    /// What the file is, by its first bytes. What is no FileStorage is not walked.
    pub(super) fn content(&mut self) -> Result<Content, Stop> {
        let size = self.limit;
        if size < MAGIC_LEN + MIN_TXN_LEN {
            return Ok(if size == 0 {
                Content::Missing
            } else {
                Content::Short
            });
        }
        self.read(0..MAGIC_LEN)?;
        let head = self.reading.piece();
        if Magic::decode(head).is_some() || !self.reading.unreadable().is_empty() {
            return Ok(Content::Storage);
        }
        let found = format!("'{}'", head.escape_ascii());
        (self.tell)(Finding::new(Kind::Magic, 0, "'FS21' or 'FS30'", found));
        Ok(Content::Foreign)
    }

    /// Walks to the end; returns what lies behind the last committed transaction.
    pub(super) fn run(&mut self) -> Result<Option<Unfinished>, Stop> {
        loop {
            let may_be_cut = self.scan()?;
            if may_be_cut && self.look_again()? {
                continue;
            }
            if let Next::End(unfinished) = self.stopped()? {
                self.read_up_to(self.limit)?;
                return Ok(unfinished);
            }
        }
    }

    /// What came of it.
    pub(super) fn finish(mut self, unfinished: Option<Unfinished>) -> Result<Verified, Stop> {
        let position = self.scanner.position();
        self.compare_with_left(position)?;
        let index = match self.index {
            Some(index) => index.finish(self.limit, self.reading.fields(), self.tell)?,
            None => IndexState::Missing,
        };
        Ok(Verified {
            slave: self.place.data().to_owned(),
            content: Content::Storage,
            seen: None,
            size: self.limit,
            position,
            last_tid: self.scanner.last_tid(),
            transactions: self.checker.transactions(),
            records: self.checker.records(),
            objects: self.checker.objects(),
            bytes: self.bytes_read,
            unfinished,
            index,
            damages: 0,
            blemishes: 0,
        })
    }

    /// Tells if the file is shorter than the last pass left it.
    fn compare_with_left(&mut self, position: u64) -> Result<(), Stop> {
        let Some(left) = self.sidecar().left else {
            return Ok(());
        };
        // What was appended meanwhile is in the file by now.
        let found = self.file.metadata();
        let size = found.map_err(Stop::io("look at", self.place.data()))?.len();
        if left.slave.position > size {
            (self.tell)(Finding::new(
                Kind::Shortened,
                position,
                format!("{} bytes, as the last pass left it", left.slave.position),
                format!("{size} bytes"),
            ));
        }
        Ok(())
    }

    /// Scans until the scanner stops, or the limit; says whether the file ended
    /// before.
    fn scan(&mut self) -> Result<bool, Stop> {
        while self.scanner.stopped().is_none() && self.scanner.left() > 0 {
            let offset = self.next_offset();
            self.monitor.progress("verifying", offset, self.limit);
            if self.read(offset..self.window_end(offset))? == 0 {
                return Ok(true);
            }
            let Self {
                scanner,
                checker,
                reading,
                tell,
                flaws_to,
                told_to,
                ..
            } = self;
            let mut fields = reading.fields();
            let mut tell = |flaw: Flaw| {
                if flaw.position >= *told_to {
                    *flaws_to = flaw.position + 1;
                    tell(of_flaw(flaw));
                }
            };
            scanner.feed(reading.piece(), &mut |event| {
                checker.take(event, &mut fields, &mut tell);
            });
            self.compare_index()?;
        }
        Ok(false)
    }

    /// Where the next window starts: behind a pickle, where that is not read.
    fn next_offset(&mut self) -> u64 {
        let before = self.scanner.offset();
        if self.quick {
            self.scanner.skip();
        }
        let offset = self.scanner.offset();
        // The more is passed over, the less is read in vain.
        self.window_len = if offset - before > self.window_len / 4 {
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
        let mark = self.index.as_ref().and_then(IndexCheck::mark);
        match mark {
            Some(mark) if offset < mark => mark.min(end),
            _ => end,
        }
    }

    /// Reads a range, or as much as there is of it; returns how much that is.
    fn read(&mut self, range: Range<u64>) -> Result<usize, Stop> {
        let Self {
            reading,
            tap,
            tell,
            read_to,
            ..
        } = self;
        let len = reading
            .read(range.start, (range.end - range.start) as usize)?
            .len();
        self.bytes_read += len as u64;
        let end = range.start + len as u64;
        // What is looked at again was read before.
        let mut at = range.start.max(*read_to).min(end);
        let piece = |part: Range<u64>| {
            &reading.piece()[(part.start - range.start) as usize..(part.end - range.start) as usize]
        };
        for hole in reading.unreadable() {
            let hole = hole.start.max(at)..hole.end.max(at);
            if hole.is_empty() {
                continue;
            }
            tell(Finding {
                end: Some(hole.end),
                ..Finding::new(
                    Kind::Unreadable,
                    hole.start,
                    "bytes that can be read",
                    format!("an error for {} bytes", hole.end - hole.start),
                )
            });
            if let Some(tap) = tap {
                tap.feed(piece(at..hole.start));
                tap.unreadable(hole.clone());
            }
            at = hole.end;
        }
        if let Some(tap) = tap {
            tap.feed(piece(at..end));
        }
        *read_to = end.max(*read_to);
        Ok(len)
    }

    /// Reads what the scan passes over, unless pickles are passed over too.
    fn read_up_to(&mut self, to: u64) -> Result<(), Stop> {
        while !self.quick && self.read_to < to {
            self.monitor.progress("verifying", self.read_to, self.limit);
            let end = to.min(self.read_to + MAX_WINDOW_LEN);
            if self.read(self.read_to..end)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Compares the index, once the walk is where it is of.
    fn compare_index(&mut self) -> Result<(), Stop> {
        let Some(index) = &mut self.index else {
            return Ok(());
        };
        let at = self.scanner.position();
        if index.mark() == Some(at) && self.scanner.offset() == at {
            index.compare(
                (&self.checker, self.limit),
                self.reading.fields(),
                self.tell,
            )?;
        }
        Ok(())
    }

    /// What is to be done where the scanner stopped.
    fn stopped(&mut self) -> Result<Next, Stop> {
        let start = self.scanner.position();
        let tail = self.scanner.tail();
        if tail == Tail::Clean {
            return Ok(Next::End(None));
        }
        let is_ours = self.is_ours(start)?;
        if tail == Tail::Short || is_ours {
            return Ok(self.unfinished(start, is_ours));
        }
        let behind = self.behind(start, tail)?;
        // No transaction follows the one that is being written.
        if (behind.is_none() && tail != Tail::Voted || behind.is_some() && tail == Tail::Voted)
            && self.look_again()?
        {
            return Ok(Next::On);
        }
        let mut fields = self.reading.fields();
        let damaged = match (tail, behind) {
            (Tail::Damaged(damage), Some(_)) => of_damage(&damage),
            (Tail::Damaged(damage), None) if !is_cut(&mut fields, self.limit, &damage)? => {
                of_damage(&damage)
            }
            (Tail::Voted, Some(_)) => Finding::new(
                Kind::UnfinishedWithin,
                start,
                "a finished transaction, as whole ones follow",
                "status 'c': ZODB cuts the file here",
            ),
            (_, Some(_)) => Finding::new(
                Kind::TransactionLength,
                start,
                "a length that ends in the file",
                "one that ends behind it: ZODB cuts the file here",
            ),
            (Tail::Torn, None) if self.status(start)?.is_some_and(|byte| !byte.is_ascii()) => {
                Finding::new(
                    Kind::TransactionHeader,
                    start,
                    "the end of the file, or a transaction with an ASCII status",
                    "a header on which ZODB fails; the next pass cuts it",
                )
            }
            (_, None) => return Ok(self.unfinished(start, false)),
        };
        let end = behind.unwrap_or(self.limit);
        let finding = self.with_ids(damaged, start)?;
        (self.tell)(Finding {
            end: Some(end),
            ..finding
        });
        let Some(behind) = behind else {
            return Ok(Next::End(None));
        };
        self.read_up_to(behind)?;
        self.checker.pass_over();
        self.scanner = Scanner::resume(behind, self.scanner.last_tid(), self.limit);
        self.compare_index()?;
        Ok(Next::On)
    }

    /// Where a transaction starts behind the one at `start`, if one does; for one
    /// whose length is damaged, where it ends.
    fn behind(&self, start: u64, tail: Tail) -> Result<Option<u64>, Stop> {
        let (mut fields, limit, last_tid) =
            (self.reading.fields(), self.limit, self.scanner.last_tid());
        let end = end_of(&mut fields, start, limit, last_tid)?;
        if tail != Tail::Voted {
            return match end {
                Some(end) => Ok(Some(end)),
                None => search(&mut fields, start, start + 1, limit, last_tid),
            };
        }
        let mut from = end.unwrap_or(start);
        while from < limit {
            if is_transaction(&mut fields, from, limit, last_tid)? {
                return Ok(Some(from));
            }
            match search(&mut fields, start, from, limit, last_tid)? {
                Some(found) => from = found,
                None => break,
            }
        }
        Ok(None)
    }

    /// Whether an append of ours is under way at `start`, or was left there.
    fn is_ours(&self, start: u64) -> Result<bool, Stop> {
        let mut header = [0; TXN_HEADER_LEN];
        let len = self.limit.saturating_sub(start).min(TXN_HEADER_LEN as u64) as usize;
        let header = &mut header[..len];
        self.reading.fields().read_exact_at(header, start)?;
        let batch = self.sidecar().batch;
        Ok(batch.is_some_and(|batch| batch.left(start, header)))
    }

    /// What the last pass left; nothing if that cannot be read.
    fn sidecar(&self) -> Sidecar {
        Sidecar::load(self.place).unwrap_or_else(|stop| {
            tracing::warn!("{}", stop.in_one_line());
            Sidecar::default()
        })
    }

    /// The status byte of the transaction at `start`, if the file reaches so far.
    fn status(&self, start: u64) -> Result<Option<u8>, Stop> {
        let at = start + STATUS_OFFSET;
        if at >= self.limit {
            return Ok(None);
        }
        let mut status = [0];
        self.reading.fields().read_exact_at(&mut status, at)?;
        Ok(Some(status[0]))
    }

    fn unfinished(&self, start: u64, is_ours: bool) -> Next {
        Next::End(Some(Unfinished {
            bytes: self.limit - start,
            is_ours,
        }))
    }

    /// Whether there may be more after all: what looks wrong is read again, up to
    /// where the file ends now.
    fn look_again(&mut self) -> Result<bool, Stop> {
        let at = self.scanner.position();
        let times = match self.looked_again {
            (same, times) if same == at => times,
            _ => 0,
        };
        let Some(&wait) = LOOK_AGAIN_AFTER.get(times) else {
            return Ok(false);
        };
        self.looked_again = (at, times + 1);
        thread::sleep(wait);
        let found = self.file.metadata();
        self.limit = found
            .map_err(Stop::io("look at", self.place.data()))?
            .len()
            .max(at);
        self.told_to = self.flaws_to;
        self.checker.begin_again();
        self.scanner = Scanner::resume(at, self.scanner.last_tid(), self.limit);
        Ok(true)
    }

    /// Adds the transaction that starts at `start`, and the object.
    fn with_ids(&self, finding: Finding, start: u64) -> Result<Finding, Stop> {
        let mut fields = self.reading.fields();
        let mut header = [0; TXN_HEADER_LEN];
        fields.read_exact_at(&mut header, start)?;
        let mut record = [0; DATA_HEADER_LEN];
        let is_record = finding.position != start;
        if is_record {
            fields.read_exact_at(&mut record, finding.position)?;
        }
        Ok(Finding {
            tid: Some(TxnHeader::decode(&header).tid),
            oid: is_record.then(|| DataHeader::decode(&record).oid),
            ..finding
        })
    }
}

/// A flaw, in words.
fn of_flaw(flaw: Flaw) -> Finding {
    let (kind, expected, found) = match flaw.what {
        What::TidReduction(last) => (
            Kind::TidReduction,
            format!("a tid above {last}"),
            flaw.tid.to_string(),
        ),
        What::OddStatus(Status(byte)) => (
            Kind::OddStatus,
            "status ' ', 'p' or 'u'".to_owned(),
            format!("'{}'", byte.escape_ascii()),
        ),
        What::DataTid(found) => (
            Kind::DataTid,
            format!("tid {}", flaw.tid),
            found.to_string(),
        ),
        What::Prev { expected, found } => (
            Kind::PreviousPointer,
            format!("previous record at {expected}"),
            found.to_string(),
        ),
        What::BackPointer(found) => (
            Kind::BackPointer,
            "a pointer to an earlier data record of the object".to_owned(),
            found.to_string(),
        ),
    };
    Finding {
        tid: Some(flaw.tid),
        oid: flaw.oid,
        ..Finding::new(kind, flaw.position, expected, found)
    }
}

/// What makes ZODB panic, in words.
fn of_damage(damage: &Damage) -> Finding {
    let kind = match (damage.record, damage.cause) {
        (Record::Data, _) => Kind::DataRecord,
        (_, Cause::RedundantLength { .. }) => Kind::TransactionLength,
        _ => Kind::TransactionHeader,
    };
    let (expected, found) = match damage.cause {
        Cause::Status(byte) => ("an ASCII status".to_owned(), format!("byte 0x{byte:02x}")),
        Cause::ShorterThanHeader { tlen, header_len } => (
            format!("a length of at least {header_len}"),
            tlen.to_string(),
        ),
        Cause::RedundantLength { expected, found } => (
            format!("length {expected} at its end too"),
            found.to_string(),
        ),
        Cause::ExceedsTransaction(end) => (
            format!("data records that end with their transaction, at {end}"),
            "one that does not".to_owned(),
        ),
        Cause::Tloc { expected, found } => (
            format!("the position of its transaction, {expected}"),
            found.to_string(),
        ),
        Cause::Version(len) => ("no version name".to_owned(), format!("one of {len} bytes")),
    };
    Finding::new(kind, damage.position, expected, found)
}
