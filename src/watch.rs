//! Staying and following: pass after pass, each when there is cause.
//!
//! A watch decides nothing about the files. What it does to them is an ordinary
//! [`pass`], whose survey costs two digests of some kilobytes at each end; so
//! what a pass sees (a pack, a shrunk or vanished file, a changed slave, a
//! flipped switch) is seen here too, before the next write. The pass lock is
//! held in a pass only: others may be made by hand beside a watch.
//!
//! | how the last pass ended | the next one is made |
//! | --- | --- |
//! | in sync | when the master may have changed, and at every tick |
//! | off | when all switches say on |
//! | the slave diverged, or either end is damaged | when one of the two changes |
//! | another way | after a wait that grows with every try |
//!
//! and always at once on SIGHUP. That something changed is told by the
//! [`Source`](crate::source::Source), where it lies on a file system that tells;
//! events are hints, and the tick does not depend on them.

mod backoff;
mod bell;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use self::bell::{Bell, Ring, Rope};

use self::backoff::Backoff;
use crate::changes::Changes;
use crate::monitor::Monitor;
use crate::outcome::{Exit, Outcome};
use crate::slave::step::Seen;
use crate::source::{FileSystem, Identity, LONGEST_WAIT};
use crate::stop::Stop;
use crate::sync::{Job, pass};

/// Whom a watch tells how it stands.
pub trait Audience {
    /// A pass has ended: `is_news` if it ended in another way than the one
    /// before.
    fn passed(&self, outcome: &Outcome, elapsed: Duration, is_news: bool);

    /// What shows the progress of the next pass.
    fn monitor(&self) -> Box<dyn Monitor + '_>;

    /// The watch is alive, and rests; told every second.
    fn alive(&self);
}

/// How often a resting watch says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Follows the master until a signal comes: returns what the exit code is to
/// tell. `interval` is the time from one tick to the next.
pub fn watch(job: &Job, interval: Duration, bell: &Bell, audience: &dyn Audience) -> Exit {
    let mut watch = Watch {
        job,
        interval,
        bell,
        audience,
        backoff: Backoff::default(),
        is_asked: false,
        file_system: None,
        stood_at: None,
    };
    let _changes = watch.listen_to_switches();
    let mut last = None;
    loop {
        let started = Instant::now();
        let outcome = pass(job, audience.monitor().as_ref());
        if job.slave.interrupted.load(Ordering::Relaxed) {
            break;
        }
        // A pass made by hand beside the watch is over soon.
        if outcome.exit != Exit::Busy || watch.backoff.is_waiting() {
            audience.passed(&outcome, started.elapsed(), last != Some(outcome.exit));
            last = Some(outcome.exit);
        }
        if outcome.exit == Exit::Usage {
            return outcome.exit;
        }
        watch.rest(Mood::after(outcome.exit));
        if job.slave.interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    match last {
        Some(exit) if Mood::after(exit) == Mood::Standing => exit,
        _ => Exit::Success,
    }
}

/// What the way in which a pass ended makes of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// In sync: follow.
    Following,
    /// Syncing is off.
    Off,
    /// A person must decide or mend.
    Standing,
    /// Something is missing that may come back.
    Retrying,
}

impl Mood {
    fn after(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::Following,
            Exit::Off => Self::Off,
            Exit::Diverged | Exit::MasterDamaged | Exit::SlaveDamaged => Self::Standing,
            Exit::Failure | Exit::Usage | Exit::Busy | Exit::Unreachable | Exit::InUse => {
                Self::Retrying
            }
        }
    }
}

/// Both ends at a moment, as far as that costs next to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glance {
    slave: Option<Seen>,
    master: Identity,
    master_size: u64,
}

impl Glance {
    /// Whether it shows other files, or another slave: not just a master that
    /// goes on.
    fn is_of_others(&self, other: &Self) -> bool {
        (self.slave, &self.master) != (other.slave, &other.master)
    }
}

struct Watch<'a> {
    job: &'a Job,
    interval: Duration,
    bell: &'a Bell,
    audience: &'a dyn Audience,
    backoff: Backoff,
    /// Whether the master is asked to ring the bell.
    is_asked: bool,
    /// What the master lies on, once it is known and while it is followed.
    file_system: Option<FileSystem>,
    /// What was seen before the last pass, where the one before stood still too.
    stood_at: Option<Glance>,
}

impl Watch<'_> {
    /// Rests until there is cause for another pass.
    fn rest(&mut self, mood: Mood) {
        if mood != Mood::Standing {
            self.stood_at = None;
        }
        if mood != Mood::Following {
            self.is_asked = false;
            self.file_system = None;
        }
        match mood {
            Mood::Following => self.follow(),
            Mood::Off => self.wait_for_on(),
            Mood::Standing => self.stand(),
            Mood::Retrying => self.wait_to_retry(),
        }
    }

    fn follow(&mut self) {
        self.backoff.reset();
        let due = Instant::now() + self.interval;
        let Some(file_system) = self.recognise() else {
            return;
        };
        while Instant::now() < due {
            if !file_system.is_network() {
                self.ask();
            }
            match self.wait(due) {
                None | Some(Ring::Master(false)) => {}
                Some(Ring::Switch) if !self.is_off() => {}
                Some(_) => return,
            }
        }
    }

    fn wait_for_on(&mut self) {
        self.backoff.reset();
        loop {
            let ring = self.wait(Instant::now() + self.interval);
            if ring == Some(Ring::Signal) || !self.is_off() {
                return;
            }
        }
    }

    fn stand(&mut self) {
        let due = Instant::now() + self.backoff.next(chance());
        loop {
            let ring = self.wait(Instant::now() + self.interval);
            if ring == Some(Ring::Signal) || self.is_off() {
                return;
            }
            let Ok(now) = self.glance() else {
                continue;
            };
            let is_due = Instant::now() >= due;
            let is_cause = match &self.stood_at {
                None => is_due,
                Some(before) => now.is_of_others(before) || is_due && now != *before,
            };
            if is_cause {
                self.stood_at = Some(now);
                return;
            }
        }
    }

    fn wait_to_retry(&mut self) {
        let due = Instant::now() + self.backoff.next(chance());
        while Instant::now() < due {
            if self.wait(due) == Some(Ring::Signal) || self.is_off() {
                return;
            }
        }
    }

    /// Waits for the bell, until `due` at the latest.
    fn wait(&mut self, due: Instant) -> Option<Ring> {
        loop {
            self.audience.alive();
            let left = due.saturating_duration_since(Instant::now());
            let ring = self.bell.wait(left.min(ALIVE_EVERY));
            if let Some(Ring::Master(_)) = ring {
                self.is_asked = false;
            }
            if ring.is_some() || left <= ALIVE_EVERY {
                return ring;
            }
        }
    }

    /// Has the master ring the bell when it may have changed, or after a while.
    fn ask(&mut self) {
        if self.is_asked {
            return;
        }
        self.is_asked = true;
        let rope = self.bell.rope();
        let patience = self.interval.min(LONGEST_WAIT);
        self.job.master.when_changed(patience, move |changed| {
            // What is wrong with it is for the next pass to say.
            rope.ring(Ring::Master(changed.unwrap_or(true)));
        });
    }

    fn is_off(&self) -> bool {
        self.job.slave.switches.check().is_err()
    }

    fn glance(&self) -> Result<Glance, Stop> {
        let sight = self.job.master.look(Vec::new())?;
        Ok(Glance {
            slave: self.job.slave.seen()?,
            master: sight.identity,
            master_size: sight.size,
        })
    }

    /// What the master lies on, which says how its changes are noticed.
    fn recognise(&mut self) -> Option<FileSystem> {
        if self.file_system.is_none() {
            let found = self.job.master.look(Vec::new()).ok()?.file_system;
            let master = self.job.master.name();
            let how = if found.is_network() {
                "which does not tell of changes: it is looked at"
            } else {
                "which tells of changes; it is looked at as well"
            };
            let secs = self.interval.as_secs_f64();
            tracing::info!("{master} lies on {found}, {how} every {secs} s");
            self.file_system = Some(found);
        }
        self.file_system
    }

    /// Has the bell rung where a switch may have been flipped.
    fn listen_to_switches(&self) -> Option<Changes> {
        let rope = self.bell.rope();
        let mut changes = Changes::new(move || rope.ring(Ring::Switch))
            .inspect_err(|error| {
                tracing::warn!("switches are looked at when something else is: {error}");
            })
            .ok()?;
        for file in self.job.slave.switches.files() {
            if let Err(error) = changes.add(file) {
                let file = file.display();
                tracing::debug!("nothing tells of changes of {file}: {error}");
            }
        }
        Some(changes)
    }
}

/// A number from 0 to 1, another one each time.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
