//! The rules of [`slave::step`](fssync::slave::step), checked for every call: `Data.fs`, its index
//! and the blobs are changed only in steps, ZODB's lock is taken only in steps, and no sync is
//! waited for while that lock is held.

use super::call::{Lock, Locking};
use super::scheduler::Event;

/// Returns the first call of fssync's that breaks a rule.
pub fn check(events: &[Event], is_fssync: impl Fn(usize) -> bool) -> Result<(), String> {
    let mut held: Vec<(usize, &str, Lock)> = Vec::new();
    for event in events {
        let (who, call) = match event {
            Event::Call(who, call) if is_fssync(*who) => (*who, call),
            Event::Call(..) => continue,
            Event::End(who) => {
                held.retain(|it| it.0 != *who);
                continue;
            }
        };
        let thread = call.thread.as_str();
        let has = |lock| held.contains(&(who, thread, lock));
        let changes = call.changes_slave() || call.changes_index() || call.changes_blobs();
        if changes && !(has(Lock::Step) && has(Lock::Zodb)) {
            return Err(format!("changed outside a step: {call}"));
        }
        if call.is_sync() && has(Lock::Zodb) {
            return Err(format!("a sync while ZODB's lock is held: {call}"));
        }
        match call.locking() {
            Some((Lock::Zodb, Locking::Acquired)) if !has(Lock::Step) => {
                return Err(format!("ZODB's lock outside a step: {call}"));
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
    const PLACE: &str = "renameat2(8</t/blobstorage/.fssync/tmp>, \"a-b\", \
                         9</t/blobstorage/0x00>, \"0x07.blob\", RENAME_NOREPLACE) = 0";
    const UNLOCK: &str = "flock(4</t/Data.fs.lock>, LOCK_UN) = 0";

    /// Checks these calls of one thread.
    fn checked(calls: &[&str]) -> Result<(), String> {
        let mut lines = Lines::default();
        let event = |text: &&str| match lines.read(&format!("1 {text}")) {
            Line::Call(call) => Event::Call(0, call),
            other => panic!("{other:?}"),
        };
        let events: Vec<Event> = calls.iter().map(event).collect();
        check(&events, |_| true)
    }

    #[test]
    fn a_step_is_accepted() {
        assert_eq!(checked(&[STEP, ZODB, WRITE, PLACE, UNLOCK, SYNC]), Ok(()));
    }

    #[test]
    fn writes_outside_a_step_are_reported() {
        for calls in [
            &[WRITE][..],
            &[STEP, WRITE],
            &[ZODB, WRITE],
            &[STEP, ZODB, UNLOCK, WRITE],
            &[STEP, ZODB, WRITE, SYNC],
            &["unlink(\"/t/Data.fs.index\") = 0"],
            &["rename(\"/t/Data.fs.fssync-tmp\", \"/t/Data.fs\") = 0"],
            &[STEP, PLACE],
            &[STEP, ZODB, UNLOCK, PLACE],
            &[STEP, ZODB, "syncfs(9</t/blobstorage>) = 0"],
        ] {
            assert!(checked(calls).is_err(), "{calls:?}");
        }
    }

    #[test]
    fn the_lock_of_another_thread_does_not_count() {
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
