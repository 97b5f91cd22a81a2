//! Being notified of changes of a mounted master, where the kernel can tell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::io::file_stat::FileStat;
use crate::io::notify::FileWatcher;

/// Whether the kernel tells of changes.
#[derive(Debug, Default)]
pub(super) enum Watch {
    /// It was not asked to.
    #[default]
    NotStarted,
    /// It cannot.
    Unsupported,
    /// It does.
    Active {
        _watcher: FileWatcher,
        events: Receiver<()>,
        /// The directory that is watched, by its path and by what it was.
        directory: (PathBuf, Option<FileStat>),
    },
}

/// The file or directory that a path leads to now.
fn stat(path: &Path) -> Option<FileStat> {
    fs::metadata(path).ok().map(|found| FileStat::of(&found))
}

impl Watch {
    /// Has the kernel tell of changes of this file.
    pub(super) fn of(file: &Path) -> Self {
        let (ring, events) = mpsc::sync_channel(1);
        let directory = file.parent().unwrap_or(file).to_owned();
        let looked_up = stat(&directory);
        let started = || -> io::Result<FileWatcher> {
            let mut watcher = FileWatcher::new(move || {
                // One that is not taken yet tells enough.
                let _ = ring.try_send(());
            })?;
            watcher.add(file)?;
            Ok(watcher)
        };
        match started() {
            Ok(watcher) => Self::Active {
                _watcher: watcher,
                events,
                directory: (directory, looked_up),
            },
            Err(error) => {
                let file = file.display();
                tracing::warn!("the kernel does not tell of changes of {file}: {error}");
                Self::Unsupported
            }
        }
    }

    /// Forgets the events so far; all of it, where the directory is another by
    /// now.
    pub(super) fn discard_events(&mut self) {
        if let Self::Active {
            events,
            directory: (path, looked_up),
            ..
        } = self
        {
            while events.try_recv().is_ok() {}
            // Its entries may change, and its time of modification with them.
            if !FileStat::are_same_file(stat(path), *looked_up) {
                *self = Self::NotStarted;
            }
        }
    }

    /// Waits for an event; returns whether that came before `timeout` was over.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        match self {
            Self::Active { events, .. } => match events.recv_timeout(timeout) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
                // The thread that tells is gone.
                Err(RecvTimeoutError::Disconnected) => {}
            },
            Self::NotStarted | Self::Unsupported => {}
        }
        thread::sleep(timeout);
        false
    }
}
