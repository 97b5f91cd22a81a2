//! Checks the result of a race.

mod session;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fssync::filestorage::MAGIC_LEN;
use fssync::io::flock::holder;
use serde_json::json;

use super::Race;
use super::call::{Lock, Locking};
use super::scheduler::{Event, Trace};
use super::steps;
use crate::crash::actor::{Actor, Session};
use crate::crash::oracle::Case;
use crate::crash::scenario::Kept;
use crate::support::{Scene, Zodb, blobs_beside, fssync, run};

/// The state of a slave when a process has ended.
#[derive(Debug)]
pub struct ObservedSlave {
    bytes: Option<Vec<u8>>,
    /// The files and directories in the blob directory, apart from those of fssync's own.
    blobs: BTreeSet<PathBuf>,
    /// The process that holds ZODB's lock.
    zodb_lock: Option<u32>,
    is_off: bool,
}

impl ObservedSlave {
    pub fn now(scene: &Scene) -> Self {
        let switch = fs::read(scene.beside(".fssync-switch"));
        Self {
            bytes: fs::read(&scene.slave).ok(),
            blobs: zodbs_names(&blobs_beside(&scene.slave)),
            zodb_lock: holder(&scene.beside(".lock")),
            is_off: switch.is_ok_and(|content| content != b"SYNCING=1\n"),
        }
    }
}

/// The paths below a blob directory, apart from those of fssync's own.
fn zodbs_names(blobs: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![blobs.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.map(|it| it.expect("an entry")) {
            let name = entry.file_name();
            let is_ours = directory == blobs && name.as_encoded_bytes().starts_with(b".fssync");
            if !is_ours && found.insert(entry.path()) {
                waiting.push(entry.path());
            }
        }
    }
    found
}

/// A race that is over.
pub struct Checks<'a> {
    pub race: &'a Race<'a>,
    pub case: &'a Case,
    pub trace: &'a Trace<ObservedSlave>,
    /// For the checks.
    pub zodb: &'a mut Zodb,
    /// The actor that was ZODB.
    pub actor_zodb: &'a Arc<Mutex<Zodb>>,
}

impl Checks<'_> {
    /// Fails if a promise is broken. In the end the next pass has repaired the slave, or has
    /// refused to.
    pub fn check(&mut self) {
        let is_fssync = |who: usize| self.race.actors[who].actor.is_fssync();
        if let Err(error) = steps::check(&self.trace.events, is_fssync) {
            panic!("{error}");
        }
        self.check_codes();
        self.check_off();
        self.check_order_of_switching();
        let last = ObservedSlave::now(&self.case.scene);
        match self.session() {
            Some((who, session)) if self.code(who) == 0 => self.check_session(who, session, &last),
            Some((who, _)) => {
                self.check_refused(who);
                self.check_slave(&last);
            }
            None => self.check_slave(&last),
        }
    }

    /// The actors, by whose promises they are checked.
    fn actors(&self) -> impl Iterator<Item = (usize, Actor)> {
        let actors = self.race.actors.iter().map(|it| it.actor.stands_for());
        actors.enumerate()
    }

    fn has(&self, is_it: impl Fn(Actor) -> bool) -> bool {
        self.actors().any(|(_, actor)| is_it(actor))
    }

    fn code(&self, who: usize) -> i32 {
        self.trace.ends[who].exit.code
    }

    /// The actor that is ZODB.
    fn session(&self) -> Option<(usize, Session)> {
        self.actors().find_map(|(who, actor)| match actor {
            Actor::Zodb(session) => Some((who, session)),
            _ => None,
        })
    }

    /// Each exit code is one that the other actors explain.
    fn check_codes(&self) {
        let mut succeeded = 0;
        for (who, actor) in self.actors() {
            let exit = &self.trace.ends[who].exit;
            assert!(self.may_exit(who, actor), "{actor:?}: {exit:?}");
            succeeded += i32::from(actor.is_pass() && exit.code == 0);
        }
        assert!(!self.must_sync() || succeeded > 0, "no pass has succeeded");
    }

    fn may_exit(&self, who: usize, actor: Actor) -> bool {
        let exit = &self.trace.ends[who].exit;
        let commits = self.session().is_some_and(|(_, it)| it.commits());
        let has_other = |is_it: fn(Actor) -> bool| {
            let mut others = self.actors().filter(|&(other, _)| other != who);
            others.any(|(_, actor)| is_it(actor))
        };
        match (actor, exit.code) {
            // More is checked of a ZODB that failed to open the slave.
            (_, 0) | (Actor::Zodb(_), 1) => true,
            (Actor::Watch, 20) => commits,
            (Actor::Pass(_) | Actor::PassInBatches(_) | Actor::PassWithoutLock, code) => {
                match code {
                    // Without the pass lock, passes remove each other's files.
                    1 => self.has(|actor| actor == Actor::PassWithoutLock),
                    10 => has_other(Actor::is_off),
                    11 => has_other(Actor::is_pass),
                    13 => self.session().is_some(),
                    20 => commits,
                    _ => false,
                }
            }
            (Actor::On, 10) => has_other(Actor::is_off),
            // It does not wait forever until a pass has written its sidecar.
            (Actor::On, 20) => has_other(Actor::is_pass),
            // A full copy has replaced the slave.
            (Actor::Verify, 1) => {
                let is_reported = exit.output.contains("another file has replaced it");
                has_other(Actor::is_pass) && is_reported
            }
            _ => false,
        }
    }

    /// Whether a pass must have succeeded, since no other actor prevents it.
    fn must_sync(&self) -> bool {
        let is_locked = !self.has(|actor| actor == Actor::PassWithoutLock);
        let is_disturbed = self.has(Actor::is_off) || self.session().is_some();
        self.has(Actor::is_pass) && is_locked && !is_disturbed
    }

    /// After `fssync off` has returned, fssync neither writes to the slave nor takes ZODB's
    /// lock, unless syncing is switched on again.
    fn check_off(&self) {
        if self.has(Actor::is_on) {
            return;
        }
        let served = self.session().filter(|&(who, _)| self.code(who) == 0);
        let actor_zodb = self
            .actor_zodb
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (off, actor) in self.actors().filter(|it| it.1 == Actor::Off) {
            let state = &self.trace.ends[off].state;
            let by = state.zodb_lock;
            assert!(
                by.is_none_or(|pid| pid == actor_zodb.pid()),
                "its lock is held"
            );
            assert!(state.is_off, "{actor:?} has returned");
            self.check_calls_after(off, actor);
            match served {
                Some((zodb, _)) if self.race.actors[zodb].after == Some(off) => {
                    let opened = &self.trace.ends[zodb].exit.answers[0];
                    // If there was no slave, ZODB has created an empty one.
                    let len = state.bytes.as_ref().map_or(MAGIC_LEN, |it| it.len() as u64);
                    assert_eq!(opened["position"], json!(len), "no unfinished tail");
                }
                Some((_, session)) if session.commits() => {}
                _ => {
                    let now = fs::read(&self.case.scene.slave).ok();
                    assert!(state.bytes == now, "written after {actor:?}");
                    let now = zodbs_names(&blobs_beside(&self.case.scene.slave));
                    assert_eq!(state.blobs, now, "blobs changed after {actor:?}");
                }
            }
        }
    }

    /// No call of fssync's takes ZODB's lock after an actor has ended.
    fn check_calls_after(&self, ended: usize, actor: Actor) {
        let is_end = |event: &Event| matches!(event, Event::End(who) if *who == ended);
        let end = self.trace.events.iter().position(is_end).expect("an end");
        for event in &self.trace.events[end..] {
            if let Event::Call(who, call) = event
                && self.race.actors[*who].actor.is_fssync()
            {
                let takes = call.locking() == Some((Lock::Zodb, Locking::Acquired));
                assert!(!takes, "after {actor:?}: {call}");
            }
        }
    }

    /// Of `off` and `on`, the one whose step came later has its way.
    fn check_order_of_switching(&self) {
        let one = |is_it: fn(Actor) -> bool| self.actors().find(|it| is_it(it.1));
        let (Some((off, Actor::Off)), Some((on, _))) = (one(Actor::is_off), one(Actor::is_on))
        else {
            return;
        };
        let steps = |wanted: usize| {
            let is_its = move |(_, event): &(usize, &Event)| match event {
                Event::Call(who, call) => {
                    *who == wanted && call.locking() == Some((Lock::Step, Locking::Acquired))
                }
                Event::End(_) => false,
            };
            let events = self.trace.events.iter().enumerate();
            events.filter(is_its).map(|(at, _)| at)
        };
        // In its first step, `off` writes the switch; in a later one, it truncates the tail.
        let is_on_later = steps(off).next() < steps(on).next_back();
        let must_be_on = is_on_later && self.code(on) != 20;
        let state = ObservedSlave::now(&self.case.scene);
        assert_eq!(state.is_off, !must_be_on, "on is later: {is_on_later}");
        assert!(state.is_off || self.code(on) == 0, "it is on");
    }

    /// The slave is sound, and the next pass repairs it.
    fn check_slave(&mut self, last: &ObservedSlave) {
        let case = self.case;
        let scene = &case.scene;
        let options = self.next_options();
        if self.has_late_index() {
            scene.pass(options).expect(0);
        }
        case.assert_sound(self.zodb);
        if self.must_sync() {
            self.zodb.assert_in_sync(&scene.master, &scene.slave);
        }
        let len = fs::metadata(&scene.slave).map_or(0, |it| it.len());
        if len > MAGIC_LEN {
            run(&mut scene.verify(&[])).expect(0);
        }
        if last.is_off {
            if !self.has(|actor| actor == Actor::Echo) && scene.slave.exists() {
                let whole = self.zodb.check(&scene.slave);
                assert_eq!(whole["position"], whole["size"], "no unfinished tail");
            }
            scene.pass(options).expect(10);
            run(fssync().arg("on").arg(&scene.slave)).expect(0);
        }
        scene.pass(options).expect(0);
        case.assert_recovered(self.zodb);
    }

    fn rewinds(&self) -> bool {
        self.race.scenario.keeps == Kept::OwnTransactions
    }

    /// The options of the next pass. Only `--full` continues if the slave was not rewound.
    fn next_options(&self) -> &'static [&'static str] {
        match self.race.scenario.actor {
            Actor::Pass(options) if self.rewinds() => options,
            _ => &[],
        }
    }

    /// Whether ZODB has released its lock, and then saved the index of a slave that was
    /// replaced or rewound in the meantime. The next pass removes this index.
    fn has_late_index(&self) -> bool {
        let last = |by_zodb: bool| {
            let is_its = move |event: &Event| match event {
                Event::Call(who, call) => {
                    let is_zodb = matches!(self.race.actors[*who].actor, Actor::Zodb(_));
                    let replaces = call.text.starts_with("rename") || self.rewinds();
                    let changes = if is_zodb {
                        call.changes_index()
                    } else {
                        call.changes_slave() && replaces
                    };
                    by_zodb == is_zodb && changes
                }
                Event::End(_) => false,
            };
            self.trace.events.iter().rposition(is_its)
        };
        last(false).is_some_and(|replaced| Some(replaced) < last(true))
    }
}
