//! Partial reads and writes, and a disk that becomes full: by a quota, which a check of the
//! free space does not show.

use std::fs;

use super::case::{DATA, DiskCase};
use super::disk::Disk;
use super::{sample, seed};
use crate::crash::scenario::{self, Scenario};
use crate::fuse::Served;
use crate::ledger;
use crate::rng::Rng;
use crate::support::{History, Scene, Transport, Zodb, number, replace, rewrite_end};

/// Makes each read and write of the slave partial: that is not an error, and makes no
/// difference.
fn survives_partial_reads_and_writes(scenario: &'static Scenario) {
    let mut on_disk = DiskCase::prepare(scenario);
    let start = on_disk.disk.disk();
    for nth in 0..sample().div_ceil(8) as u64 {
        on_disk.disk.load(start.clone());
        on_disk.disk.answer_partially(Rng::new(seed() + nth));
        let recording = on_disk.record();
        let left = on_disk.disk.disk();
        on_disk.check(&left, &recording.start, true);
    }
}

/// A full disk leaves a slave that ends with a transaction: ZODB needs free space to open a
/// file with a tail.
fn assert_without_tail(on_disk: &mut DiskCase) {
    let Ok(slave) = fs::read(&on_disk.case.scene.slave) else {
        return;
    };
    if on_disk.case.before.slave.as_ref() != Some(&slave) {
        let found = on_disk.zodb.check(&on_disk.case.scene.slave);
        assert_eq!(found["position"], slave.len(), "{found}");
    }
}

/// The divisor of the number of runs with blobs, unless `FSSYNC_POWER_CUTS` is set: they take more
/// time, because ZODB loads each blob.
const SHARE_WITH_BLOBS: usize = 4;

/// How often the disk becomes full.
fn fillings(scenario: &Scenario) -> usize {
    if scenario.has_blobs && number("FSSYNC_POWER_CUTS").is_none() {
        sample().div_ceil(SHARE_WITH_BLOBS)
    } else {
        sample()
    }
}

/// Makes the disk full after any number of bytes. The slave is unchanged, or all batches that
/// fit are in sync, and no file of unfinished work is left.
fn survives_a_full_disk(scenario: &'static Scenario) {
    let mut on_disk = DiskCase::prepare(scenario);
    let start = on_disk.disk.disk();
    let used = |disk: &Disk| disk.used(std::iter::empty());
    let before = used(&start);
    let mut disk = start.clone();
    let at_each = on_disk.record().ops.into_iter().map(|op| {
        disk.apply(&op);
        used(&disk)
    });
    let needed = at_each.max().expect("bytes are written") - before;
    let mut rng = Rng::new(seed());
    let mut full = 0;
    for _ in 0..fillings(scenario) {
        let free = rng.below(needed);
        eprintln!("{free} of {needed} bytes are free");
        on_disk.disk.load(start.clone());
        on_disk.disk.allow(before + free);
        let run = on_disk.run_actor();
        full += usize::from(run.stderr.contains("Disk quota exceeded"));
        match run.code {
            0 => {}
            1 => {
                assert!(run.stderr.contains("Disk quota exceeded"), "{run:?}");
                let directory = on_disk.case.scene.slave.parent().unwrap().to_str().unwrap();
                assert!(run.stderr.contains(directory), "{run:?}");
            }
            _ => panic!("{run:?}"),
        }
        assert_without_tail(&mut on_disk);
        let left = on_disk.disk.disk();
        for name in ["Data.fs.fssync-tmp", "Data.fs.fssync-new"] {
            assert!(left.named(name).is_none(), "{name} is left: {run:?}");
        }
        on_disk.check(&left, &start, run.code == 0);
    }
    assert!(
        full * 2 > fillings(scenario),
        "the disk was full in {full} runs"
    );
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_partial_reads_and_writes() {
                super::survives_partial_reads_and_writes(&scenario::$scenario);
            }

            #[test]
            fn survives_a_full_disk() {
                super::survives_a_full_disk(&scenario::$scenario);
            }
        }
    )* };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_after_a_foreign_tail: APPEND_AFTER_A_FOREIGN_TAIL;
    an_append_after_our_own_tail: APPEND_AFTER_OUR_OWN_TAIL;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    an_index_rebuild: INDEX_REBUILD;
    a_first_copy_with_blobs: FIRST_COPY_WITH_BLOBS;
    a_first_copy_with_batches_of_blobs: FIRST_COPY_WITH_BATCHES_OF_BLOBS;
    an_append_with_blobs: APPEND_WITH_BLOBS;
    a_full_copy_with_blobs_that_sets_aside: FULL_COPY_WITH_BLOBS_AND_SET_ASIDE;
    a_removal_of_blobs: REMOVAL_OF_BLOBS;
}

/// Makes each read of the master partial.
#[test]
fn partial_reads_of_the_master_make_no_difference() {
    for transport in Transport::BOTH {
        let mut scene = Scene::new().over(transport);
        let history = History::get();
        let file = scene.master.clone();
        fs::write(&file, &history.before).unwrap();
        let served = Served::directory(file.parent().unwrap());
        served.answer_partially(Rng::new(seed()));
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
