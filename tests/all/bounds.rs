//! Bounded time and memory on any input: what is made to cost much costs no more than it
//! weighs. Asserted of the processor's time and of memory, not of the clock.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fssync::source::protocol::{self, Reply, Request};

use crate::support::{
    History, Run, Scene, Taken, fssync, measured, must, run, sparse_master, strace, tool,
};

/// More than a few kilobytes cost, in seconds, though the program is not optimised here.
const LITTLE: f64 = 1.0;

/// More than megabytes cost, or what a peer sends in the second after which it is given up.
const SOME: f64 = 3.0;

/// More memory than any of them takes, in bytes.
const MOST_MEMORY: u64 = 64 << 20;

/// Runs a command on small files, which must be cheap, and end by itself.
#[track_caller]
fn cheap(command: &Command) -> (Run, Taken) {
    within(LITTLE, command)
}

/// Runs a command that takes at most so many seconds, and ends by itself.
#[track_caller]
fn within(secs: f64, command: &Command) -> (Run, Taken) {
    let (run, taken) = measured(command);
    let documented = [0, 1, 2, 10, 12, 13, 20, 30, 31];
    let (code, stderr) = (run.code, &run.stderr);
    assert!(documented.contains(&code), "{command:?}: {code} {stderr}");
    let is_cheap = taken.cpu_secs < secs && taken.memory < MOST_MEMORY;
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
        let (found, taken) = within(SOME, &scene.verify(&["--json"]));
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

/// Puts something in the place of a file, that is none or has no end.
fn put_instead(path: &Path, what: &str) {
    // It may not be there.
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir(path);
    match what {
        "a directory" => fs::create_dir(path).unwrap(),
        "a FIFO" => drop(must(Command::new("mkfifo").arg(path))),
        "/dev/zero" => symlink("/dev/zero", path).unwrap(),
        "a terabyte" => File::create(path).unwrap().set_len(1 << 40).unwrap(),
        _ => panic!("{what}"),
    }
}

#[test]
fn whatever_lies_under_a_name_beside_the_slave_costs_nothing() {
    let names = [".fssync", ".fssync-switch", ".fssync-ledger", ".index"];
    for what in ["a directory", "a FIFO", "/dev/zero", "a terabyte"] {
        for name in names {
            let scene = Scene::synced(History::get());
            for command in verbs(&scene) {
                put_instead(&scene.beside(name), what);
                println!("{what} as {name}: {command:?}");
                cheap(&command);
                assert!(fs::read(&scene.slave).unwrap() == History::get().before);
            }
        }
    }
}

#[test]
fn a_master_or_a_slave_that_is_no_file_or_ends_in_a_terabyte_of_zeros_costs_nothing() {
    for what in ["a directory", "a FIFO", "/dev/zero", "a terabyte"] {
        let scene = Scene::synced(History::get());
        put_instead(&scene.master, what);
        let against = &mut scene.status(&["--against"]);
        cheap(against.arg(&scene.master));
        cheap(&scene.command(&[]));
        let slave = Scene::synced(History::get());
        put_instead(&slave.slave, what);
        cheap(&slave.status(&[]));
        cheap(&slave.command(&[]));
    }
    let scene = Scene::synced(History::get());
    let lengthen = |path: &Path| {
        let file = File::options().write(true).open(path);
        file.and_then(|file| file.set_len(1 << 40)).unwrap();
    };
    lengthen(&scene.master);
    cheap(&scene.command(&[])).0.expect(30);
    // ZODB would cut that.
    lengthen(&scene.slave);
    cheap(&scene.command(&[])).0.expect(30);
    cheap(&scene.status(&[]));
}

/// A transaction's header or a data record's in a small file, with lengths that no file
/// has.
#[test]
fn lengths_that_no_file_has_are_not_believed() {
    for len in [1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        for (at, is_record) in [(4 + 8, false), (4 + 23 + 34, true)] {
            let scene = Scene::synced(History::get());
            let file = &mut txn(0x03f0_0000_0000_0000, 4, 66, 0);
            file.splice(0..0, *b"FS30");
            file[at..at + 8].copy_from_slice(&len.to_be_bytes());
            if is_record {
                file.resize(4096, 0);
            }
            fs::write(&scene.slave, &file).unwrap();
            for command in verbs(&scene) {
                cheap(&command);
            }
            let scene = Scene::new();
            fs::write(&scene.master, &file).unwrap();
            cheap(&scene.command(&[]));
        }
    }
}

/// A pass whose master is the output of a shell's command.
fn from_peer(scene: &Scene, command: &str) -> (Run, Taken) {
    let path = scene.directory.path().join("peer");
    fs::write(&path, format!("#!/bin/sh\n{command}\n")).unwrap();
    must(Command::new("chmod").arg("+x").arg(&path));
    let mut pass = fssync();
    pass.arg("-e").arg(&path).args(["--timeout", "1"]);
    pass.arg("m:/data").arg(&scene.slave);
    within(SOME, &pass)
}

/// Bytes that a shell's `printf` prints.
fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:03o}");
        text
    })
}

#[test]
fn a_peer_that_sends_what_has_no_end_is_unreachable() {
    let hello = octal(&protocol::hello());
    let mut reply = Vec::new();
    protocol::write_message(&mut reply, &Reply::Entries(Vec::new())).unwrap();
    let reply = octal(&reply);
    for command in [
        "cat /dev/zero",
        "yes fssync",
        "cat /dev/zero >&2",
        &format!("printf '{hello}'; cat /dev/zero"),
        &format!("printf '{hello}'; printf 'J\\377\\377\\377\\377'; cat /dev/zero"),
        &format!("printf '{hello}'; printf 'J\\000\\004\\000\\000'; cat /dev/zero"),
        &format!("printf '{hello}'; while printf '{reply}'; do :; done"),
    ] {
        let scene = Scene::synced(History::get());
        println!("{command}");
        from_peer(&scene, command).0.expect(12);
        assert!(fs::read(&scene.slave).unwrap() == History::get().before);
    }
}

#[test]
fn a_slave_that_asks_without_an_end_costs_the_master_no_memory() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1000);
    let served = scene.master.parent().unwrap();
    let mut asked = protocol::hello().to_vec();
    let path = scene.master.display().to_string();
    let ranges = vec![0..u64::MAX; 16];
    for request in [
        Request::Look { path, ranges },
        Request::Read {
            offset: 0,
            len: u64::MAX,
        },
        Request::Digest(0..u64::MAX),
        Request::Confirm(u64::MAX - 1..u64::MAX),
        Request::Transactions {
            from: 0,
            size: u64::MAX,
        },
    ] {
        protocol::write_message(&mut asked, &request).unwrap();
    }
    let input = scene.directory.path().join("input");
    fs::write(&input, asked).unwrap();
    let program = env!("CARGO_BIN_EXE_fssync");
    let serve = |input: &str| {
        let mut command = Command::new("sh");
        let script = format!("{input} | {program} serve {}", served.display());
        command.args(["-c", &script]);
        cheap_bytes(&command);
    };
    serve(&format!("cat {}", input.display()));
    for endless in ["cat /dev/zero", "yes", "yes fssync"] {
        serve(endless);
    }
    serve("{ printf 'fssync\\000\\003J\\377\\377\\377\\377'; cat /dev/zero; }");
}

/// The same of a command whose output is no text.
fn cheap_bytes(command: &Command) {
    let mut silent = Command::new("sh");
    silent.args(["-c", "exec \"$@\" >/dev/null", "sh"]);
    silent.arg(command.get_program()).args(command.get_args());
    cheap(&silent);
}
