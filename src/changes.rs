//! Being told that a file may have changed.
//!
//! Hints, and nothing more: events get lost, and some file systems send none.
//! Whoever acts on them looks for itself from time to time as well.

use std::path::{self, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches the directories of some files.
#[derive(Debug)]
pub(crate) struct Changes {
    watcher: RecommendedWatcher,
    files: Arc<Mutex<Vec<PathBuf>>>,
}

impl Changes {
    /// Has `ring` called, by a thread of its own, whenever one of the files that
    /// will be [added](Self::add) may have changed, come or gone.
    pub(crate) fn new(ring: impl Fn() + Send + 'static) -> notify::Result<Self> {
        let files = Arc::<Mutex<Vec<PathBuf>>>::default();
        let asked_for = Arc::clone(&files);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let files = asked_for.lock().unwrap_or_else(PoisonError::into_inner);
            if event.map_or(true, |event| concerns(&event, &files)) {
                ring();
            }
        })?;
        Ok(Self { watcher, files })
    }

    /// Watches a file, which need not be there; its directory must.
    pub(crate) fn add(&mut self, file: &Path) -> notify::Result<()> {
        // Events name absolute paths.
        let file = path::absolute(file).map_err(notify::Error::io)?;
        let directory = file.parent().unwrap_or(&file).to_owned();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push(file);
        drop(files);
        self.watcher.watch(&directory, RecursiveMode::NonRecursive)
    }
}

/// Whether an event may be about one of the files; that somebody opened one, as
/// we do ourselves, is none.
fn concerns(event: &Event, files: &[PathBuf]) -> bool {
    !matches!(event.kind, EventKind::Access(_))
        && (event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| files.contains(path)))
}
