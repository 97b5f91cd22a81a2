//! Reads the master's committed transactions from a position on.
//!
//! A [`TransactionReader`] reads the master in chunks of bounded size, scans them, and returns
//! the bytes that belong to committed transactions. It passes the events of the scan, and the
//! bytes that were scanned, to a [`Visitor`] of the caller's. The next chunk is read while the
//! caller works on the current one. Nothing is written.
//!
//! The master may be writing while it is read:
//!
//! 1. A transaction with status `c` is voted and not finished, so the reader stops before it.
//!    Its bytes are not kept: they are read again once the transaction is finished.
//! 2. A record that looks damaged may be a write in progress. The reader reads it again, several
//!    times within about an eighth of a second, before it reports the damage.
//! 3. If such a record is valid then, and some of its bytes were already returned, those may be
//!    outdated. The reader fails with [`Error::MasterChanged`], and the pass starts over.
//! 4. If the file becomes shorter than a transaction that was begun, or another file gets its
//!    name, the reader fails in the same way.

mod chunks;

use self::chunks::Chunks;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::error::{Error, MasterDamage};
use crate::filestorage::Tid;
use crate::filestorage::scan::{Event, Scanner, Tail, Visitor};
use crate::io::read::AlignedBuf;
use crate::source::{FileId, Master, MasterStat};

/// How many blemishes are logged one by one.
const MAX_LOGGED_BLEMISHES: u64 = 5;

/// Where the bytes that [`TransactionReader::next`] returns may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Anywhere.
    Anywhere,
    /// After the last transaction that ends in them, if one does.
    AtBoundary,
}

/// Reads transactions from the master.
#[derive(Debug)]
pub struct TransactionReader<'a> {
    master: &'a Master,
    identity: FileId,
    chunks: Chunks<'a>,
    scanner: Scanner,
    /// Why there are no more transactions, once there are none.
    end: Option<Tail>,
    rereads: Rereads,
    /// The end of the bytes that were returned.
    returned: u64,
    totals: Totals,
}

/// How often a record was read again that looked damaged.
#[derive(Debug)]
struct Rereads {
    /// The position of the transaction record.
    position: u64,
    count: usize,
    /// Whether bytes of the transaction were returned before it looked damaged.
    is_partly_returned: bool,
}

/// Totals over the transactions that were read.
#[derive(Debug)]
struct Totals {
    transactions: u64,
    first_tid: Option<Tid>,
    /// The start of the last transaction.
    last_start: u64,
    blemishes: u64,
}

impl<'a> TransactionReader<'a> {
    /// Reads the file with this `master_stat` from `position` on, where the transaction
    /// `last_tid` ends, `chunk_len` bytes at a time. A chunk must have room for a transaction
    /// header.
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
            chunks: Chunks::new(master, master_stat.size, chunk_len),
            scanner: Scanner::resume(position, last_tid, master_stat.size),
            end: None,
            rereads: Rereads {
                position,
                count: 0,
                is_partly_returned: false,
            },
            returned: position,
            totals: Totals {
                transactions: 0,
                first_tid: None,
                last_start: position,
                blemishes: 0,
            },
        }
    }

    /// Starts with these bytes of the master, which the caller has read at the start position,
    /// instead of reading them again. Bytes that exceed a chunk are dropped.
    pub fn begin_with(&mut self, first: Option<AlignedBuf>) {
        self.chunks.begin_with(first);
    }

    /// The end of the last committed transaction that was read, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }

    /// The start of that transaction; the start position, if none was read.
    #[must_use]
    pub fn last_start(&self) -> u64 {
        self.totals.last_start
    }

    /// The tid of that transaction.
    #[must_use]
    pub fn last_tid(&self) -> Option<Tid> {
        self.scanner.last_tid()
    }

    /// The master's size in bytes, when the reader last asked.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chunks.size
    }

    /// Number of transactions that were read.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.totals.transactions
    }

    /// The tid of the first of them.
    #[must_use]
    pub fn first_tid(&self) -> Option<Tid> {
        self.totals.first_tid
    }

    /// Whether the bytes that were returned end with a complete transaction.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.scanner.offset() == self.scanner.position()
    }

    /// The damage in the master at [`position`](Self::position), if damage ended the reading.
    #[must_use]
    pub fn damage(&self) -> Option<MasterDamage> {
        match self.end {
            Some(Tail::Damaged(damage)) => Some(MasterDamage::Record(damage)),
            Some(Tail::Torn) => Some(MasterDamage::Torn(self.position())),
            _ => None,
        }
    }

    /// Reads on, and returns the next bytes, which follow the last ones without a gap. Returns
    /// `None` at the end of the committed transactions.
    ///
    /// A transaction that turns out to be damaged may have been returned in part: only the
    /// bytes before [`position`](Self::position) count.
    ///
    /// `visitor` gets the events of the scan, and then the bytes that were scanned. It meets a
    /// transaction again that the reader reads again: after a cut, or since it looked damaged.
    pub fn next(&mut self, cut: Cut, visitor: &mut impl Visitor) -> Result<Option<&[u8]>, Error> {
        loop {
            if self.end.is_some() && !self.read_again()? {
                return Ok(None);
            }
            let offset = self.scanner.offset();
            if !self.chunks.receive(offset)? {
                self.end_at_eof()?;
                continue;
            }
            self.scan(visitor);
            let mut end = self.scanner.decided();
            self.end = match self.scanner.stopped() {
                // Too few bytes for a transaction header are left.
                None if end <= offset => Some(self.scanner.tail()),
                stopped => stopped,
            };
            if cut == Cut::AtBoundary && self.position() > offset {
                end = self.position();
            }
            // The rest of the chunk is scanned again, with the bytes that follow it.
            if end < self.scanner.offset() {
                self.scanner.go_back();
            }
            if end <= offset {
                continue;
            }
            if self.end.is_none() {
                self.chunks.request(end);
            }
            if self.rereads.is_partly_returned {
                // The chunks begin elsewhere than at first, so bytes that exceed those returned
                // do not prove that the transaction is valid: only its end does.
                if self.position() > self.rereads.position {
                    return Err(self.changed("a record that looked damaged is valid on re-read"));
                }
                continue;
            }
            self.returned = end;
            return Ok(Some(self.chunks.cut((end - offset) as usize)));
        }
    }

    /// Scans the current chunk.
    fn scan(&mut self, visitor: &mut impl Visitor) {
        let Self {
            scanner,
            chunks,
            totals,
            master,
            ..
        } = self;
        let offset = scanner.offset();
        let bytes = chunks.current();
        scanner.feed(bytes, &mut |event| {
            visitor.event(event);
            totals.add(event, master);
        });
        visitor.bytes(offset, bytes);
    }

    /// Handles the end of the file: at a boundary, in an incomplete transaction header, or, if
    /// the file was truncated meanwhile, in a transaction.
    fn end_at_eof(&mut self) -> Result<(), Error> {
        if self.scanner.decided() > self.position() {
            return Err(self.changed("it was truncated"));
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

    /// Goes back to the last boundary if the reading ended at damage, which may be a write in
    /// progress. Returns whether the caller must read on.
    fn read_again(&mut self) -> Result<bool, Error> {
        if self.damage().is_none() {
            return Ok(false);
        }
        let position = self.position();
        let count = match self.rereads {
            Rereads {
                position: at,
                count,
                ..
            } if at == position => count,
            // This is the first damage at this position.
            _ => 0,
        };
        let Some(wait) = REREAD_DELAYS.get(count) else {
            return Ok(false);
        };
        self.rereads = Rereads {
            position,
            count: count + 1,
            is_partly_returned: self.returned > position,
        };
        retry::wait(*wait);
        let master_stat = self.master.stat(Vec::new())?;
        if master_stat.identity != self.identity {
            return Err(self.changed("another file has replaced it"));
        }
        self.chunks.size = master_stat.size;
        self.scanner = Scanner::resume(position, self.last_tid(), master_stat.size);
        self.end = None;
        Ok(true)
    }
}

impl Totals {
    fn add(&mut self, event: Event, master: &Master) {
        match event {
            Event::Transaction(transaction) => {
                self.transactions += 1;
                self.first_tid.get_or_insert(transaction.header.tid);
                self.last_start = transaction.position;
            }
            Event::Blemish { position, blemish } => {
                self.blemishes += 1;
                if self.blemishes <= MAX_LOGGED_BLEMISHES {
                    tracing::warn!(
                        "{}: transaction record at {position}: {blemish}; ZODB opens it, so it \
                         is copied",
                        master.name()
                    );
                }
            }
            Event::Begun { .. } | Event::Record { .. } => {}
        }
    }
}
