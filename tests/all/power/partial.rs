//! What is read and written in part only, and a disk that is full in the midst of it: a
//! quota, which no look at the disk foretells.

use std::collections::BTreeSet;
use std::fs;

use super::checks::{DATA, Scenario, Stage};
use super::disk::{Disk, Node};
use super::scenarios;
use super::{seed, share};
use crate::fuse::Served;
use crate::ledger;
use crate::rng::Rng;
use crate::support::{History, Scene, Transport, Zodb, replace, rewrite_end};

/// Each read and write at the slave does a part of what it is asked for: that is no
/// error, and nothing comes of it.
fn is_done_in_parts(scenario: Scenario) {
    let mut stage = Stage::set(scenario);
    let start = stage.disk.disk();
    for nth in 0..share().div_ceil(8) as u64 {
        stage.disk.load(start.clone());
        stage.disk.answer_in_part(Rng::new(seed() + nth));
        let (ended_well, recording) = stage.act();
        assert!(ended_well);
        let left = stage.disk.disk();
        stage.check(&left, &recording.start, true);
    }
}

/// Fails unless what a full disk has left ends with a transaction: ZODB needs room to
/// open a file with a tail.
fn assert_without_tail(stage: &mut Stage) {
    let Ok(slave) = fs::read(&stage.scene.slave) else {
        return;
    };
    if stage.before.slave.as_ref() != Some(&slave) {
        let found = stage.zodb.check(&stage.scene.slave);
        assert_eq!(found["position"], slave.len(), "{found}");
    }
}

/// The disk is full after any number of bytes: the slave is what it was, or what fits
/// of it is in sync, and nothing is left that was under way.
fn survives_a_full_disk(scenario: Scenario) {
    let mut stage = Stage::set(scenario);
    let start = stage.disk.disk();
    let used = |disk: &Disk| -> usize {
        let files: BTreeSet<Node> = disk.names().map(|(_, node)| node).collect();
        let len = |node| disk.file(node).map_or(0, |file| file.bytes().len());
        files.into_iter().map(len).sum()
    };
    let before = used(&start);
    let mut disk = start.clone();
    let at_each = stage.act().1.ops.into_iter().map(|op| {
        disk.apply(&op);
        used(&disk)
    });
    let needed = at_each.max().expect("something is written") - before;
    let mut rng = Rng::new(seed());
    let mut full = 0;
    for _ in 0..share() {
        let free = rng.below(needed);
        eprintln!("{free} of {needed} bytes are free");
        stage.disk.load(start.clone());
        stage.disk.allow(before + free);
        let run = stage.pass();
        full += usize::from(run.stderr.contains("Disk quota exceeded"));
        match run.code {
            0 => {}
            1 => {
                assert!(run.stderr.contains("Disk quota exceeded"), "{run:?}");
                let directory = stage.scene.slave.parent().unwrap().to_str().unwrap();
                assert!(run.stderr.contains(directory), "{run:?}");
            }
            _ => panic!("{run:?}"),
        }
        assert_without_tail(&mut stage);
        let left = stage.disk.disk();
        for name in ["Data.fs.fssync-tmp", "Data.fs.fssync-new"] {
            assert!(left.named(name).is_none(), "{name} is left behind: {run:?}");
        }
        stage.check(&left, &start, run.code == 0);
    }
    assert!(full * 2 > share(), "the disk was full in {full} runs");
}

macro_rules! in_parts {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn is_done_in_parts() {
                super::is_done_in_parts(scenarios::$scenario);
            }

            #[test]
            fn survives_a_full_disk() {
                super::survives_a_full_disk(scenarios::$scenario);
            }
        }
    )* };
}

in_parts! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL;
    an_append_behind_our_own_tail: APPEND_BEHIND_OUR_OWN_TAIL;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    an_index_made_anew: INDEX_ANEW;
}

/// Each read of the master gives a part of what is asked for.
#[test]
fn a_master_is_read_in_parts() {
    for transport in Transport::BOTH {
        let mut scene = Scene::new().over(transport);
        let history = History::get();
        let file = scene.master.clone();
        fs::write(&file, &history.before).unwrap();
        let served = Served::directory(file.parent().unwrap());
        served.answer_in_part(Rng::new(seed()));
        scene.master = served.file(DATA);
        let mut zodb = Zodb::start();
        let mut expect = |action| {
            scene.expect(action);
            zodb.assert_in_sync(&scene.master, &scene.slave);
            zodb.assert_index(&scene.slave).expect("an index");
            ledger::assert_whole(&scene.slave);
            scene.verify_against(&[]).expect(0);
        };
        expect("full-copy");
        rewrite_end(&file, &history.after);
        expect("append");
        replace(&file, &history.packed);
        expect("full-copy");
    }
}
