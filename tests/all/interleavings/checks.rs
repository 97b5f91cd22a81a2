//! Whether what came of a play is as promised.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use fssync::filestorage::MAGIC_LEN;
use fssync::io::flock::holder;
use serde_json::{Value, json};

use super::call::{Lock, Locking};
use super::scheduler::{Event, Trace};
use super::steps;
use crate::calls::trace::Stage;
use crate::crash::actor::{Actor, Race, Session};
use crate::support::{Scene, Zodb, fssync, run};

/// What is seen of a slave when an actor has ended.
#[derive(Debug)]
pub struct SlaveState {
    bytes: Option<Vec<u8>>,
    /// Who has ZODB's lock.
    zodb_lock: Option<u32>,
    is_off: bool,
}

impl SlaveState {
    pub fn now(scene: &Scene) -> Self {
        let switch = fs::read(scene.beside(".fssync-switch"));
        Self {
            bytes: fs::read(&scene.slave).ok(),
            zodb_lock: holder(&scene.beside(".lock")),
            is_off: switch.is_ok_and(|said| said != b"SYNCING=1\n"),
        }
    }
}

/// A play that is over.
pub struct Checks<'a> {
    pub race: &'a Race<'a>,
    pub stage: &'a Stage<'a>,
    pub trace: &'a Trace<SlaveState>,
    /// Who checks.
    pub zodb: &'a mut Zodb,
    /// Who has ran ZODB.
    pub actor_zodb: &'a Arc<Mutex<Zodb>>,
}

impl Checks<'_> {
    /// Fails where a promise is broken. Goes on with the slave, until it is healed or the
    /// next pass has refused.
    pub fn check(&mut self) {
        let is_ours = |who: usize| self.race.actors[who].is_ours();
        if let Err(said) = steps::check(&self.trace.events, is_ours) {
            panic!("{said}");
        }
        self.check_codes();
        self.check_off();
        self.check_order_of_switching();
        let last = SlaveState::now(&self.stage.scene);
        match self.session() {
            Some((who, session)) if self.code(who) == 0 => self.check_session(who, session, &last),
            Some((who, _)) => {
                self.check_refused(who);
                self.check_slave(&last);
            }
            None => self.check_slave(&last),
        }
    }

    /// As what each of them is checked.
    fn actors(&self) -> impl Iterator<Item = (usize, Actor)> {
        let actors = self.race.actors.iter().map(|actor| actor.stands_for());
        actors.enumerate()
    }

    fn has(&self, is_it: impl Fn(Actor) -> bool) -> bool {
        self.actors().any(|(_, actor)| is_it(actor))
    }

    fn code(&self, who: usize) -> i32 {
        self.trace.exits[who].0.code
    }

    /// ZODB's part.
    fn session(&self) -> Option<(usize, Session)> {
        self.actors().find_map(|(who, actor)| match actor {
            Actor::Zodb(session, _) => Some((who, session)),
            _ => None,
        })
    }

    /// The exit codes are those that the others' deeds may lead to.
    fn check_codes(&self) {
        let session = self.session().map(|(_, session)| session);
        let commits = session.is_some_and(Session::commits);
        let is_locked = !self.has(|actor| actor == Actor::PassWithoutLock);
        let mut ended_well = 0;
        for (who, actor) in self.actors() {
            let has_other = |is_it: fn(Actor) -> bool| {
                let mut others = self.actors().filter(|&(other, _)| other != who);
                others.any(|(_, actor)| is_it(actor))
            };
            let may_be = |code| match (actor, code) {
                // Of a ZODB that was refused, more is asked below.
                (_, 0) | (Actor::Zodb(..), 1) => true,
                (Actor::Watch, 20) => commits,
                (Actor::Pass(_) | Actor::PassInBatches | Actor::PassWithoutLock, code) => {
                    match code {
                        // They take each other's files away.
                        1 => !is_locked,
                        10 => has_other(Actor::is_off),
                        11 => has_other(Actor::is_pass),
                        13 => session.is_some(),
                        20 => commits,
                        _ => false,
                    }
                }
                (Actor::On(_), 10) => has_other(Actor::is_off),
                // It does not wait for ever for a pass to note what it did.
                (Actor::On(_), 20) => has_other(Actor::is_pass),
                // A full copy came in between.
                (Actor::Verify, 1) => {
                    let said = &self.trace.exits[who].0.output;
                    has_other(Actor::is_pass) && said.contains("another file lies under its name")
                }
                _ => false,
            };
            let (exit, _) = &self.trace.exits[who];
            assert!(may_be(exit.code), "{actor:?}: {exit:?}");
            ended_well += i32::from(actor.is_pass() && exit.code == 0);
        }
        assert!(!self.must_sync() || ended_well > 0, "no pass has done it");
    }

    /// Whether some pass must have done its work, as nobody keeps it from that.
    fn must_sync(&self) -> bool {
        let is_locked = !self.has(|actor| actor == Actor::PassWithoutLock);
        let is_disturbed = self.has(Actor::is_off) || self.session().is_some();
        self.has(Actor::is_pass) && is_locked && !is_disturbed
    }

    /// Once `fssync off` has returned, nothing of ours writes to the slave or takes ZODB's
    /// lock, unless it is switched on again.
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
            let seen = &self.trace.exits[off].1;
            let by = seen.zodb_lock;
            assert!(
                by.is_none_or(|pid| pid == actor_zodb.pid()),
                "its lock is held"
            );
            assert!(seen.is_off, "{actor:?} has returned");
            let is_end = |event: &Event| matches!(event, Event::End(who) if *who == off);
            let end = self.trace.events.iter().position(is_end).expect("an end");
            for event in &self.trace.events[end..] {
                if let Event::Call(who, call) = event
                    && self.race.actors[*who].is_ours()
                {
                    let takes = call.locking() == Some((Lock::Zodb, Locking::Acquired));
                    assert!(!takes, "behind {actor:?}: {call}");
                }
            }
            match served {
                Some((zodb, _)) if self.race.actors[zodb].behind() == Some(off) => {
                    let opened = &self.trace.exits[zodb].0.answers[0];
                    let len = seen.bytes.as_ref().map(Vec::len);
                    assert_eq!(opened["position"], json!(len), "no unfinished tail");
                }
                Some((_, session)) if session.commits() => {}
                _ => {
                    let now = fs::read(&self.stage.scene.slave).ok();
                    assert!(seen.bytes == now, "written behind {actor:?}");
                }
            }
        }
    }

    /// Of `off` and `on`, the one that was later in the order of their steps has its way.
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
        // Behind its first one, `off` tidies up.
        let is_on_later = steps(off).next() < steps(on).next_back();
        let must_be_on = is_on_later && self.code(on) != 20;
        let seen = SlaveState::now(&self.stage.scene);
        assert_eq!(seen.is_off, !must_be_on, "on is later: {is_on_later}");
        assert!(seen.is_off || self.code(on) == 0, "it is on");
    }

    /// ZODB may meet a step of ours, and opens the slave when it tries again; it meets none
    /// behind `fssync off`, nor of what reads only.
    fn check_refused(&mut self, who: usize) {
        let answer = &self.trace.exits[who].0.answers[0];
        let error = answer["error"].as_str().expect("an error");
        assert!(error.contains("LockError"), "{error}");
        let before = self.race.actors[who].behind();
        let is_behind_off =
            before.is_some_and(|it| self.race.actors[it].stands_for() == Actor::Off);
        let can_meet = self.has(Actor::is_pass) || self.has(Actor::is_off);
        assert!(can_meet && !is_behind_off, "it cannot be opened: {error}");
        let open = json!({"cmd": "open", "name": "s", "path": self.stage.scene.slave});
        let opened = self.call_zodb(&open);
        self.check_opened(&opened);
        self.call_zodb(&json!({"cmd": "close", "name": "s"}));
    }

    fn call_zodb(&self, command: &Value) -> Value {
        let mut zodb = self
            .actor_zodb
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        zodb.call(command)
    }

    /// ZODB has opened the slave at a boundary of the master's history, or the whole old
    /// slave.
    fn check_opened(&mut self, opened: &Value) -> usize {
        let position = opened["position"].as_u64().expect("a position");
        let master = &self.stage.scene.master;
        let listed = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": master}));
        let listed = listed["transactions"].as_array().expect("a list").clone();
        let end = |it: &Value| it["pos"].as_u64().unwrap() + it["tlen"].as_u64().unwrap() + 8;
        // Where there is no slave, ZODB makes an empty one.
        let old = self
            .stage
            .before
            .slave
            .as_ref()
            .map_or(MAGIC_LEN, |old| old.len() as u64);
        let is_boundary = old == position || listed.iter().any(|it| end(it) == position);
        assert!(is_boundary, "no boundary: {opened}");
        position as usize
    }

    /// What ZODB had open stays as it was, and what it has committed is there.
    fn check_session(&mut self, who: usize, session: Session, last: &SlaveState) {
        let (exit, seen) = &self.trace.exits[who];
        let position = self.check_opened(&exit.answers[0]);
        if session != Session::OpenAndClose {
            assert!(seen.bytes == last.bytes, "written to, which ZODB had");
        }
        let scene = &self.stage.scene;
        let slave = last.bytes.as_deref().unwrap_or_default();
        let master = fs::read(&scene.master).expect("the master");
        if session.stays() {
            let code = match session {
                _ if last.is_off => 10,
                // No pass has ended well yet.
                Session::CommitAndStay if !scene.was_left() => 13,
                Session::CommitAndStay => 20,
                _ if slave == master => 0,
                _ => 13,
            };
            scene.pass(&[]).expect(code);
            assert!(fs::read(&scene.slave).unwrap() == slave, "written to");
            self.call_zodb(&json!({"cmd": "close", "name": "s"}));
        }
        if !session.commits() {
            return self.check_slave(last);
        }
        let start = &slave[..position];
        let is_start =
            master.starts_with(start) || self.stage.before.slave.as_deref() == Some(start);
        assert!(is_start, "what ZODB found there");
        assert!(slave.len() > position, "what it has committed is there");
        scene.assert_documented_names();
        run(&mut scene.verify(&[])).expect(0);
        if last.is_off {
            run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);
        }
        let refused = scene.pass(&[]).expect(20);
        assert!(refused.stderr.contains("only here"), "{refused:?}");
        assert!(fs::read(&scene.slave).unwrap() == slave, "nothing is lost");
    }

    /// The slave is sound, and the next pass brings it up to the master.
    fn check_slave(&mut self, last: &SlaveState) {
        let stage = self.stage;
        let scene = &stage.scene;
        if self.has_late_index() {
            scene.pass(&[]).expect(0);
        }
        stage.assert_sound(self.zodb);
        if self.must_sync() {
            self.zodb.assert_in_sync(&scene.master, &scene.slave);
        }
        if scene.slave.exists() {
            run(&mut scene.verify(&[])).expect(0);
        }
        if last.is_off {
            if !self.has(|actor| actor == Actor::Echo) && scene.slave.exists() {
                let whole = self.zodb.check(&scene.slave);
                assert_eq!(whole["position"], whole["size"], "no unfinished tail");
            }
            scene.pass(&[]).expect(10);
            run(fssync().arg("on").arg(&scene.slave)).expect(0);
        }
        stage.assert_heals(self.zodb);
    }

    /// Whether ZODB has let its lock go, and then saved the index of a slave that had been
    /// replaced meanwhile. The next pass removes that.
    fn has_late_index(&self) -> bool {
        let is_late = |by_zodb: bool| {
            let is_its = move |event: &Event| match event {
                Event::Call(who, call) => match self.race.actors[*who] {
                    Actor::Zodb(..) => by_zodb && call.changes_index(),
                    _ => !by_zodb && call.changes_slave() && call.text.starts_with("rename"),
                },
                Event::End(_) => false,
            };
            self.trace.events.iter().rposition(is_its)
        };
        is_late(false).is_some_and(|replaced| Some(replaced) < is_late(true))
    }
}
