//! A FileStorage that is written like ZODB does, transaction by transaction.

use std::collections::BTreeSet;

use fssync::filestorage::scan::{Cause, Damage, Event, Scanner, Tail, Transaction};
use fssync::filestorage::{MAGIC_LEN, Tid, TxnStatus};

/// A transaction to write.
#[derive(Clone, Debug)]
pub struct Txn {
    /// Its id.
    pub tid: u64,
    /// Its status.
    pub status: TxnStatus,
    /// The user name.
    pub user: Vec<u8>,
    /// The data records: oids, and pickles; an empty one undoes the object's creation.
    pub records: Vec<(u64, Vec<u8>)>,
}

impl Txn {
    /// The bytes of the transaction at a position.
    #[must_use]
    pub fn at(&self, position: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for (oid, pickle) in &self.records {
            data.extend(oid.to_be_bytes());
            data.extend(self.tid.to_be_bytes());
            data.extend(0u64.to_be_bytes());
            data.extend(position.to_be_bytes());
            data.extend(0u16.to_be_bytes());
            data.extend((pickle.len() as u64).to_be_bytes());
            data.extend(pickle);
            if pickle.is_empty() {
                data.extend(0u64.to_be_bytes());
            }
        }
        let tlen = (23 + self.user.len() + data.len()) as u64;
        let mut bytes = self.tid.to_be_bytes().to_vec();
        bytes.extend(tlen.to_be_bytes());
        bytes.push(self.status.0);
        bytes.extend((self.user.len() as u16).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.user);
        bytes.extend(data);
        bytes.extend(tlen.to_be_bytes());
        bytes
    }
}

/// A file with these transactions.
#[must_use]
pub fn file(txns: &[Txn]) -> Vec<u8> {
    let mut bytes = b"FS30".to_vec();
    for txn in txns {
        bytes.extend(txn.at(bytes.len() as u64));
    }
    bytes
}

/// The result of a scan.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// All events of the scan.
    pub events: Vec<Event>,
    /// Just past the last committed transaction.
    pub position: u64,
    /// The bytes after that position.
    pub tail: Tail,
}

impl Scanned {
    /// Scans a file in chunks of this length.
    #[must_use]
    pub fn of(file: &[u8], piece_len: usize) -> Self {
        let mut scanner = Scanner::new(file.len() as u64);
        let mut events = Vec::new();
        let start = file.get(MAGIC_LEN as usize..).unwrap_or_default();
        for piece in start.chunks(piece_len) {
            scanner.feed(piece, &mut |event| events.push(event));
            assert!(scanner.decided() <= scanner.offset());
        }
        Self {
            events,
            position: scanner.position(),
            tail: scanner.tail(),
        }
    }

    /// The committed transactions.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        let transactions = self.events.iter().filter_map(|event| match event {
            Event::Transaction(transaction) => Some(*transaction),
            _ => None,
        });
        transactions.collect()
    }

    /// The tids of the committed transactions.
    #[must_use]
    pub fn tids(&self) -> BTreeSet<Tid> {
        let transactions = self.transactions().into_iter();
        transactions.map(|it| it.header.tid).collect()
    }

    /// Whether ZODB opens the file if it may truncate the tail of a crash.
    #[must_use]
    pub fn can_be_cut(&self) -> bool {
        let is_short = |damage: &Damage| matches!(damage.cause, Cause::ShorterThanHeader { .. });
        !matches!(&self.tail, Tail::Damaged(damage) if !is_short(damage))
    }

    /// Whether ZODB opens the file and scans it completely.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        matches!(self.tail, Tail::Clean | Tail::Short | Tail::Voted)
    }
}
