//! Every verdict, and its words.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::filestorage::scan::{Cause, Damage, Record};
use crate::plan::Continuity;
use crate::plan::outcome::{Action, Copied, Outcome};
use crate::slave::presence::Presence;
use crate::status::{FileTotals, IndexStatus, MasterComparison};

const POSITION: u64 = 5_000;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn before(secs: i64) -> Timestamp {
    now() - SignedDuration::from_secs(secs)
}

/// A slave with a fresh index, its master not asked.
fn status() -> Status {
    Status {
        time: now(),
        slave: "/s/Data.fs".into(),
        presence: Presence::Synced,
        off: None,
        last_pass: None,
        last_in_sync: None,
        pass: None,
        zodb_pid: None,
        copy: None,
        state: with_tail(SlaveTail::None),
        size: POSITION,
        last_tid: None,
        index: IndexStatus::UpTo(POSITION),
        verified: None,
        set_aside: FileTotals::default(),
        cut_tails: FileTotals::default(),
        comparison: None,
        max_age: None,
    }
}

fn with_tail(tail: SlaveTail) -> SlaveState {
    SlaveState::Storage(Storage {
        position: POSITION,
        last_tid: None,
        tail,
        continuity: Continuity::Unknown,
    })
}

fn asked(exit: Exit, reason: &str, lag: Option<(u64, u64, i64)>) -> MasterComparison {
    MasterComparison {
        master: "m".to_owned(),
        next_pass: Outcome {
            action: Action::Error,
            exit,
            reason: reason.to_owned(),
            hint: None,
            copied: Copied::default(),
            warnings: Vec::new(),
        },
        lag: lag.map(|(transactions, bytes, secs)| Lag {
            transactions,
            bytes,
            since: Some(before(secs)),
        }),
        strays: Vec::new(),
        warnings: Vec::new(),
    }
}

#[track_caller]
fn assert_judged(status: &Status, verdict: Verdict, line: &str) {
    let line = line.to_owned();
    assert_eq!(judge(status), Judgement { verdict, line });
}

#[test]
fn what_zodb_would_not_open_cannot_be_served() {
    let damage = Damage {
        record: Record::Data,
        position: 27,
        cause: Cause::Version(3),
    };
    for (state, verdict, line) in [
        (
            SlaveState::Missing,
            Verdict::NoSlave,
            "there is no slave to serve",
        ),
        (
            SlaveState::Short {
                size: 4,
                magic: true,
            },
            Verdict::NoSlave,
            "there is no slave to serve",
        ),
        (
            SlaveState::Foreign,
            Verdict::Damaged,
            "ZODB cannot open the slave: it is not a FileStorage",
        ),
        (
            SlaveState::Damaged(damage),
            Verdict::Damaged,
            "ZODB cannot open the slave: data record at 27: has a version name of 3 bytes",
        ),
    ] {
        let status = Status {
            state,
            comparison: Some(asked(Exit::Success, "", None)),
            ..status()
        };
        assert_judged(&status, verdict, line);
    }
}

#[test]
fn what_is_served_needs_no_failover() {
    let status = Status {
        zodb_pid: Some(17),
        comparison: Some(asked(Exit::Diverged, "the slave has grown", None)),
        ..status()
    };
    let line = "process 17 has already opened the slave";
    assert_judged(&status, Verdict::Serving, line);
}

#[test]
fn what_would_be_lost_is_told_as_far_as_it_is_known() {
    let not_asked = "the loss is unknown, since the master was not queried";
    let none = "no pass has recorded when the two were in sync";
    let line = format!("{not_asked}; {none}");
    assert_judged(&status(), Verdict::Unknown, &line);
    let status = Status {
        last_in_sync: Some(before(192)),
        ..status()
    };
    let last = "it was in sync 3 min 12 s ago";
    assert_judged(&status, Verdict::Unknown, &format!("{not_asked}; {last}"));
    for (comparison, verdict, line) in [
        (
            asked(Exit::Unreachable, "no answer", None),
            Verdict::Unknown,
            "the loss is unknown, since the master is unreachable; \
             it was in sync 3 min 12 s ago",
        ),
        (
            asked(Exit::Diverged, "the slave has grown", None),
            Verdict::Diverged,
            "the slave is not a copy of the master: a person must decide",
        ),
        (
            asked(Exit::Success, "", Some((0, 0, 0))),
            Verdict::InSync,
            "nothing would be lost",
        ),
        (
            asked(Exit::Success, "", Some((1, 300, 0))),
            Verdict::Behind,
            "1 transaction, 300 bytes, of the last second, would be lost",
        ),
        (
            asked(Exit::Success, "", Some((2, 300, 61))),
            Verdict::Behind,
            "2 transactions, 300 bytes, of the last 1 min 1 s, would be lost",
        ),
        (
            asked(Exit::MasterDamaged, "it is damaged", Some((2, 300, 61))),
            Verdict::Behind,
            "2 transactions, 300 bytes, of the last 1 min 1 s, would be lost, \
             as far as the master can be read: it is damaged",
        ),
    ] {
        let status = Status {
            comparison: Some(comparison),
            ..status.clone()
        };
        assert_judged(&status, verdict, line);
    }
}

#[test]
fn what_is_done_first_is_told_too() {
    let in_sync = Status {
        comparison: Some(asked(Exit::Success, "", Some((0, 0, 0)))),
        ..status()
    };
    for (tail, index, work) in [
        (
            SlaveTail::Ours(23),
            IndexStatus::UpTo(POSITION),
            "an unfinished append of 23 bytes is truncated, by `fssync off` or by ZODB",
        ),
        (
            SlaveTail::Foreign(99),
            IndexStatus::UpTo(POSITION),
            "an unfinished tail of 99 bytes is truncated by ZODB, which keeps a copy",
        ),
        (
            SlaveTail::None,
            IndexStatus::Missing,
            "ZODB first reads 4996 bytes",
        ),
        (
            SlaveTail::None,
            IndexStatus::Unusable,
            "ZODB first reads 4996 bytes",
        ),
        (
            SlaveTail::None,
            IndexStatus::UpTo(4_000),
            "ZODB first reads 1000 bytes",
        ),
    ] {
        let status = Status {
            state: with_tail(tail),
            index,
            ..in_sync.clone()
        };
        let line = format!("nothing would be lost; {work}");
        assert_judged(&status, Verdict::InSync, &line);
    }
}
