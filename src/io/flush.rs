//! Syncs a file while it is still being written. The disk thus works from the start, and the
//! final sync has little to do.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

/// The number of unsynced bytes from which on a sync is worthwhile.
const MIN_SYNC_LEN: u64 = 4 * 1024 * 1024;

/// Syncs a growing file in a thread of its own, or in the caller's thread if no other can be
/// started.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    unsynced: u64,
    thread: Option<Thread>,
}

/// A thread that syncs the file for each message, and once more after the last one.
#[derive(Debug)]
struct Thread {
    sender: Option<SyncSender<()>>,
    handle: JoinHandle<io::Result<()>>,
}

impl Flusher {
    /// Records that `len` bytes were written to `file`. If a sync in the thread has failed,
    /// this or [`finish`](Self::finish) returns its error.
    pub(crate) fn written(&mut self, file: &File, len: u64) -> io::Result<()> {
        self.unsynced += len;
        if self.unsynced < MIN_SYNC_LEN {
            return Ok(());
        }
        self.unsynced = 0;
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => match Thread::start(file.try_clone()?) {
                Ok(thread) => none.insert(thread),
                // No other thread can be started, so this one waits for the disk.
                Err(_) => return file.sync_data(),
            },
        };
        match thread.sender.as_ref().map(|sender| sender.try_send(())) {
            // The thread ends early only if a sync has failed. `finish` returns that error.
            None | Some(Err(mpsc::TrySendError::Disconnected(()))) => self.finish(file),
            // If the channel is full, the thread has a sync to do already.
            Some(_) => Ok(()),
        }
    }

    /// Starts the final sync in the thread, if there is one. [`finish`](Self::finish) waits
    /// for it.
    pub(crate) fn start_to_finish(&mut self) {
        if let Some(thread) = &mut self.thread {
            thread.sender = None;
        }
    }

    /// Makes all written bytes durable.
    pub(crate) fn finish(&mut self, file: &File) -> io::Result<()> {
        if self.thread.is_none() {
            self.unsynced = 0;
            return file.sync_data();
        }
        self.join()
    }

    /// Waits for the thread, if there is one, and returns the error of its syncs. Without a
    /// thread, nothing is synced.
    pub(crate) fn join(&mut self) -> io::Result<()> {
        let Some(Thread { sender, handle }) = self.thread.take() else {
            return Ok(());
        };
        self.unsynced = 0;
        drop(sender);
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs the file panicked")))
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
