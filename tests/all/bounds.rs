//! Bounded time and memory for any input: hostile input costs no more than its size justifies.
//! The tests limit processor time and memory, not elapsed time.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fssync::source::protocol::{self, Reply, Request};

use crate::support::{
    History, Run, Scene, Taken, fssync, measured, must, run, sparse_master, strace, tool,
};

/// More processor time than a few kilobytes of input need, in seconds, in a build without
/// optimisation.
const LITTLE: f64 = 1.0;

/// More processor time than megabytes of input need, or the data that a peer sends within the
/// timeout of one second.
const SOME: f64 = 3.0;

/// More memory than any of these commands needs, in bytes.
const MOST_MEMORY: u64 = 64 << 20;

/// Runs a command on small files. It must be cheap and end by itself.
#[track_caller]
fn cheap(command: &Command) -> (Run, Taken) {
    within(LITTLE, command)
}

/// Runs a command that must end by itself within this processor time.
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

/// The subcommands that read a slave, with their options.
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

/// A transaction with one record. Its header contains the length `tlen`, and the record a
/// version length.
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

/// A file of about `len` bytes in which each transaction is damaged. The end of a transaction
/// follows from its length, or, for every second one, only from a search.
fn completely_damaged(len: usize, is_searched: bool) -> Vec<u8> {
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
fn an_unreadable_ledger_entry_ends_the_comparison() {
    let scene = Scene::synced(History::get());
    let ledger = fs::canonicalize(scene.beside(".fssync-ledger")).unwrap();
    // The header and the end can be read.
    let fail = ["-e", "inject=pread64:error=EIO:when=4+"];
    let mut command = strace(&fail, &[ledger]);
    command.args(["verify", "--json"]).arg(&scene.slave);
    let report = cheap(&command).0.expect(0).report();
    assert_eq!(report["counts"]["ledger"], 1, "{report}");
}

#[test]
fn an_oversized_ledger_is_not_read_completely() {
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
        "a pass has repaired it"
    );
}

#[test]
fn verifying_a_completely_damaged_file_takes_bounded_time() {
    for is_searched in [false, true] {
        let scene = Scene::new();
        let file = completely_damaged(2 << 20, is_searched);
        fs::write(&scene.slave, &file).unwrap();
        let (found, taken) = within(SOME, &scene.verify(&["--json"]));
        let report = found.report();
        assert!(
            report["damages"].as_u64() > Some(25_000),
            "{}",
            report["counts"]
        );
        // After each damaged transaction a window of some kilobytes is read again.
        let most = 300 * file.len() as u64;
        assert!(report["bytes"].as_u64() < Some(most), "{}", report["bytes"]);
        println!("{is_searched}: {taken:?} {}", report["bytes"]);
    }
}

#[test]
fn verify_waits_only_once_for_a_damaged_file_that_nobody_writes() {
    let scene = Scene::new();
    fs::write(&scene.slave, completely_damaged(4000, true)).unwrap();
    let log = scene.directory.path().join("sleeps");
    let mut command = tool("strace", "strace");
    command
        .args(["-f", "-e", "trace=clock_nanosleep", "-o"])
        .arg(&log);
    command.arg(env!("CARGO_BIN_EXE_fssync")).arg("verify");
    run(command.arg(&scene.slave)).expect(31);
    let sleeps = fs::read_to_string(log).unwrap();
    let numbers_after = |name: &str| -> Vec<u64> {
        let after = sleeps.split(name).skip(1);
        let digits = after.map(|it| it.split(|c: char| !c.is_ascii_digit()).next().unwrap());
        digits.map(|it| it.parse().unwrap()).collect()
    };
    let slept_ms = numbers_after("tv_sec=").iter().sum::<u64>() * 1000
        + numbers_after("tv_nsec=").iter().sum::<u64>() / 1_000_000;
    assert!((100..200).contains(&slept_ms), "{sleeps}");
}

/// Replaces a file with something that is not a file, or is endless.
fn replace_by(path: &Path, what: &str) {
    // It may not exist.
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
fn unusual_files_beside_the_slave_are_cheap() {
    let names = [".fssync", ".fssync-switch", ".fssync-ledger", ".index"];
    for what in ["a directory", "a FIFO", "/dev/zero", "a terabyte"] {
        for name in names {
            let scene = Scene::synced(History::get());
            for command in verbs(&scene) {
                replace_by(&scene.beside(name), what);
                println!("{what} as {name}: {command:?}");
                cheap(&command);
                assert!(fs::read(&scene.slave).unwrap() == History::get().before);
            }
        }
    }
}

#[test]
fn an_unusual_master_or_slave_is_cheap() {
    for what in ["a directory", "a FIFO", "/dev/zero", "a terabyte"] {
        let scene = Scene::synced(History::get());
        replace_by(&scene.master, what);
        let against = &mut scene.status(&["--against"]);
        cheap(against.arg(&scene.master));
        cheap(&scene.command(&[]));
        let slave = Scene::synced(History::get());
        replace_by(&slave.slave, what);
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
    // ZODB would truncate this tail.
    lengthen(&scene.slave);
    cheap(&scene.command(&[])).0.expect(30);
    cheap(&scene.status(&[]));
}

/// A small file in which the header of a transaction or of a data record contains an
/// impossible length.
#[test]
fn impossible_lengths_are_cheap() {
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

/// A pass whose master is the output of a shell command.
fn from_peer(scene: &Scene, command: &str) -> (Run, Taken) {
    let path = scene.directory.path().join("peer");
    fs::write(&path, format!("#!/bin/sh\n{command}\n")).unwrap();
    must(Command::new("chmod").arg("+x").arg(&path));
    let mut pass = fssync();
    pass.arg("-e").arg(&path).args(["--timeout", "1"]);
    pass.arg("m:/data").arg(&scene.slave);
    within(SOME, &pass)
}

/// The bytes as escapes for a shell's `printf`.
fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:03o}");
        text
    })
}

#[test]
fn a_peer_that_sends_endless_output_is_unreachable() {
    let hello = octal(&protocol::hello(protocol::VERSION));
    let mut reply = Vec::new();
    protocol::write_message(&mut reply, &Reply::Changed(true)).unwrap();
    let reply = octal(&reply);
    for command in [
        "cat /dev/zero",
        "yes fssync",
        "cat /dev/zero >&2",
        &format!("printf '{hello}'; cat /dev/zero"),
        &format!("printf '{hello}'; printf 'J\\377\\377\\377\\377'; cat /dev/zero"),
        &format!("printf '{hello}'; printf 'J\\000\\020\\000\\000'; cat /dev/zero"),
        &format!("printf '{hello}'; while printf '{reply}'; do :; done"),
    ] {
        let scene = Scene::synced(History::get());
        println!("{command}");
        from_peer(&scene, command).0.expect(12);
        assert!(fs::read(&scene.slave).unwrap() == History::get().before);
    }
}

#[test]
fn endless_requests_take_little_memory_on_the_master() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1000);
    let served = scene.master.parent().unwrap();
    let mut asked = protocol::hello(protocol::VERSION).to_vec();
    let path = scene.master.display().to_string();
    let ranges = vec![0..u64::MAX; 16];
    for request in [
        Request::Stat { path, ranges },
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

/// Like `cheap`, for a command whose output is not text.
fn cheap_bytes(command: &Command) {
    let mut silent = Command::new("sh");
    silent.args(["-c", "exec \"$@\" >/dev/null", "sh"]);
    silent.arg(command.get_program()).args(command.get_args());
    cheap(&silent);
}
