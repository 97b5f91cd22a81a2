//! Receives blobs and their digests.

use std::io::{Read, Write};
use std::ops::ControlFlow;

use super::{Client, RequestError};
use crate::filestorage::blob::BlobKey;
use crate::source::blobs::{BlobDigestAnswer, BlobEvent, BlobEventKind, BlobRoot, BlobWant};
use crate::source::protocol::{self, Frame, Reply, Request};
use crate::source::ssh::MAX_WHY_LEN;

/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

impl<R: Read, W: Write> Client<R, W> {
    /// Requests up to [`MAX_WANTS`](crate::source::blobs::MAX_WANTS) blobs, and sends their
    /// events to `sink`. If `sink` breaks, the rest of the answer is not received, and the
    /// connection must be closed.
    pub fn blobs(
        &mut self,
        root: &BlobRoot,
        wants: &[BlobWant],
        mut sink: impl FnMut(BlobEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RequestError> {
        // A pass asks for blobs between two reads of the log.
        self.keep_ahead()?;
        self.send(&Request::Blobs {
            directory: root.directory.clone(),
            layout: root.layout,
            wants: wants.to_vec(),
        })?;
        for (index, want) in wants.iter().enumerate() {
            let sink = |kind| sink(BlobEvent { index, kind });
            if self.blob(want, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Receives the events of one blob.
    fn blob(
        &mut self,
        want: &BlobWant,
        mut sink: impl FnMut(BlobEventKind) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RequestError> {
        // The number of bytes that must still arrive, once the file is being sent.
        let mut left = None;
        loop {
            let event = match self.frame(left.unwrap_or(0))? {
                Frame::Message(Reply::Heartbeat) => continue,
                Frame::Message(Reply::Blob(event)) => {
                    checked(event, want, left).ok_or(UNEXPECTED)?
                }
                Frame::Message(_) => return Err(UNEXPECTED.into()),
                Frame::Data(bytes) => {
                    left = left.map(|left| left - bytes.len() as u64);
                    BlobEventKind::Data(bytes)
                }
            };
            if let BlobEventKind::File { stat, from } = event {
                left = Some(stat.size - from);
            }
            let is_final = event.is_final();
            let flow = sink(event);
            if is_final || flow.is_break() {
                return Ok(flow);
            }
        }
    }

    /// Requests the digests of up to [`MAX_WANTS`](crate::source::blobs::MAX_WANTS) blobs.
    pub fn blob_digests(
        &mut self,
        root: &BlobRoot,
        keys: &[BlobKey],
    ) -> Result<Vec<BlobDigestAnswer>, RequestError> {
        self.drain()?;
        self.send(&Request::BlobDigests {
            directory: root.directory.clone(),
            layout: root.layout,
            keys: keys.to_vec(),
        })?;
        let replies = keys.iter().map(|_| match self.reply()? {
            Reply::BlobDigest(BlobDigestAnswer::Failed { kind, why }) => {
                let why = bounded(&why);
                Ok(BlobDigestAnswer::Failed { kind, why })
            }
            Reply::BlobDigest(answer) => Ok(answer),
            _ => Err(UNEXPECTED.into()),
        });
        replies.collect()
    }

    /// The next frame, which may contain data of up to `max_data_len` bytes.
    fn frame(&mut self, max_data_len: u64) -> Result<Frame<Reply>, RequestError> {
        self.receive_hello()?;
        match protocol::read_frame(&mut self.from, max_data_len)? {
            Frame::Message(reply) => Ok(Frame::Message(super::accepted(reply)?)),
            data @ Frame::Data(_) => Ok(data),
        }
    }
}

const UNEXPECTED: protocol::Error = protocol::Error::Frame("unexpected reply about a blob");

/// The reason of a failure, limited to the length of an honest one.
fn bounded(why: &str) -> String {
    why.chars().take(MAX_WHY_LEN).collect()
}

/// The event, if it is allowed for this blob. `left` is the number of bytes that must still
/// arrive, once the file is being sent.
fn checked(event: BlobEventKind, want: &BlobWant, left: Option<u64>) -> Option<BlobEventKind> {
    use BlobEventKind::{Absent, Complete, Failed, File, Same, SameSize};
    let have = want.have;
    let is_same_size = |size| have.is_some_and(|have| have.size == size);
    match (event, left) {
        (Complete, Some(0)) => Some(Complete),
        (Failed { kind, why }, _) => {
            let why = bounded(&why);
            Some(Failed { kind, why })
        }
        (Absent, None) => Some(Absent),
        (Same(mut stat), None) => {
            let is_same_time = have.is_some_and(|have| have.modified == Some(stat.modified));
            stat.mode &= PERMISSIONS;
            (is_same_size(stat.size) && is_same_time).then_some(Same(stat))
        }
        (SameSize { mut stat, digest }, None) => {
            stat.mode &= PERMISSIONS;
            is_same_size(stat.size).then_some(SameSize { stat, digest })
        }
        (File { mut stat, from }, None) => {
            stat.mode &= PERMISSIONS;
            let is_resumed = want.resume.is_some_and(|prefix| prefix.len == from);
            ((from == 0 || is_resumed) && from <= stat.size).then_some(File { stat, from })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
