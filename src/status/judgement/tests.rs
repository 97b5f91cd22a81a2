//! Every verdict, and its words.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::filestorage::scan::{Cause, Damage, Record};
use crate::plan::Continuity;
use crate::plan::outcome::{Action, Copied, Outcome};
use crate::slave::presence::Presence;
use crate::slave::sidecar::Counters;
use crate::status::{
    BlobGap, FileTotals, IndexStatus, MasterComparison, MissingBlobs, ReplicatedBlobs,
};

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
        counters: Counters::default(),
        recorded_master: None,
        last_in_sync: None,
        pass: None,
        zodb_pid: None,
        copy: None,
        state: with_tail(SlaveTail::None),
        size: POSITION,
        last_tid: None,
        index: IndexStatus::UpTo(POSITION),
        blobs: BlobStatus::NoneMet,
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
        is_named: true,
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
            blobs: Some(0),
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
            "there is no slave to serve yet: the first copy is not complete",
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

/// Blobs without problems, of all transactions.
fn replicated() -> ReplicatedBlobs {
    ReplicatedBlobs {
        directory: "/s/blobstorage".into(),
        problem: None,
        files: 7,
        bytes: 700,
        absent: 1,
        to_remove: 2,
        gap: None,
    }
}

fn with_blobs(blobs: BlobStatus, lag: Option<(u64, u64, i64)>) -> Status {
    Status {
        comparison: lag.map(|lag| asked(Exit::Success, "", Some(lag))),
        blobs,
        ..status()
    }
}

#[test]
fn blobs_that_are_all_there_do_not_change_the_verdict() {
    let blobs = BlobStatus::Replicated(replicated());
    let status = with_blobs(blobs, Some((0, 0, 0)));
    assert_judged(&status, Verdict::InSync, "nothing would be lost");
    assert_eq!(status.exit(), Exit::Success);
    let status = with_blobs(BlobStatus::NotReplicated, Some((0, 0, 0)));
    let line = "nothing would be lost; blobs are NOT replicated";
    assert_judged(&status, Verdict::InSync, line);
}

#[test]
fn blobs_that_may_be_missing_make_the_slave_incomplete() {
    let gap = BlobGap {
        from: 1_000,
        to: 3_000,
        is_recheck: false,
        missing: None,
    };
    let missing = |count, is_upper_bound| {
        Some(MissingBlobs {
            count,
            is_upper_bound,
        })
    };
    for (gap, lag, line) in [
        (
            BlobGap {
                missing: missing(1, false),
                ..gap
            },
            (0, 0, 0),
            "1 blob would be missing; no transaction would be lost",
        ),
        (
            BlobGap {
                missing: missing(2_500, true),
                ..gap
            },
            (2, 300, 17),
            "up to 2500 blobs would be missing; 2 transactions, 300 bytes, of the last 17 s, \
             would be lost",
        ),
        (
            gap,
            (0, 0, 0),
            "blobs may be missing: those of 2000 bytes of 5000 bytes of transactions are not \
             copied yet; no transaction would be lost",
        ),
        (
            BlobGap {
                is_recheck: true,
                ..gap
            },
            (0, 0, 0),
            "blobs may be wrong or missing: those of 2000 bytes of 5000 bytes of transactions \
             are being compared again; no transaction would be lost",
        ),
    ] {
        let blobs = BlobStatus::Replicated(ReplicatedBlobs {
            gap: Some(gap),
            ..replicated()
        });
        let status = with_blobs(blobs, Some(lag));
        assert_judged(&status, Verdict::Incomplete, line);
        assert_eq!(status.exit(), Exit::Success, "it can be served");
    }
    let status = with_blobs(BlobStatus::Unrecorded("/s/blobs".into()), None);
    let judgement = judge(&status);
    assert_eq!(judgement.verdict, Verdict::Incomplete);
    let line = "blobs may be missing, since no pass has recorded those in /s/blobs; the loss is \
                unknown";
    assert!(judgement.line.starts_with(line), "{}", judgement.line);
}

#[test]
fn without_its_blob_directory_the_slave_is_incomplete() {
    let problem = "/s/blobstorage is not the slave's blob directory: it does not exist";
    let blobs = BlobStatus::Replicated(ReplicatedBlobs {
        problem: Some(problem.to_owned()),
        ..replicated()
    });
    let status = with_blobs(blobs, Some((0, 0, 0)));
    let line = format!("all blobs would be missing: {problem}; no transaction would be lost");
    assert_judged(&status, Verdict::Incomplete, &line);
    assert_eq!(status.exit(), Exit::Failure);
    let served = Status {
        zodb_pid: Some(77),
        ..status
    };
    let line = format!("process 77 has already opened the slave; its blobs are missing: {problem}");
    assert_judged(&served, Verdict::Serving, &line);
}

#[test]
fn the_blobs_of_lost_transactions_are_counted() {
    let mut status = with_blobs(BlobStatus::NoneMet, Some((2, 300, 17)));
    let comparison = status.comparison.as_mut();
    if let Some(lag) = comparison.and_then(|comparison| comparison.lag.as_mut()) {
        lag.blobs = Some(3);
    }
    let line = "2 transactions with 3 blobs, 300 bytes, of the last 17 s, would be lost";
    assert_judged(&status, Verdict::Behind, line);
}

#[test]
fn a_slave_without_transactions_is_not_served() {
    let line = "there is no slave to serve yet: the first copy is not complete";
    let magic = true;
    let short = SlaveState::Short { size: 4, magic };
    let SlaveState::Storage(storage) = with_tail(SlaveTail::Foreign(700)) else {
        panic!("a storage");
    };
    let empty = SlaveState::Storage(Storage {
        position: MAGIC_LEN,
        ..storage
    });
    for state in [short, empty] {
        let status = Status { state, ..status() };
        assert_judged(&status, Verdict::NoSlave, line);
        assert_eq!(status.exit(), Exit::Failure);
    }
}
