//! Checks of the actor that is ZODB.

use std::fs;
use std::sync::PoisonError;

use fssync::filestorage::MAGIC_LEN;
use serde_json::{Value, json};

use super::{Checks, ObservedSlave};
use crate::crash::actor::{Actor, Session, journal_of_session, opening};
use crate::support::{Blobs, Setup, blobs_beside, fssync, run};

impl Checks<'_> {
    /// ZODB may meet a step of fssync's, and opens the slave when it tries again. It does not
    /// meet a step after `fssync off`, or one of an actor that only reads.
    pub(super) fn check_refused(&mut self, who: usize) {
        let answer = &self.trace.ends[who].exit.answers[0];
        let error = answer["error"].as_str().expect("an error");
        assert!(error.contains("LockError"), "{error}");
        let before = self.race.actors[who].after;
        let is_after_off =
            before.is_some_and(|it| self.race.actors[it].actor.stands_for() == Actor::Off);
        let can_meet = self.has(Actor::is_pass) || self.has(Actor::is_off);
        assert!(can_meet && !is_after_off, "it cannot be opened: {error}");
        let opened = self.call_actor(&opening(&self.case.scene));
        self.check_opened(&opened);
        self.call_actor(&json!({"cmd": "close", "name": "s"}));
    }

    /// Gives the actor a command that must succeed.
    fn call_actor(&self, command: &Value) -> Value {
        let mut zodb = self
            .actor_zodb
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        zodb.call(command)
    }

    /// ZODB has opened the slave at a transaction boundary of the master's, or the whole old
    /// slave. Returns the position.
    fn check_opened(&mut self, opened: &Value) -> usize {
        let position = opened["position"].as_u64().expect("a position");
        let master = &self.case.scene.master;
        let listed = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": master}));
        let listed = listed["transactions"].as_array().expect("a list").clone();
        let end = |it: &Value| it["pos"].as_u64().unwrap() + it["tlen"].as_u64().unwrap() + 8;
        // If there is no slave, ZODB creates an empty one.
        let old = self.case.before.slave.as_ref();
        let old = old.map_or(MAGIC_LEN, |old| old.len() as u64);
        let is_boundary = old == position || listed.iter().any(|it| end(it) == position);
        assert!(is_boundary, "not a transaction boundary: {opened}");
        position as usize
    }

    /// The slave that ZODB had open is unchanged, and contains the transaction that ZODB has
    /// committed.
    pub(super) fn check_session(&mut self, who: usize, session: Session, last: &ObservedSlave) {
        let end = &self.trace.ends[who];
        let position = self.check_opened(&end.exit.answers[0]);
        if session != Session::OpenAndClose {
            assert!(
                end.state.bytes == last.bytes,
                "written to while ZODB had it open"
            );
        }
        // After ZODB has closed the slave, blobs may be removed.
        if session.stays() {
            assert_eq!(
                end.state.blobs, last.blobs,
                "blobs changed while ZODB had them open"
            );
        }
        let scene = &self.case.scene;
        let slave = last.bytes.as_deref().unwrap_or_default();
        let master = fs::read(&scene.master).expect("the master");
        if session.stays() {
            let code = match session {
                _ if last.is_off => 10,
                // No pass has succeeded yet.
                Session::CommitAndStay if !scene.was_left() => 13,
                Session::CommitAndStay => 20,
                _ if slave == master => 0,
                _ => 13,
            };
            let options = match session {
                Session::CommitAndStay => &[][..],
                _ => self.next_options(),
            };
            scene.pass(options).expect(code);
            assert!(fs::read(&scene.slave).unwrap() == slave, "written to");
            self.call_actor(&json!({"cmd": "close", "name": "s"}));
        }
        if !session.commits() {
            return self.check_slave(last);
        }
        let start = &slave[..position];
        let is_start =
            master.starts_with(start) || self.case.before.slave.as_deref() == Some(start);
        assert!(is_start, "the start of the slave, as ZODB found it");
        assert!(slave.len() > position, "the transaction of ZODB's");
        self.check_blobs_of_both();
        scene.assert_documented_names();
        run(&mut scene.verify(&[])).expect(0);
        if last.is_off {
            run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);
        }
        let refused = scene.pass(&[]).expect(20);
        assert!(refused.stderr.contains("only here"), "{refused:?}");
        assert!(
            fs::read(&scene.slave).unwrap() == slave,
            "no transaction is lost"
        );
    }

    /// ZODB can load the blobs of the slave: the master's, and the one that it has committed.
    fn check_blobs_of_both(&mut self) {
        let scene = &self.case.scene;
        if !scene.has_blobs {
            return;
        }
        let of_both = Blobs {
            file: &scene.slave,
            directory: &blobs_beside(&scene.slave),
            expected: None,
            journal: Some(&journal_of_session(scene)),
        };
        assert!(self.zodb.assert_blobs(&of_both, Setup::FileStorage) > 0);
    }
}
