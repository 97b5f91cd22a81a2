//! Collects the blobs in a scan.

use std::collections::HashMap;

use super::BlobKey;
use super::candidate::{BlobCandidate, CandidateData};
use super::pickle::{PICKLE_START_LEN, is_blob_pickle};
use crate::filestorage::record::{DATA_HEADER_LEN, DataHeader};
use crate::filestorage::scan::{Event, Visitor};

/// Collects the candidates of complete transactions: the data records that are blobs, or that
/// have a back pointer.
///
/// It must visit all bytes of a scan, not only its events. Between two visits it keeps the
/// candidates of the current transaction, and up to [`PICKLE_START_LEN`] bytes.
#[derive(Debug, Default)]
pub struct BlobCollector {
    /// Events whose bytes have not arrived, in log order. Between two visits, that is at most one
    /// record.
    pending: Vec<Pending>,
    /// Number of pending events up to the end of the last complete transaction.
    sealed: usize,
    /// The first bytes of the pickle of the first pending record, if it continues in the next
    /// piece.
    start: Vec<u8>,
    /// The candidates of the current transaction.
    current: HashMap<BlobKey, BlobCandidate>,
    /// The candidates of complete transactions that were not taken yet.
    complete: Vec<BlobCandidate>,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Pickle {
        key: BlobKey,
        /// Position of the data record.
        position: u64,
        /// Number of bytes that decide whether it is a blob.
        start_len: u8,
    },
    /// A record without a pickle. `data` is `None` if it cannot be a blob.
    Pointer {
        key: BlobKey,
        position: u64,
        data: Option<CandidateData>,
    },
    TransactionEnd,
}

impl BlobCollector {
    /// The candidates of complete transactions since the last call, in log order. Of several
    /// records of an object in one transaction, only the last one counts.
    pub fn take(&mut self) -> Vec<BlobCandidate> {
        std::mem::take(&mut self.complete)
    }

    /// Forgets the records after the last complete transaction.
    fn forget_current(&mut self) {
        self.pending.truncate(self.sealed);
        if self.sealed == 0 {
            // Some of the bytes of this transaction have arrived.
            self.current.clear();
            self.start.clear();
        }
    }

    fn add(&mut self, header: &DataHeader, position: u64, back: Option<u64>) {
        let key = BlobKey {
            tid: header.tid,
            oid: header.oid,
        };
        self.pending.push(match back {
            None => Pending::Pickle {
                key,
                position,
                start_len: header.plen.min(PICKLE_START_LEN as u64) as u8,
            },
            Some(back) => Pending::Pointer {
                key,
                position,
                data: CandidateData::of_back_pointer(back, header.prev),
            },
        });
    }

    /// Records whether the last record of an object is a candidate.
    fn decide(&mut self, key: BlobKey, position: u64, data: Option<CandidateData>) {
        if let Some(data) = data {
            let candidate = BlobCandidate {
                key,
                position,
                data,
            };
            self.current.insert(key, candidate);
        } else if !self.current.is_empty() {
            self.current.remove(&key);
        }
    }

    fn end_transaction(&mut self) {
        // Most transactions have no candidates.
        if !self.current.is_empty() {
            let from = self.complete.len();
            self.complete.extend(self.current.drain().map(|(_, it)| it));
            self.complete[from..].sort_unstable_by_key(|it| it.position);
        }
    }
}

impl Visitor for BlobCollector {
    fn event(&mut self, event: Event) {
        match event {
            Event::Record {
                header,
                position,
                back,
            } => self.add(&header, position, back),
            Event::Begun { .. } => self.forget_current(),
            Event::Transaction(_) => {
                self.pending.push(Pending::TransactionEnd);
                self.sealed = self.pending.len();
            }
            Event::Blemish { .. } => {}
        }
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        let mut pending = std::mem::take(&mut self.pending);
        let mut is_cut = false;
        for &event in &pending {
            match event {
                Pending::Pickle {
                    key,
                    position,
                    start_len,
                } => {
                    let missing = usize::from(start_len) - self.start.len();
                    let from = position + (DATA_HEADER_LEN + self.start.len()) as u64;
                    let piece = rest(bytes, offset, from);
                    if piece.len() < missing {
                        // The piece ends in this record, so it is the last one.
                        self.start.extend(piece);
                        is_cut = true;
                        break;
                    }
                    let is_blob = if self.start.is_empty() {
                        is_blob_pickle(&piece[..missing])
                    } else {
                        self.start.extend(&piece[..missing]);
                        let is_blob = is_blob_pickle(&self.start);
                        self.start.clear();
                        is_blob
                    };
                    self.decide(key, position, is_blob.then_some(CandidateData::Pickle));
                }
                Pending::Pointer {
                    key,
                    position,
                    data,
                } => self.decide(key, position, data),
                Pending::TransactionEnd => self.end_transaction(),
            }
        }
        let kept = usize::from(is_cut);
        pending.drain(..pending.len() - kept);
        self.pending = pending;
        self.sealed = 0;
    }
}

/// The bytes from `from` on, of those at `offset`.
fn rest(bytes: &[u8], offset: u64, from: u64) -> &[u8] {
    let skipped = from.saturating_sub(offset).min(bytes.len() as u64);
    &bytes[skipped as usize..]
}

#[cfg(test)]
mod tests;
