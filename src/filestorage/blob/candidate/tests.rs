use std::convert::Infallible;

use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::tests::{BLOB, Data, Log, OTHER, Record};

fn candidate(position: u64, data: CandidateData) -> BlobCandidate {
    let (tid, oid) = (Tid(9), 1);
    BlobCandidate {
        key: BlobKey { tid, oid },
        position,
        data,
    }
}

/// Whether the record at `position` of a log, which has this data, refers to a blob; and then
/// whether it is optional.
fn resolve(log: &mut Log, position: u64, data: CandidateData) -> Option<bool> {
    let Ok(reference) = candidate(position, data).resolve(log);
    reference.map(|it| it.is_optional)
}

/// Appends a transaction with one record.
fn append(log: &mut Log, prev: u64, data: Data) -> u64 {
    let record = Record { oid: 1, prev, data };
    log.append(9, b' ', &[record])[0]
}

#[test]
fn an_undo_of_a_creation_and_its_redo_lead_to_the_blob() {
    let mut log = Log::new();
    let created = append(&mut log, 0, Data::Pickle(BLOB.to_vec()));
    let undone = append(&mut log, created, Data::Back(0));
    let redone = append(&mut log, undone, Data::Back(created));
    let again = append(&mut log, redone, Data::Back(undone));
    for (position, data, is_optional) in [
        (created, CandidateData::Pickle, false),
        (undone, CandidateData::Undone { prev: created }, true),
        (redone, CandidateData::Back(created), false),
        (again, CandidateData::Back(undone), true),
    ] {
        assert_eq!(resolve(&mut log, position, data), Some(is_optional));
    }
}

#[test]
fn other_objects_have_no_blob() {
    let mut log = Log::new();
    let created = append(&mut log, 0, Data::Pickle(OTHER.to_vec()));
    let undone = append(&mut log, created, Data::Back(0));
    let empty = append(&mut log, 0, Data::Back(0));
    let end = log.position();
    for (position, data) in [
        (undone, CandidateData::Undone { prev: created }),
        (end, CandidateData::Back(created)),
        (end, CandidateData::Back(empty)),
    ] {
        assert_eq!(resolve(&mut log, position, data), None);
    }
}

/// `Log` panics if it is read past its end.
#[test]
fn a_wrong_pointer_does_not_lead_to_a_blob() {
    let mut log = Log::new();
    let created = append(&mut log, 0, Data::Pickle(BLOB.to_vec()));
    let undo = append(&mut log, created, Data::Back(created));
    for wrong in
        (0..created)
            .chain(created + 1..undo + 200)
            .chain([u64::MAX, u64::MAX - 50, 1 << 63])
    {
        let data = CandidateData::Back(wrong);
        assert_eq!(resolve(&mut log, undo, data), None, "{wrong}");
        let data = CandidateData::Undone { prev: wrong };
        assert_eq!(resolve(&mut log, undo, data), None, "{wrong}");
    }
}

/// A file of back pointers that each lead to the record before.
struct Chain {
    reads: usize,
}

impl ReadAt for Chain {
    type Error = Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Infallible> {
        self.reads += 1;
        buffer.fill(0);
        buffer[DATA_HEADER_LEN..DATA_HEADER_LEN + 8].copy_from_slice(&(offset - 50).to_be_bytes());
        Ok(())
    }
}

#[test]
fn an_endless_chain_of_back_pointers_is_given_up() {
    let mut chain = Chain { reads: 0 };
    let (position, back) = (1 << 40, (1 << 40) - 50);
    let Ok(found) = candidate(position, CandidateData::Back(back)).resolve(&mut chain);
    assert!(found.is_some_and(|it| it.is_optional));
    assert_eq!(chain.reads, MAX_HOPS);
}
