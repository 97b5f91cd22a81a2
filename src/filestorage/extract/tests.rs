//! Copies of parts of generated logs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample;

use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::tests::{Data, Log, OTHER, Record, history};
use crate::filestorage::scan::{Event, Scanner, Tail};

/// A log as a file.
struct File<'a>(&'a [u8]);

impl ReadAt for File<'_> {
    type Error = io::Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = self.0.get(offset as usize..).unwrap_or_default();
        let found = found.get(..buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A data record: its oid, its tid, and its pickle.
type Content = (u64, Tid, Option<Vec<u8>>);

/// The transactions of a file from `from` on: the headers without their lengths, and the records.
fn transactions(bytes: &[u8], from: u64) -> Vec<(Tid, TxnStatus, Vec<Content>)> {
    let mut scanner = Scanner::resume(from, None, bytes.len() as u64);
    let mut transactions = Vec::new();
    let mut records = Vec::new();
    scanner.feed(
        bytes.get(from as usize..).expect("bytes"),
        &mut |event| match event {
            Event::Record {
                header, position, ..
            } => records.push((header.oid, header.tid, pickle(bytes, position))),
            Event::Transaction(transaction) => {
                let header = transaction.header;
                transactions.push((header.tid, header.status, std::mem::take(&mut records)));
            }
            Event::Begun { .. } | Event::Blemish { .. } => {}
        },
    );
    assert_eq!(scanner.tail(), Tail::Clean);
    transactions
}

fn pickle(bytes: &[u8], position: u64) -> Option<Vec<u8>> {
    let record = &bytes[position as usize..];
    let body = &record[DATA_HEADER_LEN..];
    match DataHeader::decode(record.first_chunk().expect("a header")).plen {
        0 if be_u64(body) == 0 => None,
        0 => pickle(bytes, be_u64(body)),
        plen => Some(body[..plen as usize].to_vec()),
    }
}

fn copy(bytes: &[u8], range: Range<u64>) -> Result<Vec<u8>, ExtractError> {
    let mut copy = Vec::new();
    let len = extract(&mut File(bytes), range, &mut copy)?;
    assert_eq!(len, copy.len() as u64);
    Ok(copy)
}

/// Each `prev` is the last record of the object before this one, and nothing points back.
fn assert_self_contained(bytes: &[u8]) {
    let mut last = BTreeMap::new();
    let mut scanner = Scanner::new(bytes.len() as u64);
    scanner.feed(&bytes[MAGIC_LEN as usize..], &mut |event| {
        if let Event::Record {
            header,
            position,
            back,
        } = event
        {
            assert_eq!(header.prev, last.insert(header.oid, position).unwrap_or(0));
            assert!([None, Some(0)].contains(&back), "{back:?}");
        }
    });
}

proptest! {
    #[test]
    fn the_end_of_a_log_has_the_same_transactions(
        history in history(),
        from in any::<sample::Index>(),
    ) {
        let log = history.log;
        let positions = [&[MAGIC_LEN], &log.ends[..]].concat();
        let from = *from.get(&positions);
        let copy = copy(&log.bytes, from..log.position()).expect("a copy");
        prop_assert_eq!(transactions(&copy, MAGIC_LEN), transactions(&log.bytes, from));
        assert_self_contained(&copy);
        if from == MAGIC_LEN && !log.bytes.is_empty() {
            let again = self::copy(&copy, MAGIC_LEN..copy.len() as u64).expect("a copy");
            prop_assert_eq!(again, copy);
        }
    }

    #[test]
    fn any_bytes_are_copied_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 4..400),
        history in history(),
        at in any::<sample::Index>(),
        range in any::<(u16, u16)>(),
    ) {
        let range = u64::from(range.0 % 500)..u64::from(range.1 % 500);
        let _ = copy(&bytes, range.clone());
        let mut log = history.log.bytes;
        let at = at.index(log.len());
        log[at] = bytes.pop().unwrap_or(0);
        let _ = copy(&log, MAGIC_LEN..log.len() as u64);
    }
}

#[test]
fn a_pickle_that_is_before_the_range_is_copied() {
    let mut log = Log::new();
    let record = |data| Record {
        oid: 7,
        prev: 0,
        data,
    };
    let pickle = vec![b'x'; 3 * PIECE_LEN as usize + 1];
    let first = log.append(1, b' ', &[record(Data::Pickle(pickle.clone()))])[0];
    let from = log.position();
    let second = log.append(2, b' ', &[record(Data::Back(first))])[0];
    log.append(
        3,
        b' ',
        &[record(Data::Back(second)), record(Data::Back(0))],
    );
    let copy = copy(&log.bytes, from..log.position()).unwrap();
    let found = transactions(&copy, MAGIC_LEN);
    let pickles: Vec<_> = found.iter().flat_map(|it| &it.2).map(|it| &it.2).collect();
    assert_eq!(pickles, [&Some(pickle.clone()), &Some(pickle), &None]);
}

#[test]
fn a_wrong_back_pointer_is_refused() {
    let mut log = Log::new();
    let record = |data| Record {
        oid: 7,
        prev: 0,
        data,
    };
    log.append(1, b' ', &[record(Data::Pickle(OTHER.to_vec()))]);
    let from = log.position();
    let at = log.next_record();
    for back in [1, at, at + 1, u64::MAX] {
        let mut log = log.clone();
        log.append(2, b' ', &[record(Data::Back(back))]);
        let refused = copy(&log.bytes, from..log.position());
        assert!(
            matches!(refused, Err(ExtractError::Invalid(it)) if it == at),
            "{back}"
        );
    }
}
