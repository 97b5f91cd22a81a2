//! Being told by the kernel (inotify) that a file may have changed.
//!
//! Hints, and nothing more: events get lost, and some file systems send none.
//! Whoever acts on them looks for itself from time to time as well.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::retry_on_intr;

/// What may be a change of a file, seen from its directory. That somebody opened it, as
/// we do ourselves, is none.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches the directories of some files, until it is dropped.
#[derive(Debug)]
pub(crate) struct FileWatcher {
    inotify: Arc<OwnedFd>,
    files: Arc<Mutex<Vec<WatchedFile>>>,
    /// Its thread ends when this is closed.
    _open: PipeWriter,
}

/// A file that is watched.
#[derive(Debug)]
struct WatchedFile {
    /// Its directory, as inotify calls it.
    directory: i32,
    name: OsString,
}

impl FileWatcher {
    /// Has `ring` called, by a thread of its own, whenever one of the files that
    /// will be [added](Self::add) may have changed, come or gone.
    pub(crate) fn new(ring: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = Arc::new(inotify);
        let files = Arc::default();
        let (closed, open) = io::pipe()?;
        let (events, of_files) = (Arc::clone(&inotify), Arc::clone(&files));
        thread::Builder::new()
            .name("changes".to_owned())
            .spawn(move || {
                // One that cannot go on rings no more, as if no event came.
                let _ = listen(&events, &of_files, &closed, &ring);
            })?;
        Ok(Self {
            inotify,
            files,
            _open: open,
        })
    }

    /// Watches a file, which need not be there; its directory must.
    pub(crate) fn add(&mut self, file: &Path) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default().to_owned();
        let parent = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // An event that comes at once waits for the name.
        let mut files = lock(&self.files);
        let directory = inotify::add_watch(&self.inotify, parent, CHANGES)?;
        files.push(WatchedFile { directory, name });
        Ok(())
    }
}

/// Rings for each event that concerns one of the files, until the pipe is closed.
fn listen(
    inotify: &OwnedFd,
    files: &Mutex<Vec<WatchedFile>>,
    closed: &PipeReader,
    ring: &impl Fn(),
) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(inotify, &mut buffer);
    loop {
        let mut ends = [
            PollFd::new(inotify, PollFlags::IN),
            PollFd::new(closed, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut ends, None))?;
        if !ends[1].revents().is_empty() {
            return Ok(());
        }
        // Several events in a row ring once.
        let mut is_concerned = false;
        loop {
            let event = events.next()?;
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            is_concerned |= concerns(event.wd(), event.events(), name, &lock(files));
            if events.is_buffer_empty() {
                break;
            }
        }
        if is_concerned {
            ring();
        }
    }
}

/// Whether an event may be about one of the files. One without a name is about a
/// directory, or says that events were lost.
fn concerns(
    directory: i32,
    events: ReadFlags,
    name: Option<&OsStr>,
    files: &[WatchedFile],
) -> bool {
    match name {
        None => !events.contains(ReadFlags::ATTRIB),
        Some(name) => files
            .iter()
            .any(|file| file.directory == directory && file.name == name),
    }
}

fn lock(files: &Mutex<Vec<WatchedFile>>) -> MutexGuard<'_, Vec<WatchedFile>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn changes_of_a_watched_file_ring() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (bell, rung) = mpsc::channel();
        let mut watcher = FileWatcher::new(move || bell.send(()).unwrap()).unwrap();
        watcher.add(&at("watched")).unwrap();
        let expect = |what: &str| {
            rung.recv_timeout(LONG)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            while rung.recv_timeout(Duration::from_millis(100)).is_ok() {}
        };
        fs::write(at("watched"), "a").unwrap();
        expect("created");
        fs::write(at("watched"), "b").unwrap();
        expect("written");
        fs::write(at("other"), "a").unwrap();
        fs::rename(at("other"), at("watched")).unwrap();
        expect("replaced");
        fs::remove_file(at("watched")).unwrap();
        expect("removed");
        fs::remove_dir(directory.path()).unwrap();
        expect("its directory is removed");
    }

    #[test]
    fn events_of_other_files_do_not_ring() {
        let files = [WatchedFile {
            directory: 1,
            name: "Data.fs".into(),
        }];
        let rings = |directory, events, name: Option<&str>| {
            concerns(directory, events, name.map(OsStr::new), &files)
        };
        let (modify, attrib) = (ReadFlags::MODIFY, ReadFlags::ATTRIB);
        assert!(rings(1, modify, Some("Data.fs")));
        assert!(rings(1, attrib, Some("Data.fs")));
        assert!(!rings(2, modify, Some("Data.fs")));
        assert!(!rings(1, modify, Some("Data.fs.tmp")));
        // The directory's own mode or times.
        assert!(!rings(1, attrib | ReadFlags::ISDIR, None));
        assert!(rings(1, ReadFlags::DELETE_SELF, None));
        assert!(rings(-1, ReadFlags::QUEUE_OVERFLOW, None));
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let (bell, rung) = mpsc::channel::<()>();
        let watcher = FileWatcher::new(move || bell.send(()).unwrap()).unwrap();
        drop(watcher);
        let ended = rung.recv_timeout(LONG);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        let mut watcher = FileWatcher::new(|| {}).unwrap();
        let missing = watcher.add(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
