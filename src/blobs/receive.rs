//! Receives the blobs of one request to the master.

use std::collections::HashMap;

use super::request::{Request, State};
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::slave::blobs::{BlobGroup, StagedBlob};
use crate::source::Master;
use crate::source::blobs::{BlobEventKind, BlobRoot};

/// Number of blobs whose content was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Number of files.
    pub files: u64,
    /// Number of bytes that the master has sent.
    pub bytes: u64,
}

/// Requests blobs and stages the content that arrives.
pub(super) struct Receiver<'r, 'a> {
    pub(super) master: &'r Master,
    pub(super) root: &'r BlobRoot,
    pub(super) group: &'r mut BlobGroup<'a>,
    pub(super) received: &'r mut Received,
    pub(super) monitor: &'r dyn Monitor,
}

impl<'a> Receiver<'_, 'a> {
    /// Asks for these blobs, and waits for all answers.
    pub(super) fn receive(&mut self, requests: &mut [&mut Request]) -> Result<(), Error> {
        let wants = requests.iter().map(|request| request.want()).collect();
        let mut stream = self.master.blobs(self.root.clone(), wants);
        // The blobs that are arriving, by the index of their requests.
        let mut staged: HashMap<usize, StagedBlob<'a>> = HashMap::new();
        let mut expected = self.received.bytes;
        while let Some(event) = stream.next()? {
            let Some(request) = requests.get_mut(event.index) else {
                continue;
            };
            match event.kind {
                BlobEventKind::File { stat, from } => {
                    expected += stat.size.saturating_sub(from);
                    let blob = self.group.stage(request.key(), stat, from)?;
                    staged.insert(event.index, blob);
                }
                BlobEventKind::Data(bytes) => {
                    if let Some(blob) = staged.get_mut(&event.index) {
                        blob.write(&bytes)?;
                    }
                    self.received.bytes += bytes.len() as u64;
                    let done = self.received.bytes;
                    self.monitor.progress("fetching blobs", done, expected);
                }
                BlobEventKind::Complete => {
                    if let Some(blob) = staged.remove(&event.index) {
                        request.state = State::Done(blob.received());
                        self.group.finish(blob)?;
                        self.received.files += 1;
                    }
                }
                BlobEventKind::Same(stat) => {
                    self.group.found(request.key());
                    request.state = State::Done(stat.size);
                }
                BlobEventKind::SameSize { stat, digest } => {
                    request.state = State::Compare(stat, digest);
                }
                BlobEventKind::Absent => request.state = State::Absent,
                BlobEventKind::Failed { kind, why } => {
                    return Err(Error::of_blob(self.master.name(), kind, why));
                }
                BlobEventKind::Digesting => {}
            }
        }
        Ok(())
    }
}
