//! Writing back while more is written, so that the disk is busy from the start
//! and the last sync finds little to do.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

/// How much is written before it is worth waking the disk, in bytes.
const WORTH_LEN: u64 = 4 * 1024 * 1024;

/// Syncs a file in a thread of its own while it grows; in the caller's, if none can be
/// started.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    unsynced: u64,
    thread: Option<Thread>,
}

/// A thread that syncs for every message, and once more when there are to be no
/// more.
#[derive(Debug)]
struct Thread {
    sender: Option<SyncSender<()>>,
    handle: JoinHandle<io::Result<()>>,
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
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => match Thread::start(file.try_clone()?) {
                Ok(thread) => none.insert(thread),
                // There can be no more threads: this one waits for the disk.
                Err(_) => return file.sync_data(),
            },
        };
        match thread.sender.as_ref().map(|sender| sender.try_send(())) {
            None | Some(Err(mpsc::TrySendError::Disconnected(()))) => self.finish(file),
            Some(_) => Ok(()),
        }
    }

    /// Lets the last sync start, if there was enough to be worth it;
    /// [`finish`](Self::finish) waits for it.
    pub(crate) fn start_to_finish(&mut self) {
        if let Some(thread) = &mut self.thread {
            thread.sender = None;
        }
    }

    /// Makes all that was written durable.
    pub(crate) fn finish(&mut self, file: &File) -> io::Result<()> {
        self.unsynced = 0;
        let Some(Thread { sender, handle }) = self.thread.take() else {
            return file.sync_data();
        };
        drop(sender);
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the syncing thread died")))
    }
}

impl Thread {
    fn start(file: File) -> io::Result<Self> {
        let (sender, inbox) = mpsc::sync_channel(1);
        let sync = move || {
            for () in inbox {
                file.sync_data()?;
            }
            file.sync_data()
        };
        let handle = thread::Builder::new()
            .name("flusher".to_owned())
            .spawn(sync)?;
        Ok(Self {
            sender: Some(sender),
            handle,
        })
    }
}
