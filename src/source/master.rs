//! The master as a pass sees it: a source behind a thread, with a bound on the
//! time that its answers may take.
//!
//! A read from a dead hard NFS mount returns never. It hangs in a thread that
//! is then left behind; the pass gets [`Error::TimedOut`], tidies up and ends.
//! Questions are answered in their order, so asking for the next bytes before
//! the last ones are dealt with keeps both ends busy.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Sight, Source};
use crate::digest::Digest;
use crate::filestorage::backward::ReadAt;
use crate::read::Piece;

type Question = Box<dyn FnOnce(&mut dyn Source) + Send>;

/// When something last came from the master: an answer that takes its time is
/// waited for as long as there are signs of life.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// Something came.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source, and how long its answers may take.
#[derive(Debug)]
pub struct Master {
    name: String,
    timeout: Duration,
    interrupted: Arc<AtomicBool>,
    pulse: Pulse,
    questions: mpsc::Sender<Question>,
}

/// An answer that is under way.
#[derive(Debug)]
pub struct Answer<T> {
    name: String,
    timeout: Duration,
    interrupted: Arc<AtomicBool>,
    pulse: Pulse,
    receiver: mpsc::Receiver<Result<T, Error>>,
}

/// How long a signal may go unnoticed while an answer is waited for.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

impl<T> Answer<T> {
    /// Waits for it.
    pub fn wait(self) -> Result<T, Error> {
        let asked = Instant::now();
        loop {
            let quiet = self.pulse.last().max(asked).elapsed();
            let patience = self.timeout.saturating_sub(quiet);
            match self.receiver.recv_timeout(patience.min(SIGNAL_CHECK)) {
                _ if self.interrupted.load(Ordering::Relaxed) => {
                    return Err(Error::Interrupted);
                }
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !patience.is_zero() => {}
                Err(_) => {
                    return Err(Error::TimedOut {
                        name: self.name,
                        timeout: self.timeout,
                    });
                }
            }
        }
    }
}

impl Master {
    /// Puts `source` behind a thread of its own. `name` is what messages call
    /// the master; `interrupted` is set by a signal, and ends all waiting; the source
    /// beats `pulse`.
    #[must_use]
    pub fn new(
        name: String,
        timeout: Duration,
        interrupted: Arc<AtomicBool>,
        pulse: Pulse,
        mut source: Box<dyn Source>,
    ) -> Self {
        let (questions, inbox) = mpsc::channel::<Question>();
        thread::spawn(move || {
            for question in inbox {
                question(source.as_mut());
            }
        });
        Self {
            name,
            timeout,
            interrupted,
            pulse,
            questions,
        }
    }

    /// What messages call the master.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Source::look`].
    pub fn look(&self, ranges: Vec<Range<u64>>) -> Result<Sight, Error> {
        self.ask(move |source| source.look(&ranges)).wait()
    }

    /// Asks for `len` bytes from `offset` on; the answer has fewer at the end
    /// of the file.
    #[must_use]
    pub fn read(&self, len: usize, offset: u64) -> Answer<Piece> {
        self.read_into(Piece::default(), len, offset)
    }

    /// The same, into a piece that is no longer needed.
    #[must_use]
    pub fn read_into(&self, mut piece: Piece, len: usize, offset: u64) -> Answer<Piece> {
        self.ask(move |source| {
            let got = source.read(piece.room(len, offset), offset)?;
            piece.truncate(got);
            Ok(piece)
        })
    }

    /// See [`Source::digest`].
    #[must_use]
    pub fn digest(&self, range: Range<u64>) -> Answer<Option<Digest>> {
        self.ask(move |source| source.digest(range))
    }

    /// See [`Source::confirm`].
    #[must_use]
    pub fn confirm(&self, range: Range<u64>) -> Answer<Option<Digest>> {
        self.ask(move |source| source.confirm(range))
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut dyn Source) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        let (sender, receiver) = mpsc::channel();
        let question: Question = Box::new(move |source| {
            // Nobody waits any more where an earlier answer ended the pass.
            let _ = sender.send(question(source));
        });
        // A thread that is gone closes the channel of the answer as well.
        let _ = self.questions.send(question);
        Answer {
            name: self.name.clone(),
            timeout: self.timeout,
            interrupted: Arc::clone(&self.interrupted),
            pulse: self.pulse.clone(),
            receiver,
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
