//! Between two passes: what is waited for, and how long.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::{Audience, Bell, Mood, Ring, Rope};
use crate::changes::Changes;
use crate::slave::step::Seen;
use crate::source::{FileSystem, Identity, LONGEST_WAIT};
use crate::stop::Stop;
use crate::sync::Job;

/// How often a resting watch says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

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

/// What a watch does between two passes.
pub(super) struct Rest<'a> {
    job: &'a Job,
    interval: Duration,
    bell: &'a Bell,
    audience: &'a dyn Audience,
    _switches: Option<Changes>,
    backoff: Backoff,
    /// Whether the master is asked to ring the bell.
    is_asked: bool,
    /// What the master lies on, once it is known and while it is followed.
    file_system: Option<FileSystem>,
    /// What was seen before the last pass, where the one before stood still too.
    stood_at: Option<Glance>,
}

impl<'a> Rest<'a> {
    pub(super) fn new(
        job: &'a Job,
        interval: Duration,
        bell: &'a Bell,
        audience: &'a dyn Audience,
    ) -> Self {
        let rope = bell.rope();
        Self {
            _switches: listen_to_switches(job, rope),
            job,
            interval,
            bell,
            audience,
            backoff: Backoff::default(),
            is_asked: false,
            file_system: None,
            stood_at: None,
        }
    }

    /// Whether the last pass was a try that followed another.
    pub(super) fn has_retried(&self) -> bool {
        self.backoff.is_waiting()
    }

    /// Rests until there is cause for another pass.
    pub(super) fn after(&mut self, mood: Mood) {
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
}

/// Has the bell rung where a switch may have been flipped.
fn listen_to_switches(job: &Job, rope: Rope) -> Option<Changes> {
    let mut changes = Changes::new(move || rope.ring(Ring::Switch))
        .inspect_err(|error| {
            tracing::warn!("switches are looked at when something else is: {error}");
        })
        .ok()?;
    for file in job.slave.switches.files() {
        if let Err(error) = changes.add(file) {
            let file = file.display();
            tracing::debug!("nothing tells of changes of {file}: {error}");
        }
    }
    Some(changes)
}

/// A number from 0 to 1, another one each time.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
