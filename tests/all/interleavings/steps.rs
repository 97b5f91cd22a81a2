//! What [`slave::step`](fssync::slave::step) says of steps, call by call: `Data.fs` and its
//! index are changed in them only, ZODB's lock is taken in them only, and no sync is waited
//! for with it in hand.

use super::call::{Lock, Locking};
use super::scheduler::Event;

/// Fails with the first call of ours that breaks this.
pub fn check(events: &[Event], is_ours: impl Fn(usize) -> bool) -> Result<(), String> {
    let mut held: Vec<(usize, &str, Lock)> = Vec::new();
    for event in events {
        let (who, call) = match event {
            Event::Call(who, call) if is_ours(*who) => (*who, call),
            Event::Call(..) => continue,
            Event::End(who) => {
                held.retain(|it| it.0 != *who);
                continue;
            }
        };
        let thread = call.thread.as_str();
        let has = |lock| held.contains(&(who, thread, lock));
        let changes = call.changes_slave() || call.changes_index();
        if changes && !(has(Lock::Step) && has(Lock::Zodb)) {
            return Err(format!("changed in no step: {call}"));
        }
        if call.is_sync() && has(Lock::Zodb) {
            return Err(format!("a sync in a step: {call}"));
        }
        match call.locking() {
            Some((Lock::Zodb, Locking::Acquired)) if !has(Lock::Step) => {
                return Err(format!("ZODB's lock in no step: {call}"));
            }
            Some((lock, Locking::Acquired)) => held.push((who, thread, lock)),
            Some((lock, Locking::Released)) => held.retain(|it| *it != (who, thread, lock)),
            Some((_, Locking::Busy)) | None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::call::{Line, Lines};
    use super::*;

    const STEP: &str = "flock(3</t/Data.fs.fssync-step>, LOCK_EX|LOCK_NB) = 0";
    const ZODB: &str = "flock(4</t/Data.fs.lock>, LOCK_EX|LOCK_NB) = 0";
    const WRITE: &str = "pwrite64(5</t/Data.fs>, \"\"..., 1, 7) = 1";
    const SYNC: &str = "fdatasync(5</t/Data.fs>) = 0";
    const UNLOCK: &str = "flock(4</t/Data.fs.lock>, LOCK_UN) = 0";

    /// What is said of these calls, if all are of one thread.
    fn said(calls: &[&str]) -> Result<(), String> {
        let mut lines = Lines::default();
        let event = |text: &&str| match lines.read(&format!("1 {text}")) {
            Line::Call(call) => Event::Call(0, call),
            other => panic!("{other:?}"),
        };
        let events: Vec<Event> = calls.iter().map(event).collect();
        check(&events, |_| true)
    }

    #[test]
    fn a_step_is_let_pass() {
        assert_eq!(said(&[STEP, ZODB, WRITE, UNLOCK, SYNC]), Ok(()));
    }

    #[test]
    fn what_is_no_step_is_told() {
        for calls in [
            &[WRITE][..],
            &[STEP, WRITE],
            &[ZODB, WRITE],
            &[STEP, ZODB, UNLOCK, WRITE],
            &[STEP, ZODB, WRITE, SYNC],
            &["unlink(\"/t/Data.fs.index\") = 0"],
            &["rename(\"/t/Data.fs.fssync-tmp\", \"/t/Data.fs\") = 0"],
        ] {
            assert!(said(calls).is_err(), "{calls:?}");
        }
    }

    #[test]
    fn a_lock_that_another_has_is_none() {
        let write = Lines::default().read(&format!("2 {WRITE}"));
        let step = [STEP, ZODB].map(|it| Lines::default().read(&format!("1 {it}")));
        let events = step.into_iter().chain([write]).map(|line| match line {
            Line::Call(call) => Event::Call(0, call),
            other => panic!("{other:?}"),
        });
        let events: Vec<Event> = events.collect();
        assert!(check(&events, |_| true).is_err(), "another thread");
        assert_eq!(check(&events, |_| false), Ok(()), "it is ZODB");
    }
}
