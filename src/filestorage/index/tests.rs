//! Properties of the index and of its file format. `tests/all/index.rs` tests them against
//! ZODB.

use std::collections::BTreeMap;
use std::io::Read;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::builder::Builder;
use super::leaf::{Leaf, MAX_LEN};
use super::pickle::{Error, MAX_HEAD_LEN, read_position};
use super::sanity::{checked_records, is_accepted};
use super::*;
use crate::filestorage::scan::Scanner;

/// The end of a file that is larger than any in these tests.
const POSITION: u64 = 1 << 48;

/// What one object costs at most, in bytes.
const MAX_OBJECT_LEN: usize = 17;

/// What a last leaf can have to spare, and the lists themselves, in bytes.
const MAX_SPARE_LEN: usize = MAX_LEN * 14 + 1024;

impl Index {
    /// Bytes on the heap.
    fn heap_len(&self) -> usize {
        self.firsts.capacity() * size_of::<u64>()
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.leaves.iter().map(Leaf::heap_len).sum::<usize>()
    }
}

/// Oids as they come: near each other, far from each other, at the ends.
fn oid() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..3000,
        any::<u64>(),
        any::<u8>().prop_map(|n| u64::from(n) << 16),
        any::<u8>().prop_map(|n| u64::MAX - u64::from(n)),
    ]
}

fn position() -> impl Strategy<Value = u64> {
    prop_oneof![27..10_000_u64, 27..POSITION]
}

fn index_of(objects: impl IntoIterator<Item = (u64, u64)>) -> Index {
    let mut index = Index::default();
    for (oid, position) in objects {
        index.insert(oid, position);
    }
    index
}

fn written(index: &Index, position: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.write(position, &mut bytes).expect("it fits");
    bytes
}

proptest! {
    #[test]
    fn the_last_inserted_position_is_kept(inserted in vec((oid(), position()), 0..1500)) {
        let index = index_of(inserted.iter().copied());
        let expected: BTreeMap<_, _> = inserted.into_iter().collect();
        prop_assert_eq!(index.len(), expected.len());
        prop_assert_eq!(index.is_empty(), expected.is_empty());
        for (&oid, &position) in &expected {
            prop_assert_eq!(index.get(oid), Some(position));
            if !expected.contains_key(&oid.wrapping_add(1)) {
                prop_assert_eq!(index.get(oid.wrapping_add(1)), None);
            }
        }
        prop_assert!(index.iter().eq(expected));
    }

    #[test]
    fn a_written_index_is_read_back(
        objects in btree_map(oid(), position(), 0..2000),
        position in POSITION..1 << 63,
    ) {
        let index = index_of(objects.clone());
        let bytes = written(&index, position);
        prop_assert_eq!(read_position(&bytes[..MAX_HEAD_LEN]).unwrap(), position);
        let (read, of) = Index::read(bytes.as_slice(), position).unwrap();
        prop_assert_eq!(of, position);
        prop_assert!(read.iter().eq(objects));
    }

    #[test]
    fn a_truncated_index_is_an_error(
        objects in btree_map(oid(), position(), 0..100),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = written(&index_of(objects), POSITION);
        let cut = &bytes[..cut.index(bytes.len())];
        let len = cut.len() as u64;
        let is_short = matches!(Index::read(cut, POSITION), Err(Error::Short(at)) if at <= len);
        prop_assert!(is_short);
    }

    #[test]
    fn a_spoiled_index_is_foreign_or_another(
        objects in btree_map(oid(), position(), 1..100),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut bytes = written(&index_of(objects), POSITION);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok((read, position)) = Index::read(bytes.as_slice(), u64::MAX) {
            prop_assert_eq!(written(&read, position), bytes);
        }
    }

    #[test]
    fn any_bytes_are_foreign(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Index::read(bytes.as_slice(), u64::MAX).is_err());
        prop_assert!(read_position(bytes.as_slice()).is_err());
    }

    #[test]
    fn looked_up_records_precede_the_position(
        tail in vec(prop_oneof![Just(0_u8), Just(b' '), Just(b'u'), any::<u8>()], 0..200),
        whole in vec(vec(0_u64..9, 0..4), 0..4),
        position in 0_u64..600,
    ) {
        let whole: Vec<_> = whole.iter().map(|oids| (b' ', oids.as_slice())).collect();
        let bytes = [file(&whole), tail].concat();
        let len = bytes.len() as u64;
        for position in [position, len] {
            let Ok(found) = checked_records(bytes.as_slice(), len, position);
            prop_assert!(found.iter().all(|record| record.position < position.min(len)));
        }
    }

    #[test]
    fn every_position_has_one_form(position in prop_oneof![0..1_u64 << 17, 0..1_u64 << 63]) {
        for position in [position, position.next_power_of_two() & !(1 << 63)] {
            let bytes = written(&Index::default(), position);
            prop_assert_eq!(read_position(bytes.as_slice()).unwrap(), position);
        }
    }
}

#[test]
fn a_position_beyond_the_file_is_foreign() {
    let bytes = written(&Index::default(), 5000);
    assert!(Index::read(bytes.as_slice(), 5000).is_ok());
    assert!(Index::read(bytes.as_slice(), 4999).is_err());
}

#[test]
fn an_object_beyond_the_position_is_foreign() {
    for (at, is_read) in [(26, false), (27, true), (4999, true), (5000, false)] {
        let bytes = written(&index_of([(1, at)]), 5000);
        assert_eq!(Index::read(bytes.as_slice(), 5000).is_ok(), is_read, "{at}");
    }
}

#[test]
fn more_objects_than_fit_in_the_file_are_foreign() {
    let index = index_of((0..100).map(|oid| (oid, 27 + oid)));
    assert!(Index::read(written(&index, 4300).as_slice(), 4300).is_ok());
    assert!(Index::read(written(&index, 4299).as_slice(), 4299).is_err());
}

#[test]
fn an_object_needs_at_most_17_bytes_for_any_oid() {
    const OBJECTS: u64 = 200_000;
    let random = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7);
    let orders: [(&str, &dyn Fn(u64) -> u64); 6] = [
        ("rising", &|n| n),
        ("falling", &|n| OBJECTS - n),
        ("far apart", &|n| n << 40),
        ("random", &random),
        ("random in a dense range", &|n| {
            n.wrapping_mul(7919) % (2 * OBJECTS)
        }),
        ("blocks of 100, three at a time", &|n| {
            (n / 300) * 300 + (n % 3) * 100 + n / 3 % 100
        }),
    ];
    for (name, oid) in orders {
        let mut index = Index::default();
        for n in 0..OBJECTS {
            index.insert(oid(n), 100 + n);
            let allowed = index.len() * MAX_OBJECT_LEN + MAX_SPARE_LEN;
            if n % 1000 == 0 || n + 1 == OBJECTS {
                let heap_len = index.heap_len();
                assert!(heap_len <= allowed, "{name}, {n}: {heap_len} > {allowed}");
            }
        }
    }
}

/// A transaction record at `start` with data records of these oids, of 50 bytes
/// each.
fn txn(start: u64, status: u8, oids: &[u64]) -> Vec<u8> {
    let tlen = 23 + 50 * oids.len() as u64;
    let mut bytes = [start.to_be_bytes(), tlen.to_be_bytes()].concat();
    bytes.push(status);
    bytes.extend([0; 6]);
    for oid in oids {
        // A back pointer of 0: the object's creation is undone, and still it counts.
        for number in [*oid, start, 0, start] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([0; 2 + 8 + 8]);
    }
    bytes.extend(tlen.to_be_bytes());
    bytes
}

/// A file with such transactions.
fn file(txns: &[(u8, &[u64])]) -> Vec<u8> {
    let mut file = b"FS30".to_vec();
    for (status, oids) in txns {
        file.extend(txn(file.len() as u64, *status, oids));
    }
    file
}

fn build(file: &[u8]) -> Builder {
    let mut builder = Builder::default();
    let mut scanner = Scanner::new(file.len() as u64);
    scanner.feed(&file[4..], &mut |event| builder.take(event));
    builder
}

#[test]
fn the_index_is_that_of_the_last_data_records() {
    let file = file(&[(b' ', &[1, 2]), (b'u', &[1]), (b'p', &[2, 3, 3])]);
    let builder = build(&file);
    assert_eq!(builder.position(), file.len() as u64);
    let index = builder.finish().unwrap();
    let third = 4 + 131 + 81 + 23;
    assert_eq!(
        index.iter().collect::<Vec<_>>(),
        [(1, 4 + 23), (2, third), (3, third + 100)]
    );
}

#[test]
fn a_transaction_without_an_end_is_not_in_the_index() {
    let whole = file(&[(b' ', &[1, 2])]);
    for status in [b'c', b' '] {
        let mut torn = whole.clone();
        torn.extend(txn(whole.len() as u64, status, &[2, 3]));
        torn.pop();
        let builder = build(&torn);
        assert_eq!(builder.position(), whole.len() as u64);
        assert_eq!(builder.finish().unwrap().len(), 2);
    }
}

#[test]
fn a_damaged_transaction_spoils_the_index() {
    let whole = file(&[(b' ', &[1, 2])]);
    let mut damaged = whole.clone();
    damaged.extend(txn(whole.len() as u64, b' ', &[2, 3]));
    *damaged.last_mut().unwrap() ^= 1;
    let builder = build(&damaged);
    assert_eq!(builder.position(), whole.len() as u64);
    assert!(builder.finish().is_none());
}

#[test]
fn restarting_a_transaction_spoils_the_index() {
    let file = file(&[(b' ', &[1, 2])]);
    let mut builder = Builder::default();
    let mut scanner = Scanner::new(file.len() as u64);
    scanner.feed(&file[4..file.len() - 1], &mut |event| builder.take(event));
    scanner.go_back();
    scanner.feed(&file[4..], &mut |event| builder.take(event));
    assert_eq!(scanner.position(), file.len() as u64);
    assert!(builder.finish().is_none());
}

#[test]
fn going_back_to_a_header_spoils_nothing() {
    let file = file(&[(b' ', &[1, 2]), (b' ', &[2])]);
    let mut builder = Builder::default();
    let mut scanner = Scanner::new(file.len() as u64);
    scanner.feed(&file[4..145], &mut |event| builder.take(event));
    scanner.go_back();
    let at = scanner.offset() as usize;
    scanner.feed(&file[at..], &mut |event| builder.take(event));
    assert_eq!(builder.position(), file.len() as u64);
    assert_eq!(builder.finish().unwrap().get(2), Some(135 + 23));
}

#[test]
fn the_last_data_records_are_looked_up() {
    let few: &[(u8, &[u64])] = &[(b' ', &[1, 2])];
    let many: &[(u8, &[u64])] = &[(b' ', &[9]), (b' ', &[1, 2, 3, 4, 5, 6])];
    let behind: &[(u8, &[u64])] = &[(b'p', &[1]), (b' ', &[]), (b'u', &[7, 8]), (b' ', &[])];
    let empty: &[(u8, &[u64])] = &[(b' ', &[]), (b'u', &[1, 2]), (b' ', &[])];
    let odd: &[(u8, &[u64])] = &[(b' ', &[1, 2]), (b'x', &[1, 2])];
    let twice: &[(u8, &[u64])] = &[(b' ', &[1, 2, 1])];
    let small: &[(u8, &[u64])] = &[(b' ', &[1])];
    for (txns, oids, sane) in [
        (few, &[1, 2][..], true),
        (many, &[1, 2, 3, 4, 5], true),
        (behind, &[1], true),
        (empty, &[], false),
        (odd, &[], false),
        (twice, &[1, 2, 1], false),
        (small, &[], false),
    ] {
        let file = file(txns);
        let len = file.len() as u64;
        let Ok(found) = checked_records(file.as_slice(), len, len);
        let found_oids: Vec<_> = found.iter().map(|record| record.oid).collect();
        assert_eq!(found_oids, oids, "{txns:?}");
        let index = build(&file).finish().unwrap();
        assert_eq!(is_accepted(&index, &found), sane, "{txns:?}");
        let Ok(beyond) = checked_records(file.as_slice(), len - 1, len);
        assert!(beyond.is_empty(), "{txns:?}");
        let Ok(before) = checked_records(file.as_slice(), len, len - 1);
        assert!(before.is_empty(), "{txns:?}");
        if sane {
            let mut other = index.clone();
            other.insert(1, 28);
            assert!(!is_accepted(&other, &found), "{txns:?}");
        }
    }
}

/// The pickle of one prefix: `opcode`, a length, and the objects.
fn bucket(prefix: u8, length: &[u8], suffixes: &[u16], positions: &[u64]) -> Vec<u8> {
    let mut bytes = b"\x80\x03C\x06\0\0\0\0\0".to_vec();
    bytes.push(prefix);
    bytes.extend(length);
    bytes.extend(suffixes.iter().flat_map(|suffix| suffix.to_be_bytes()));
    bytes.extend(
        positions
            .iter()
            .flat_map(|at| at.to_be_bytes()[2..].to_vec()),
    );
    bytes.extend(b"\x86.");
    bytes
}

#[test]
fn each_deviation_from_zodbs_form_is_foreign() {
    // Of 5000, and of 2³⁰.
    const HEAD: &[u8] = b"\x80\x03M\x88\x13.";
    const END: &[u8] = b"\x80\x03N.";
    let one = |prefix| bucket(prefix, b"C\x08", &[7], &[100]);
    let two = |suffixes| bucket(0, b"C\x10", suffixes, &[100, 200]);
    let full: Vec<_> = (0..=u16::MAX).collect();
    let positions: Vec<_> = (0..1 << 16).map(|n| 100 + n * 50).collect();
    let whole = bucket(0, b"B\0\0\x08\0", &full, &positions);
    let far: &[u8] = b"\x80\x03J\0\0\0\x40.";
    for (bytes, is_read) in [
        ([HEAD, END].concat(), true),
        ([HEAD, &one(0), &one(1), END].concat(), true),
        ([HEAD, &two(&[7, 8]), END].concat(), true),
        ([far, &whole[..], END].concat(), true),
        // Oids and prefixes that do not rise.
        ([HEAD, &two(&[7, 7]), END].concat(), false),
        ([HEAD, &two(&[8, 7]), END].concat(), false),
        ([HEAD, &one(1), &one(1), END].concat(), false),
        ([HEAD, &one(1), &one(0), END].concat(), false),
        // Lengths.
        ([HEAD, &bucket(0, b"C\0", &[], &[]), END].concat(), false),
        ([HEAD, &bucket(0, b"C\x02", &[1], &[]), END].concat(), false),
        (
            [HEAD, &bucket(0, b"B\x08\0\0\0", &[7], &[100]), END].concat(),
            false,
        ),
        (
            [far, &bucket(0, b"B\x08\0\x08\0", &full, &positions), END].concat(),
            false,
        ),
        // The end.
        (HEAD.to_vec(), false),
        ([HEAD, &one(0)].concat(), false),
        ([HEAD, END, b"\0"].concat(), false),
        ([HEAD, END, END].concat(), false),
        // Other numbers for the same position, negative ones, and great ones.
        ([b"\x80\x03J\x88\x13\0\0.", END].concat(), false),
        ([b"\x80\x03\x8a\x02\x88\x13.", END].concat(), false),
        ([b"\x80\x03\x8a\x03\0\0\x01.", END].concat(), false),
        ([b"\x80\x03J\xff\xff\xff\xff.", END].concat(), false),
        ([b"\x80\x03\x8a\x05\0\0\0\0\x80.", END].concat(), false),
        (
            [b"\x80\x03\x8a\x08\0\0\0\0\0\0\0\x80.", END].concat(),
            false,
        ),
        (
            [b"\x80\x03\x8a\x09\0\0\0\0\0\0\0\x80\0.", END].concat(),
            false,
        ),
        (
            [b"\x80\x03\x8a\xff\0\0\0\0\0\0\0\x80\0.", END].concat(),
            false,
        ),
        // Python 2's, as ZODB 4 and ZODB 5 wrote it, and a dictionary.
        (
            b"M\x88\x13.(U\x06\0\0\0\0\0\0U\x08\0\x07\0\0\0\0\0dt.N.".to_vec(),
            false,
        ),
        (
            b"\x80\x03M\x88\x13.\x80\x03U\x06\0\0\0\0\0\0U\x08\0\x07\0\0\0\0\0d\x86.\x80\x03N."
                .to_vec(),
            false,
        ),
        (b"}q\x01(U\x05indexq\x02}U\x03posK\x7fu.".to_vec(), false),
    ] {
        let read = Index::read(bytes.as_slice(), 1 << 62);
        let shown = bytes[..bytes.len().min(60)].escape_ascii();
        assert_eq!(read.is_ok(), is_read, "{shown}: {read:?}");
        if let Ok((index, position)) = read {
            assert_eq!(written(&index, position), bytes, "{shown}");
        }
    }
}

#[test]
fn a_length_is_checked_before_it_is_used() {
    let start = b"\x80\x03J\0\0\0\x40.\x80\x03C\x06\0\0\0\0\0\0B\xf8\xff\xff\xff";
    let endless = start.chain(std::io::repeat(0));
    match Index::read(endless, 1 << 62) {
        Err(Error::Foreign { offset, .. }) => assert_eq!(offset, start.len() as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_position_is_read_as_python_pickled_it() {
    // pickle.dumps(n, 3), and what may follow.
    for (pickle, position) in [
        (&b"\x80\x03K\x64."[..], 100),
        (b"\x80\x03M\x10\x27.\x80\x03", 10_000),
        (b"\x80\x03J\x00\x00\x00\x40.", 1 << 30),
        (b"\x80\x03\x8a\x05\x00\x00\x00\x80\x00.", 1 << 31),
        (b"\x80\x03\x8a\x06\x00\x00\x00\x00\x00\x01.", 1 << 40),
    ] {
        assert_eq!(read_position(pickle).unwrap(), position);
    }
}

#[test]
fn other_bytes_have_no_position() {
    for bytes in [
        &b""[..],
        b"\x80",
        b"\x80\x03",
        b"\x80\x03K",
        b"\x80\x03K\x64",
        b"\x80\x03K\x64,",
        b"\x80\x02K\x64.",
        b"\x80\x03J\xff\xff\xff\xff.",
        b"\x80\x03\x8a",
        b"\x80\x03\x8a\x00.",
        b"\x80\x03\x8a\xff\x01.",
        b"\x80\x03\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.",
        b"\x80\x03N.",
    ] {
        assert!(read_position(bytes).is_err(), "{bytes:?}");
    }
}
