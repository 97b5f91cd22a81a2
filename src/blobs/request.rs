//! One wanted blob, from the first request to its final answer.

use crate::filestorage::blob::{BlobKey, BlobReference};
use crate::io::digest::Digest;
use crate::source::blobs::{BlobStat, BlobWant, HaveBlob, ReceivedPrefix};

/// A wanted blob.
#[derive(Debug)]
pub(super) struct Request {
    reference: BlobReference,
    /// The file that the slave has, if it has one.
    pub(super) have: Option<HaveBlob>,
    /// The bytes that an earlier pass has received, if there are many.
    pub(super) received: Option<ReceivedPrefix>,
    pub(super) state: State,
}

/// The state of a request.
#[derive(Debug)]
pub(super) enum State {
    /// The master must be asked, perhaps again.
    Open,
    /// The slave has the blob, or will have it once the group is placed. Its size in bytes.
    Done(u64),
    /// The slave has a file of the same size; this is the digest of the master's.
    Compare(BlobStat, Digest),
    /// The master does not have the file.
    Absent,
}

impl Request {
    /// A request for a blob that the slave lacks.
    pub(super) fn new(reference: BlobReference) -> Self {
        Self {
            reference,
            have: None,
            received: None,
            state: State::Open,
        }
    }

    /// The message to the master.
    pub(super) fn want(&self) -> BlobWant {
        BlobWant {
            key: self.key(),
            have: self.have,
            resume: self.received,
        }
    }

    /// The blob.
    pub(super) fn key(&self) -> BlobKey {
        self.reference.key
    }

    /// Whether the blob is missing at both ends, although the log needs it.
    pub(super) fn is_missed(&self) -> bool {
        matches!(self.state, State::Absent) && self.have.is_none() && !self.reference.is_optional
    }

    /// Requests the content, whatever the slave has.
    pub(super) fn request_content(&mut self) {
        self.have = None;
        self.received = None;
        self.state = State::Open;
    }
}
