//! Being told of a mounted master's changes, where the kernel can tell.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::changes::Changes;

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
        _changes: Changes,
        told: Receiver<()>,
    },
}

impl Watch {
    /// Has the kernel tell of changes of this file.
    pub(super) fn of(file: &Path) -> Self {
        let (ring, told) = mpsc::sync_channel(1);
        let started = || -> notify::Result<Changes> {
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
            },
            Err(error) => {
                let file = file.display();
                tracing::warn!("the kernel does not tell of changes of {file}: {error}");
                Self::Never
            }
        }
    }

    /// Forgets what was told so far.
    pub(super) fn forget(&self) {
        if let Self::On { told, .. } = self {
            while told.try_recv().is_ok() {}
        }
    }

    /// Waits to be told; says whether that came before `patience` was over.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        match self {
            Self::On { told, .. } => told.recv_timeout(patience).is_ok(),
            Self::No | Self::Never => {
                thread::sleep(patience);
                false
            }
        }
    }
}
