//! A source in a thread of its own, with a timeout for its answers.
//!
//! A read from a dead NFS mount (`hard`, the default) never returns. It then hangs in that
//! thread, which is abandoned; the pass gets [`Error::TimedOut`], cleans up and ends. The
//! thread answers requests in order. A caller that requests the next bytes before it processes
//! the last ones keeps both ends busy.

mod blob_stream;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, thread};

pub use self::blob_stream::BlobStream;

use self::blob_stream::blob_stream;
use super::blobs::{BlobDigestAnswer, BlobRoot, BlobWant};
use super::pending::{Deadline, Pending, lock};
use super::{CoveredNames, Error, MAX_WAIT, MasterStat, Source, Surroundings, Transactions};
use crate::filestorage::DATA_FS;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::io::read::AlignedBuf;

type Request = Box<dyn FnOnce(&mut dyn Source, &Mutex<Backlog>) + Send>;

/// A source in a thread, with a deadline for its answers.
pub struct Master {
    name: String,
    deadline: Deadline,
    open: Box<dyn Fn() -> Box<dyn Source> + Send>,
    /// The current thread, since the first request.
    worker: Mutex<Option<Worker>>,
    covered: CoveredNames,
    /// Whether its name was that of a directory at the last stat.
    is_directory: AtomicBool,
}

/// The maximum number of abandoned threads that hang.
const MAX_HANGING: usize = 4;

/// The thread that runs a source.
struct Worker {
    requests: mpsc::Sender<Request>,
    backlog: Arc<Mutex<Backlog>>,
    /// Counts the threads that have not ended: this one and the abandoned ones each hold it.
    threads: Arc<()>,
}

/// The requests that a thread has not answered yet.
struct Backlog {
    /// Number of these requests.
    unanswered: usize,
    /// The time since which the thread works on the first of them. This is never later than
    /// the start of the wait for its answer. If that wait times out, the thread thus counts
    /// as hanging.
    since: Instant,
}

impl Worker {
    fn start(mut source: Box<dyn Source>, threads: Arc<()>) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let since = Instant::now();
        let backlog = Arc::new(Mutex::new(Backlog {
            unanswered: 0,
            since,
        }));
        let (ours, held) = (Arc::clone(&backlog), Arc::clone(&threads));
        // Lines that requests log belong to the storage of the first one.
        let span = tracing::Span::current();
        let work = move || {
            let _span = span.entered();
            for request in inbox {
                request(source.as_mut(), &ours);
                let mut backlog = lock(&ours);
                backlog.unanswered -= 1;
                backlog.since = Instant::now();
            }
            drop(held);
        };
        thread::Builder::new()
            .name("master".to_owned())
            .spawn(work)?;
        Ok(Self {
            requests,
            backlog,
            threads,
        })
    }

    fn send(&self, request: Request) {
        let mut backlog = lock(&self.backlog);
        if backlog.unanswered == 0 {
            backlog.since = Instant::now();
        }
        backlog.unanswered += 1;
        // If the thread has ended, the channel for the answer is closed too, so its receiver
        // gets an error.
        let _ = self.requests.send(request);
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Master {
    /// Creates a master whose source is created by `open`, in a thread that starts with the
    /// first request. `name` is the name of the master in messages.
    ///
    /// If an answer timed out, and the thread still hangs at the next request, that request
    /// goes to a new thread with a new source. A path that was mounted again thus works,
    /// although the old mount hangs for ever.
    #[must_use]
    pub fn new(
        name: String,
        deadline: Deadline,
        open: Box<dyn Fn() -> Box<dyn Source> + Send>,
    ) -> Self {
        Self {
            name,
            deadline,
            open,
            worker: Mutex::default(),
            covered: CoveredNames::default(),
            is_directory: AtomicBool::new(false),
        }
    }

    /// A master beside which there are storages with passes of their own.
    #[must_use]
    pub fn beside(self, covered: CoveredNames) -> Self {
        Self { covered, ..self }
    }

    /// Whether the storage with this name in the master's directory has passes of its own,
    /// according to [`beside`](Self::beside).
    #[must_use]
    pub fn is_covered(&self, name: &str) -> bool {
        let CoveredNames {
            of_file,
            of_directory,
        } = &self.covered;
        if self.is_directory.load(Ordering::Relaxed) {
            of_directory.contains(name)
        } else {
            of_file.contains(name)
        }
    }

    /// The name of the master in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Source::stat`]. Fails with [`Error::Mounted`] if the file is a mount point, so
    /// that the name can never lead to another file.
    pub fn stat(&self, ranges: Vec<Range<u64>>) -> Result<MasterStat, Error> {
        let stat = self.ask(move |source| source.stat(&ranges)).wait()?;
        let is_directory = stat.named.is_directory;
        self.is_directory.store(is_directory, Ordering::Relaxed);
        if stat.named.is_mount {
            let mut name = self.name.clone();
            if stat.named.is_directory {
                name = format!("{}/{DATA_FS}", name.trim_end_matches('/'));
            }
            return Err(Error::Mounted { name });
        }
        Ok(stat)
    }

    /// See [`Source::surroundings`].
    pub fn surroundings(&self) -> Result<Surroundings, Error> {
        self.ask(|source| source.surroundings()).wait()
    }

    /// Requests `len` bytes from `offset` on. At the end of the file, the answer has fewer.
    #[must_use]
    pub fn read(&self, len: usize, offset: u64) -> Pending<AlignedBuf> {
        self.read_into(AlignedBuf::default(), len, offset)
    }

    /// The same, into a buffer that is no longer needed.
    #[must_use]
    pub fn read_into(
        &self,
        mut buffer: AlignedBuf,
        len: usize,
        offset: u64,
    ) -> Pending<AlignedBuf> {
        self.ask(move |source| {
            let got = source.read(buffer.room(len, offset), offset)?;
            buffer.truncate(got);
            Ok(buffer)
        })
    }

    /// See [`Source::digest`].
    #[must_use]
    pub fn digest(&self, range: Range<u64>) -> Pending<Option<Digest>> {
        self.ask(move |source| source.digest(range))
    }

    /// See [`Source::confirm`].
    #[must_use]
    pub fn confirm(&self, range: Range<u64>) -> Pending<Option<Digest>> {
        self.ask(move |source| source.confirm(range))
    }

    /// See [`Source::transactions`].
    #[must_use]
    pub fn transactions(&self, from: u64, size: u64) -> Pending<Transactions> {
        self.ask(move |source| source.transactions(from, size))
    }

    /// See [`Source::blob_root`].
    pub fn blob_root(&self, given: Option<String>) -> Result<BlobRoot, Error> {
        self.ask(move |source| source.blob_root(given.as_deref()))
            .wait()
    }

    /// Requests blobs. See [`Source::blobs`].
    #[must_use]
    pub fn blobs(&self, root: BlobRoot, wants: Vec<BlobWant>) -> BlobStream {
        let (sender, stream) = blob_stream(&self.name, &self.deadline);
        let sent = self.send(Box::new(move |source, _| {
            let result = source.blobs(&root, &wants, &|event| sender.send(event));
            sender.finish(result);
        }));
        if let Err(source) = sent {
            stream.fail(self.no_thread(source));
        }
        stream
    }

    /// See [`Source::blob_digests`].
    #[must_use]
    pub fn blob_digests(
        &self,
        root: BlobRoot,
        keys: Vec<BlobKey>,
    ) -> Pending<Vec<BlobDigestAnswer>> {
        let deadline = self.deadline.clone();
        self.ask(move |source| source.blob_digests(&root, &keys, &|| deadline.beat()))
    }

    /// Calls `then` with the result of [`Source::wait`] once the master may have changed, or after a
    /// timeout. The master is polled in turns of at most `every`. The wait also ends if the source
    /// does not wait, or if another request is made.
    pub fn when_changed(
        &self,
        timeout: Duration,
        every: Duration,
        then: impl FnOnce(Result<bool, Error>) + Send + 'static,
    ) {
        // Without a thread there is no notification, but callers poll anyway.
        let _ = self.send(Box::new(move |source, backlog| {
            then(wait_in_turns(source, backlog, timeout, every));
        }));
    }

    /// Whether the source has worked on a request, or on a turn of a wait, for longer than this.
    pub fn is_late(&self, limit: Duration) -> bool {
        let worker = lock(&self.worker);
        worker.as_ref().is_some_and(|worker| {
            let backlog = lock(&worker.backlog);
            backlog.unanswered > 0 && backlog.since.elapsed() > limit
        })
    }

    /// Closes the file and the connection of the source, until they are needed again.
    pub fn close(&self) {
        if let Some(worker) = &*lock(&self.worker)
            && !self.hangs(worker)
        {
            worker.send(Box::new(|source, _| source.close()));
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut dyn Source) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        let (sender, receiver) = mpsc::channel();
        let unasked = sender.clone();
        let sent = self.send(Box::new(move |source, _| {
            // The receiver is gone if an earlier error has ended the pass.
            let _ = sender.send(request(source));
        }));
        if let Err(source) = sent {
            let _ = unasked.send(Err(self.no_thread(source)));
        }
        Pending::new(&self.name, &self.deadline, receiver)
    }

    /// The error of a thread that cannot be started.
    fn no_thread(&self, source: io::Error) -> Error {
        let what = format!("a thread that reads {}", self.name);
        Error::Start { what, source }
    }

    /// Sends a request to the thread, or to a new thread if that one hangs.
    fn send(&self, request: Request) -> io::Result<()> {
        let mut worker = lock(&self.worker);
        let threads = match &*worker {
            None => Some(Arc::default()),
            Some(worker) => {
                // The current thread and `worker.threads` itself count for two.
                let is_one_more = Arc::strong_count(&worker.threads) < 2 + MAX_HANGING;
                (self.hangs(worker) && is_one_more).then(|| Arc::clone(&worker.threads))
            }
        };
        if let Some(threads) = threads {
            *worker = Some(Worker::start((self.open)(), threads)?);
        }
        if let Some(worker) = &*worker {
            worker.send(request);
        }
        Ok(())
    }

    /// Whether the thread has worked on a request for longer than the timeout.
    fn hangs(&self, worker: &Worker) -> bool {
        let backlog = lock(&worker.backlog);
        backlog.unanswered > 0 && self.deadline.left(backlog.since).is_zero()
    }
}

/// Waits for a change of the master. The thread of the source can be found to hang only between two
/// turns, so each turn counts as a request of its own.
fn wait_in_turns(
    source: &mut dyn Source,
    backlog: &Mutex<Backlog>,
    timeout: Duration,
    every: Duration,
) -> Result<bool, Error> {
    let until = Instant::now() + timeout;
    loop {
        let started = Instant::now();
        let left = until.saturating_duration_since(started);
        let turn = left.min(every).min(MAX_WAIT);
        let has_changed = source.wait(turn)?;
        let now = Instant::now();
        let has_waited = now.duration_since(started) >= turn / 2;
        let mut backlog = lock(backlog);
        backlog.since = now;
        // The first of the unanswered requests is this one.
        if has_changed || now >= until || !has_waited || backlog.unanswered > 1 {
            return Ok(has_changed);
        }
    }
}

impl ReadAt for &Master {
    type Error = Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let bytes = self.read(buffer.len(), offset).wait()?;
        if bytes.len() < buffer.len() {
            return Err(Error::Changed {
                name: self.name.clone(),
                position: offset + bytes.len() as u64,
            });
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Heartbeat;
    use crate::source::blobs::BlobEvent;
    use crate::source::path::MountedPath;
    use std::ops::ControlFlow;
    use std::sync::atomic::AtomicUsize;

    /// A source that hangs for longer than any test waits.
    struct HangingSource(MountedPath);

    impl Source for HangingSource {
        fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
            thread::sleep(Duration::from_secs(600));
            self.0.stat(ranges)
        }

        fn surroundings(&mut self) -> Result<Surroundings, Error> {
            Ok(Surroundings::default())
        }

        fn blob_root(&mut self, given: Option<&str>) -> Result<BlobRoot, Error> {
            self.0.blob_root(given)
        }

        fn blobs(
            &mut self,
            root: &BlobRoot,
            wants: &[BlobWant],
            sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
        ) -> Result<(), Error> {
            thread::sleep(Duration::from_secs(600));
            self.0.blobs(root, wants, sink)
        }

        fn blob_digests(
            &mut self,
            root: &BlobRoot,
            keys: &[BlobKey],
            alive: &(dyn Fn() + Sync),
        ) -> Result<Vec<BlobDigestAnswer>, Error> {
            self.0.blob_digests(root, keys, alive)
        }

        fn read(&mut self, _: &mut [u8], _: u64) -> Result<usize, Error> {
            Ok(0)
        }

        fn digest(&mut self, _: Range<u64>) -> Result<Option<Digest>, Error> {
            Ok(None)
        }

        fn confirm(&mut self, _: Range<u64>) -> Result<Option<Digest>, Error> {
            Ok(None)
        }

        fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error> {
            self.0.transactions(from, size)
        }

        fn wait(&mut self, _: Duration) -> Result<bool, Error> {
            Ok(false)
        }

        fn close(&mut self) {}
    }

    /// A master whose first `hanging` sources hang, and the number of sources opened.
    fn master(hanging: usize) -> (Master, Arc<AtomicUsize>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Data.fs");
        std::fs::write(&path, "FS30").unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let open = move || -> Box<dyn Source> {
            let source = MountedPath::new(path.clone());
            if count.fetch_add(1, Ordering::Relaxed) < hanging {
                Box::new(HangingSource(source))
            } else {
                Box::new(source)
            }
        };
        let deadline = Deadline::new(Duration::from_secs(1), Heartbeat::default(), || false);
        let master = Master::new("m".to_owned(), deadline, Box::new(open));
        (master, opened, directory)
    }

    fn is_late(master: &Master) -> bool {
        matches!(master.stat(Vec::new()), Err(Error::TimedOut { .. }))
    }

    #[test]
    fn a_hanging_thread_is_abandoned() {
        let (master, _, _directory) = master(2);
        assert!(is_late(&master));
        assert!(is_late(&master));
        assert_eq!(master.stat(Vec::new()).unwrap().size, 4);
    }

    #[test]
    fn the_number_of_hanging_threads_is_limited() {
        let (master, opened, _directory) = master(usize::MAX);
        for _ in 0..MAX_HANGING + 2 {
            assert!(is_late(&master));
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1 + MAX_HANGING);
    }

    #[test]
    fn an_interruption_ends_the_wait() {
        let (mut master, _, _directory) = master(1);
        master.deadline = Deadline::new(Duration::from_secs(60), Heartbeat::default(), || true);
        let asked = Instant::now();
        assert!(matches!(master.stat(Vec::new()), Err(Error::Interrupted)));
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}
