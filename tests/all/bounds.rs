//! Bounded time and memory on any input: what is made to cost much costs no more than it
//! weighs. Asserted of the processor's time and of memory, not of the clock.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use fssync::wire::{self, Reply};

use crate::support::{
    History, Run, Scene, Taken, fssync, measured, must, require_root, run, strace, tool,
};

/// More than any of these runs takes, in seconds: the program is not optimised here, and
/// the machine may be busy.
const MOST_SECS: f64 = 4.0;

/// More memory than any of them takes, in bytes.
const MOST_MEMORY: u64 = 64 << 20;

/// Runs a command, which must be cheap, and end by itself.
#[track_caller]
fn cheap(command: &Command) -> (Run, Taken) {
    let (run, taken) = measured(command);
    let documented = [0, 1, 2, 10, 12, 13, 20, 30, 31];
    let (code, stderr) = (run.code, &run.stderr);
    assert!(documented.contains(&code), "{command:?}: {code} {stderr}");
    let is_cheap = taken.cpu_secs < MOST_SECS && taken.memory < MOST_MEMORY;
    assert!(is_cheap, "{command:?}: {taken:?}, {code} {stderr}");
    (run, taken)
}

/// The verbs that read a slave, with their options.
fn verbs(scene: &Scene) -> Vec<Command> {
    let mut off = fssync();
    off.arg("off").arg(&scene.slave);
    vec![
        scene.status(&["--json"]),
        scene.verify(&[]),
        scene.verify(&["--quick", "--json"]),
        scene.command(&["--dry-run"]),
        scene.command(&[]),
        off,
    ]
}

/// A transaction with one record, whose header says another length, and whose record has
/// a version name or none.
fn txn(tid: u64, position: u64, tlen: u64, version_len: u16) -> Vec<u8> {
    let mut bytes = tid.to_be_bytes().to_vec();
    bytes.extend(tlen.to_be_bytes());
    bytes.extend(b" \0\0\0\0\0\0");
    for field in [tid, tid, 0, position] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(version_len.to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.push(b'.');
    bytes.extend(66u64.to_be_bytes());
    bytes
}

/// A file of `len` bytes or so in which each transaction is damaged. Where one ends is
/// told by its own length, or, of each second one, found by a search alone.
fn damaged_at_every_turn(len: usize, is_searched: bool) -> Vec<u8> {
    let mut file = b"FS30".to_vec();
    let mut tid = 0x03f0_0000_0000_0000;
    while file.len() < len {
        for tlen in [if is_searched { 1 << 60 } else { 66 }, 66] {
            tid += 1;
            file.extend(txn(tid, file.len() as u64, tlen, 1));
        }
    }
    file
}

#[test]
fn a_ledger_that_cannot_be_read_on_ends_the_comparison() {
    let scene = Scene::synced(History::get());
    let ledger = fs::canonicalize(scene.beside(".fssync-ledger")).unwrap();
    // Its head and its end can be read.
    let fail = ["-e", "inject=pread64:error=EIO:when=4+"];
    let mut command = strace(&fail, &[ledger]);
    command.args(["verify", "--json"]).arg(&scene.slave);
    let report = cheap(&command).0.expect(0).report();
    assert_eq!(report["counts"]["ledger"], 1, "{report}");
}

#[test]
fn a_ledger_with_more_entries_than_the_slave_can_have_is_not_read_to_its_end() {
    let scene = Scene::synced(History::get());
    let ledger = File::options()
        .write(true)
        .open(scene.beside(".fssync-ledger"));
    ledger.and_then(|file| file.set_len(1 << 40)).unwrap();
    for mut command in verbs(&scene) {
        cheap(command.arg("--quiet"));
    }
    let report = cheap(&scene.verify(&["--json"])).0.report();
    assert_eq!(
        report["counts"],
        serde_json::json!({}),
        "a pass has mended it"
    );
}

#[test]
fn damage_at_every_turn_costs_no_more_than_the_file_weighs() {
    for is_searched in [false, true] {
        let scene = Scene::new();
        let file = damaged_at_every_turn(2 << 20, is_searched);
        fs::write(&scene.slave, &file).unwrap();
        let (found, taken) = cheap(&scene.verify(&["--json"]));
        let report = found.report();
        assert!(
            report["damages"].as_u64() > Some(25_000),
            "{}",
            report["counts"]
        );
        // A window, of at least some kilobytes, is read again behind each of them.
        let most = 300 * file.len() as u64;
        assert!(report["bytes"].as_u64() < Some(most), "{}", report["bytes"]);
        println!("{is_searched}: {taken:?} {}", report["bytes"]);
    }
}

#[test]
fn a_small_file_that_nobody_writes_is_not_waited_for_at_every_turn() {
    let scene = Scene::new();
    fs::write(&scene.slave, damaged_at_every_turn(4000, true)).unwrap();
    let told = scene.directory.path().join("sleeps");
    let mut command = tool("strace", "strace");
    command
        .args(["-f", "-e", "trace=clock_nanosleep", "-o"])
        .arg(&told);
    command.arg(env!("CARGO_BIN_EXE_fssync")).arg("verify");
    run(command.arg(&scene.slave)).expect(31);
    let sleeps = fs::read_to_string(told).unwrap();
    let numbers_behind = |name: &str| -> Vec<u64> {
        let behind = sleeps.split(name).skip(1);
        let digits = behind.map(|it| it.split(|c: char| !c.is_ascii_digit()).next().unwrap());
        digits.map(|it| it.parse().unwrap()).collect()
    };
    let slept_ms = numbers_behind("tv_sec=").iter().sum::<u64>() * 1000
        + numbers_behind("tv_nsec=").iter().sum::<u64>() / 1_000_000;
    assert!((100..200).contains(&slept_ms), "{sleeps}");
}
