//! Runs processes by a schedule, one call at a time.

use super::call::{Call, Lock, Locking};
use super::process::{Exit, Process, Progress};
use super::schedule::{Schedule, letter};

/// A process that makes more calls than this does not end.
const MAX_CALLS: usize = 5000;

/// An event of a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process made a call.
    Call(usize, Call),
    /// A process ended.
    End(usize),
}

/// The result of a run.
#[derive(Debug)]
pub struct Trace<S> {
    /// In the order in which they happened.
    pub events: Vec<Event>,
    pub ends: Vec<End<S>>,
    /// How often each process was resumed.
    pub lens: Vec<usize>,
}

/// The end of a process.
#[derive(Debug)]
pub struct End<S> {
    pub exit: Exit,
    /// The state at this moment.
    pub state: S,
}

/// A process that is to run.
pub struct Start {
    pub process: Process,
    /// The number of the process that must have ended before this one starts.
    pub after: Option<usize>,
}

/// The processes of a run. `observe` returns the state when one has ended.
pub struct Scheduler<S, O> {
    starts: Vec<Start>,
    observe: O,
    /// The process that holds the step lock.
    holder: Option<usize>,
    ends: Vec<Option<End<S>>>,
    lens: Vec<usize>,
    pub events: Vec<Event>,
}

impl<S, O: FnMut() -> S> Scheduler<S, O> {
    pub fn new(starts: Vec<Start>, observe: O) -> Self {
        Self {
            ends: starts.iter().map(|_| None).collect(),
            lens: vec![0; starts.len()],
            starts,
            observe,
            holder: None,
            events: Vec::new(),
        }
    }

    /// Runs all processes to their ends.
    pub fn run(&mut self, schedule: &Schedule) {
        for turn in schedule.turns() {
            for _ in 0..turn.calls {
                if self.may_run(turn.who) {
                    self.resume(turn.who);
                }
            }
        }
        let next = |it: &Self| {
            let mut rest = schedule.rest(it.starts.len());
            rest.find(|&who| it.may_run(who))
        };
        while let Some(who) = next(self) {
            self.resume(who);
        }
    }

    pub fn trace(self) -> Trace<S> {
        let end = |it: Option<End<S>>| it.expect("all have ended");
        Trace {
            events: self.events,
            ends: self.ends.into_iter().map(end).collect(),
            lens: self.lens,
        }
    }

    fn may_run(&self, who: usize) -> bool {
        let has_ended = |who: usize| self.ends[who].is_some();
        !has_ended(who) && self.starts[who].after.is_none_or(has_ended)
    }

    /// Lets a process make a call. If it fails to take the step lock, the holder runs until it
    /// has released the lock: otherwise the process would only try again and again.
    fn resume(&mut self, who: usize) {
        if self.call(who)
            && let Some(holder) = self.holder
        {
            while self.holder == Some(holder) {
                self.call(holder);
            }
        }
    }

    /// Lets a process make a call. Returns whether it has failed to take the step lock.
    fn call(&mut self, who: usize) -> bool {
        self.lens[who] += 1;
        assert!(self.lens[who] < MAX_CALLS, "{} has no end", letter(who));
        let (calls, exit) = match self.starts[who].process.resume() {
            Progress::Stopped(calls) => (calls, None),
            Progress::Ended(calls, exit) => (calls, Some(exit)),
        };
        let mut is_blocked = false;
        for call in calls {
            match call.locking() {
                Some((Lock::Step, Locking::Acquired)) => self.holder = Some(who),
                Some((Lock::Step, Locking::Released)) => self.holder = None,
                Some((Lock::Step, Locking::Busy)) => is_blocked = true,
                _ => {}
            }
            self.events.push(Event::Call(who, call));
        }
        if let Some(exit) = exit {
            if self.holder == Some(who) {
                self.holder = None;
            }
            let state = (self.observe)();
            self.ends[who] = Some(End { exit, state });
            self.events.push(Event::End(who));
        }
        is_blocked
    }
}

/// One line for each event.
pub fn list(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Call(who, call) => format!("{} {call}\n", letter(*who)),
        Event::End(who) => format!("{} has ended\n", letter(*who)),
    };
    events.iter().map(line).collect()
}
