//! The recognition of blobs, compared with ZODB's own and with Python's.

use fssync::filestorage::blob::{PICKLE_START_LEN, is_blob_pickle};
use serde::Deserialize;
use serde_json::json;

use crate::rng::Rng;
use crate::support::{Zodb, number};

/// Parts of pickles. The first ones occur in blobs.
const PARTS: [&[u8]; 36] = [
    b"cZODB.blob\nBlob\n",
    b"\x80\x03",
    b"q\x00",
    b"q\x01",
    b"p7\n",
    b"r\x05\x00\x00\x00",
    b".",
    b"\x8c\x09ZODB.blob",
    b"\x8c\x04Blob",
    b"X\x09\0\0\0ZODB.blob",
    b"X\x04\0\0\0Blob",
    b"U\x09ZODB.blob",
    b"T\x04\0\0\0Blob",
    b"\x93",
    b"\x94",
    b"\x80\x04",
    b"\x95\x08\0\0\0\0\0\0\0",
    b"\x80\x00",
    b"\x80\x05",
    b"\x80\x06",
    b"p-3\n",
    b"p+3\n",
    b"p\n",
    b"p0x1\n",
    b"cZODB.blob\nBlobFile\n",
    b"cZODB.Blob\nBlob\n",
    b"cpersistent.mapping\nPersistentMapping\n",
    b"U\x0aZODB.blobs",
    b"h\x00",
    b"(",
    b"N",
    b"0",
    b"2",
    b"t",
    b")",
    b"\x81",
];

/// The pickles of blobs, in parts.
const BLOBS: [&[usize]; 8] = [
    &[0, 2, 6],
    &[0, 4, 6],
    &[1, 0, 3, 6],
    &[1, 0, 5, 6],
    &[15, 16, 7, 14, 8, 14, 13, 14, 6],
    &[18, 7, 8, 13, 6],
    &[9, 2, 10, 3, 13, 6],
    &[11, 12, 13, 6],
];

/// A record: the pickle of a blob, or parts in any order; often with some changes.
fn record(rng: &mut Rng) -> Vec<u8> {
    let mut parts = rng.one_of(&BLOBS).to_vec();
    if rng.below(4) == 0 {
        let len = 1 + rng.below(7);
        parts = (0..len).map(|_| rng.below(PARTS.len())).collect();
    }
    if rng.below(3) == 0 {
        parts.insert(rng.below(parts.len() + 1), rng.below(PARTS.len()));
    }
    if rng.below(3) == 0 {
        parts.remove(rng.below(parts.len()));
    }
    let mut bytes: Vec<u8> = parts.iter().flat_map(|&it| PARTS[it]).copied().collect();
    for _ in 0..rng.below(6).saturating_sub(3) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(3) {
            0 => bytes.insert(at, rng.below(256) as u8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
    if rng.below(8) == 0 {
        let frame = b"\x95\0\0\0\0\0\0\0\0";
        bytes.splice(0..0, frame.repeat(3 + rng.below(4)));
    }
    // The state, a pickle of its own.
    bytes.extend(b"\x80\x03N.");
    bytes
}

/// See `tests/zodb/recognition.py`.
#[derive(Debug, Deserialize)]
struct Answer {
    zodb: bool,
    python: bool,
    usual: bool,
}

#[test]
fn zodb_recognizes_the_same_blobs() {
    const BATCH: usize = 5_000;
    let mut zodb = Zodb::start();
    let mut rng = Rng::new(14);
    let [mut blobs, mut others, mut unusual, mut given_up] = [0; 4];
    for _ in 0..number("FSSYNC_PICKLES").unwrap_or(20_000).div_ceil(BATCH) {
        let records: Vec<_> = (0..BATCH).map(|_| record(&mut rng)).collect();
        let answer = zodb.call(&json!({"cmd": "recognize_blobs", "records": records}));
        let answers: Vec<Option<Answer>> =
            serde_json::from_value(answer["answers"].clone()).expect("the answers");
        assert_eq!(answers.len(), records.len());
        for (record, answer) in records.iter().zip(answers) {
            let Some(answer) = answer else {
                given_up += 1;
                continue;
            };
            let start = &record[..record.len().min(PICKLE_START_LEN)];
            let is_blob = is_blob_pickle(start);
            let theirs = answer.zodb || answer.python;
            let shown = record.escape_ascii();
            // Nothing else is taken for a blob. No blob is missed that a pickler writes.
            assert!(!is_blob || theirs, "{shown}: {answer:?}");
            assert!(is_blob || !theirs || !answer.usual, "{shown}: {answer:?}");
            blobs += u64::from(is_blob && answer.zodb);
            others += u64::from(!theirs);
            unusual += u64::from(theirs && !answer.usual);
        }
    }
    println!("{blobs} blobs, {others} others, {unusual} in unusual pickles; {given_up} given up");
    assert!(blobs > 2_000 && others > 10_000 && unusual > 500 && given_up < others / 100);
}
