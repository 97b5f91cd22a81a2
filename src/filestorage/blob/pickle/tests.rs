use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The pickles of blobs in all protocols, each with its memo.
const SPELLINGS: [&[u8]; 14] = [
    b"cZODB.blob\nBlob\nq\x01.",
    b"\x80\x03cZODB.blob\nBlob\nq\x01.",
    b"\x80\x03cZODB.blob\nBlob\nq\x00.",
    b"cZODB.blob\nBlob\n.",
    b"cZODB.blob\nBlob\np0\n.",
    b"cZODB.blob\nBlob\np12345\n.",
    b"\x80\x02cZODB.blob\nBlob\nq\xff.",
    b"\x80\x02cZODB.blob\nBlob\nr\x00\x01\x00\x00.",
    b"\x80\x04\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.",
    b"\x80\x04\x95\x18\0\0\0\0\0\0\0\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.",
    b"\x80\x05\x95\x18\0\0\0\0\0\0\0\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.",
    b"X\x09\0\0\0ZODB.blobq\x00X\x04\0\0\0Blobq\x01\x93q\x02.",
    b"U\x09ZODB.blobU\x04Blob\x93.",
    b"T\x09\0\0\0ZODB.blobT\x04\0\0\0Blob\x93.",
];

#[test]
fn every_spelling_is_recognised_with_any_state() {
    for pickle in SPELLINGS {
        assert!(is_blob_pickle(pickle), "{}", pickle.escape_ascii());
        let record = [pickle, b"\x80\x03N."].concat();
        assert!(is_blob_pickle(&record), "{}", record.escape_ascii());
    }
}

#[test]
fn an_incomplete_pickle_is_rejected() {
    for pickle in SPELLINGS {
        for len in 0..pickle.len() {
            let start = &pickle[..len];
            assert!(!is_blob_pickle(start), "{}", start.escape_ascii());
        }
    }
}

#[test]
fn other_pickles_are_rejected() {
    for pickle in [
        b"cZODB.Blob\nBlob\nq\x01.".as_slice(),
        b"cZODB.blob\nBlobFile\nq\x01.",
        b"cmyapp.ZODB.blob\nBlob\nq\x01.",
        b"czodb.blob\nBlob\nq\x01.",
        b"cZODB.blob\r\nBlob\r\nq\x01.",
        b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.",
        // A class with arguments for its constructor.
        b"(cZODB.blob\nBlob\nq\x01Nt.",
        b"(cZODB.blob\nBlob\nq\x01)t.",
        // An instance of the class.
        b"cZODB.blob\nBlob\n)\x81.",
        b"cZODB.blob\nBlob\ncZODB.blob\nBlob\n.",
        b"X\x09\0\0\0ZODB.blobX\x04\0\0\0Blob.",
        b"X\x04\0\0\0BlobX\x09\0\0\0ZODB.blob\x93.",
        b"X\x09\0\0\0ZODB.blobX\x04\0\0\0BlobX\x04\0\0\0Blob\x93.",
        b"X\x09\0\0\x80ZODB.blobX\x04\0\0\0Blob\x93.",
        // The memo is set before there is a value.
        b"q\x00cZODB.blob\nBlob\n.",
        b"\x80\x03q\x00cZODB.blob\nBlob\n.",
        b"\x94\x8c\x09ZODB.blob\x8c\x04Blob\x93.",
        b"cZODB.blob\nBlob\np\n.",
        b"cZODB.blob\nBlob\npx\n.",
        b"cZODB.blob\nBlob\np-1\n.",
        // A protocol that does not exist.
        b"\x80\x06cZODB.blob\nBlob\n.",
        b"\x80\xffcZODB.blob\nBlob\nq\x01.",
        b".",
        b"N.",
        b"",
    ] {
        assert!(!is_blob_pickle(pickle), "{}", pickle.escape_ascii());
    }
}

#[test]
fn only_the_start_of_the_pickle_counts() {
    let frame = [b"\x95".as_slice(), &[0; 8]].concat();
    let class = SPELLINGS[0];
    let pickle = [frame.repeat(6), class.to_vec()].concat();
    assert_eq!(pickle.len() - frame.len(), PICKLE_START_LEN);
    assert!(!is_blob_pickle(&pickle));
    assert!(is_blob_pickle(&pickle[frame.len()..]));
}

proptest! {
    #[test]
    fn any_bytes_are_decided_without_panic(bytes in vec(any::<u8>(), 0..100)) {
        let start = &bytes[..bytes.len().min(PICKLE_START_LEN)];
        prop_assert_eq!(is_blob_pickle(&bytes), is_blob_pickle(start));
    }

    /// The quick decision at the first bytes must not differ from the interpreter.
    #[test]
    fn the_quick_decision_agrees_with_the_interpreter(
        spelling in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
        inserted in vec(prop::sample::select(b"\x80\x95cq\x94\x00\x03ZU.".to_vec()), 0..4),
    ) {
        let mut pickle = spelling.get(&SPELLINGS).to_vec();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let at = cut.index(pickle.len());
        pickle.splice(at..at, inserted);
        prop_assert_eq!(is_blob_pickle(&pickle), interpret(&pickle));
    }
}
