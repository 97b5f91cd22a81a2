//! `fssync verify --against`: it proves equality to the last byte, reports differences by
//! transaction, and transfers no data.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};

use fssync::error::Error;
use fssync::io::progress::Silent;
use fssync::pass::apply::Tuning;
use fssync::source::path::MountedPath;
use fssync::verify;
use fssync::verify::against::Comparison;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::fuse::Served;
use crate::man_page::man_page;
use crate::support::{
    Call, History, Hooked, Run, Scene, Transport, Zodb, append_killed_at_sync, fssync, replace,
    rewrite_end, run, spawn, wait_for, write_program,
};
use crate::verify::concurrent_changes::untouched;

/// The value of the report's key `against`, from a comparison with this exit code.
#[track_caller]
fn comparison(scene: &Scene, code: i32) -> Value {
    let report = scene.verify_against(&[]).expect(code).report();
    assert_eq!(report["exit_code"], code, "{report}");
    report["against"].clone()
}

/// The tids of the transactions that are listed under a key.
fn tids(comparison: &Value, kind: &str) -> Vec<String> {
    let group = &comparison[kind];
    let transactions = group["transactions"].as_array().expect("a list");
    assert_eq!(group["count"], transactions.len(), "{comparison}");
    let tid = |comparison: &Value| comparison["tid"].as_str().expect("a tid").to_owned();
    transactions.iter().map(tid).collect()
}

/// The range of each transaction of a file, as ZODB reads it.
fn ranges(zodb: &mut Zodb, path: &Path) -> BTreeMap<String, Range<usize>> {
    let answer = zodb.call(&json!({"cmd": "transactions", "path": path}));
    let transactions = answer["transactions"].as_array().expect("a list");
    let range = |found: &Value| {
        let number = |key: &str| found[key].as_u64().expect("a number") as usize;
        let (start, tid) = (number("pos"), found["tid"].as_str().expect("a tid"));
        (tid.to_owned(), start..start + number("tlen") + 8)
    };
    transactions.iter().map(range).collect()
}

/// Fails unless the comparison agrees with ZODB's lists of transactions and with the bytes of
/// both files. Returns the comparison.
#[track_caller]
fn assert_agrees_with_zodb(scene: &Scene, zodb: &mut Zodb) -> Value {
    let ours = ranges(zodb, &scene.slave);
    let theirs = ranges(zodb, &scene.master);
    let (slave, master) = (
        fs::read(&scene.slave).unwrap(),
        fs::read(&scene.master).unwrap(),
    );
    let same = |tid: &String| ours.get(tid) == theirs.get(tid);
    let equal = |range: &Range<usize>| slave[range.clone()] == master[range.clone()];
    let in_place = || ours.iter().filter(|(tid, _)| same(tid));
    let names = |found: Vec<&String>| found.into_iter().cloned().collect::<Vec<_>>();
    let differing = in_place().filter(|(_, range)| !equal(range));
    let differing = names(differing.map(|(tid, _)| tid).collect());
    let slave_only = names(
        ours.keys()
            .filter(|tid| !theirs.contains_key(*tid))
            .collect(),
    );
    let lacking = theirs.keys().filter(|tid| !ours.contains_key(*tid));
    let (ahead, master_only): (Vec<_>, Vec<_>) =
        lacking.partition(|tid| Some(*tid) > ours.keys().last());
    let in_both = ours.keys().filter(|tid| theirs.contains_key(*tid));
    let elsewhere: Vec<_> = in_both.filter(|tid| !same(tid)).collect();
    let proven: usize = in_place()
        .filter(|(_, range)| equal(range))
        .map(|(_, range)| range.len())
        .sum();
    let is_prefix = differing.is_empty() && slave_only.is_empty() && elsewhere.is_empty();

    let comparison = comparison(scene, if is_prefix { 0 } else { 20 });
    assert_eq!(tids(&comparison, "differing"), differing, "{comparison}");
    assert_eq!(tids(&comparison, "slave_only"), slave_only, "{comparison}");
    assert_eq!(
        tids(&comparison, "master_only"),
        names(master_only),
        "{comparison}"
    );
    for (kind, expected) in [("ahead", &ahead), ("elsewhere", &elsewhere)] {
        assert_eq!(
            comparison[kind]["count"],
            expected.len(),
            "{kind}: {comparison}"
        );
        assert_eq!(
            comparison[kind]["first_tid"],
            json!(expected.first()),
            "{kind}: {comparison}"
        );
        assert_eq!(
            comparison[kind]["last_tid"],
            json!(expected.last()),
            "{kind}: {comparison}"
        );
    }
    assert_eq!(comparison["equal_bytes"], proven + 4, "{comparison}");
    let verdict = match (is_prefix, ahead.len()) {
        (true, 0) => "equal",
        (true, _) => "behind",
        (false, _) => "diverged",
    };
    assert_eq!(comparison["verdict"], verdict, "{comparison}");
    assert_eq!(comparison["halted"], Value::Null);
    comparison
}

/// Opens a file with ZODB, commits and closes it.
fn commit(zodb: &mut Zodb, path: &Path, what: &Value) {
    let mut command = json!({"cmd": "commit", "name": "c"});
    for (key, value) in what.as_object().expect("parameters") {
        command[key] = value.clone();
    }
    let open = json!({"cmd": "open", "name": "c", "path": path, "create": !path.exists()});
    for command in [open, command, json!({"cmd": "close", "name": "c"})] {
        zodb.call(&command);
    }
}

/// A master of several segments, written by ZODB.
fn large() -> &'static [u8] {
    static LARGE: OnceLock<Vec<u8>> = OnceLock::new();
    LARGE.get_or_init(|| {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
        for n in 0..100 {
            let size = [300, 150_000, 2_000, 400_000][n % 4];
            let what = json!({"cmd": "commit", "name": "m", "objects": 1, "size": size,
                              "user": "editor", "description": format!("page {n}")});
            zodb.call(&what);
        }
        fs::read(&scene.master).unwrap()
    })
}

/// Both files are the large one, and a pass has seen the slave.
fn large_scene(transport: Transport) -> Scene {
    let scene = Scene::new();
    fs::write(&scene.master, large()).unwrap();
    scene.expect("full-copy");
    // With a ledger, most differences would already be damage of the slave.
    fs::remove_file(scene.beside(".fssync-ledger")).unwrap();
    scene.over(transport)
}

/// Changes a byte in place.
fn flip(path: &Path, offset: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset as u64).unwrap();
}

#[test]
fn equality_is_proved_and_nothing_is_changed() {
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = large_scene(transport);
        let before = untouched(&scene);
        let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
        assert_eq!(comparison["equal_bytes"], large().len());
        assert_eq!(comparison["same_file"], true);
        assert!(untouched(&scene) == before);
    }
}

#[test]
fn a_slave_that_lags_is_equal_up_to_its_end() {
    let history = History::get();
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history).over(transport);
        rewrite_end(&scene.master, &history.voted);
        let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
        assert_eq!(comparison["ahead"]["count"], 5);
        let bytes = history.after.len() - history.before.len();
        assert_eq!(comparison["ahead"]["bytes"], bytes);
    }
}

#[test]
fn an_unfinished_append_is_not_a_difference() {
    let scene = append_killed_at_sync(2);
    let comparison = comparison(&scene, 0);
    assert_eq!(comparison["verdict"], "behind");
    assert_eq!(comparison["equal_bytes"], History::get().before.len());
}

#[test]
fn transactions_of_only_one_of_the_files_are_reported() {
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let what = json!({"user": "/site admin", "description": "after the failover"});
        commit(&mut zodb, &scene.slave, &what);
        let grown = assert_agrees_with_zodb(&scene, &mut zodb);
        let own = &grown["slave_only"]["transactions"][0];
        assert_eq!(own["user"], "/site admin");
        assert_eq!(own["description"], "after the failover");
        assert_eq!(own["position"], History::get().before.len());
        // The two diverge, with alternating times.
        for path in [&scene.master, &scene.slave, &scene.master, &scene.slave] {
            commit(&mut zodb, path, &json!({"size": 100}));
        }
        commit(&mut zodb, &scene.master, &json!({"size": 300}));
        let forked = assert_agrees_with_zodb(&scene, &mut zodb);
        assert_eq!(forked["slave_only"]["count"], 3);
        assert_eq!(forked["master_only"]["count"], 2);
        assert_eq!(forked["ahead"]["count"], 1);
        assert!(forked["advice"].as_str().unwrap().contains("failover"));
    }
}

#[test]
fn a_packed_master_is_recognised() {
    let history = History::get();
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        for packed in [&history.packed, &history.packed_away] {
            let scene = Scene::synced(history).over(transport);
            replace(&scene.master, packed);
            let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
            assert_eq!(comparison["same_file"], false);
            let advice = comparison["advice"].as_str().unwrap();
            assert!(advice.contains("pack"), "{comparison}");
            assert!(advice.contains("sets the old slave aside"), "{comparison}");
        }
    }
}

#[test]
fn verifying_a_slave_that_was_set_aside_creates_no_file() {
    let history = History::get();
    let scene = Scene::synced(history);
    let aside = scene.beside(".diverged-0406007a1f3c2b44");
    fs::write(&aside, &history.after).unwrap();
    let before = scene.beside_slave();
    let mut verify = fssync();
    verify.arg("verify").arg(&aside).arg("--against");
    let printed = run(verify.arg(&scene.master)).expect(20).stdout;
    assert!(printed.contains("this file was set aside"), "{printed}");
    assert!(
        printed.contains("keep the file until you know"),
        "{printed}"
    );
    for wrong in ["no pass was ever made", "--full"] {
        assert!(!printed.contains(wrong), "{printed}");
    }
    assert_eq!(scene.beside_slave(), before);

    // Files that a ZODB or an earlier release left beside it are not counted.
    for suffix in [".fssync-verified", ".index", ".lock"] {
        fs::write(
            scene.beside(&format!(".diverged-0406007a1f3c2b44{suffix}")),
            "x",
        )
        .unwrap();
    }
    let status = run(&mut scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["set_aside_files"], 1, "{status}");

    let mut damaged = fs::read(&aside).unwrap();
    damaged[12] ^= 0xff;
    fs::write(&aside, damaged).unwrap();
    let printed = run(fssync().arg("verify").arg(&aside)).expect(31).stdout;
    assert!(
        printed.contains("copy all that can be read of this file"),
        "{printed}"
    );
    assert!(!printed.contains("--full"), "{printed}");
}

#[test]
fn a_master_that_has_fallen_behind_lacks_transactions_of_the_slave() {
    let history = History::get();
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        fs::write(&scene.slave, &history.after).unwrap();
        fs::write(&scene.master, &history.before).unwrap();
        let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
        assert_eq!(comparison["slave_only"]["count"], 5);
        assert_eq!(comparison["same_file"], Value::Null);
        // Truncated within a transaction.
        let end = history.before.len() + 50;
        fs::write(&scene.master, &history.after[..end]).unwrap();
        let comparison = self::comparison(&scene, 20);
        assert_eq!(comparison["slave_only"]["count"], 5, "{comparison}");
        assert_eq!(comparison["equal_bytes"], history.before.len());
        let damage = comparison["master_damage"].as_str().unwrap();
        assert!(
            damage.contains(&history.before.len().to_string()),
            "{damage}"
        );
    }
}

#[test]
fn a_slave_from_an_old_backup_lags() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::new();
    fs::write(&scene.master, &history.after).unwrap();
    scene.expect("full-copy");
    replace(&scene.slave, &history.before);
    assert_agrees_with_zodb(&scene, &mut zodb);
}

#[test]
fn differing_bytes_are_reported_by_transaction() {
    let mut zodb = Zodb::start();
    let mut scene = large_scene(Transport::Path);
    let all: Vec<_> = ranges(&mut zodb, &scene.master).into_iter().collect();
    let piece = 4 * 1024 * 1024;
    assert!(large().len() > 3 * piece, "{}", large().len());
    let within = |n: usize| &all[n];
    for chosen in [
        // One in the middle, two in one segment, several in different segments, the first and
        // the last, and a run of ten.
        vec![47],
        vec![50, 53],
        vec![3, 7, 33, 62, 85],
        vec![0, 99],
        (20..30).collect(),
    ] {
        fs::write(&scene.slave, large()).unwrap();
        for n in &chosen {
            let (_, range) = within(*n);
            flip(&scene.slave, range.end - 20);
        }
        for transport in Transport::BOTH {
            scene = scene.over(transport);
            let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
            let expected: Vec<_> = chosen.iter().map(|n| within(*n).0.clone()).collect();
            assert_eq!(tids(&comparison, "differing"), expected);
            let first = &comparison["differing"]["transactions"][0];
            assert_eq!(first["user"], "editor", "{comparison}");
            assert_eq!(first["description"], format!("page {}", chosen[0]));
        }
    }
}

#[test]
fn the_ledger_shows_damage_and_the_master_locates_it() {
    let mut zodb = Zodb::start();
    let scene = large_scene(Transport::Path);
    // The ledger is rebuilt from the master's digests.
    scene.expect("up-to-date");
    let all: Vec<_> = ranges(&mut zodb, &scene.master).into_iter().collect();
    let (tid, range) = &all[47];
    flip(&scene.slave, range.end - 20);
    let report = scene.verify_against(&[]).expect(31).report();
    assert_eq!(report["counts"], json!({"digest": 1}), "{report}");
    let found = &report["findings"][0];
    let (start, end) = (&found["position"], &found["end"]);
    assert!(start.as_u64() <= Some(range.start as u64), "{report}");
    assert!(end.as_u64() >= Some(range.end as u64), "{report}");
    let differing = tids(&report["against"], "differing");
    assert_eq!(differing, std::slice::from_ref(tid));
}

#[test]
fn differing_headers_are_reported() {
    let mut zodb = Zodb::start();
    let scene = large_scene(Transport::Path);
    let all: Vec<_> = ranges(&mut zodb, &scene.master).into_iter().collect();
    let (tid, range) = &all[47];
    let at = |offset: usize| {
        fs::write(&scene.slave, large()).unwrap();
        flip(&scene.slave, range.start + offset);
        comparison(&scene, 31)
    };
    // The last byte of the tid.
    let comparison = at(7);
    assert_eq!(
        tids(&comparison, "master_only"),
        std::slice::from_ref(tid),
        "{comparison}"
    );
    assert_eq!(comparison["slave_only"]["count"], 1, "{comparison}");
    assert_eq!(comparison["differing"]["count"], 0, "{comparison}");
    // Two bytes of the length: one makes the transaction slightly longer, one lets it end
    // after the file. Then a byte of a record's pointer to its transaction.
    for offset in [15, 10, 23 + "editorpage 47".len() + 31] {
        let comparison = at(offset);
        assert_eq!(
            tids(&comparison, "differing"),
            std::slice::from_ref(tid),
            "{offset}: {comparison}"
        );
        for kind in ["slave_only", "master_only", "ahead", "elsewhere"] {
            assert_eq!(comparison[kind]["count"], 0, "{offset}: {comparison}");
        }
        assert_eq!(comparison["equal_bytes"], large().len() - range.len());
    }
    // The magic: ZODB's other magic, and an invalid one.
    fs::write(&scene.slave, large()).unwrap();
    fs::write(&scene.master, large()).unwrap();
    for (magic, code) in [(b"FS21", 20), (b"XS30", 31)] {
        let file = File::options().write(true).open(&scene.slave).unwrap();
        file.write_all_at(magic, 0).unwrap();
        let comparison = self::comparison(&scene, code);
        assert_eq!(comparison["magic_differs"], true, "{comparison}");
        assert_eq!(comparison["equal_bytes"], large().len() - 4, "{comparison}");
        assert_eq!(comparison["differing"]["count"], 0, "{comparison}");
    }
}

#[test]
fn a_damaged_master_is_reported() {
    let history = History::get();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history).over(transport);
        rewrite_end(&scene.master, &history.after);
        flip(&scene.master, history.before.len() + 15);
        let comparison = self::comparison(&scene, 30);
        assert_eq!(comparison["verdict"], "master-damaged");
        assert_eq!(comparison["equal_bytes"], history.before.len());
        assert!(comparison["master_damage"].is_string(), "{comparison}");
    }
}

/// A program for `-e` that copies the data from the master to the file `sent`.
fn listening(scene: &Scene) -> String {
    let path = scene.directory.path().join("rsh");
    let sent = scene.directory.path().join("sent");
    let script = format!("#!/bin/sh\nsh -c \"$2\" | tee {}\n", sent.display());
    write_program(&path, script);
    path.to_str().unwrap().to_owned()
}

/// A comparison through this program.
fn compare_through(scene: &Scene, rsh: &str, options: &[&str]) -> Run {
    let mut command = fssync();
    command.args(["verify", "--json", "-e", rsh, "--remote-fssync"]);
    command.arg(env!("CARGO_BIN_EXE_fssync")).args(options);
    command.arg(&scene.slave).arg("--against");
    run(command.arg(format!("host:{}", scene.master.display())))
}

#[test]
fn no_data_is_transferred() {
    let mut zodb = Zodb::start();
    let scene = large_scene(Transport::Path);
    let rsh = listening(&scene);
    let sent = || {
        fs::metadata(scene.directory.path().join("sent"))
            .unwrap()
            .len()
    };
    compare_through(&scene, &rsh, &[]).expect(0);
    assert!((100..3_000).contains(&sent()), "{}", sent());
    let all: Vec<_> = ranges(&mut zodb, &scene.master).into_values().collect();
    for n in [11, 47, 70] {
        flip(&scene.slave, all[n].end - 20);
    }
    commit(&mut zodb, &scene.slave, &json!({"size": 100_000}));
    commit(&mut zodb, &scene.master, &json!({"size": 500_000}));
    let comparison = compare_through(&scene, &rsh, &[]).expect(20).report();
    assert_eq!(
        comparison["against"]["differing"]["count"], 3,
        "{comparison}"
    );
    assert!((100..20_000).contains(&sent()), "{}", sent());
}

#[test]
fn the_exit_code_shows_a_master_that_cannot_be_compared() {
    let scene = Scene::synced(History::get());
    let old = "sh -c 'printf \"fssync\\000\\002\"; sleep 60'";
    for (rsh, options, message) in [
        ("no-such-program", &[][..], "cannot be started"),
        ("sh -c 'sleep 60'", &["--timeout", "0.5"], "no answer"),
        (old, &[], "upgrade fssync on the master"),
    ] {
        let run = compare_through(&scene, rsh, options).expect(12);
        assert!(run.stderr.contains(message), "{run:?}");
        assert_eq!(run.stdout, "");
    }
    for transport in Transport::BOTH {
        let gone = Scene::synced(History::get()).over(transport);
        fs::remove_file(&gone.master).unwrap();
        gone.verify_against(&[]).expect(12);
    }
    let mut itself = fssync();
    itself.arg("verify").arg(&scene.slave).arg("--against");
    run(itself.arg(&scene.slave)).expect(2);
    // Nothing to compare.
    fs::remove_file(&scene.slave).unwrap();
    let report = scene.verify_against(&[]).expect(1).report();
    assert_eq!(report["against"], Value::Null);
}

#[test]
fn a_comparison_is_printed_as_text() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let lines = || {
        let mut command = fssync();
        command.arg("verify").arg(&scene.slave).arg("--against");
        run(command.arg(&scene.master))
    };
    let last = |run: Run| run.stdout.lines().last().unwrap().to_owned();
    assert!(last(lines().expect(0)).ends_with("; equal to the master"));
    let what = json!({"user": "admin", "description": "own\u{7}"});
    commit(&mut zodb, &scene.slave, &what);
    let run = lines().expect(20);
    let own = run
        .stdout
        .lines()
        .find(|line| line.starts_with("only slave"));
    let at = format!(" at {}, ", History::get().before.len());
    let own = own.unwrap();
    assert!(
        own.contains(&at) && own.contains("by \"admin\": \"own"),
        "{own}"
    );
    assert!(
        run.stdout.contains("to do: the slave was probably served"),
        "{run:?}"
    );
    assert!(last(run).ends_with("; NOT THE SAME as the master"));
}

/// Changes both files at random, depending on a seed.
fn change_at_random(zodb: &mut Zodb, scene: &Scene, seed: u64) {
    let random = |zodb: &mut Zodb, path: &Path, seed: u64, count: u64, pack: bool| {
        let open = json!({"cmd": "open", "name": "r", "path": path, "seed": seed,
                          "create": !path.exists()});
        let act = json!({"cmd": "random", "name": "r", "count": count, "pack": pack});
        for command in [open, act, json!({"cmd": "close", "name": "r"})] {
            zodb.call(&command);
        }
    };
    random(zodb, &scene.master, seed, 40, true);
    fs::copy(&scene.master, &scene.slave).unwrap();
    let step = |n: u64| (seed >> n) & 3;
    if step(0) > 0 {
        random(zodb, &scene.master, seed + 1, 10 * step(0), step(2) > 2);
    }
    if step(4) > 1 {
        random(zodb, &scene.slave, seed + 2, 10, false);
        random(zodb, &scene.master, seed + 3, 3, false);
    }
    let len = fs::metadata(&scene.slave).unwrap().len() as usize;
    let mut at = seed as usize;
    for _ in 0..step(6) {
        // Mostly somewhere in a pickle. Other damage is reported separately.
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let range = ranges(zodb, &scene.slave).into_values();
        let hit = range.into_iter().find(|range| range.contains(&(at % len)));
        if let Some(range) = hit.filter(|range| range.len() > 500) {
            flip(&scene.slave, range.end - 12);
        }
    }
}

#[test]
fn comparisons_of_random_histories_agree_with_zodb() {
    let mut zodb = Zodb::start();
    let mut verdicts = BTreeMap::new();
    for seed in 0..24u64 {
        let transport = Transport::BOTH[usize::from(seed % 6 == 0)];
        let scene = Scene::new().over(transport);
        // The bits of a seed are decisions.
        let seed = seed.wrapping_mul(0x9e37_79b9) >> 3;
        change_at_random(&mut zodb, &scene, seed & 0xffff_ffff);
        let comparison = assert_agrees_with_zodb(&scene, &mut zodb);
        let verdict = comparison["verdict"].as_str().unwrap().to_owned();
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    // All verdicts occurred.
    assert!(
        verdicts.len() == 3 && verdicts["diverged"] > 8,
        "{verdicts:?}"
    );
}

#[test]
fn an_unreadable_sector_of_the_slave_is_not_equal() {
    let mut zodb = Zodb::start();
    let scene = large_scene(Transport::Path);
    let all: Vec<_> = ranges(&mut zodb, &scene.master).into_iter().collect();
    let (tid, range) = &all[47];
    // The page contains zeros, since verify replaces unreadable bytes by zeros.
    let page = (range.start + 500).next_multiple_of(4096);
    let mut bytes = large().to_vec();
    bytes[page..page + 4096].fill(0);
    for path in [&scene.master, &scene.slave] {
        fs::write(path, &bytes).unwrap();
    }
    comparison(&scene, 0);
    let served = Served::directory(scene.slave.parent().unwrap());
    served.fail_at(page as u64..page as u64 + 1);
    let mut command = fssync();
    command
        .args(["verify", "--json"])
        .arg(served.file("Data.fs"));
    let report = run(command.arg("--against").arg(&scene.master))
        .expect(31)
        .report();
    assert_eq!(
        tids(&report["against"], "differing"),
        std::slice::from_ref(tid)
    );
}

#[test]
fn a_signal_ends_a_comparison_while_the_master_hangs() {
    let scene = Scene::synced(History::get());
    let begun = scene.directory.path().join("begun");
    let rsh = format!("sh -c 'touch {}; exec sleep 60'", begun.display());
    let mut command = fssync();
    command.args(["verify", "-e", &rsh]).arg(&scene.slave);
    command.args(["--against", "host:/Data.fs"]);
    let mut process = spawn(command.stderr(Stdio::null()));
    wait_for("connection", || begun.exists());
    let pid = Pid::from_child(&process);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_for("end", || process.try_wait().unwrap().is_some());
    assert_eq!(process.wait().unwrap().code(), Some(1));
}

#[test]
fn the_man_page_names_the_keys() {
    let scene = Scene::synced(History::get());
    fs::write(&scene.slave, &History::get().after).unwrap();
    let comparison = comparison(&scene, 20);
    let page = man_page();
    let named = |name: &str| {
        page.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == name)
    };
    let group = &comparison["slave_only"];
    for object in [&comparison, group, &group["transactions"][0]] {
        for key in object.as_object().unwrap().keys() {
            assert!(named(key), "{key}");
        }
    }
}

/// Compares with a master that runs this hook before it answers.
fn compared_while(scene: &Scene, mut hook: impl FnMut(Call) + Send + 'static) -> Comparison {
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook: move |call| {
            hook(call);
            Ok(())
        },
    };
    let job = scene.job(source, Tuning::default());
    let verified = verify::verify(&job.slave, false, &Silent, &mut |_| {}).unwrap();
    let compared = verify::against::compare(&job.slave, &verified, &job.master, &Silent);
    compared.unwrap().expect("a comparison")
}

#[test]
fn apparent_damage_is_read_again_while_the_master_is_written() {
    let history = History::get();
    for in_place in [true, false] {
        let scene = Scene::synced(history);
        rewrite_end(&scene.master, &history.after[..history.after.len() - 7]);
        let master = scene.master.clone();
        let mut looks = 0;
        let compared = compared_while(&scene, move |call| {
            looks += u32::from(call == Call::Look);
            match looks {
                // The master is written, or another file replaces it.
                3 if in_place => rewrite_end(&master, &history.after),
                3 => replace(&master, &history.after),
                _ => {}
            }
        });
        assert_eq!((compared.damage, compared.ahead.count), (None, 5));
        assert_eq!(compared.same_file, Some(in_place));
    }
}

/// The requests to the master in a comparison, after the first one.
fn calls(scene: &Scene) -> (Comparison, Vec<Call>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let compared = compared_while(scene, move |call| noted.lock().unwrap().push(call));
    let calls = calls.lock().unwrap().clone();
    (compared, calls)
}

fn digests(calls: &[Call]) -> usize {
    let is_digest = |call: &&Call| matches!(call, Call::Digest(_));
    calls.iter().filter(is_digest).count()
}

#[test]
fn whole_segments_are_compared_before_and_after_a_difference() {
    let piece = 4 * 1024 * 1024;
    let scene = large_scene(Transport::Path);
    flip(&scene.slave, piece * 3 / 2);
    let (compared, calls) = calls(&scene);
    assert_eq!(compared.differing.all.count, 1);
    for n in 0..3 {
        let start = if n == 0 { 4 } else { n * piece as u64 };
        let asked = Call::Digest(start..(n + 1) * piece as u64);
        assert!(calls.contains(&asked), "{asked:?}: {calls:?}");
    }
    let first = calls.iter().find_map(|call| match call {
        Call::Transactions(from) => Some(*from as usize),
        _ => None,
    });
    assert!(
        (piece - 400_100..=piece).contains(&first.unwrap()),
        "{calls:?}"
    );
    let lists = calls
        .iter()
        .filter(|call| matches!(call, Call::Transactions(_)));
    assert!(lists.count() <= 4, "{calls:?}");
    // Whole segments, and the halves of one.
    assert!((8..25).contains(&digests(&calls)), "{calls:?}");
}

#[test]
fn differing_statuses_need_no_search() {
    let mut zodb = Zodb::start();
    let scene = large_scene(Transport::Path);
    for range in ranges(&mut zodb, &scene.master).into_values() {
        let master = File::options().write(true).open(&scene.master).unwrap();
        master.write_all_at(b"p", range.start as u64 + 16).unwrap();
    }
    let (compared, calls) = calls(&scene);
    assert_eq!(compared.differing.all.count, 100);
    // Whole segments only, some from their middle on.
    assert!(digests(&calls) < 12, "{calls:?}");
}

#[test]
fn a_master_that_shrinks_is_surveyed_again() {
    let history = History::get();
    let scene = Scene::synced(history);
    let master = scene.master.clone();
    let mut looks = 0;
    let is_cut = Arc::new(Mutex::new(false));
    rewrite_end(&scene.master, &history.after);
    let cut = Arc::clone(&is_cut);
    let compared = compared_while(&scene, move |call| match call {
        Call::Look => {
            looks += 1;
            rewrite_end(&master, &history.after);
        }
        Call::Transactions(_) if looks == 1 => {
            *cut.lock().unwrap() = true;
            rewrite_end(&master, &history.after[..history.after.len() - 7]);
        }
        _ => {}
    });
    assert!(*is_cut.lock().unwrap());
    assert_eq!((compared.damage, compared.ahead.count), (None, 5));
}

#[test]
fn a_slave_that_was_replaced_after_verify_is_not_compared() {
    let history = History::get();
    let scene = Scene::synced(history);
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let verified = verify::verify(&job.slave, false, &Silent, &mut |_| {}).unwrap();
    replace(&scene.slave, &history.before);
    let compared = verify::against::compare(&job.slave, &verified, &job.master, &Silent);
    assert!(
        matches!(compared, Err(Error::SlaveChanged { .. })),
        "{compared:?}"
    );
}
