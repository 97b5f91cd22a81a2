//! Change notifications for files, by inotify.
//!
//! They are only hints: events get lost, and some file systems send none. Callers must poll
//! too.

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

/// Events of a directory that may be changes of a file in it. Opening a file is not among
/// them, because we open files ourselves.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches files through their directories, until it is dropped.
#[derive(Debug)]
pub(crate) struct FileWatcher {
    inotify: Arc<OwnedFd>,
    files: Arc<Mutex<Vec<WatchedFile>>>,
    /// The thread ends when this is closed.
    _open: PipeWriter,
}

/// A watched file.
#[derive(Debug)]
struct WatchedFile {
    /// inotify's descriptor of its directory.
    directory: i32,
    name: OsString,
}

impl FileWatcher {
    /// Creates a watcher without files. A thread calls `notify` whenever one of the
    /// [added](Self::add) files may have been changed, created or removed.
    pub(crate) fn new(notify: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = Arc::new(inotify);
        let files = Arc::default();
        let (closed, open) = io::pipe()?;
        let (events, watched) = (Arc::clone(&inotify), Arc::clone(&files));
        thread::Builder::new()
            .name("notify".to_owned())
            .spawn(move || {
                // After an error there are no more notifications, as if no event came.
                let _ = listen(&events, &watched, &closed, &notify);
            })?;
        Ok(Self {
            inotify,
            files,
            _open: open,
        })
    }

    /// Watches a file, which need not exist. Its directory must exist.
    pub(crate) fn add(&mut self, file: &Path) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default().to_owned();
        let parent = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Hold the lock while the watch is added: an immediate event must find the name.
        let mut files = lock(&self.files);
        let directory = inotify::add_watch(&self.inotify, parent, CHANGES)?;
        files.push(WatchedFile { directory, name });
        Ok(())
    }
}

/// Calls `notify` for events of the files, until the pipe is closed.
fn listen(
    inotify: &OwnedFd,
    files: &Mutex<Vec<WatchedFile>>,
    closed: &PipeReader,
    notify: &impl Fn(),
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
        // Several events in a row cause one notification.
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
            notify();
        }
    }
}

/// Whether an event may be a change of one of the files. An event without a name is about a
/// directory, or reports that events were lost.
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
    fn changes_of_a_watched_file_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (sender, receiver) = mpsc::channel();
        let mut watcher = FileWatcher::new(move || sender.send(()).unwrap()).unwrap();
        watcher.add(&at("watched")).unwrap();
        let expect = |what: &str| {
            receiver
                .recv_timeout(LONG)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            while receiver.recv_timeout(Duration::from_millis(100)).is_ok() {}
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
    fn events_of_other_files_are_ignored() {
        let files = [WatchedFile {
            directory: 1,
            name: "Data.fs".into(),
        }];
        let is_change = |directory, events, name: Option<&str>| {
            concerns(directory, events, name.map(OsStr::new), &files)
        };
        let (modify, attrib) = (ReadFlags::MODIFY, ReadFlags::ATTRIB);
        assert!(is_change(1, modify, Some("Data.fs")));
        assert!(is_change(1, attrib, Some("Data.fs")));
        assert!(!is_change(2, modify, Some("Data.fs")));
        assert!(!is_change(1, modify, Some("Data.fs.tmp")));
        // The directory's own mode or times.
        assert!(!is_change(1, attrib | ReadFlags::ISDIR, None));
        assert!(is_change(1, ReadFlags::DELETE_SELF, None));
        assert!(is_change(-1, ReadFlags::QUEUE_OVERFLOW, None));
    }

    #[test]
    fn the_thread_ends_when_the_watcher_is_dropped() {
        let (sender, receiver) = mpsc::channel::<()>();
        let watcher = FileWatcher::new(move || sender.send(()).unwrap()).unwrap();
        drop(watcher);
        let ended = receiver.recv_timeout(LONG);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let mut watcher = FileWatcher::new(|| {}).unwrap();
        let missing = watcher.add(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
