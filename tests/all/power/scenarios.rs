//! What is done to a slave while the power is cut.

use std::fs;

use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Exit;
use fssync::source::path::MountedPath;
use serde_json::json;

use super::checks::{DATA, Scenario, Stage};
use super::disk::Op;
use crate::support::{
    Call, History, Hooked, fssync, pass_here, replace, rewrite_end, run, run_in_a_pass,
};

/// Batches of a few hundred bytes.
const SMALL: Tuning = Tuning {
    chunk_len: 700,
    batch_len: 1500,
};

fn pass(stage: &mut Stage) -> bool {
    stage.pass().expect(0);
    true
}

pub const FIRST_COPY: Scenario = Scenario {
    set: |stage| fs::write(&stage.scene.master, &History::get().after).unwrap(),
    act: pass,
    options: &[],
    keeps_old: false,
    tail_len: 0,
    then: None,
    ends_off: false,
    is_settled: true,
};

/// In sync with a master, which then becomes another.
fn synced(stage: &Stage, before: &[u8]) {
    fs::write(&stage.scene.master, before).unwrap();
    stage.scene.expect("full-copy");
}

pub const APPEND: Scenario = Scenario {
    set: |stage| {
        let history = History::get();
        synced(stage, &history.before);
        rewrite_end(&stage.scene.master, &history.after);
    },
    ..FIRST_COPY
};

pub const APPEND_IN_BATCHES: Scenario = Scenario {
    act: |stage| {
        let source = MountedPath::new(stage.scene.master.clone());
        let outcome = pass_here(&stage.scene.job(source, SMALL));
        assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
        true
    },
    ..APPEND
};

const TAIL_LEN: usize = 500;

pub const APPEND_BEHIND_A_FOREIGN_TAIL: Scenario = Scenario {
    set: |stage| {
        let history = History::get();
        (APPEND.set)(stage);
        let vote = &history.voted[history.after.len()..][..TAIL_LEN];
        rewrite_end(&stage.scene.slave, &[&history.before, vote].concat());
    },
    tail_len: TAIL_LEN,
    ..FIRST_COPY
};

/// Where a transaction's header starts whose status lies on the next page.
const AT_THE_END_OF_A_PAGE: u64 = 4096 - 16;

const TORN_LEN: usize = 9000;

/// The slave ends with the start of a transaction that was torn, and is marked as
/// committed; it would be cut there, and so is its header, by the end of a page.
pub const APPEND_AT_THE_END_OF_A_PAGE: Scenario = Scenario {
    set: |stage| {
        let path = &stage.scene.master;
        let commit = |description: usize| json!({"cmd": "commit", "name": "m", "description": "d".repeat(description)});
        let zodb = &mut stage.zodb;
        zodb.call(&json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": 3}));
        let start = zodb.call(&commit(0))["position"].as_u64().unwrap();
        let end = zodb.call(&commit(0))["position"].as_u64().unwrap();
        let next = (2 * end - start) % 4096;
        let lacks = (4096 + AT_THE_END_OF_A_PAGE - next) % 4096;
        let end = zodb.call(&commit(lacks as usize))["position"]
            .as_u64()
            .unwrap();
        assert_eq!(
            end % 4096,
            AT_THE_END_OF_A_PAGE,
            "the lengths of strings just add up"
        );
        let before = fs::read(path).unwrap();
        for _ in 0..3 {
            zodb.call(&commit(10));
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let after = fs::read(path).unwrap();
        synced(stage, &before);
        rewrite_end(&stage.scene.master, &after);
        let mut torn = vec![b' '; TORN_LEN];
        torn[..8].copy_from_slice(&after[before.len()..][..8]);
        torn[8..16].copy_from_slice(&1_000_000u64.to_be_bytes());
        torn[17..23].fill(0);
        rewrite_end(&stage.scene.slave, &[before, torn].concat());
    },
    tail_len: TORN_LEN,
    ..FIRST_COPY
};

/// Makes a pass that is killed before its `nth` operation of a kind.
fn pass_killed_before(stage: &Stage, nth: usize, is_it: impl Fn(&Op) -> bool) {
    stage.disk.settle();
    let start = stage.disk.disk();
    stage.scene.pass(&[]).expect(0);
    let ops = stage.disk.take_log();
    let mut all = ops.iter().enumerate().filter(|(_, op)| is_it(op));
    let at = all.nth(nth - 1).expect("as many").0;
    stage.disk.load(start);
    stage.disk.kill_after(at);
    assert_eq!(stage.scene.pass(&[]).code, -1, "it is killed");
    stage.disk.end_fault();
}

pub const APPEND_BEHIND_OUR_OWN_TAIL: Scenario = Scenario {
    set: |stage| {
        (APPEND.set)(stage);
        let data = stage.disk.disk().named(DATA).unwrap();
        let is_sync = |op: &Op| matches!(op, Op::Sync { node, .. } if *node == data);
        pass_killed_before(stage, 2, is_sync);
    },
    ..FIRST_COPY
};

/// An append, and a pack of the master's before the next pass.
pub const APPEND_BEFORE_A_PACK: Scenario = Scenario {
    then: Some(|stage| replace(&stage.scene.master, &History::get().packed)),
    ..APPEND
};

/// An append behind which the index is made anew.
pub const APPEND_WITH_ANOTHER_INDEX: Scenario = Scenario {
    set: |stage| {
        (APPEND.set)(stage);
        fs::remove_file(stage.scene.beside(".index")).unwrap();
    },
    ..FIRST_COPY
};

/// The slave grew, ZODB saved its index, and then it was cut by hand.
pub const APPEND_BESIDE_AN_INDEX_AHEAD: Scenario = Scenario {
    set: |stage| {
        (FORCED_FULL_COPY_OF_A_DIVERGENCE.set)(stage);
        rewrite_end(&stage.scene.slave, &History::get().before);
    },
    ..FIRST_COPY
};

/// ZODB had the slave open, and saved its index.
fn synced_with_zodbs_index(stage: &mut Stage) {
    synced(stage, &History::get().before);
    let slave = &stage.scene.slave;
    let open = json!({"cmd": "open", "name": "s", "path": slave});
    stage.zodb.call(&open);
    stage.zodb.call(&json!({"cmd": "close", "name": "s"}));
}

pub const FULL_COPY: Scenario = Scenario {
    set: |stage| {
        synced_with_zodbs_index(stage);
        replace(&stage.scene.master, &History::get().packed);
    },
    ..FIRST_COPY
};

pub const FULL_COPY_AND_SET_ASIDE: Scenario = Scenario {
    set: |stage| {
        synced_with_zodbs_index(stage);
        replace(&stage.scene.master, &History::get().packed_away);
    },
    keeps_old: true,
    ..FIRST_COPY
};

pub const FORCED_FULL_COPY: Scenario = Scenario {
    options: &["--full"],
    ..APPEND
};

pub const FORCED_FULL_COPY_OF_A_DIVERGENCE: Scenario = Scenario {
    set: |stage| {
        synced(stage, &History::get().before);
        let slave = &stage.scene.slave;
        let zodb = &mut stage.zodb;
        zodb.call(&json!({"cmd": "open", "name": "s", "path": slave}));
        zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 3}));
        zodb.call(&json!({"cmd": "close", "name": "s"}));
        rewrite_end(&stage.scene.master, &History::get().after);
    },
    options: &["--full"],
    keeps_old: true,
    ..FIRST_COPY
};

/// Nothing is new but ZODB's index, which is made anew.
pub const INDEX_ANEW: Scenario = Scenario {
    set: synced_with_zodbs_index,
    ..FIRST_COPY
};

/// Somebody copied the master.
pub const SEEDED: Scenario = Scenario {
    set: |stage| {
        let after = &History::get().after;
        fs::write(&stage.scene.master, after).unwrap();
        fs::write(&stage.scene.slave, after).unwrap();
    },
    ..FIRST_COPY
};

/// The same, and what is there before the pass may be lost: not so what is there
/// once the pass has said that it is in sync.
pub const SEEDED_UNSYNCED: Scenario = Scenario {
    is_settled: false,
    ..SEEDED
};

pub const OFF: Scenario = Scenario {
    set: APPEND_BEHIND_OUR_OWN_TAIL.set,
    act: |stage| {
        run(fssync().arg("off").arg(&stage.scene.slave)).expect(0);
        true
    },
    ends_off: true,
    ..FIRST_COPY
};

/// Syncing was off and on before.
pub const OFF_AFTER_ON: Scenario = Scenario {
    set: |stage| {
        (OFF.set)(stage);
        fs::write(stage.scene.beside(".fssync-switch"), "SYNCING=1\n").unwrap();
    },
    ..OFF
};

/// Syncing is switched off while a pass appends.
pub const OFF_IN_THE_MIDDLE: Scenario = Scenario {
    set: APPEND.set,
    act: |stage| {
        let path = MountedPath::new(stage.scene.master.clone());
        let slave = stage.scene.slave.clone();
        let mut is_off = false;
        let hook = move |call: Call| {
            if matches!(call, Call::Confirm(_)) && !is_off {
                is_off = true;
                run_in_a_pass(fssync().arg("off").arg(&slave)).expect(0);
            }
            Ok(())
        };
        let outcome = pass_here(&stage.scene.job(Hooked { path, hook }, SMALL));
        assert_eq!(outcome.exit, Exit::Off, "{outcome:?}");
        true
    },
    ends_off: true,
    ..FIRST_COPY
};
