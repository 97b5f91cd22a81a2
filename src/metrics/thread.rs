//! Writes a textfile in a thread, so that a directory that hangs delays no pass.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Textfile;
use crate::error::Error;

/// How often a watch writes the file if there are no passes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// The shortest time between two writes. A busy master causes many passes a second.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The thread rests this many times as long as the last write took: the slave of a failed-over
/// site grows without passes, and the rest of it is scanned each time.
const REST_RATIO: u32 = 20;

/// How long the end of a process waits for the last write.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thread that writes a textfile after passes, and once a minute. Clones share the thread.
#[derive(Clone, Debug)]
pub struct TextfileThread {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The textfile, if there is one.
    textfile: Option<Textfile>,
    /// Whether a pass has ended since the last write began.
    is_due: bool,
}

impl TextfileThread {
    /// Starts the thread, which runs as long as the process.
    pub fn start(textfile: Option<Textfile>) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        shared.lock().textfile = textfile;
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || of_thread.run())
            .map_err(|source| Error::Start {
                what: "a thread for metrics".to_owned(),
                source,
            })?;
        Ok(Self { shared })
    }

    /// A pass has ended: the file is due. Returns at once.
    pub fn passed(&self) {
        let mut state = self.shared.lock();
        if state.textfile.is_some() {
            state.is_due = true;
            self.shared.changed.notify_one();
        }
    }

    /// Another textfile is written from now on, or none.
    pub fn replace(&self, textfile: Option<Textfile>) {
        let mut state = self.shared.lock();
        state.textfile = textfile;
        state.is_due = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) -> ! {
        let mut has_failed = false;
        loop {
            let started = Instant::now();
            // The lock is not held while the file is written: the directory may hang.
            let textfile = self.lock().textfile.clone();
            if let Some(textfile) = textfile {
                has_failed = warn_once(&textfile, textfile.write(), has_failed);
            }
            thread::sleep((started.elapsed() * REST_RATIO).max(AT_MOST_EVERY));
            let state = self.lock();
            let is_idle = |state: &mut State| !state.is_due;
            let waited = self
                .changed
                .wait_timeout_while(state, AT_LEAST_EVERY, is_idle);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.is_due = false;
        }
    }
}

/// Warns of a failed write, unless the one before failed too. Returns whether this one failed.
fn warn_once(textfile: &Textfile, written: Result<(), Error>, has_failed: bool) -> bool {
    match written {
        Ok(()) if has_failed => {
            tracing::info!("{} is written again", textfile.path().display());
            false
        }
        Ok(()) => false,
        Err(error) if has_failed => {
            tracing::debug!("{}", error.display_chain());
            true
        }
        Err(error) => {
            tracing::warn!("no metrics: {}", error.display_chain());
            true
        }
    }
}

impl Textfile {
    /// Writes the file at the end of a process that makes no further pass. A failure is logged.
    /// Returns after some seconds even if the directory hangs.
    pub fn write_at_end(self) {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let of_thread = Arc::clone(&done);
        let path = self.path().to_owned();
        let run = move || {
            warn_once(&self, self.write(), false);
            *of_thread.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            of_thread.1.notify_one();
        };
        if let Err(error) = thread::Builder::new().spawn(run) {
            tracing::warn!("no metrics: cannot start a thread: {error}");
            return;
        }
        let is_done = done.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = done
            .1
            .wait_timeout_while(is_done, PATIENCE, |is_done| !*is_done);
        let (is_done, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !*is_done {
            tracing::warn!("no metrics: {} does not respond", path.display());
        }
    }
}
