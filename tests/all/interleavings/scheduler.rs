//! Has actors play by a schedule, one call at a time.

use super::call::{Call, Lock, Locking};
use super::process::{Actor, Ending, Went};
use super::schedule::{Schedule, letter};

/// Who makes so many calls has no end.
const ENDLESS: usize = 5000;

/// What happened, in its order.
#[derive(Clone, Debug)]
pub enum Event {
    /// An actor made a call.
    Call(usize, Call),
    /// An actor came to its end.
    End(usize),
}

/// What came of a play.
#[derive(Debug)]
pub struct Record<S> {
    pub events: Vec<Event>,
    /// How each actor ended, and what was seen right then.
    pub endings: Vec<(Ending, S)>,
    /// How often each of them was let go.
    pub lens: Vec<usize>,
}

/// An actor, and which other must have ended before it begins.
pub type Entrance = (Actor, Option<usize>);

/// The actors at play. `S` is what is seen when one has ended.
pub struct Director<S, L> {
    actors: Vec<Entrance>,
    look: L,
    /// Who has the step lock.
    holder: Option<usize>,
    endings: Vec<Option<(Ending, S)>>,
    lens: Vec<usize>,
    pub events: Vec<Event>,
}

impl<S, L: FnMut() -> S> Director<S, L> {
    pub fn new(actors: Vec<Entrance>, look: L) -> Self {
        Self {
            endings: actors.iter().map(|_| None).collect(),
            lens: vec![0; actors.len()],
            actors,
            look,
            holder: None,
            events: Vec::new(),
        }
    }

    /// Lets the actors play to their ends.
    pub fn perform(&mut self, schedule: &Schedule) {
        for turn in schedule.turns() {
            for _ in 0..turn.calls {
                if self.may_go_on(turn.who) {
                    self.go_on(turn.who);
                }
            }
        }
        let next = |it: &Self| {
            let mut rest = schedule.rest(it.actors.len());
            rest.find(|&who| it.may_go_on(who))
        };
        while let Some(who) = next(self) {
            self.go_on(who);
        }
    }

    /// What came of it.
    pub fn record(self) -> Record<S> {
        let ending = |it: Option<(Ending, S)>| it.expect("all have ended");
        Record {
            events: self.events,
            endings: self.endings.into_iter().map(ending).collect(),
            lens: self.lens,
        }
    }

    fn may_go_on(&self, who: usize) -> bool {
        let has_ended = |who: usize| self.endings[who].is_some();
        !has_ended(who) && self.actors[who].1.is_none_or(has_ended)
    }

    /// An actor makes a call. One that waits in vain for the step lock has it once its
    /// holder has let it go, which goes on until then.
    fn go_on(&mut self, who: usize) {
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
        assert!(self.lens[who] < ENDLESS, "{} has no end", letter(who));
        let (calls, ending) = match self.actors[who].0.go_on() {
            Went::On(calls) => (calls, None),
            Went::ToItsEnd(calls, ending) => (calls, Some(ending)),
        };
        let mut is_in_vain = false;
        for call in calls {
            match call.locking() {
                Some((Lock::Step, Locking::Taken)) => self.holder = Some(who),
                Some((Lock::Step, Locking::LetGo)) => self.holder = None,
                Some((Lock::Step, Locking::InVain)) => is_in_vain = true,
                _ => {}
            }
            self.events.push(Event::Call(who, call));
        }
        if let Some(ending) = ending {
            if self.holder == Some(who) {
                self.holder = None;
            }
            self.endings[who] = Some((ending, (self.look)()));
            self.events.push(Event::End(who));
        }
        is_in_vain
    }
}

/// One line for each event.
pub fn told(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Call(who, call) => format!("{} {call}\n", letter(*who)),
        Event::End(who) => format!("{} has ended\n", letter(*who)),
    };
    events.iter().map(line).collect()
}
