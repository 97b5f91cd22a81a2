//! Files that end in the middle of a transaction: a slave truncated at every byte, with
//! garbage or ZODB's own unfinished transaction at its end, and a master that is read while
//! its last transaction is being written.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;

use serde_json::json;

use crate::support::{Run, Scene, Zodb, project};

/// The ends of the transactions in the fixture `commits`. The first value is the start of the
/// first one.
const BOUNDARIES: [usize; 9] = [4, 697, 879, 1180, 1362, 1663, 1845, 2146, 2318];

/// The end of the last transaction, and of the one before.
const END: usize = 2318;
const BEFORE_LAST: usize = 2146;

/// The end of a slave that lags behind the master.
const LAGGING: usize = 1362;

/// Length of a transaction header without its strings.
const HEADER_LEN: usize = 23;

/// Names that a pass and ZODB may leave beside a slave if no foreign tail was truncated.
const NAMES: [&str; 8] = [
    "Data.fs",
    "Data.fs.fssync",
    "Data.fs.fssync-ledger",
    "Data.fs.fssync-pass",
    "Data.fs.fssync-step",
    "Data.fs.index",
    "Data.fs.lock",
    "Data.fs.tmp",
];

fn fixture(name: &str) -> Vec<u8> {
    fs::read(project(&format!("fixtures/{name}.fs"))).expect("the fixture")
}

/// Bytes without a pattern, the same in each call.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Fails unless only allowed names exist beside the slave, and the truncated tail is saved.
#[track_caller]
fn assert_beside(scene: &Scene, cut: Option<&[u8]>, about: &str) {
    let (kept, others): (Vec<_>, Vec<_>) = scene
        .beside_slave()
        .into_iter()
        .partition(|name| name.starts_with("Data.fs.tr"));
    for name in others {
        assert!(NAMES.contains(&name.as_str()), "{about}: {name}");
    }
    let kept: Vec<_> = kept
        .iter()
        .map(|name| fs::read(scene.slave.with_file_name(name)).unwrap())
        .collect();
    let expected: Vec<_> = cut.iter().map(|bytes| bytes.to_vec()).collect();
    assert!(kept == expected, "{about}: the tail is saved once");
}

/// Starts again with this slave and sidecar.
fn reset(scene: &Scene, slave: &[u8], sidecar: Option<&[u8]>) {
    for name in scene.beside_slave() {
        fs::remove_file(scene.slave.with_file_name(name)).unwrap();
    }
    fs::write(&scene.slave, slave).unwrap();
    if let Some(sidecar) = sidecar {
        fs::write(scene.slave.with_file_name("Data.fs.fssync"), sidecar).unwrap();
    }
}

/// The sidecar that a pass leaves beside a complete slave.
fn sidecar_of_a_pass(scene: &Scene) -> Vec<u8> {
    reset(scene, b"", None);
    scene.expect("full-copy");
    fs::read(scene.slave.with_file_name("Data.fs.fssync")).unwrap()
}

/// The action of a pass for a slave that was truncated at `cut`, and the position to which it
/// truncates the slave.
fn expected_repair(cut: usize) -> (&'static str, Option<usize>) {
    let first_boundary = BOUNDARIES[0];
    let boundary = BOUNDARIES.iter().rfind(|end| **end <= cut).copied();
    match boundary {
        Some(END) => ("up-to-date", None),
        // Too short for a transaction: there is nothing to keep.
        _ if cut < first_boundary + HEADER_LEN + 8 => ("full-copy", None),
        Some(end) if end == cut => ("append", None),
        Some(end) => ("trim-append", Some(end)),
        None => unreachable!("the first boundary is low"),
    }
}

/// The lengths to which the slave is truncated: with `FSSYNC_TAILS=all` every one, otherwise
/// those near a boundary of transactions, and every fifth of the others.
fn cuts() -> Vec<usize> {
    let all = std::env::var("FSSYNC_TAILS").is_ok_and(|value| value == "all");
    let is_near = |cut: usize| {
        BOUNDARIES
            .iter()
            .any(|end| end.abs_diff(cut) <= HEADER_LEN + 9)
    };
    (0..=END)
        .filter(|&cut| all || cut % 5 == 0 || is_near(cut))
        .collect()
}

fn truncate_and_repair(with_sidecar: bool) {
    let (scene, master) = (Scene::with_master("commits"), fixture("commits"));
    let sidecar = with_sidecar.then(|| sidecar_of_a_pass(&scene));
    for cut in cuts() {
        reset(&scene, &master[..cut], sidecar.as_deref());
        let (action, trimmed_at) = expected_repair(cut);
        let about = format!("cut at {cut}");
        let report = scene.pass(&[]).expect(0).report();
        assert_eq!(report["action"], action, "{about}: {report}");
        assert!(fs::read(&scene.slave).unwrap() == master, "{about}");
        assert_beside(&scene, trimmed_at.map(|at| &master[at..cut]), &about);
    }
    Zodb::start().assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn a_slave_truncated_at_any_byte_is_repaired() {
    truncate_and_repair(true);
}

#[test]
fn a_slave_truncated_at_any_byte_without_a_sidecar_is_repaired() {
    truncate_and_repair(false);
}

/// Tails that are not finished transactions, by name.
fn garbage() -> Vec<(String, Vec<u8>)> {
    let voted = fixture("voted")[END..].to_vec();
    let last = fixture("commits")[BEFORE_LAST..].to_vec();
    let mut tails: Vec<_> = [1, 7, 8, 22, 23, 24, 41, 100, 4096, 70_000]
        .into_iter()
        .flat_map(|len| {
            [
                (format!("{len} zeros"), vec![0; len]),
                (format!("{len} bytes of ones"), vec![0xff; len]),
                (format!("{len} bytes of noise"), noise(len)),
            ]
        })
        .collect();
    for len in [HEADER_LEN, 60, voted.len() - 1, voted.len()] {
        tails.push((format!("{len} bytes of a vote"), voted[..len].to_vec()));
    }
    for len in [HEADER_LEN, 60, last.len() - 1] {
        tails.push((format!("{len} bytes of a record"), last[..len].to_vec()));
    }
    let zeros_after = [&voted[..], &[0; 4096]].concat();
    tails.push(("a vote and zeros".to_owned(), zeros_after));
    tails
}

/// Fails unless ZODB truncates the file to `position`. ZODB cannot open a file if the status
/// of its last transaction is not ASCII, even past the end of the file.
fn assert_zodb_cuts(zodb: &mut Zodb, path: &Path, position: usize, about: &str) {
    let answer = zodb.attempt(&json!({"cmd": "check_open", "path": path}));
    if answer["ok"] == true {
        assert_eq!(answer["size_after"], position, "{about}: {answer}");
    } else {
        let error = answer["error"].as_str().expect("an error");
        assert!(error.starts_with("UnicodeDecodeError"), "{about}: {error}");
    }
}

#[test]
fn garbage_at_the_end_of_the_slave_is_saved_and_truncated() {
    let (scene, master) = (Scene::with_master("commits"), fixture("commits"));
    let mut zodb = Zodb::start();
    fs::write(&scene.master, &master[..LAGGING]).unwrap();
    let sidecar = sidecar_of_a_pass(&scene);
    fs::write(&scene.master, &master).unwrap();
    for (name, tail) in garbage() {
        for sidecar in [Some(&sidecar[..]), None] {
            reset(&scene, &[&master[..LAGGING], &tail].concat(), sidecar);
            assert_zodb_cuts(&mut zodb, &scene.slave, LAGGING, &name);
            let run = scene.pass(&[]);
            assert_eq!(run.code, 0, "{name}: {run:?}");
            let report = run.report();
            assert_eq!(report["action"], "trim-append", "{name}: {report}");
            assert_eq!(report["bytes"], END - LAGGING, "{name}: {report}");
            assert!(fs::read(&scene.slave).unwrap() == master, "{name}");
            assert_beside(&scene, Some(&tail), &name);
        }
    }
}

#[test]
fn garbage_at_the_end_of_a_slave_in_sync_stays_until_the_next_append() {
    let (scene, master) = (Scene::with_master("commits"), fixture("commits"));
    fs::write(&scene.master, &master[..LAGGING]).unwrap();
    scene.expect("full-copy");
    let tail = noise(HEADER_LEN - 1);
    let slave = [&master[..LAGGING], &tail].concat();
    fs::write(&scene.slave, &slave).unwrap();
    for _ in 0..2 {
        scene.expect("up-to-date");
        assert!(fs::read(&scene.slave).unwrap() == slave);
    }
    fs::write(&scene.master, &master).unwrap();
    scene.expect("trim-append");
    assert!(fs::read(&scene.slave).unwrap() == master);
    assert_beside(&scene, Some(&tail), "the tail");
}

/// Opens a file with ZODB, votes, and abandons the transaction.
fn vote_and_abandon(zodb: &mut Zodb, path: &Path) {
    zodb.call(&json!({"cmd": "open", "name": "one", "path": path}));
    zodb.call(&json!({"cmd": "vote", "name": "one", "objects": 3, "size": 5000}));
    zodb.call(&json!({"cmd": "abandon", "name": "one"}));
}

#[test]
fn a_vote_that_zodb_left_in_the_slave_is_saved_and_truncated() {
    let (scene, master) = (Scene::with_master("commits"), fixture("commits"));
    let mut zodb = Zodb::start();
    fs::write(&scene.master, &master[..LAGGING]).unwrap();
    scene.expect("full-copy");
    vote_and_abandon(&mut zodb, &scene.slave);
    let tail = fs::read(&scene.slave).unwrap()[LAGGING..].to_vec();
    assert!(tail.len() > 15_000, "the vote is on the disk");
    scene.expect("up-to-date");
    zodb.assert_prefix(&scene.master, &scene.slave);
    fs::write(&scene.master, &master).unwrap();
    scene.expect("trim-append");
    zodb.assert_in_sync(&scene.master, &scene.slave);
    assert_beside(&scene, Some(&tail), "the vote");
}

#[test]
fn a_vote_that_a_dead_master_left_is_not_copied() {
    let scene = Scene::with_master("commits");
    let mut zodb = Zodb::start();
    scene.expect("full-copy");
    vote_and_abandon(&mut zodb, &scene.master);
    let report = scene.expect("up-to-date");
    assert_eq!(report["position"], END);
    // ZODB truncates the vote when it opens the file, and writes another transaction there.
    zodb.call(&json!({"cmd": "open", "name": "one", "path": scene.master}));
    scene.expect("up-to-date");
    zodb.call(&json!({"cmd": "commit", "name": "one", "size": 30_000}));
    scene.expect("append");
    zodb.assert_in_sync(&scene.master, &scene.slave);
    assert_beside(&scene, None, "nothing of the slave's was cut");
}

/// Makes passes from `master` truncated at each of `cuts`, to a slave that lags and to none.
/// `judge` returns the expected exit code and position of the slave. Several passes run at
/// once, since a pass reads damage twice.
fn cut_master(master: &[u8], cuts: RangeInclusive<usize>, judge: fn(usize) -> (i32, usize)) {
    thread::scope(|scope| {
        for first in 0..WORKERS {
            let cuts = cuts.clone().skip(first).step_by(WORKERS);
            scope.spawn(move || {
                let scene = Scene::new();
                for cut in cuts {
                    fs::write(&scene.master, &master[..cut]).unwrap();
                    try_cut_master(&scene, master, cut, judge(cut));
                }
            });
        }
    });
}

fn try_cut_master(scene: &Scene, master: &[u8], cut: usize, (code, position): (i32, usize)) {
    for old in [Some(LAGGING), None] {
        reset(scene, &master[..old.unwrap_or(0)], None);
        if old.is_none() {
            fs::remove_file(&scene.slave).unwrap();
        }
        let run = scene.pass(&[]);
        assert_cut_master(&run, cut, code);
        assert!(
            fs::read(&scene.slave).unwrap() == master[..position],
            "cut at {cut}: the slave is the master up to {position}"
        );
        assert_beside(scene, None, &format!("cut at {cut}"));
    }
}

/// Number of passes at the same time.
const WORKERS: usize = 8;

#[track_caller]
fn assert_cut_master(run: &Run, cut: usize, code: i32) {
    assert_eq!(run.code, code, "cut at {cut}: {run:?}");
    if code == 30 {
        let message = format!("transaction record at {BEFORE_LAST}: reaches past the end");
        assert!(run.stderr.contains(&message), "cut at {cut}: {run:?}");
    }
}

#[test]
fn a_master_truncated_in_its_vote_is_copied_up_to_the_vote() {
    let master = fixture("voted");
    cut_master(&master, END..=master.len(), |_| (0, END));
}

#[test]
fn a_master_truncated_after_its_last_header_is_damaged() {
    let master = fixture("commits");
    cut_master(&master, BEFORE_LAST..=END, |cut| match cut {
        END => (0, END),
        _ if cut < BEFORE_LAST + HEADER_LEN => (0, BEFORE_LAST),
        _ => (30, BEFORE_LAST),
    });
}

#[test]
fn a_master_that_lost_part_of_its_last_transaction_has_fallen_behind() {
    let (scene, master) = (Scene::with_master("commits"), fixture("commits"));
    let sidecar = sidecar_of_a_pass(&scene);
    for cut in BEFORE_LAST..END {
        fs::write(&scene.master, &master[..cut]).unwrap();
        reset(&scene, &master, Some(&sidecar));
        let run = scene.pass(&[]).expect(20);
        let message = "the slave has 1 transaction that the master lacks";
        assert!(run.stderr.contains(message), "cut at {cut}: {run:?}");
        assert!(fs::read(&scene.slave).unwrap() == master, "cut at {cut}");
    }
}
