//! The master as a pass sees it: a source behind a thread, with a bound on the
//! time that its answers may take.
//!
//! A read from a dead hard NFS mount returns never. It hangs in a thread that
//! is then left behind; the pass gets [`Error::TimedOut`], tidies up and ends.
//! Questions are answered in their order, so asking for the next bytes before
//! the last ones are dealt with keeps both ends busy.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::pending::{Deadline, Pending, lock};
use super::{Error, MasterStat, Source, Surroundings, Transactions};
use crate::filestorage::DATA_FS;
use crate::filestorage::backward::ReadAt;
use crate::io::digest::Digest;
use crate::io::read::AlignedBuf;

type Request = Box<dyn FnOnce(&mut dyn Source) + Send>;

/// A source, and how long its answers may take.
pub struct Master {
    name: String,
    deadline: Deadline,
    open: Box<dyn Fn() -> Box<dyn Source> + Send>,
    /// Its thread, once a request was asked.
    worker: Mutex<Option<Worker>>,
}

/// The most threads that are left behind, hanging.
const MAX_HANGING: usize = 4;

/// The thread that a source lives in.
struct Worker {
    requests: mpsc::Sender<Request>,
    backlog: Arc<Mutex<Backlog>>,
    /// Held by it and by those that were left behind.
    threads: Arc<()>,
}

/// What a thread has to do.
struct Backlog {
    /// How many requests were put and are not answered.
    unanswered: usize,
    /// Since when the first of them could be worked on: no later than its answer is
    /// waited for, so that it hangs once that was waited for in vain.
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
        let work = move || {
            for request in inbox {
                request(source.as_mut());
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
        // A thread that is gone closes the channel of the answer as well.
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
    /// Puts the source that `open` makes behind a thread of its own, which starts with
    /// the first request. `name` is what messages call the master.
    ///
    /// Where an answer did not come in time, and its thread still hangs when the
    /// next request is asked, that goes to a new thread with a new source: a
    /// mount that is made anew is found, though the old one hangs for ever.
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
        }
    }

    /// What messages call the master.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Source::stat`]. Fails with [`Error::Mounted`] if the name cannot come to
    /// lead to another file.
    pub fn stat(&self, ranges: Vec<Range<u64>>) -> Result<MasterStat, Error> {
        let stat = self.ask(move |source| source.stat(&ranges)).wait()?;
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

    /// Asks for `len` bytes from `offset` on; the answer has fewer at the end
    /// of the file.
    #[must_use]
    pub fn read(&self, len: usize, offset: u64) -> Pending<AlignedBuf> {
        self.read_into(AlignedBuf::default(), len, offset)
    }

    /// The same, into a piece that is no longer needed.
    #[must_use]
    pub fn read_into(&self, mut piece: AlignedBuf, len: usize, offset: u64) -> Pending<AlignedBuf> {
        self.ask(move |source| {
            let got = source.read(piece.room(len, offset), offset)?;
            piece.truncate(got);
            Ok(piece)
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

    /// Has `then` called once the master may have changed, or after some time
    /// (see [`Source::wait`]), with what came of it.
    pub fn when_changed(
        &self,
        timeout: Duration,
        then: impl FnOnce(Result<bool, Error>) + Send + 'static,
    ) {
        // One that is not put rings no bell: the tick looks as well.
        let _ = self.send(Box::new(move |source| then(source.wait(timeout))));
    }

    /// Has the source let go of what it holds, until it is needed again.
    pub fn close(&self) {
        if let Some(worker) = &*lock(&self.worker)
            && !self.hangs(worker)
        {
            worker.send(Box::new(|source| source.close()));
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut dyn Source) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        let (sender, receiver) = mpsc::channel();
        let unasked = sender.clone();
        let sent = self.send(Box::new(move |source| {
            // Nobody waits any more where an earlier answer ended the pass.
            let _ = sender.send(request(source));
        }));
        if let Err(source) = sent {
            let what = format!("a thread that reads {}", self.name);
            let _ = unasked.send(Err(Error::Start { what, source }));
        }
        Pending::new(&self.name, &self.deadline, receiver)
    }

    /// Puts a request to the thread, or to another one if that hangs.
    fn send(&self, request: Request) -> io::Result<()> {
        let mut worker = lock(&self.worker);
        let threads = match &*worker {
            None => Some(Arc::default()),
            Some(worker) => {
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

    /// Whether the thread works on a request for longer than an answer may take.
    fn hangs(&self, worker: &Worker) -> bool {
        let backlog = lock(&worker.backlog);
        backlog.unanswered > 0 && self.deadline.left(backlog.since).is_zero()
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
    use crate::source::path::MountedPath;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A source that hangs, for long enough.
    struct HangingSource(MountedPath);

    impl Source for HangingSource {
        fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
            thread::sleep(Duration::from_secs(600));
            self.0.stat(ranges)
        }

        fn list(
            &mut self,
            _: &str,
            _: Option<&str>,
        ) -> Result<Vec<crate::source::DirectoryEntry>, Error> {
            Ok(Vec::new())
        }

        fn surroundings(&mut self) -> Result<Surroundings, Error> {
            Ok(Surroundings::default())
        }

        fn open_beside(&mut self, _: &str) -> Result<u64, Error> {
            Ok(0)
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

    /// A master whose first sources hang, and how many were opened.
    fn master(hung: usize) -> (Master, Arc<AtomicUsize>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Data.fs");
        std::fs::write(&path, "FS30").unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let open = move || -> Box<dyn Source> {
            let source = MountedPath::new(path.clone());
            if count.fetch_add(1, Ordering::Relaxed) < hung {
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
    fn one_that_hangs_is_left_behind() {
        let (master, _, _directory) = master(2);
        assert!(is_late(&master));
        assert!(is_late(&master));
        assert_eq!(master.stat(Vec::new()).unwrap().size, 4);
    }

    #[test]
    fn not_too_many_are_left_behind() {
        let (master, opened, _directory) = master(usize::MAX);
        for _ in 0..MAX_HANGING + 2 {
            assert!(is_late(&master));
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1 + MAX_HANGING);
    }

    #[test]
    fn waiting_ends_once_no_answer_is_wanted() {
        let (mut master, _, _directory) = master(1);
        master.deadline = Deadline::new(Duration::from_secs(60), Heartbeat::default(), || true);
        let asked = Instant::now();
        assert!(matches!(master.stat(Vec::new()), Err(Error::Interrupted)));
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}
