//! The scenarios: how master and slave are prepared, and which actor then runs.
//!
//! Each is declared once; every harness runs those that it can disturb.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::actor::{Actor, Batches};
use crate::support::{
    BlobHistory, History, Scene, Zodb, blobs_beside, fssync, kill_append_at_sync, must, replace,
    rewrite_end, run,
};

/// A master and a slave, and the actor that is disturbed.
pub struct Scenario {
    /// Makes master and slave in a scene that has neither.
    pub prepare: fn(&Scene, &mut Zodb),
    pub actor: Actor,
    /// The exit code of the actor if nothing disturbs it.
    pub exit_code: i32,
    /// What must be set aside of the old slave.
    pub keeps: Kept,
    /// The length of the old slave's tail that must be saved, in bytes.
    pub tail_len: usize,
    /// When syncing is off.
    pub is_off: Switched,
    /// Whether the prepared slave is durable. If not, a power cut is only checked after the
    /// actor has ended.
    pub is_durable: bool,
    /// Changes the master before the next pass.
    pub then: Option<fn(&Scene)>,
    /// Whether passes replicate the blobs.
    pub has_blobs: bool,
}

impl Scenario {
    /// An empty scene for this scenario.
    pub fn scene(&self) -> Scene {
        let scene = Scene::new();
        if self.has_blobs {
            scene.with_blobs()
        } else {
            scene
        }
    }
}

/// What is set aside of an old slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    /// All of it.
    Slave,
    /// Its own transactions: it is rewound, which truncates it before them.
    OwnTransactions,
}

/// Whether syncing is off before the actor runs, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    Never,
    /// Until the actor has ended.
    Before,
    /// Once the actor has ended.
    After,
}

pub const FIRST_COPY: Scenario = Scenario {
    prepare: |scene, _| fs::write(&scene.master, &History::get().after).unwrap(),
    actor: Actor::Pass(&[]),
    exit_code: 0,
    keeps: Kept::Nothing,
    tail_len: 0,
    is_off: Switched::Never,
    is_durable: true,
    then: None,
    has_blobs: false,
};

pub const APPEND: Scenario = Scenario {
    prepare: |scene, _| {
        synced(scene, &History::get().before);
        rewrite_end(&scene.master, &History::get().after);
    },
    ..FIRST_COPY
};

pub const APPEND_IN_BATCHES: Scenario = Scenario {
    actor: Actor::PassInBatches(Batches::TINY),
    ..APPEND
};

/// The slave was copied by hand and has no sidecar: digests must prove that it is a prefix of
/// the master.
pub const APPEND_TO_A_SEED: Scenario = Scenario {
    prepare: |scene, zodb| {
        (FIRST_COPY.prepare)(scene, zodb);
        fs::write(&scene.slave, &History::get().before).unwrap();
    },
    ..FIRST_COPY
};

const TAIL_LEN: usize = 500;

/// The slave ends with a transaction that another program voted and did not finish.
pub const APPEND_AFTER_A_FOREIGN_TAIL: Scenario = Scenario {
    prepare: |scene, zodb| {
        let history = History::get();
        (APPEND.prepare)(scene, zodb);
        let vote = &history.voted[history.after.len()..][..TAIL_LEN];
        rewrite_end(&scene.slave, &[&history.before, vote].concat());
    },
    tail_len: TAIL_LEN,
    ..FIRST_COPY
};

/// The start of a transaction whose status is on the next page of 4096 bytes.
const PAGE_END: u64 = 4096 - 16;

const TORN_LEN: usize = 9000;

/// The slave ends with the start of a transaction that was torn and is marked as committed.
/// The end of a page divides its header.
pub const APPEND_AFTER_A_TAIL_AT_A_PAGE_END: Scenario = Scenario {
    prepare: |scene, zodb| {
        let before = master_that_ends_at_a_page_end(scene, zodb);
        for _ in 0..3 {
            commit_with_description(zodb, 10);
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let after = fs::read(&scene.master).unwrap();
        synced(scene, &before);
        rewrite_end(&scene.master, &after);
        let mut torn = vec![b' '; TORN_LEN];
        torn[..8].copy_from_slice(&after[before.len()..][..8]);
        torn[8..16].copy_from_slice(&1_000_000u64.to_be_bytes());
        torn[17..23].fill(0);
        rewrite_end(&scene.slave, &[before, torn].concat());
    },
    tail_len: TORN_LEN,
    ..FIRST_COPY
};

/// An earlier append was killed before its second sync.
pub const APPEND_AFTER_OUR_OWN_TAIL: Scenario = Scenario {
    prepare: |scene, zodb| {
        (APPEND.prepare)(scene, zodb);
        kill_append_at_sync(scene, 2);
    },
    ..FIRST_COPY
};

/// The master is packed before the next pass.
pub const APPEND_BEFORE_A_PACK: Scenario = Scenario {
    then: Some(|scene| replace(&scene.master, &History::get().packed)),
    ..APPEND
};

/// The index is missing; the pass builds another one.
pub const APPEND_WITHOUT_AN_INDEX: Scenario = Scenario {
    prepare: |scene, zodb| {
        (APPEND.prepare)(scene, zodb);
        fs::remove_file(scene.beside(".index")).unwrap();
    },
    ..FIRST_COPY
};

/// ZODB committed to the slave and saved its index; then somebody truncated the slave.
pub const APPEND_WITH_AN_INDEX_AHEAD: Scenario = Scenario {
    prepare: |scene, zodb| {
        (FORCED_FULL_COPY_OF_A_DIVERGENCE.prepare)(scene, zodb);
        rewrite_end(&scene.slave, &History::get().before);
    },
    ..FIRST_COPY
};

pub const FULL_COPY: Scenario = Scenario {
    prepare: |scene, zodb| {
        synced_with_zodbs_index(scene, zodb);
        replace(&scene.master, &History::get().packed);
    },
    ..FIRST_COPY
};

pub const FULL_COPY_AND_SET_ASIDE: Scenario = Scenario {
    prepare: |scene, zodb| {
        synced_with_zodbs_index(scene, zodb);
        replace(&scene.master, &History::get().packed_away);
    },
    keeps: Kept::Slave,
    ..FIRST_COPY
};

pub const FORCED_FULL_COPY: Scenario = Scenario {
    actor: Actor::Pass(&["--whole"]),
    ..APPEND
};

pub const FORCED_FULL_COPY_OF_A_DIVERGENCE: Scenario = Scenario {
    prepare: |scene, zodb| {
        synced(scene, &History::get().before);
        commit_to_slave(scene, zodb);
        rewrite_end(&scene.master, &History::get().after);
    },
    keeps: Kept::Slave,
    ..FORCED_FULL_COPY
};

/// After a failover, the slave is the old master: it has transactions that the new one lacks.
pub const REWIND: Scenario = Scenario {
    prepare: |scene, zodb| {
        fs::write(&scene.slave, &History::get().before).unwrap();
        commit_to_slave(scene, zodb);
        fs::write(&scene.master, &History::get().after).unwrap();
    },
    actor: Actor::Pass(&["--full"]),
    keeps: Kept::OwnTransactions,
    ..FIRST_COPY
};

/// The slave got transactions of its own after a pass, and ends with one that is not finished.
pub const REWIND_OF_A_SLAVE: Scenario = Scenario {
    prepare: |scene, zodb| {
        (FORCED_FULL_COPY_OF_A_DIVERGENCE.prepare)(scene, zodb);
        let history = History::get();
        let vote = &history.voted[history.after.len()..][..TAIL_LEN];
        let slave = fs::read(&scene.slave).unwrap();
        rewrite_end(&scene.slave, &[&slave, vote].concat());
    },
    tail_len: TAIL_LEN,
    ..REWIND
};

/// The master lost transactions that a pass had copied: somebody has put an older file in its place.
pub const REWIND_OF_COPIED_TRANSACTIONS: Scenario = Scenario {
    prepare: |scene, zodb| {
        synced(scene, &History::get().before);
        let restored = restored_and_grown(scene, zodb);
        replace(&scene.master, &restored);
    },
    ..REWIND
};

/// Only the index, which ZODB saved, is to be replaced.
pub const INDEX_REBUILD: Scenario = Scenario {
    prepare: synced_with_zodbs_index,
    ..FIRST_COPY
};

/// Only the index is to be brought up to date.
pub const INDEX_UPDATE: Scenario = Scenario {
    prepare: |scene, zodb| {
        (APPEND.prepare)(scene, zodb);
        scene.expect("append");
        scene.make_index_due();
    },
    ..FIRST_COPY
};

/// Somebody has copied the master.
pub const SEED: Scenario = Scenario {
    prepare: |scene, zodb| {
        (FIRST_COPY.prepare)(scene, zodb);
        fs::write(&scene.slave, &History::get().after).unwrap();
    },
    ..FIRST_COPY
};

/// The copy is not durable until a pass has reported that it is in sync.
pub const SEED_THAT_IS_NOT_DURABLE: Scenario = Scenario {
    is_durable: false,
    ..SEED
};

pub const OFF: Scenario = Scenario {
    actor: Actor::Off,
    is_off: Switched::After,
    ..APPEND_AFTER_OUR_OWN_TAIL
};

/// There is a switch already, which is on.
pub const OFF_AFTER_ON: Scenario = Scenario {
    prepare: |scene, zodb| {
        (OFF.prepare)(scene, zodb);
        fs::write(scene.beside(".fssync-switch"), "SYNCING=1\n").unwrap();
    },
    ..OFF
};

pub const OFF_DURING_AN_APPEND: Scenario = Scenario {
    actor: Actor::PassSwitchedOff,
    exit_code: 10,
    is_off: Switched::After,
    ..APPEND
};

pub const ON: Scenario = Scenario {
    prepare: |scene, _| {
        synced(scene, &History::get().before);
        run(fssync().arg("off").arg(&scene.slave)).expect(0);
    },
    actor: Actor::On,
    is_off: Switched::Before,
    ..FIRST_COPY
};

pub const VERIFY: Scenario = Scenario {
    actor: Actor::VerifyAgainst,
    ..INDEX_REBUILD
};

pub const STATUS: Scenario = Scenario {
    actor: Actor::StatusAgainst,
    ..INDEX_REBUILD
};

pub const FIRST_COPY_WITH_BLOBS: Scenario = Scenario {
    prepare: |scene, _| BlobHistory::get().after.write(scene),
    has_blobs: true,
    ..FIRST_COPY
};

/// Another thread places the blobs that were received.
pub const FIRST_COPY_WITH_BATCHES_OF_BLOBS: Scenario = Scenario {
    actor: Actor::PassInBatches(Batches::SMALL),
    ..FIRST_COPY_WITH_BLOBS
};

pub const APPEND_WITH_BLOBS: Scenario = Scenario {
    prepare: |scene, _| {
        synced_with_blobs(scene);
        BlobHistory::get().after.write(scene);
    },
    ..FIRST_COPY_WITH_BLOBS
};

/// Some of the blobs were copied by hand, and are not durable.
pub const APPEND_THAT_FINDS_BLOBS: Scenario = Scenario {
    prepare: |scene, zodb| {
        (APPEND_WITH_BLOBS.prepare)(scene, zodb);
        let mut copy = Command::new("cp");
        copy.arg("-an")
            .arg(BlobHistory::get().after.blobs.join("."));
        must(copy.arg(blobs_beside(&scene.slave)));
    },
    is_durable: false,
    ..FIRST_COPY_WITH_BLOBS
};

pub const FULL_COPY_WITH_BLOBS: Scenario = Scenario {
    prepare: |scene, _| {
        synced_with_blobs(scene);
        BlobHistory::get().packed.replace(scene);
    },
    ..FIRST_COPY_WITH_BLOBS
};

pub const FULL_COPY_WITH_BLOBS_AND_SET_ASIDE: Scenario = Scenario {
    prepare: |scene, _| {
        synced_with_blobs(scene);
        BlobHistory::get().packed_away.replace(scene);
    },
    keeps: Kept::Slave,
    ..FIRST_COPY_WITH_BLOBS
};

/// The slave is the old master, and has transactions with blobs that the new one lacks.
pub const REWIND_WITH_BLOBS: Scenario = Scenario {
    prepare: |scene, _| {
        BlobHistory::get().grown.write(scene);
        scene.expect("full-copy");
        BlobHistory::get().forked.replace(scene);
    },
    actor: Actor::Pass(&["--full"]),
    keeps: Kept::OwnTransactions,
    ..FIRST_COPY_WITH_BLOBS
};

/// Removes gone blobs at once.
const REMOVE: Actor = Actor::Pass(&["--keep-packed", "0"]);

/// The master was packed; the pass installs a full copy and removes the blobs that it lacks.
pub const FULL_COPY_AND_REMOVAL_OF_BLOBS: Scenario = Scenario {
    prepare: |scene, _| {
        BlobHistory::get().after.write(scene);
        scene.expect("full-copy");
        BlobHistory::get().packed.replace(scene);
    },
    actor: REMOVE,
    ..FIRST_COPY_WITH_BLOBS
};

/// An earlier pass has installed the full copy.
pub const REMOVAL_OF_BLOBS: Scenario = Scenario {
    prepare: |scene, zodb| {
        (FULL_COPY_AND_REMOVAL_OF_BLOBS.prepare)(scene, zodb);
        scene.expect("full-copy");
    },
    actor: REMOVE,
    ..FIRST_COPY_WITH_BLOBS
};

/// A first pass has copied a master with blobs.
fn synced_with_blobs(scene: &Scene) {
    BlobHistory::get().before.write(scene);
    scene.expect("full-copy");
}

/// A first pass has copied a master of these bytes.
fn synced(scene: &Scene, master: &[u8]) {
    fs::write(&scene.master, master).unwrap();
    scene.expect("full-copy");
}

/// The same; then ZODB had the slave open and saved its index.
fn synced_with_zodbs_index(scene: &Scene, zodb: &mut Zodb) {
    synced(scene, &History::get().before);
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert!(scene.beside(".index").exists());
}

/// ZODB opens the slave, commits to it and closes it.
fn commit_to_slave(scene: &Scene, zodb: &mut Zodb) {
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 3}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
}

/// The bytes of a master without the last transaction of [`History::before`], but with others.
fn restored_and_grown(scene: &Scene, zodb: &mut Zodb) -> Vec<u8> {
    let path = scene.master.with_file_name("restored.fs");
    let before = &History::get().before;
    let len = u64::from_be_bytes(*before.last_chunk().unwrap()) as usize + 8;
    fs::write(&path, &before[..before.len() - len]).unwrap();
    zodb.call(&json!({"cmd": "open", "name": "r", "path": path}));
    for _ in 0..2 {
        zodb.call(&json!({"cmd": "commit", "name": "r", "size": 700}));
    }
    zodb.call(&json!({"cmd": "close", "name": "r"}));
    fs::read(path).unwrap()
}

/// Commits to the open master; returns its position.
fn commit_with_description(zodb: &mut Zodb, len: usize) -> u64 {
    let commit = json!({"cmd": "commit", "name": "m", "description": "d".repeat(len)});
    zodb.call(&commit)["position"].as_u64().unwrap()
}

/// Makes a master whose next transaction starts at [`PAGE_END`] of a page; returns its bytes.
fn master_that_ends_at_a_page_end(scene: &Scene, zodb: &mut Zodb) -> Vec<u8> {
    let path = &scene.master;
    zodb.call(&json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": 3}));
    let start = commit_with_description(zodb, 0);
    let end = commit_with_description(zodb, 0);
    let next = (2 * end - start) % 4096;
    let missing = (4096 + PAGE_END - next) % 4096;
    let end = commit_with_description(zodb, missing as usize);
    assert_eq!(end % 4096, PAGE_END, "a description adds its length");
    fs::read(path).unwrap()
}

#[test]
fn each_scenario_does_what_its_name_says() {
    let mut zodb = Zodb::start();
    for (scenario, action, saved) in [
        (&FIRST_COPY, "full-copy", None),
        (&APPEND, "append", None),
        (&APPEND_TO_A_SEED, "append", None),
        (&APPEND_AFTER_A_FOREIGN_TAIL, "trim-append", Some(".tr0")),
        (
            &APPEND_AFTER_A_TAIL_AT_A_PAGE_END,
            "trim-append",
            Some(".tr0"),
        ),
        (&APPEND_AFTER_OUR_OWN_TAIL, "trim-append", None),
        (&APPEND_BEFORE_A_PACK, "append", None),
        (&APPEND_WITHOUT_AN_INDEX, "append", None),
        (&APPEND_WITH_AN_INDEX_AHEAD, "append", None),
        (&FULL_COPY, "full-copy", None),
        (&FULL_COPY_AND_SET_ASIDE, "full-copy", Some(".diverged-")),
        (&FORCED_FULL_COPY, "full-copy", None),
        (
            &FORCED_FULL_COPY_OF_A_DIVERGENCE,
            "full-copy",
            Some(".diverged-"),
        ),
        (&REWIND, "rewind", Some(".diverged-")),
        (&REWIND_WITH_BLOBS, "rewind", Some(".diverged-")),
        (&REWIND_OF_COPIED_TRANSACTIONS, "rewind", Some(".diverged-")),
        (&INDEX_REBUILD, "up-to-date", None),
        (&INDEX_UPDATE, "up-to-date", None),
        (&SEED, "up-to-date", None),
        (&FIRST_COPY_WITH_BLOBS, "full-copy", None),
        (&APPEND_WITH_BLOBS, "append", None),
        (&APPEND_THAT_FINDS_BLOBS, "append", None),
        (&FULL_COPY_WITH_BLOBS, "full-copy", None),
        (
            &FULL_COPY_WITH_BLOBS_AND_SET_ASIDE,
            "full-copy",
            Some(".diverged-"),
        ),
        (&FULL_COPY_AND_REMOVAL_OF_BLOBS, "full-copy", None),
        (&REMOVAL_OF_BLOBS, "up-to-date", None),
    ] {
        let scene = scenario.scene();
        (scenario.prepare)(&scene, &mut zodb);
        let mut command = scenario.actor.command(&scene);
        let report = run(command.arg("--json")).expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        let names = scene.beside_slave();
        let mut extra = names
            .iter()
            .filter(|name| name.contains(".tr") || name.contains(".diverged-"));
        let found = extra.next().map(String::as_str);
        assert_eq!(found.is_some(), saved.is_some(), "{names:?}");
        assert!(
            found.is_none_or(|name| name.contains(saved.unwrap())),
            "{names:?}"
        );
        assert_eq!(extra.next(), None);
    }
}

#[test]
fn an_index_update_covers_the_appended_transactions() {
    let mut zodb = Zodb::start();
    let scene = Scene::new();
    (INDEX_UPDATE.prepare)(&scene, &mut zodb);
    let (before, after) = (&History::get().before, &History::get().after);
    let covered = zodb.assert_index(&scene.slave);
    assert_eq!(covered, Some(before.len() as u64));
    scene.expect("up-to-date");
    let covered = zodb.assert_index(&scene.slave);
    assert_eq!(covered, Some(after.len() as u64));
}
