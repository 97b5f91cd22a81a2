//! The two files of a comparison.

use std::ops::Range;

use super::digests::Segments;
use super::join::ListedTransaction;
use crate::error::Error;
use crate::filestorage::TxnHeader;
use crate::filestorage::backward::Backward;
use crate::filestorage::record::TXN_HEADER_LEN;
use crate::filestorage::scan::Transaction;
use crate::io::digest::Digest;
use crate::slave::fields::FieldReader;
use crate::source::Master;

/// The slave and its master, both open for reading.
#[derive(Clone, Copy)]
pub(crate) struct FilePair<'a> {
    /// The slave.
    pub(crate) slave: FieldReader<'a>,
    /// The master.
    pub(crate) master: &'a Master,
}

/// Who made a transaction, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMetadata {
    /// The user, with the path of the user folder.
    pub user: String,
    /// The description, in Zope usually the path of the request.
    pub description: String,
}

impl FilePair<'_> {
    /// The digest of a range of the slave; `None` if the slave ends before the end of the range.
    /// `visit` gets the bytes, in their order.
    pub(crate) fn slave_digest(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Digest>, Error> {
        let mut is_whole = true;
        let digest = Digest::of_range(range, |buffer, offset| {
            is_whole &= self.slave.read(buffer, offset)?;
            visit(buffer);
            Ok::<_, Error>(buffer.len())
        })?;
        Ok(digest.filter(|_| is_whole))
    }

    /// Whether a range has the same bytes in both files.
    pub(crate) fn is_equal(&self, range: Range<u64>) -> Result<bool, Error> {
        let mut segments = Segments::new(self.master, range);
        while let Some(segment) = segments.next(|range| self.slave_digest(range, &mut |_| {}))? {
            if segment.digest.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads user and description of a transaction of the slave. Returns `None` if its header no
    /// longer matches, because something else was written there.
    pub(crate) fn metadata(
        &self,
        listed: &ListedTransaction,
    ) -> Result<Option<TransactionMetadata>, Error> {
        let mut header = [0; TXN_HEADER_LEN];
        self.slave.read(&mut header, listed.position)?;
        let header = TxnHeader::decode(&header);
        let is_unchanged = header.tid == listed.tid
            && header.end(listed.position) == Some(listed.end)
            && header.header_len() <= header.tlen;
        if !is_unchanged {
            return Ok(None);
        }
        let transaction = Transaction {
            position: listed.position,
            end: listed.end,
            header,
        };
        let mut reader = Backward::new(self.slave, listed.end);
        let (user, description) = reader.user_and_description(&transaction)?;
        Ok(Some(TransactionMetadata { user, description }))
    }
}
