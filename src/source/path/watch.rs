//! Change notifications for a master on a local file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::io::file_stat::FileStat;
use crate::io::notify::FileWatcher;

/// The state of the notifications.
#[derive(Debug, Default)]
pub(super) enum Watch {
    /// Not requested yet.
    #[default]
    NotStarted,
    /// The kernel cannot send any for this file.
    Unsupported,
    /// The kernel sends them.
    Active {
        _watcher: FileWatcher,
        events: Receiver<()>,
        /// Path of the watched directory.
        directory: PathBuf,
        /// State of that directory when the watch began.
        directory_stat: Option<FileStat>,
    },
}

/// The file or directory that a path leads to now.
fn stat(path: &Path) -> Option<FileStat> {
    fs::metadata(path).ok().map(|found| FileStat::of(&found))
}

impl Watch {
    /// Starts notifications for this file.
    pub(super) fn start(file: &Path) -> Self {
        let (sender, events) = mpsc::sync_channel(1);
        let directory = file.parent().unwrap_or(file).to_owned();
        let directory_stat = stat(&directory);
        let started = || -> io::Result<FileWatcher> {
            let mut watcher = FileWatcher::new(move || {
                // If the channel is full, a notification is waiting already.
                let _ = sender.try_send(());
            })?;
            watcher.add(file)?;
            Ok(watcher)
        };
        match started() {
            Ok(watcher) => Self::Active {
                _watcher: watcher,
                events,
                directory,
                directory_stat,
            },
            Err(error) => {
                let file = file.display();
                tracing::warn!("cannot watch {file} for changes, so it is only polled: {error}");
                Self::Unsupported
            }
        }
    }

    /// Discards the notifications so far. Stops them if the path of the directory leads to
    /// another directory now.
    pub(super) fn discard_events(&mut self) {
        if let Self::Active {
            events,
            directory,
            directory_stat,
            ..
        } = self
        {
            while events.try_recv().is_ok() {}
            // Compare only the identity: a change of an entry changes the directory's time of
            // modification.
            if !FileStat::are_same_file(stat(directory), *directory_stat) {
                *self = Self::NotStarted;
            }
        }
    }

    /// Waits for a notification. Returns whether one came before the timeout.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        match self {
            Self::Active { events, .. } => match events.recv_timeout(timeout) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
                // The thread of the watcher has ended. Wait as if there were no notifications.
                Err(RecvTimeoutError::Disconnected) => {}
            },
            Self::NotStarted | Self::Unsupported => {}
        }
        thread::sleep(timeout);
        false
    }
}
