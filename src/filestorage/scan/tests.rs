//! Properties of the scan with generated histories: complete, truncated and damaged ones.
//! `tests/all` compares the scan with the real ZODB.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};

/// A transaction to be written: status, strings, and the data records' pickles
/// (an empty one stands for a back pointer).
#[derive(Clone, Debug)]
struct Txn {
    status: u8,
    strings: [Vec<u8>; 3],
    pickles: Vec<Vec<u8>>,
}

/// A file, the boundaries of its transactions, and the oids and positions of the
/// data records between them that count.
#[derive(Debug)]
struct File {
    bytes: Vec<u8>,
    boundaries: Vec<u64>,
    records: Vec<Vec<(u64, u64)>>,
}

fn txn() -> impl Strategy<Value = Txn> {
    let strings = [
        vec(any::<u8>(), 0..20),
        vec(any::<u8>(), 0..9),
        vec(any::<u8>(), 0..5),
    ];
    let pickles = vec(vec(any::<u8>(), 0..80), 0..4);
    (
        prop_oneof![Just(b' '), Just(b'p'), Just(b'u')],
        strings,
        pickles,
    )
        .prop_map(|(status, strings, pickles)| Txn {
            status,
            strings,
            pickles,
        })
}

fn history() -> impl Strategy<Value = File> {
    vec(txn(), 0..6).prop_map(|txns| {
        let mut file = File {
            bytes: b"FS30".to_vec(),
            boundaries: vec![MAGIC_LEN],
            records: Vec::new(),
        };
        for (n, txn) in txns.iter().enumerate() {
            let records = write(&mut file.bytes, 100 + n as u64, txn);
            file.records.push(records);
            file.boundaries.push(file.bytes.len() as u64);
        }
        file
    })
}

fn write(file: &mut Vec<u8>, tid: u64, txn: &Txn) -> Vec<(u64, u64)> {
    let tloc = file.len() as u64;
    let mut body = txn.strings.concat();
    let mut records = Vec::new();
    for (oid, pickle) in txn.pickles.iter().enumerate() {
        if txn.status != b'u' {
            records.push((oid as u64, tloc + 23 + body.len() as u64));
        }
        for number in [oid as u64, tid, 0, tloc] {
            body.extend(number.to_be_bytes());
        }
        body.extend(0_u16.to_be_bytes());
        body.extend((pickle.len() as u64).to_be_bytes());
        if pickle.is_empty() {
            body.extend(tloc.to_be_bytes());
        }
        body.extend(pickle);
    }
    let tlen = 23 + body.len() as u64;
    file.extend(tid.to_be_bytes());
    file.extend(tlen.to_be_bytes());
    file.push(txn.status);
    for string in &txn.strings {
        file.extend((string.len() as u16).to_be_bytes());
    }
    file.extend(body);
    file.extend(tlen.to_be_bytes());
    records
}

/// Scans a file in pieces of the lengths given, over and over.
fn scan(bytes: &[u8], pieces: &[usize]) -> (Scanner, Vec<Event>) {
    let mut scanner = Scanner::new(bytes.len() as u64);
    let mut events = Vec::new();
    let mut rest = bytes.get(MAGIC_LEN as usize..).unwrap_or_default();
    for &piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        scanner.feed(now, &mut |event| events.push(event));
        if later.is_empty() || scanner.stopped().is_some() {
            break;
        }
        rest = later;
    }
    (scanner, events)
}

impl ReadAt for &[u8] {
    type Error = Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Infallible> {
        let from = offset as usize;
        buffer.copy_from_slice(&self[from..from + buffer.len()]);
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_complete_file_ends_with_its_last_transaction(
        file in history(),
        pieces in vec(1_usize..100, 1..5),
    ) {
        let (scanner, events) = scan(&file.bytes, &pieces);
        prop_assert_eq!(scanner.tail(), Tail::Clean);
        prop_assert_eq!(scanner.position(), file.bytes.len() as u64);
        let ends: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Transaction(found) => Some(found.end),
                _ => None,
            })
            .collect();
        prop_assert_eq!(&ends, &file.boundaries[1..]);
    }

    #[test]
    fn data_records_are_reported_within_their_transaction(
        file in history(),
        pieces in vec(1_usize..100, 1..5),
    ) {
        let (_, events) = scan(&file.bytes, &pieces);
        let mut expected = Vec::new();
        for (bounds, records) in file.boundaries.windows(2).zip(&file.records) {
            expected.push((bounds[0], None));
            expected.extend(records.iter().map(|&(oid, position)| (position, Some(oid))));
            expected.push((bounds[1], None));
        }
        let found: Vec<_> = events
            .iter()
            .filter_map(|event| match *event {
                Event::Begun { position, .. } => Some((position, None)),
                Event::Record { header, position, .. } => Some((position, Some(header.oid))),
                Event::Transaction(found) => Some((found.end, None)),
                Event::Blemish { .. } => None,
            })
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_truncated_file_ends_at_the_last_boundary(
        file in history(),
        cut in any::<prop::sample::Index>(),
        pieces in vec(1_usize..100, 1..5),
    ) {
        let cut = MAGIC_LEN as usize + cut.index(file.bytes.len() - MAGIC_LEN as usize + 1);
        let (scanner, _) = scan(&file.bytes[..cut], &pieces);
        let before = file.boundaries.iter().copied().rfind(|&at| at <= cut as u64);
        prop_assert_eq!(Some(scanner.position()), before);
        let expected = match cut as u64 - scanner.position() {
            0 => Tail::Clean,
            1..23 => Tail::Short,
            _ => Tail::Torn,
        };
        prop_assert_eq!(scanner.tail(), expected);
    }

    #[test]
    fn a_voted_transaction_ends_the_file_anywhere(
        file in history(),
        which in any::<prop::sample::Index>(),
    ) {
        prop_assume!(file.boundaries.len() > 1);
        let at = file.boundaries[which.index(file.boundaries.len() - 1)];
        let mut bytes = file.bytes.clone();
        bytes[at as usize + 16] = b'c';
        let (scanner, _) = scan(&bytes, &[4096]);
        prop_assert_eq!((scanner.position(), scanner.tail()), (at, Tail::Voted));
    }

    #[test]
    fn the_size_of_pieces_makes_no_difference(
        file in history(),
        spoilt in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        pieces in vec(1_usize..100, 1..5),
    ) {
        let mut bytes = file.bytes.clone();
        let at = spoilt.index(bytes.len());
        bytes[at] = byte;
        let (whole, events) = scan(&bytes, &[usize::MAX]);
        let (pieced, pieced_events) = scan(&bytes, &pieces);
        prop_assert_eq!(whole.position(), pieced.position());
        prop_assert_eq!(whole.tail(), pieced.tail());
        prop_assert_eq!(events, pieced_events);
        prop_assert!(file.boundaries.contains(&whole.position()) || at >= MAGIC_LEN as usize);
    }

    #[test]
    fn a_scan_of_any_bytes_ends_within_them(
        bytes in vec(any::<u8>(), 0..400),
        pieces in vec(1_usize..50, 1..5),
    ) {
        let (scanner, _) = scan(&bytes, &pieces);
        prop_assert!(scanner.position() <= bytes.len().max(MAGIC_LEN as usize) as u64);
        prop_assert!(scanner.decided() <= scanner.offset());
    }

    #[test]
    fn walking_backwards_finds_the_same_transactions(file in history()) {
        let (scanner, events) = scan(&file.bytes, &[4096]);
        let mut backward = Backward::new(file.bytes.as_slice(), scanner.position());
        for event in events.iter().rev() {
            let Event::Transaction(expected) = event else { continue };
            let Ok(step) = backward.step();
            prop_assert_eq!(step, Preceding::Transaction(*expected));
        }
        let Ok(step) = backward.step();
        prop_assert_eq!(step, Preceding::Start);
    }

    #[test]
    fn walking_backwards_over_any_bytes_ends(bytes in vec(any::<u8>(), 4..400)) {
        let mut backward = Backward::new(bytes.as_slice(), bytes.len() as u64);
        let mut steps = 0;
        while let Ok(Preceding::Transaction(_)) = backward.step() {
            steps += 1;
            prop_assert!(steps <= bytes.len());
        }
    }
}

#[test]
fn going_back_reads_a_transaction_again() {
    let mut file = b"FS30".to_vec();
    let txn = Txn {
        status: b' ',
        strings: [Vec::new(), Vec::new(), Vec::new()],
        pickles: vec![vec![7; 50]],
    };
    write(&mut file, 1, &txn);
    let boundary = file.len();
    write(&mut file, 2, &txn);
    let mut scanner = Scanner::new(file.len() as u64);
    scanner.feed(&file[4..boundary + 30], &mut |_| {});
    assert_eq!(scanner.decided(), boundary as u64 + 30);
    scanner.go_back();
    assert_eq!(scanner.offset(), boundary as u64);
    scanner.feed(&file[boundary..], &mut |_| {});
    assert_eq!(
        (scanner.position(), scanner.tail()),
        (file.len() as u64, Tail::Clean)
    );
}

#[test]
fn an_incomplete_header_decides_nothing() {
    let mut scanner = Scanner::new(1000);
    scanner.feed(&[0; 22], &mut |_| {});
    assert_eq!(
        (scanner.decided(), scanner.offset()),
        (MAGIC_LEN, MAGIC_LEN + 22)
    );
}

proptest! {
    #[test]
    fn a_scan_can_end_with_its_current_transaction(file in history(), at in any::<prop::sample::Index>()) {
        let bytes = &file.bytes[MAGIC_LEN as usize..];
        let mut scanner = Scanner::new(file.bytes.len() as u64);
        let (taken, rest) = bytes.split_at(at.index(bytes.len() + 1));
        scanner.feed(taken, &mut |_| {});
        let begun = scanner.decided() > scanner.position();
        let expected = file.boundaries.iter().copied().find(|&boundary| {
            boundary > scanner.position() || !begun && boundary == scanner.position()
        });
        let end = scanner.end_with_transaction();
        prop_assert_eq!(Some(end), expected);
        let left = scanner.left() as usize;
        scanner.feed(&rest[..left], &mut |_| {});
        prop_assert_eq!(scanner.position(), end);
        prop_assert_eq!(scanner.left(), 0);
    }
}
