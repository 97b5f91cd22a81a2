//! The master's committed transactions, in checked pieces of bounded size.
//!
//! The next piece is read while the last one is dealt with. What is handed out
//! was seen to be committed: a transaction whose header says `c` is not begun,
//! and its bytes are not kept to be used once it is finished.

use std::mem;

use crate::compare::succession::Succession;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::error::{Error, MasterDamage};
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobSearch;
use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::scan::{Event, Scanner, Tail};
use crate::io::read::AlignedBuf;
use crate::plan::Evidence;
use crate::slave::index::coverage::RecordCount;
use crate::source::{FileId, Master, MasterStat, Pending};

/// How many blemishes are told one by one.
const BLEMISHES_TOLD: u64 = 5;

/// Reads on from a position.
#[derive(Debug)]
pub struct Feed<'a> {
    master: &'a Master,
    identity: FileId,
    size: u64,
    scanner: Scanner,
    chunk_len: usize,
    /// The bytes that come next, asked for ahead.
    under_way: Option<Pending<AlignedBuf>>,
    piece: AlignedBuf,
    /// The first piece, where it was read before.
    ready: Option<AlignedBuf>,
    /// The piece before, whose buffer serves the next read.
    spare: AlignedBuf,
    end: Option<Tail>,
    /// Where something wrong was looked at again, and how often.
    looked_again: (u64, usize),
    /// Up to where bytes were handed out.
    handed_out: u64,
    watched: Option<Tid>,
    watched_seen: bool,
    transactions: u64,
    first_tid: Option<Tid>,
    /// What came by since it was last taken.
    records: RecordCount,
    /// The data records of the transaction that is not seen whole yet.
    begun: u64,
    /// The index of what comes by, if there is to be one.
    builder: Option<Builder>,
    /// The join with the slave that is to be replaced, if there is one.
    succession: Option<Succession<'a>>,
    last_start: u64,
    blemishes: u64,
    blobs: BlobSearch,
}

impl<'a> Feed<'a> {
    /// Reads the file that was sighted from `position`, just past `last_tid`,
    /// `chunk_len` bytes at a time.
    #[must_use]
    pub fn new(
        master: &'a Master,
        master_stat: &MasterStat,
        position: u64,
        last_tid: Option<Tid>,
        chunk_len: usize,
    ) -> Self {
        Self {
            master,
            identity: master_stat.identity.clone(),
            size: master_stat.size,
            scanner: Scanner::resume(position, last_tid, master_stat.size),
            chunk_len,
            under_way: None,
            piece: AlignedBuf::default(),
            ready: None,
            spare: AlignedBuf::default(),
            end: None,
            looked_again: (position, 0),
            handed_out: position,
            watched: None,
            watched_seen: false,
            transactions: 0,
            first_tid: None,
            records: RecordCount::default(),
            begun: 0,
            builder: None,
            succession: None,
            last_start: position,
            blemishes: 0,
            blobs: BlobSearch::default(),
        }
    }

    /// Begins with these bytes, which were read at the position already; no more of
    /// them than are read at once.
    pub fn begin_with(&mut self, piece: Option<AlignedBuf>) {
        self.ready = piece;
        if let Some(piece) = &mut self.ready {
            piece.truncate(self.chunk_len);
        }
    }

    /// Watches out for a transaction, which may have been seen before; see
    /// [`has_seen`](Self::has_seen).
    pub fn watch_for(&mut self, tid: Option<Tid>, seen: bool) {
        self.watched = tid;
        self.watched_seen = seen;
    }

    /// Whether the transaction that was watched for came by.
    #[must_use]
    pub fn has_seen(&self) -> bool {
        self.watched_seen
    }

    /// Whether a record of a blob came by.
    #[must_use]
    pub fn has_blobs(&self) -> bool {
        self.blobs.has_found()
    }

    /// Just past the last committed transaction so far, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }

    /// Where that transaction starts; where the feed started, if none came by.
    #[must_use]
    pub fn last_start(&self) -> u64 {
        self.last_start
    }

    /// The tid of that transaction.
    #[must_use]
    pub fn last_tid(&self) -> Option<Tid> {
        self.scanner.last_tid()
    }

    /// The master's size, as last seen, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many transactions came by.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// The tid of the first of them.
    #[must_use]
    pub fn first_tid(&self) -> Option<Tid> {
        self.first_tid
    }

    /// What came by whole since this was last called.
    pub fn take_records(&mut self) -> RecordCount {
        mem::take(&mut self.records)
    }

    /// Has an index made of what comes by, by a builder that stands where the feed
    /// does. Only the pieces of a feed that is not asked to end them at boundaries
    /// make one.
    pub fn build(&mut self, builder: Builder) {
        self.builder = Some(builder);
    }

    /// Has all that comes by joined with the slave that is to be replaced, by a join that stands
    /// where the feed does. It needs the index that [`build`](Self::build) has made.
    pub fn join(&mut self, succession: Option<Succession<'a>>) {
        self.succession = succession;
    }

    /// What the join found, once there is no next piece; `None` if there was none.
    pub fn take_evidence(&mut self) -> Option<Evidence> {
        let index = self.builder.as_ref().and_then(Builder::index);
        Some(self.succession.take()?.finish(index))
    }

    /// The index of [`position`](Self::position), if one was made, and nothing
    /// damaged came in between.
    pub fn take_index(&mut self) -> Option<Index> {
        let builder = self.builder.take()?;
        if builder.position() != self.position() {
            return None;
        }
        builder.finish()
    }

    /// Whether what was handed out ends with a whole transaction.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.scanner.offset() == self.scanner.position()
    }

    /// What is wrong with the master behind [`position`](Self::position), once
    /// there is no next piece.
    #[must_use]
    pub fn damage(&self) -> Option<MasterDamage> {
        match self.end {
            Some(Tail::Damaged(damage)) => Some(MasterDamage::Record(damage)),
            Some(Tail::Torn) => Some(MasterDamage::Torn(self.position())),
            _ => None,
        }
    }

    /// The next bytes; `None` where the committed transactions end. The pieces
    /// follow each other without a gap. With `to_boundary`, a piece that holds
    /// the end of a transaction ends with the last one in it.
    ///
    /// `chunk_len` must hold a transaction header. A transaction that turns out
    /// to be damaged may have been handed out in
    /// part: [`position`](Self::position) tells what counts.
    pub fn next(&mut self, to_boundary: bool) -> Result<Option<&[u8]>, Error> {
        loop {
            if self.end.is_some() && !self.look_again()? {
                return Ok(None);
            }
            let offset = self.scanner.offset();
            if !self.receive(offset)? {
                self.end_at_eof()?;
                continue;
            }
            self.scan();
            let mut end = self.scanner.decided();
            self.end = match self.scanner.stopped() {
                None if end <= offset => Some(self.scanner.tail()),
                stopped => stopped,
            };
            if to_boundary && self.position() > offset {
                end = self.position();
            }
            if end < self.scanner.offset() {
                self.scanner.go_back();
            }
            if end <= offset {
                continue;
            }
            if self.end.is_none() {
                self.ask(end);
            }
            if offset < self.handed_out {
                // Another look at a transaction that was handed out in part.
                if end > self.handed_out {
                    return Err(self.changed("on another look, a damaged record is none"));
                }
                continue;
            }
            self.handed_out = end;
            self.piece.truncate((end - offset) as usize);
            self.blobs.take(&self.piece);
            return Ok(Some(&self.piece));
        }
    }

    /// Gets the bytes from `offset` on; says whether there are any.
    fn receive(&mut self, offset: u64) -> Result<bool, Error> {
        if let Some(ready) = self.ready.take() {
            self.piece = ready;
            return Ok(!self.piece.is_empty());
        }
        if self.under_way.is_none() {
            self.ask(offset);
        }
        let Some(answer) = self.under_way.take() else {
            return Ok(false);
        };
        self.spare = mem::replace(&mut self.piece, answer.wait()?);
        Ok(!self.piece.is_empty())
    }

    /// Asks for the bytes from `offset` on, if there are any.
    fn ask(&mut self, offset: u64) {
        let left = self.size.saturating_sub(offset);
        let len = left.min(self.chunk_len as u64) as usize;
        if len > 0 {
            let spare = mem::take(&mut self.spare);
            self.under_way = Some(self.master.read_into(spare, len, offset));
        }
    }

    fn scan(&mut self) {
        let Self {
            scanner,
            piece,
            watched,
            watched_seen,
            transactions,
            first_tid,
            records,
            begun,
            builder,
            succession,
            last_start,
            blemishes,
            master,
            ..
        } = self;
        let mut visit = |event| match event {
            Event::Transaction(transaction) => {
                *transactions += 1;
                first_tid.get_or_insert(transaction.header.tid);
                records.transactions += 1;
                records.data += mem::take(begun);
                *last_start = transaction.position;
                *watched_seen |= *watched == Some(transaction.header.tid);
            }
            Event::Blemish { position, blemish } => {
                *blemishes += 1;
                if *blemishes <= BLEMISHES_TOLD {
                    tracing::warn!(
                        "{}: transaction record at {position}: {blemish}; ZODB opens it, so it \
                         is copied",
                        master.name()
                    );
                }
            }
            Event::Begun { .. } => *begun = 0,
            Event::Record { .. } => *begun += 1,
        };
        let offset = scanner.offset();
        scanner.feed(piece, &mut |event| {
            if let Some(builder) = builder {
                builder.take(event);
            }
            if let Some(succession) = succession {
                succession.take(event, builder.as_ref().and_then(Builder::index));
            }
            visit(event);
        });
        if let Some(succession) = succession {
            succession.take_bytes(offset, piece);
        }
    }

    /// The file has no more bytes: at a boundary, in a header that is not whole
    /// yet, or, where it shrank under us, in a transaction.
    fn end_at_eof(&mut self) -> Result<(), Error> {
        if self.scanner.decided() > self.position() {
            return Err(self.changed("it is shorter than it was"));
        }
        self.end = Some(self.scanner.tail());
        Ok(())
    }

    fn changed(&self, what: &'static str) -> Error {
        Error::MasterChanged {
            master: self.master.name().to_owned(),
            what,
        }
    }

    /// Whether there may be more after all: what looks like damage is looked at
    /// again, as it may be a write under way.
    fn look_again(&mut self) -> Result<bool, Error> {
        if self.damage().is_none() {
            return Ok(false);
        }
        let times = match self.looked_again {
            (at, times) if at == self.position() => times,
            _ => 0,
        };
        let Some(wait) = REREAD_DELAYS.get(times) else {
            return Ok(false);
        };
        self.looked_again = (self.position(), times + 1);
        retry::wait(*wait);
        let master_stat = self.master.stat(Vec::new())?;
        if master_stat.identity != self.identity {
            return Err(self.changed("there is another file under its name"));
        }
        self.size = master_stat.size;
        self.scanner = Scanner::resume(self.position(), self.last_tid(), self.size);
        self.end = None;
        Ok(true)
    }
}
