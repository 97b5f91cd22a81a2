//! The stream of events about wanted blobs, from the thread of a source to a pass.
//!
//! A queue of limited size connects the two. The deadline counts the time that the master is
//! silent while the pass waits for an event. While the queue is full, the source waits for the
//! pass, which may be syncing a file; it then records heartbeats, so that it does not count as
//! hanging. Once the pass drops the stream, the next event ends the request.

use std::collections::VecDeque;
use std::mem;
use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::source::Error;
use crate::source::blobs::{BlobEvent, BlobEventKind, MAX_PIECE_LEN};
use crate::source::pending::{Deadline, INTERRUPT_CHECK, lock};

/// The number of bytes in the queue from which on the source waits. The receiver takes the
/// whole queue at once, so twice as many bytes may be on their way.
const MAX_QUEUED_LEN: usize = 4 * MAX_PIECE_LEN;

/// The number of events in the queue from which on the source waits.
const MAX_QUEUED: usize = 512;

/// Receives the events of the blobs that one request wants.
#[derive(Debug)]
pub struct BlobStream {
    name: String,
    deadline: Deadline,
    queue: Arc<Queue>,
    /// The events that were taken out of the queue and not returned yet.
    taken: VecDeque<BlobEvent>,
}

/// The end of the queue that the thread of the source has.
#[derive(Debug)]
pub(super) struct BlobSender {
    deadline: Deadline,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified when there is something to receive.
    filled: Condvar,
    /// Notified when there is room for other events, or the receiver is gone.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<BlobEvent>,
    /// Number of bytes of data in these events.
    len: usize,
    /// The result of the request, once it has ended, until the receiver takes it.
    result: Option<Result<(), Error>>,
    /// Whether the sender is gone. Without a result, its thread has panicked.
    is_ended: bool,
    /// Whether the receiver is gone.
    is_dropped: bool,
}

/// Creates a stream and its other end. `name` is the name of the master in messages.
pub(super) fn blob_stream(name: &str, deadline: &Deadline) -> (BlobSender, BlobStream) {
    let queue = Arc::<Queue>::default();
    let sender = BlobSender {
        deadline: deadline.clone(),
        queue: Arc::clone(&queue),
    };
    let stream = BlobStream {
        name: name.to_owned(),
        deadline: deadline.clone(),
        queue,
        taken: VecDeque::new(),
    };
    (sender, stream)
}

impl BlobSender {
    /// Queues an event, and waits as long as the queue is full. Breaks once the stream was
    /// dropped.
    pub(super) fn send(&self, event: BlobEvent) -> ControlFlow<()> {
        let mut state = lock(&self.queue.state);
        loop {
            if state.is_dropped {
                return ControlFlow::Break(());
            }
            self.deadline.beat();
            if event.kind == BlobEventKind::Digesting {
                return ControlFlow::Continue(());
            }
            if state.len < MAX_QUEUED_LEN && state.events.len() < MAX_QUEUED {
                break;
            }
            let waited = self.queue.taken.wait_timeout(state, INTERRUPT_CHECK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let BlobEventKind::Data(bytes) = &event.kind {
            state.len += bytes.len();
        }
        // The receiver waits only for an empty queue.
        if state.events.is_empty() {
            self.queue.filled.notify_one();
        }
        state.events.push_back(event);
        ControlFlow::Continue(())
    }

    /// Ends the stream with the result of the request.
    pub(super) fn finish(self, result: Result<(), Error>) {
        lock(&self.queue.state).result = Some(result);
    }
}

impl Drop for BlobSender {
    fn drop(&mut self) {
        lock(&self.queue.state).is_ended = true;
        self.queue.filled.notify_one();
    }
}

impl BlobStream {
    /// Waits for the next event; `None` at the end, when all wanted blobs had their final
    /// event. Nothing follows an error or the end.
    #[expect(clippy::should_implement_trait, reason = "an error ends the stream")]
    pub fn next(&mut self) -> Result<Option<BlobEvent>, Error> {
        let (queue, taken) = (&self.queue, &mut self.taken);
        self.deadline.wait_for(&self.name, |timeout| {
            if let Some(event) = taken.pop_front() {
                return Ok(Ok(Some(event)));
            }
            let received = queue.receive(timeout)?;
            Ok(received.map(|events| {
                *taken = events;
                taken.pop_front()
            }))
        })
    }

    /// Ends the stream with an error, because nobody can send events.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.queue.state).result = Some(Err(error));
    }
}

impl Drop for BlobStream {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.is_dropped = true;
        state.events.clear();
        self.queue.taken.notify_all();
    }
}

impl Queue {
    /// Takes all events; waits for the first one for at most `timeout`. Returns none at the
    /// end of the request.
    fn receive(
        &self,
        timeout: Duration,
    ) -> Result<Result<VecDeque<BlobEvent>, Error>, RecvTimeoutError> {
        let until = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if !state.events.is_empty() {
                state.len = 0;
                self.taken.notify_all();
                return Ok(Ok(mem::take(&mut state.events)));
            }
            if state.is_ended {
                return match &mut state.result {
                    None => Err(RecvTimeoutError::Disconnected),
                    // From now on, the stream is at its end.
                    Some(result) => Ok(mem::replace(result, Ok(())).map(|()| VecDeque::new())),
                };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            let waited = self.filled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
