//! Writing back while more is written, so that the disk is busy from the start
//! and the last sync finds little to do.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

/// How much is written before it is worth waking the disk, in bytes.
const WORTH_LEN: u64 = 8 * 1024 * 1024;

/// Syncs a file in a thread of its own while it grows.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    unsynced: u64,
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Flusher {
    /// Takes note of `len` bytes written to `file`. A sync that failed in
    /// between shows here or in [`finish`](Self::finish).
    pub(crate) fn written(&mut self, file: &File, len: u64) -> io::Result<()> {
        self.unsynced += len;
        if self.unsynced < WORTH_LEN {
            return Ok(());
        }
        self.unsynced = 0;
        let (sender, _) = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start(file.try_clone()?)),
        };
        match sender.try_send(()) {
            Err(mpsc::TrySendError::Disconnected(())) => self.finish(file),
            _ => Ok(()),
        }
    }

    /// Makes all that was written durable.
    pub(crate) fn finish(&mut self, file: &File) -> io::Result<()> {
        self.unsynced = 0;
        let Some((sender, thread)) = self.thread.take() else {
            return file.sync_data();
        };
        drop(sender);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the syncing thread died")))
    }
}

/// The thread: a sync for every message, and one when there are no more.
fn start(file: File) -> (SyncSender<()>, JoinHandle<io::Result<()>>) {
    let (sender, inbox) = mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        for () in inbox {
            file.sync_data()?;
        }
        file.sync_data()
    });
    (sender, thread)
}
