//! Being told of a mounted master's changes, where the kernel can tell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::io::file_stat::FileStat;
use crate::io::notify::Changes;

/// Whether the kernel tells of changes.
#[derive(Debug, Default)]
pub(super) enum Watch {
    /// It was not asked to.
    #[default]
    No,
    /// It cannot.
    Never,
    /// It does.
    On {
        _changes: FileWatcher,
        told: Receiver<()>,
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
        let (ring, told) = mpsc::sync_channel(1);
        let directory = file.parent().unwrap_or(file).to_owned();
        let looked_up = stat(&directory);
        let started = || -> io::Result<Changes> {
            let mut changes = Changes::new(move || {
                // One that is not taken yet tells enough.
                let _ = ring.try_send(());
            })?;
            changes.add(file)?;
            Ok(changes)
        };
        match started() {
            Ok(changes) => Self::On {
                _changes: changes,
                told,
                directory: (directory, looked_up),
            },
            Err(error) => {
                let file = file.display();
                tracing::warn!("the kernel does not tell of changes of {file}: {error}");
                Self::Never
            }
        }
    }

    /// Forgets what was told so far; all of it, where the directory is another by
    /// now.
    pub(super) fn forget(&mut self) {
        if let Self::On {
            told,
            directory: (path, looked_up),
            ..
        } = self
        {
            while told.try_recv().is_ok() {}
            // Its entries may change, and its time of modification with them.
            if !FileStat::are_same_file(stat(path), *looked_up) {
                *self = Self::No;
            }
        }
    }

    /// Waits to be told; says whether that came before `patience` was over.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        match self {
            Self::On { told, .. } => match told.recv_timeout(patience) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
                // The thread that tells is gone.
                Err(RecvTimeoutError::Disconnected) => {}
            },
            Self::No | Self::Never => {}
        }
        thread::sleep(patience);
        false
    }
}
