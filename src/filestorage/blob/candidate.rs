//! Data records that may be blobs, and how to decide it.

use super::BlobKey;
use super::pickle::{PICKLE_START_LEN, is_blob_pickle};
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{
    BACK_POINTER_LEN, DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TXN_HEADER_LEN, be_u64,
};

/// The largest number of records that are read to decide about one candidate. Each undo of an
/// undo of the same change adds one.
const MAX_HOPS: usize = 10_000;

/// A data record that is one of a blob, or that may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobCandidate {
    /// The blob file, if it is one.
    pub key: BlobKey,
    /// Position of the data record, in bytes.
    pub position: u64,
    /// The content of the data record.
    pub data: CandidateData,
}

/// The content of the data record of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateData {
    /// The pickle of a blob.
    Pickle,
    /// A back pointer to the data record at this position: a change was undone.
    Back(u64),
    /// A back pointer of 0: the creation of the object was undone.
    Undone {
        /// Position of the object's previous data record.
        prev: u64,
    },
}

/// A blob that the log refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobReference {
    /// The blob file.
    pub key: BlobKey,
    /// Whether ZODB may legitimately have no file, because the creation of the blob was undone.
    /// A `<blobstorage>` then has a file, which it needs to undo the undo. A `<filestorage>` with
    /// a `blob-dir` has none (ZODB 6.4: `BlobStorage.undo`, `FileStorage._txn_undo_write`).
    pub is_optional: bool,
}

impl BlobCandidate {
    /// Decides whether the log refers to a blob file here: follows the back pointers in `file`,
    /// which must contain all bytes up to and including the data record. Returns `None` if the
    /// object is not a blob, or if a back pointer does not lead to an older record.
    ///
    /// The reference is [optional](BlobReference::is_optional) if a back pointer of 0 is on the
    /// way. As in ZODB, the oids of the records on the way do not matter.
    pub fn resolve<R: ReadAt>(&self, file: &mut R) -> Result<Option<BlobReference>, R::Error> {
        let mut before = self.position;
        let mut data = self.data;
        let mut is_optional = false;
        for _ in 0..MAX_HOPS {
            let at = match data {
                CandidateData::Pickle => {
                    let key = self.key;
                    return Ok(Some(BlobReference { key, is_optional }));
                }
                CandidateData::Back(at) => at,
                CandidateData::Undone { prev } => {
                    is_optional = true;
                    prev
                }
            };
            let Some(found) = read_data(file, at, before)? else {
                return Ok(None);
            };
            before = at;
            data = found;
        }
        // ZODB never writes so long a chain. An optional reference is safe in any case: if the
        // master has a file, the slave gets it.
        let key = self.key;
        let is_optional = true;
        Ok(Some(BlobReference { key, is_optional }))
    }
}

/// Reads the data record at the position `at`, which must end before `before`. Returns `None` if
/// it does not, or if its object is not a blob. `before` decreases with each record, so the
/// pointers cannot form a loop.
fn read_data<R: ReadAt>(
    file: &mut R,
    at: u64,
    before: u64,
) -> Result<Option<CandidateData>, R::Error> {
    const FIRST_RECORD: u64 = MAGIC_LEN + TXN_HEADER_LEN as u64;
    let room = before.saturating_sub(at);
    if at < FIRST_RECORD || room < DATA_HEADER_LEN as u64 {
        return Ok(None);
    }
    // One read for the header and what follows it. It does not reach past `before`, so a wrong
    // pointer cannot make it fail at the end of the file.
    let mut bytes = [0; DATA_HEADER_LEN + PICKLE_START_LEN];
    let len = room.min(bytes.len() as u64) as usize;
    file.read_exact_at(&mut bytes[..len], at)?;
    let (header, body) = bytes[..len].split_at(DATA_HEADER_LEN);
    let Some(header) = header.first_chunk() else {
        return Ok(None);
    };
    let header = DataHeader::decode(header);
    if header.version_len != 0 || header.body_len() > room - DATA_HEADER_LEN as u64 {
        return Ok(None);
    }
    let body = &body[..body.len().min(header.body_len() as usize)];
    Ok(if header.plen > 0 {
        is_blob_pickle(body).then_some(CandidateData::Pickle)
    } else {
        CandidateData::of_back_pointer(be_u64(body), header.prev)
    })
}

impl CandidateData {
    /// The data of a record with this back pointer and this `prev`. `None` if the object has no
    /// data, and no older record.
    pub(super) fn of_back_pointer(back: u64, prev: u64) -> Option<Self> {
        match (back, prev) {
            (0, 0) => None,
            (0, prev) => Some(Self::Undone { prev }),
            (back, _) => Some(Self::Back(back)),
        }
    }
}

const _: () = assert!(BACK_POINTER_LEN as usize <= PICKLE_START_LEN);

#[cfg(test)]
mod tests;
