//! Finds the next transaction in small files with single changes.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::filestorage::MAGIC_LEN;

/// A file of transactions with one object each, and where they start.
fn file(pickles: &[&[u8]]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = b"FS30".to_vec();
    let mut starts = Vec::new();
    for (n, pickle) in pickles.iter().enumerate() {
        let start = bytes.len() as u64;
        starts.push(start);
        append(&mut bytes, 100 + n as u64, start, pickle);
    }
    (bytes, starts)
}

fn append(bytes: &mut Vec<u8>, tid: u64, tloc: u64, pickle: &[u8]) {
    let tlen = (TXN_HEADER_LEN + DATA_HEADER_LEN + pickle.len()) as u64;
    for number in [tid, tlen] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend([b' ', 0, 0, 0, 0, 0, 0]);
    for number in [1, tid, 0, tloc] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend([0; 2]);
    bytes.extend((pickle.len() as u64).to_be_bytes());
    bytes.extend(pickle);
    bytes.extend(tlen.to_be_bytes());
}

fn found(bytes: &[u8], start: u64) -> (Option<u64>, Option<u64>) {
    let (mut reader, limit) = (bytes, bytes.len() as u64);
    let last_tid = Some(Tid(99));
    let Ok(end) = end_of(&mut reader, start, limit, last_tid);
    let searched: Result<_, Infallible> = search(&mut reader, start, start + 1, limit, last_tid);
    let Ok(searched) = searched;
    (end, searched)
}

#[test]
fn equal_lengths_or_a_following_transaction_determine_the_end() {
    let (bytes, starts) = file(&[b"one", b"two", b"three"]);
    let next = starts[1];
    assert_eq!(found(&bytes, MAGIC_LEN), (Some(next), Some(next)));
    let mut trailer = bytes.clone();
    trailer[next as usize - 1] ^= 1;
    assert_eq!(found(&trailer, MAGIC_LEN), (Some(next), Some(next)));
    let mut tlen = bytes.clone();
    tlen[MAGIC_LEN as usize + 15] ^= 1;
    assert_eq!(found(&tlen, MAGIC_LEN), (None, Some(next)));
    let mut both = tlen.clone();
    both[next as usize - 1] ^= 2;
    assert_eq!(found(&both, MAGIC_LEN), (None, Some(next)));
    let mut zeros = bytes.clone();
    zeros[MAGIC_LEN as usize..next as usize + 10].fill(0);
    assert_eq!(found(&zeros, MAGIC_LEN), (None, Some(starts[2])));
}

#[test]
fn nothing_is_found_after_the_last_transaction() {
    let (mut bytes, starts) = file(&[b"one", b"two"]);
    let (last, end) = (starts[1], bytes.len() as u64);
    assert_eq!(found(&bytes, last), (Some(end), Some(end)));
    bytes[end as usize - 1] ^= 1;
    assert_eq!(found(&bytes, last), (None, None));
    bytes.truncate(end as usize - 9);
    assert_eq!(found(&bytes, last), (None, None));
}

#[test]
fn a_file_in_a_pickle_is_not_taken_for_transactions() {
    let (inner, _) = file(&[b"inner", b"another"]);
    let (mut bytes, starts) = file(&[&inner, b"two"]);
    bytes[MAGIC_LEN as usize + 8] = 1;
    assert_eq!(found(&bytes, MAGIC_LEN), (None, Some(starts[1])));
}

#[test]
fn a_transaction_is_found_across_the_edge_of_a_window() {
    let (least, most) = WINDOW_LENS.into_inner();
    let edges = [(least, 1), (3 * least, 1), (2 * most - least, 30)];
    let around = |(edge, step): (usize, usize)| (edge - 200..edge + 20).step_by(step);
    for len in edges.into_iter().flat_map(around) {
        let mut bytes = b"FS30".to_vec();
        bytes.resize(len, 0);
        let start = bytes.len() as u64;
        append(&mut bytes, 200, start, b"data");
        let (mut reader, limit) = (bytes.as_slice(), bytes.len() as u64);
        let Ok(found) = search(&mut reader, 4, 5, limit, Some(Tid(100)));
        assert_eq!(found, Some(start));
    }
}

proptest! {
    #[test]
    fn positions_found_in_any_bytes_are_within_the_file(
        bytes in vec(prop_oneof![4 => Just(0_u8), 1 => 0_u8..40, 1 => any::<u8>()], 4..300),
        start in 4_u64..300,
    ) {
        let limit = bytes.len() as u64;
        prop_assume!(start <= limit);
        let mut reader = bytes.as_slice();
        let Ok(end) = end_of(&mut reader, start, limit, None);
        let Ok(found) = search(&mut reader, start, start + 1, limit, None);
        for next in [end, found].into_iter().flatten() {
            prop_assert!((start + 1..=limit).contains(&next));
        }
    }
}
