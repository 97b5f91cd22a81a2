//! Has processes play by a schedule, one call at a time.

use super::call::{Call, Lock, Locking};
use super::process::{Exit, Process, Progress};
use super::schedule::{Schedule, letter};

/// Who makes so many calls has no end.
const MAX_CALLS: usize = 5000;

/// What happened, in its order.
#[derive(Clone, Debug)]
pub enum Event {
    /// An process made a call.
    Call(usize, Call),
    /// An process came to its end.
    End(usize),
}

/// What came of a play.
#[derive(Debug)]
pub struct Trace<S> {
    pub events: Vec<Event>,
    /// How each process ended, and what was seen right then.
    pub exits: Vec<(Exit, S)>,
    /// How often each of them was let go.
    pub lens: Vec<usize>,
}

/// An process, and which other must have ended before it begins.
pub type Start = (Process, Option<usize>);

/// The processes at play. `S` is what is seen when one has ended.
pub struct Scheduler<S, L> {
    processes: Vec<Start>,
    look: L,
    /// Who has the step lock.
    holder: Option<usize>,
    exits: Vec<Option<(Exit, S)>>,
    lens: Vec<usize>,
    pub events: Vec<Event>,
}

impl<S, L: FnMut() -> S> Scheduler<S, L> {
    pub fn new(processes: Vec<Start>, look: L) -> Self {
        Self {
            exits: processes.iter().map(|_| None).collect(),
            lens: vec![0; processes.len()],
            processes,
            look,
            holder: None,
            events: Vec::new(),
        }
    }

    /// Lets the processes play to their ends.
    pub fn run(&mut self, schedule: &Schedule) {
        for turn in schedule.turns() {
            for _ in 0..turn.calls {
                if self.may_run(turn.who) {
                    self.resume(turn.who);
                }
            }
        }
        let next = |it: &Self| {
            let mut rest = schedule.rest(it.processes.len());
            rest.find(|&who| it.may_run(who))
        };
        while let Some(who) = next(self) {
            self.resume(who);
        }
    }

    /// What came of it.
    pub fn trace(self) -> Trace<S> {
        let exit = |it: Option<(Exit, S)>| it.expect("all have ended");
        Trace {
            events: self.events,
            exits: self.exits.into_iter().map(exit).collect(),
            lens: self.lens,
        }
    }

    fn may_run(&self, who: usize) -> bool {
        let has_ended = |who: usize| self.exits[who].is_some();
        !has_ended(who) && self.processes[who].1.is_none_or(has_ended)
    }

    /// An process makes a call. One that waits in vain for the step lock has it once its
    /// holder has let it go, which goes on until then.
    fn resume(&mut self, who: usize) {
        if self.call(who)
            && let Some(holder) = self.holder
        {
            while self.holder == Some(holder) {
                self.call(holder);
            }
        }
    }

    /// The same; returns whether it has tried to take the step lock in vain.
    fn call(&mut self, who: usize) -> bool {
        self.lens[who] += 1;
        assert!(self.lens[who] < MAX_CALLS, "{} has no end", letter(who));
        let (calls, exit) = match self.processes[who].0.resume() {
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
            self.exits[who] = Some((exit, (self.look)()));
            self.events.push(Event::End(who));
        }
        is_blocked
    }
}

/// One line for each event.
pub fn listing(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Call(who, call) => format!("{} {call}\n", letter(*who)),
        Event::End(who) => format!("{} has ended\n", letter(*who)),
    };
    events.iter().map(line).collect()
}
