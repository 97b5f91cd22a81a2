//! Generated logs with blobs.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::record::TXN_HEADER_LEN;

/// The pickle of a blob, as ZODB writes it under Python 3.
pub(crate) const BLOB: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

/// The pickle of a persistent mapping.
pub(crate) const OTHER: &[u8] =
    b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}q\x01X\x04\x00\x00\x00datas.";

/// A data record to be written.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) oid: u64,
    pub(crate) prev: u64,
    pub(crate) data: Data,
}

/// The data of a record.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Pickle(Vec<u8>),
    Back(u64),
}

/// A `Data.fs` in memory.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    /// The end of each transaction.
    pub(crate) ends: Vec<u64>,
}

impl Log {
    pub(crate) fn new() -> Self {
        let bytes = b"FS30".to_vec();
        let ends = Vec::new();
        Self { bytes, ends }
    }

    pub(crate) fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The position of the first record of the next transaction.
    pub(crate) fn next_record(&self) -> u64 {
        self.position() + TXN_HEADER_LEN as u64
    }

    /// Appends a transaction. Returns the positions of its records.
    pub(crate) fn append(&mut self, tid: u64, status: u8, records: &[Record]) -> Vec<u64> {
        let tloc = self.position();
        let mut body = Vec::new();
        let mut positions = Vec::new();
        for record in records {
            positions.push(self.next_record() + body.len() as u64);
            for number in [record.oid, tid, record.prev, tloc] {
                body.extend(number.to_be_bytes());
            }
            let (plen, data) = match &record.data {
                Data::Pickle(pickle) => (pickle.len() as u64, pickle.clone()),
                Data::Back(back) => (0, back.to_be_bytes().to_vec()),
            };
            body.extend([0, 0]);
            body.extend(plen.to_be_bytes());
            body.extend(data);
        }
        let tlen = ((TXN_HEADER_LEN + body.len()) as u64).to_be_bytes();
        self.bytes.extend(tid.to_be_bytes());
        self.bytes.extend(tlen);
        self.bytes.push(status);
        self.bytes.extend([0; 6]);
        self.bytes.extend(body);
        self.bytes.extend(tlen);
        self.ends.push(self.position());
        positions
    }
}

impl crate::filestorage::backward::ReadAt for Log {
    type Error = std::convert::Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Self::Error> {
        // A read past the end panics: nothing may read there.
        let start = offset as usize;
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

/// A log, and the blobs that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) log: Log,
    pub(crate) references: Vec<BlobReference>,
}

/// A change to an object.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Store {
        is_blob: bool,
    },
    /// A back pointer to one of the older records.
    Undo(Index),
    UndoCreation,
}

pub(crate) fn change() -> impl Strategy<Value = (u64, Change)> {
    let change = prop_oneof![
        4 => any::<bool>().prop_map(|is_blob| Change::Store { is_blob }),
        2 => any::<Index>().prop_map(Change::Undo),
        1 => Just(Change::UndoCreation),
    ];
    (0_u64..5, change)
}

/// A history of transactions with increasing tids.
pub(crate) fn history() -> impl Strategy<Value = History> {
    let status = prop_oneof![4 => Just(b' '), 1 => Just(b'p'), 1 => Just(b'u')];
    vec((status, vec(change(), 0..6)), 0..8).prop_map(|transactions| {
        let mut log = Log::new();
        let mut model = Model::default();
        for (tid, (status, changes)) in (100..).zip(transactions) {
            model.append(&mut log, tid, status, &changes);
        }
        let references = model.references;
        History { log, references }
    })
}

/// Resolves records with a map of all of them.
#[derive(Default)]
struct Model {
    /// The data and the `prev` of each record, by its position.
    records: BTreeMap<u64, (Data, u64)>,
    /// The position of the last record of each object.
    last: BTreeMap<u64, u64>,
    references: Vec<BlobReference>,
}

impl Model {
    fn append(&mut self, log: &mut Log, tid: u64, status: u8, changes: &[(u64, Change)]) {
        let known: Vec<u64> = self.records.keys().copied().collect();
        let record = |(oid, change): &(u64, Change)| Record {
            oid: *oid,
            prev: self.last.get(oid).copied().unwrap_or(0),
            data: match change {
                Change::Store { is_blob: true } => Data::Pickle(BLOB.to_vec()),
                Change::Store { is_blob: false } => Data::Pickle(OTHER.to_vec()),
                Change::Undo(index) if !known.is_empty() => Data::Back(*index.get(&known)),
                Change::Undo(_) | Change::UndoCreation => Data::Back(0),
            },
        };
        let records: Vec<_> = changes.iter().map(record).collect();
        let positions = log.append(tid, status, &records);
        let mut last_of_transaction = BTreeMap::new();
        for (position, record) in positions.into_iter().zip(records) {
            self.records.insert(position, (record.data, record.prev));
            last_of_transaction.insert(record.oid, position);
        }
        if status == b'u' {
            return;
        }
        let mut found: Vec<_> = last_of_transaction.iter().collect();
        found.sort_by_key(|&(_, position)| position);
        for (&oid, &position) in found {
            if let Some(is_optional) = self.resolve(position) {
                let tid = Tid(tid);
                let key = BlobKey { tid, oid };
                self.references.push(BlobReference { key, is_optional });
            }
        }
        self.last.extend(last_of_transaction);
    }

    /// Whether a record leads to a blob, and then whether the creation was undone on the way.
    fn resolve(&self, position: u64) -> Option<bool> {
        match self.records.get(&position)? {
            (Data::Pickle(pickle), _) => (pickle == BLOB).then_some(false),
            (Data::Back(0), prev) => self.resolve(*prev).map(|_| true),
            (Data::Back(back), _) => self.resolve(*back),
        }
    }
}

#[test]
fn positions_of_the_generated_log_are_those_of_its_records() {
    let mut log = Log::new();
    assert_eq!(log.position(), MAGIC_LEN);
    let data = Data::Pickle(BLOB.to_vec());
    let record = Record {
        oid: 7,
        prev: 0,
        data,
    };
    assert_eq!(log.append(1, b' ', &[record]), [27]);
    assert_eq!(log.bytes[27..35], 7_u64.to_be_bytes());
}
