//! `fssync status`: its report on every kind of slave. It must not change anything.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fssync::filestorage::Tid;
use fssync::io::progress::{Monitor, Silent};
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::{Action, Exit};
use fssync::plan::{SlaveState, SlaveTail};
use fssync::source::path::MountedPath;
use fssync::{human, status};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::decision_table::{for_every_row, grow, remove_sidecar};
use crate::faults::Mount;
use crate::hanging_pass::HangingPass;
use crate::man_page::man_page;
use crate::support::{
    Call, History, Holder, Hooked, Run, Scene, Transport, Zodb, append_killed_at_sync, fssync,
    must, project, python, replace, require_root, rewrite_end, run, snapshot, sparse_master, spawn,
    tool,
};
use crate::watcher::Watcher;

/// Reports on the slave, without its master.
fn alone(scene: &Scene) -> Run {
    run(&mut scene.status(&["--json", "--local"]))
}

/// The same, with this exit code.
#[track_caller]
fn report(scene: &Scene, code: i32) -> Value {
    alone(scene).expect(code).report()
}

/// Reports on the slave and its master, with this exit code.
#[track_caller]
fn report_against(scene: &Scene, code: i32) -> Value {
    scene.status_against().expect(code).report()
}

fn len(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[test]
fn the_report_on_a_slave_in_sync_agrees_with_zodb() {
    let history = History::get();
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history).over(transport);
        let found = zodb.check(&scene.slave);
        let report = report_against(&scene, 0);
        assert_eq!(report["state"], "ok");
        assert_eq!(report["left"], "same");
        assert_eq!(report["position"], found["position"]);
        assert_eq!(report["size"], found["size"]);
        assert_eq!(report["last_tid"], found["last_tid"]);
        assert_eq!(report["unfinished_bytes"], 0);
        assert_eq!(report["syncing"], "on");
        assert_eq!(report["pass_action"], "full-copy");
        assert_eq!(report["pass_exit_code"], 0);
        for age in ["pass_age_seconds", "in_sync_age_seconds"] {
            let age = report[age].as_f64().unwrap();
            assert!((0.0..600.0).contains(&age), "{report}");
        }
        for nothing in ["lag_seconds", "lag_transactions", "lag_bytes"] {
            assert_eq!(report[nothing].as_f64(), Some(0.0), "{report}");
        }
        assert_eq!(report["next_action"], "up-to-date");
        assert_eq!(report["verdict"], "in-sync");
        let line = report["failover"].as_str().unwrap();
        assert!(line.starts_with("nothing would be lost"), "{line}");
    }
}

/// The time since a tid, in seconds.
fn age_of(tid: &Value) -> f64 {
    let tid: Tid = tid.as_str().unwrap().parse().unwrap();
    let age = Timestamp::now().duration_since(tid.time().unwrap());
    age.as_secs_f64()
}

#[test]
fn the_lag_is_reported_in_transactions_bytes_and_seconds() {
    let history = History::get();
    let mut zodb = Zodb::start();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history).over(transport);
        // The vote in progress does not count.
        rewrite_end(&scene.master, &history.voted);
        let found = zodb.call(&json!({"cmd": "transactions", "path": scene.master}));
        let missing = found["transactions"].as_array().unwrap()[4..].to_vec();
        let report = report_against(&scene, 0);
        assert_eq!(missing[0]["pos"], report["position"]);
        assert_eq!(report["lag_transactions"], missing.len());
        let bytes = len(&history.after) - len(&history.before);
        assert_eq!(report["lag_bytes"], bytes);
        let off = report["lag_seconds"].as_f64().unwrap() - age_of(&missing[0]["tid"]);
        assert!((-60.0..1.0).contains(&off), "{off}: {report}");
        assert_eq!(report["next_action"], "append");
        assert_eq!(report["verdict"], "behind");
        let line = report["failover"].as_str().unwrap();
        let size = human::bytes(bytes);
        let message = format!("{} transactions, {size}, of the last", missing.len());
        assert!(line.starts_with(&message), "{line}");
        scene.expect("append");
        assert_eq!(report_against(&scene, 0)["lag_transactions"], 0);
    }
}

#[test]
fn newer_transactions_of_a_packed_master_are_lag() {
    let history = History::get();
    for transport in Transport::BOTH {
        let scene = Scene::synced(history).over(transport);
        replace(&scene.master, &history.packed);
        let report = report_against(&scene, 0);
        assert_eq!(report["next_action"], "full-copy");
        assert_eq!(report["lag_transactions"], 5, "{report}");
        assert_eq!(report["verdict"], "behind");
        scene.expect("full-copy");
        assert_eq!(report_against(&scene, 0)["verdict"], "in-sync");
    }
}

/// The expected verdict, from the action of the next pass.
fn verdict_of(row: &str, action: &str, code: i32) -> &'static str {
    match (action, code) {
        (_, 12) => "unknown",
        (_, 20) => "diverged",
        (_, 31) => "damaged",
        _ if ["no slave", "an empty slave", "a slave of a few bytes"].contains(&row) => "no-slave",
        ("append" | "trim-append", _) => "behind",
        ("full-copy", _) if row.starts_with("a pack") => "behind",
        _ => "in-sync",
    }
}

#[test]
fn status_predicts_the_next_pass_and_changes_nothing() {
    for_every_row(|row, scene| {
        let directory = scene.slave.parent().unwrap();
        let before = snapshot(directory);
        let run = scene.status_against();
        assert!(snapshot(directory) == before, "{}: {run:?}", row.name);
        let is_usual = !["syncing is off", "another pass is running"].contains(&row.name);
        if !row.options.is_empty() || !is_usual {
            return;
        }
        let pass = scene.pass(&[]);
        let done = pass.report();
        if row.action == "error" && pass.code == 2 {
            assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", row.name);
            return;
        }
        let report = run.report();
        let verdict = report["verdict"].as_str().unwrap();
        if row.name.ends_with("in use") {
            assert_eq!((run.code, verdict), (0, "serving"), "{}", row.name);
            assert_eq!(
                report["next_exit_code"], pass.code,
                "{}: {report}",
                row.name
            );
            assert_eq!(
                report["next_action"], done["action"],
                "{}: {report}",
                row.name
            );
            return;
        }
        // Status does not read ahead to find damage in the master of a full copy.
        if row.name.starts_with("a damaged master") && report["next_action"] == "full-copy" {
            assert_eq!((pass.code, &report["next_exit_code"]), (30, &json!(0)));
            return;
        }
        for key in ["action", "exit_code"] {
            let next = &report[format!("next_{key}")];
            assert_eq!(*next, done[key], "{}: {report} {done}", row.name);
        }
        let expected = verdict_of(row.name, row.action, pass.code);
        assert_eq!(verdict, expected, "{}: {report}", row.name);
        let code = if expected == "no-slave" { 1 } else { pass.code };
        assert_eq!((run.code, &report["exit_code"]), (code, &json!(code)));
        if pass.code != 30 {
            assert_eq!(report["next_reason"], done["reason"], "{}", row.name);
        }
        if expected == "behind" && row.action != "full-copy" {
            assert_eq!(report["lag_transactions"], done["transactions"]);
            assert_eq!(report["lag_bytes"], done["bytes"], "{}", row.name);
        }
    });
}

#[test]
fn without_a_master_status_reports_on_the_slave() {
    for_every_row(|row, scene| {
        fs::remove_dir_all(scene.master.parent().unwrap()).unwrap();
        let run = alone(scene);
        let report = run.report();
        assert_eq!(report["master"], Value::Null);
        let (code, state) = match row.name {
            "no slave" | "an empty slave" | "a damaged master and no slave" => (1, "missing"),
            "a slave of a few bytes" => (1, "short"),
            "a slave of another format" | "a forced copy over a file of another format" => {
                (31, "foreign")
            }
            "a slave with an invalid record" => (31, "damaged"),
            _ => (0, "ok"),
        };
        assert_eq!(run.code, code, "{}: {run:?}", row.name);
        assert_eq!(report["state"], state, "{}: {report}", row.name);
        for key in ["lag_seconds", "lag_transactions", "next_action"] {
            assert_eq!(report[key], Value::Null, "{}: {report}", row.name);
        }
        let syncing = if row.name == "syncing is off" {
            "off"
        } else {
            "on"
        };
        assert_eq!(report["syncing"], syncing);
    });
}

#[test]
fn an_unreachable_master_is_reported_with_the_time_of_the_last_sync() {
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let before = report(&scene, 0);
        fs::remove_file(&scene.master).unwrap();
        scene.pass(&[]).expect(12);
        let report = report_against(&scene, 12);
        assert_eq!(report["pass_exit_code"], 12);
        assert_eq!(report["in_sync_time"], before["in_sync_time"]);
        assert_eq!(report["next_action"], "unreachable");
        assert_eq!(report["verdict"], "unknown");
        let line = report["failover"].as_str().unwrap();
        assert!(line.contains("since the master is unreachable; it was in sync"));
    }
}

#[test]
fn a_master_that_hangs_is_unreachable_after_the_timeout() {
    let scene = Scene::synced(History::get());
    let mut command = scene.status(&["--json", "--timeout", "0.5", "-e", "sh -c 'sleep 60'"]);
    let report = run(command.args(["--against", "m:/Data.fs"])).expect(12);
    assert_eq!(report.report()["verdict"], "unknown");
}

#[test]
fn zodb_is_reported_by_pid_and_not_disturbed() {
    let scene = Scene::synced(History::get());
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "commit", "name": "s"}));
    zodb.call(&json!({"cmd": "vote", "name": "s", "objects": 2}));
    let alone = report(&scene, 0);
    assert_eq!(alone["zodb_pid"], zodb.pid());
    assert_eq!(alone["left"], "grown");
    assert!(alone["unfinished_bytes"].as_u64().unwrap() > 0);
    assert_eq!(alone["verdict"], "serving");
    let asked = report_against(&scene, 20);
    assert_eq!(asked["verdict"], "serving");
    assert_eq!(asked["next_action"], "refuse");
    zodb.call(&json!({"cmd": "finish", "name": "s"}));
    let closed = zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert_eq!(closed["warnings"], json!([]));
    let report = report_against(&scene, 20);
    assert_eq!(report["zodb_pid"], Value::Null);
    assert_eq!(report["verdict"], "diverged");
}

/// A process that writes, undoes, aborts and packs without a pause, with ZODB.
fn writer(path: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(project("tests/zodb/agent.py")).arg("write");
    command
        .arg(path)
        .args(["--seed", "5", "--seconds", "60"])
        .args(options);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdout(Stdio::null());
    command
}

#[test]
fn a_slave_that_is_served_is_never_reported_as_damaged() {
    let scene = Scene::synced(History::get());
    let mut writer = spawn(&mut writer(&scene.slave, &["--pack"]));
    let runs: Vec<_> = (0..40).map(|_| alone(&scene)).collect();
    let still_writes = writer.try_wait().unwrap().is_none();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(still_writes, "the writer was not disturbed");
    for run in runs {
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.report()["state"], "ok", "{run:?}");
    }
}

/// Calls a function while the slave is read.
struct Meanwhile<F>(F);

impl<F: Fn()> Monitor for Meanwhile<F> {
    fn progress(&self, _: &'static str, _: u64, _: u64) {
        (self.0)();
    }
}

#[test]
fn a_torn_transaction_is_read_again_while_it_is_written() {
    let after = &History::get().after;
    let scene = Scene::new();
    fs::write(&scene.slave, &after[..after.len() - 7]).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let finished = Meanwhile(|| rewrite_end(&scene.slave, after));
    let status = status::look(&job.slave, None, &finished).unwrap();
    let SlaveState::Storage(found) = status.state else {
        panic!("{status:?}")
    };
    assert_eq!((found.position, found.tail), (len(after), SlaveTail::None));
}

#[test]
fn a_slave_that_grows_during_status_is_not_newer_than_its_master() {
    let history = History::get();
    let scene = Scene::synced(history);
    let (master, slave) = (scene.master.clone(), scene.slave.clone());
    let hook = move |call| {
        if call == Call::Look {
            rewrite_end(&master, &history.after);
            rewrite_end(&slave, &history.after);
        }
        Ok(())
    };
    let path = MountedPath::new(scene.master.clone());
    let job = scene.job(Hooked { path, hook }, Tuning::default());
    let status = status::look(&job.slave, Some(&job.master), &Silent).unwrap();
    assert_eq!(status.position(), Some(len(&history.before)));
    let comparison = status.comparison.unwrap();
    assert_eq!(comparison.lag.unwrap().transactions, 5);
    assert_eq!(comparison.next_pass.action, Action::Append);
}

#[test]
fn the_lag_is_reported_while_the_master_is_written() {
    let scene = Scene::synced(History::get());
    // Without packs: one could drop everything that the slave has, and then the two would seem
    // unrelated.
    let mut writer = spawn(&mut writer(&scene.master, &[]));
    let runs: Vec<_> = (0..20).map(|_| scene.status_against()).collect();
    writer.kill().unwrap();
    writer.wait().unwrap();
    for run in runs {
        assert_eq!(run.code, 0, "{run:?}");
        let verdict = run.report()["verdict"].clone();
        assert!(verdict == "behind" || verdict == "in-sync", "{run:?}");
    }
}

#[test]
fn a_pass_that_hangs_is_reported_and_its_tail_is_not_damage() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let pass = HangingPass::start(&scene);
    let report = report_against(&scene, 0);
    assert_eq!(report["pass_pid"], std::process::id());
    let secs = report["pass_running_seconds"].as_f64().unwrap();
    // The sidecar was written before the pass started, and after the start of this test.
    let noted = report["pass_age_seconds"].as_f64().unwrap();
    assert!(secs > 0.0 && secs <= noted + 0.1, "{report}");
    let lines = run(&mut scene.status(&[])).expect(0).stdout;
    let message = format!("pass now      process {}, for ", std::process::id());
    assert!(lines.contains(&message), "{lines}");
    assert_eq!(report["zodb_pid"], Value::Null);
    assert_eq!(report["position"], len(&History::get().before));
    assert_eq!(report["lag_transactions"], 5);
    assert_eq!(report["verdict"], "behind");
    assert!(report["unfinished_bytes"].as_u64().unwrap() > 7_000);
    let line = report["failover"].as_str().unwrap();
    assert!(line.contains("; an unfinished append of "), "{line}");
    assert_eq!(pass.release().exit, Exit::Success);
}

#[test]
fn a_step_of_a_pass_is_not_mistaken_for_zodb() {
    let scene = Scene::synced(History::get());
    let (step, zodb) = (scene.beside(".fssync-step"), scene.beside(".lock"));
    // One process holds both locks.
    let mut process = tool("flock", "util-linux");
    process.arg("--no-fork").arg(&step);
    process.args(["flock", "--no-fork"]).arg(&zodb);
    process.args(["sh", "-c", "echo held; exec sleep 600"]);
    let mut process = spawn(process.stdout(Stdio::piped()));
    let mut line = [0; 5];
    let mut stdout = process.stdout.take().unwrap();
    stdout.read_exact(&mut line).expect("both locks are taken");
    let report = report(&scene, 0);
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(report["zodb_pid"], Value::Null);
    let holder = Holder::of(&zodb);
    assert_eq!(alone(&scene).report()["zodb_pid"], holder.pid());
}

#[test]
fn lock_holders_on_btrfs_are_reported() {
    require_root();
    let scene = Scene::new();
    let disk = scene.directory.path().join("disk");
    let size = 128 * 1024 * 1024;
    fs::File::create(&disk).unwrap().set_len(size).unwrap();
    must(tool("mkfs.btrfs", "btrfs-progs").arg("-q").arg(&disk));
    let _mounted = Mount::new(
        &["-o", "loop", disk.to_str().unwrap()],
        scene.slave.parent().unwrap(),
    );
    fs::write(&scene.master, &History::get().before).unwrap();
    scene.expect("full-copy");
    let zodb = Holder::of(&scene.beside(".lock"));
    let pass = Holder::of(&scene.beside(".fssync-pass"));
    let report = report(&scene, 0);
    assert_eq!(report["zodb_pid"], zodb.pid());
    assert_eq!(report["pass_pid"], pass.pid());
}

#[test]
fn an_unfinished_append_is_distinguished_from_a_tail_of_zodb() {
    let history = History::get();
    let scene = append_killed_at_sync(1);
    let ours = report_against(&scene, 0);
    assert_eq!(ours["unfinished_bytes"], 23);
    let line = ours["failover"].as_str().unwrap();
    assert!(line.contains("an unfinished append of 23 bytes is truncated"));

    let scene = Scene::synced(history);
    let tail = &history.voted[history.after.len()..][..100];
    fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
    let foreign = report_against(&scene, 0);
    assert_eq!(foreign["position"], len(&history.before));
    assert_eq!(foreign["unfinished_bytes"], 100);
    let line = foreign["failover"].as_str().unwrap();
    assert!(line.contains("an unfinished tail of 100 bytes is truncated by ZODB"));
}

#[test]
fn a_switch_that_is_off_is_reported() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let report = report_against(&scene, 0);
    assert_eq!(report["syncing"], "off");
    let switch = scene.beside(".fssync-switch");
    let reason = format!("{} contains SYNCING=0", switch.display());
    assert_eq!(report["off_reason"], reason);
    assert_eq!(report["next_action"], "append", "once it is on");
    run(fssync().arg("on").arg(&scene.slave)).expect(0);
    let named = scene.directory.path().join("status");
    let missing = scene.status(&["--json", "--status-file", named.to_str().unwrap()]);
    let report = run(&mut { missing }).expect(0).report();
    assert_eq!(
        report["off_reason"],
        format!("{} is missing", named.display())
    );
}

#[test]
fn without_a_sidecar_the_whole_slave_is_read() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::synced(history);
    remove_sidecar(&scene);
    let report = report(&scene, 0);
    assert_eq!(report["position"], len(&history.before));
    assert_eq!(report["left"], "unknown");
    assert_eq!(report["pass_time"], Value::Null);
    assert_eq!(report["in_sync_time"], Value::Null);
    grow(&scene, &mut zodb);
    assert_eq!(report_against(&scene, 20)["verdict"], "diverged");
}

#[test]
fn an_index_is_reported_as_usable_if_zodb_uses_it() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::synced(history);
    let index = scene.beside(".index");
    let mut assert_index = |state: &str, scan_bytes: u64| {
        let report = report(&scene, 0);
        assert_eq!(report["index"], state, "{report}");
        assert_eq!(report["scan_bytes"], scan_bytes, "{report}");
        let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["used_index"], state == "usable", "{opened}");
    };
    // As a pass leaves it. A few more transactions do not make it due.
    assert_index("usable", 0);
    rewrite_end(&scene.master, &history.after);
    scene.expect("append");
    let whole = len(&history.after) - 4;
    assert_index("usable", len(&history.after) - len(&history.before));
    fs::remove_file(&index).unwrap();
    assert_index("missing", whole);
    Zodb::start().save_index(&scene.slave);
    assert_index("usable", 0);
    let saved = fs::read(&index).unwrap();
    fs::write(&index, b"\x80\x03K\x20.\x80\x03N.").unwrap();
    assert_index("unusable", whole);
    fs::write(&index, b"\x80\x03J\xff\xff\xff\x7f.\x80\x03N.").unwrap();
    assert_index("unusable", whole);
    fs::write(&index, &saved[1..]).unwrap();
    assert_index("unusable", whole);
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    assert_eq!(report(&scene, 0)["index"], "unusable");
}

impl Zodb {
    /// ZODB saves its index beside a file, as always when it closes the file.
    fn save_index(&mut self, path: &Path) {
        self.call(&json!({"cmd": "open", "name": "i", "path": path}));
        self.call(&json!({"cmd": "close", "name": "i"}));
    }
}

#[test]
fn files_that_were_kept_are_counted() {
    let scene = Scene::synced(History::get());
    let report_before = report(&scene, 0);
    for key in ["set_aside_files", "set_aside_bytes", "cut_tail_files"] {
        assert_eq!(report_before[key], 0, "{report_before}");
    }
    for (suffix, len) in [
        (".diverged-0406007200000000", 100),
        (".diverged-0406007200000000.1", 20),
        (".tr0", 3),
        (".tr1", 4),
        (".tr12", 5),
        (".trash", 1000),
        (".old", 1000),
    ] {
        fs::write(scene.beside(suffix), vec![0; len]).unwrap();
    }
    let report = report(&scene, 0);
    assert_eq!(report["set_aside_files"], 2);
    assert_eq!(report["set_aside_bytes"], 120);
    assert_eq!(report["cut_tail_files"], 3);
    assert_eq!(report["cut_tail_bytes"], 12);
}

#[test]
fn nothing_is_locked_opened_for_writing_or_created() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let master = scene.master.to_str().unwrap();
    assert_only_reads(&scene, &scene.status(&["--against", master]));
}

/// Fails unless the command opens no file of the scene for writing, and locks nothing.
pub fn assert_only_reads(scene: &Scene, command: &Command) {
    let trace = scene.directory.path().join("trace");
    let calls = "trace=%file,%desc";
    let mut traced = tool("strace", "strace");
    traced
        .args(["-f", "-qq", "-y", "-e", calls, "-o"])
        .arg(&trace);
    traced.arg(command.get_program()).args(command.get_args());
    run(&mut traced).expect(0);
    let trace = fs::read_to_string(trace).unwrap();
    let directory = scene.directory.path().to_str().unwrap();
    let about_us = trace.lines().filter(|line| line.contains(directory));
    assert!(about_us.clone().any(|line| line.contains("Data.fs.fssync")));
    let reads = [
        "openat",
        "openat2",
        "statx",
        "newfstatat",
        "fstat",
        "fstatfs",
        "statfs",
        "read",
        "pread64",
        "getdents64",
        "close",
        "lseek",
        "readlink",
        "llistxattr",
        "lgetxattr",
        "execve",
        "fcntl",
        "write",
        "fadvise64",
    ];
    // `verify` writes its result.
    for line in about_us.filter(|line| !line.contains(".fssync-verified")) {
        let call = line.split_whitespace().nth(1).unwrap();
        let name = call.split('(').next().unwrap();
        assert!(reads.contains(&name) || name == "<...", "{line}");
        let is_opening = name.starts_with("openat");
        let may_write = ["O_WRONLY", "O_RDWR", "O_CREAT"];
        assert!(
            !(is_opening && may_write.iter().any(|flag| line.contains(flag))),
            "{line}"
        );
        assert!(
            !line.contains("F_SETLK") && !line.contains("F_OFD"),
            "{line}"
        );
        // The output contains the names of the files.
        assert!(name != "write" || call.starts_with("write(1"), "{line}");
    }
    assert!(!trace.contains("flock("), "{trace}");
}

#[test]
fn little_is_read_if_a_pass_vouches_for_the_slave() {
    let scene = Scene::new();
    sparse_master(&scene.master, 64 << 20);
    scene.expect("full-copy");
    let trace = scene.directory.path().join("trace");
    let mut command = tool("strace", "strace");
    command.args(["-f", "-qq", "-e", "trace=read,pread64", "-o"]);
    command.arg(&trace).arg("-P").arg(&scene.slave);
    command.arg(env!("CARGO_BIN_EXE_fssync")).arg("status");
    run(command.arg(&scene.slave)).expect(0);
    let trace = fs::read_to_string(trace).unwrap();
    let read = |line: &str| -> u64 { line.rsplit("= ").next().unwrap().parse().unwrap() };
    let bytes: u64 = trace.lines().map(read).sum();
    assert!((1..300_000).contains(&bytes), "{trace}");
}

#[test]
fn the_slave_of_a_watch_is_in_sync() {
    let history = History::get();
    let scene = Scene::synced(history);
    let mut watch = Watcher::start(&scene, &[]);
    watch.expect("Finished syncing");
    rewrite_end(&scene.master, &history.after);
    watch.expect_in_sync(&scene);
    // The pass that has appended may not be over yet.
    let started = Instant::now();
    let report = loop {
        let report = report_against(&scene, 0);
        if report["left"] == "same" && report["pass_pid"].is_null() {
            break report;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{report}");
    };
    assert_eq!(report["verdict"], "in-sync");
    // The next pass, which finds nothing new, may be over too.
    let action = report["pass_action"].as_str().unwrap();
    assert!(["append", "up-to-date"].contains(&action), "{report}");
    assert_eq!(report["position"], len(&history.after));
    watch.signal(Signal::STOP);
    rewrite_end(&scene.master, &history.voted);
    assert_eq!(report_against(&scene, 0)["verdict"], "in-sync");
    watch.signal(Signal::CONT);
    assert_eq!(watch.end().0, 0);
}

/// The text output, on a terminal or not.
fn lines(scene: &Scene, on_terminal: bool, environment: &[(&str, &str)]) -> String {
    let status = scene.status(&["--against", scene.master.to_str().unwrap()]);
    let mut command = Command::new(python());
    if on_terminal {
        let pty =
            "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        command.args(["-c", pty]).arg(status.get_program());
    } else {
        command = Command::new(status.get_program());
    }
    command.args(status.get_args());
    command
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied());
    run(&mut command).expect(0).stdout
}

#[test]
fn the_text_has_one_line_for_each_fact() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let text = lines(&scene, false, &[]);
    let (observation, failover) = text.split_once("\n\n").unwrap();
    let names: Vec<_> = observation.lines().map(|line| line[..14].trim()).collect();
    let expected = [
        "slave",
        "syncing",
        "last pass",
        "last in sync",
        "pass now",
        "in use",
        "position",
        "last tid",
        "unfinished",
        "index",
        "blobs",
        "verified",
        "set aside",
        "cut tails",
        "master",
        "lag",
        "next pass",
    ];
    assert_eq!(names, expected, "{text}");
    for line in observation.lines() {
        assert!(line.len() > 15 && !line[14..].starts_with(' '), "{line:?}");
    }
    assert!(
        observation.contains("lag           5 transactions, "),
        "{text}"
    );
    assert_eq!(failover.lines().count(), 1, "{text}");
    assert!(failover.starts_with("If you failed over now: 5 transactions, "));
}

#[test]
fn colours_are_used_only_on_a_terminal_that_supports_them() {
    let scene = Scene::synced(History::get());
    assert!(lines(&scene, true, &[]).contains("\x1b[32m"));
    assert!(!lines(&scene, true, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!lines(&scene, true, &[("TERM", "dumb")]).contains('\x1b'));
    assert!(!lines(&scene, false, &[]).contains('\x1b'));
}

#[test]
fn the_report_always_has_the_same_keys_and_the_man_page_names_them() {
    let mut keys = None;
    for_every_row(|row, scene| {
        for run in [alone(scene), scene.status_against()] {
            if run.code == 2 {
                continue;
            }
            assert_eq!(run.stdout.lines().count(), 1, "{}: {run:?}", row.name);
            let report = run.report();
            let found: BTreeSet<_> = report.as_object().unwrap().keys().cloned().collect();
            assert_eq!(*keys.get_or_insert(found.clone()), found, "{}", row.name);
        }
    });
    let page = man_page();
    let (_, section) = page.split_once(".SH STATUS").expect("a section on status");
    let section = section.split(".SH").next().unwrap();
    let named: BTreeSet<String> = section
        .split(|c: char| !c.is_ascii_lowercase() && c != '_')
        .map(str::to_owned)
        .collect();
    for key in keys.unwrap() {
        assert!(named.contains(&key), "{key} is not in the man page");
    }
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let scene = Scene::synced(History::get());
    let (master, slave) = (
        scene.master.to_str().unwrap(),
        scene.slave.to_str().unwrap(),
    );
    for arguments in [
        &["status"][..],
        &["status", slave, master],
        &["status", "--full", slave],
        &["status", slave, "--against", slave],
        &["status", slave, "--against", "m:relative"],
        &["status", "/no/such/directory/Data.fs"],
    ] {
        let run = run(fssync().args(arguments));
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert_ne!(run.stderr, "", "{arguments:?}");
    }
}

/// Sets the time at which the slave was last in sync.
fn set_last_in_sync(scene: &Scene, time: Timestamp) {
    scene.edit_sidecar(|sidecar| sidecar["in_sync"] = json!(time));
}

/// The exit code with `--max-age`, and the line that `-q` prints.
fn with_max_age(scene: &Scene, seconds: &str) -> (i32, String) {
    let quiet = run(&mut scene.status(&["-q", "--max-age", seconds]));
    assert_eq!(quiet.stdout, "", "{quiet:?}");
    let lines = quiet.stderr.lines().count();
    assert_eq!(lines, usize::from(quiet.code != 0), "{quiet:?}");
    let printed = run(&mut scene.status(&["--max-age", seconds])).expect(quiet.code);
    let is_marked = printed.stdout.contains("OUT OF DATE");
    assert_eq!(is_marked, quiet.code != 0, "{printed:?}");
    (quiet.code, quiet.stderr)
}

#[test]
fn a_slave_older_than_max_age_exits_with_14() {
    let scene = Scene::synced(History::get());
    assert_eq!(with_max_age(&scene, "600").0, 0);
    let old = Timestamp::now() - Duration::from_secs(3_000);
    set_last_in_sync(&scene, old);
    report(&scene, 0);
    assert_eq!(with_max_age(&scene, "3600").0, 0);
    let (code, line) = with_max_age(&scene, "600");
    assert_eq!(code, 14);
    assert!(line.contains("last in sync 50 min"), "{line}");
    // If syncing is off, no pass reports anything.
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let (code, line) = with_max_age(&scene, "600");
    assert_eq!(code, 14);
    assert!(line.contains("syncing is off"), "{line}");
    let report = run(&mut scene.status(&["--json", "--max-age", "600"])).expect(14);
    let report = report.report();
    assert_eq!(report["stale"], true);
    assert_eq!(report["exit_code"], 14);
    assert_eq!(report["max_age_seconds"].as_f64(), Some(600.0));
}

#[test]
fn a_slave_without_a_plausible_time_in_sync_is_out_of_date() {
    let scene = Scene::synced(History::get());
    // The clock was set back in the meantime.
    set_last_in_sync(&scene, Timestamp::now() + Duration::from_secs(3_000));
    assert_eq!(with_max_age(&scene, "600").0, 14);
    remove_sidecar(&scene);
    let (code, line) = with_max_age(&scene, "600");
    assert_eq!(code, 14);
    assert!(line.contains("no pass has recorded"), "{line}");
    // Being missing takes precedence over being out of date.
    fs::remove_file(&scene.slave).unwrap();
    assert_eq!(with_max_age(&scene, "600").0, 1);
}

#[test]
fn with_a_master_a_slave_that_lacks_nothing_is_up_to_date_for_max_age() {
    let history = History::get();
    let scene = Scene::synced(history);
    set_last_in_sync(&scene, Timestamp::now() - Duration::from_secs(3_000));
    let against = || {
        let mut status = scene.status(&["--json", "--max-age", "600"]);
        run(status.arg("--against").arg(&scene.master))
    };
    assert_eq!(against().code, 0);
    rewrite_end(&scene.master, &history.after);
    assert_eq!(against().code, 14);
    // Being out of date takes precedence over an unreachable master, but not over damage.
    fs::remove_file(&scene.master).unwrap();
    assert_eq!(against().code, 14);
    fs::write(
        &scene.slave,
        "neither FS21 nor FS30, but long enough for a transaction",
    )
    .unwrap();
    assert_eq!(against().code, 31);
}

#[test]
fn a_refusal_is_printed_once() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    grow(&scene, &mut zodb);
    let status = || {
        let mut status = scene.status(&["--against", scene.master.to_str().unwrap()]);
        run(&mut status).expect(20).stdout
    };
    let sentence = "the slave has grown since last syncing";
    assert_eq!(status().matches(sentence).count(), 1, "{}", status());
    scene.pass(&[]).expect(20);
    let printed = status();
    assert_eq!(printed.matches(sentence).count(), 1, "{printed}");
    assert!(
        printed.contains("for the same reason as the last pass"),
        "{printed}"
    );
    let mut quiet = scene.status(&["-q", "--against", scene.master.to_str().unwrap()]);
    let quiet = run(&mut quiet).expect(20);
    assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
    assert!(quiet.stderr.contains(sentence), "{quiet:?}");
}

#[test]
fn a_first_copy_in_progress_is_reported_with_its_progress() {
    let scene = Scene::new();
    let size = 12 << 20;
    sparse_master(&scene.master, size);
    let size = fs::metadata(&scene.master).unwrap().len();
    // The connection becomes slow after the first 5 MB.
    let rsh = format!(
        "python3 {} 5000000 slow",
        project("tests/link.py").display()
    );
    let mut copy = fssync();
    copy.args(["-e", &rsh, "--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
    copy.arg(format!("host:{}", scene.master.display()))
        .arg(&scene.slave);
    let mut copy = spawn(copy.stdin(Stdio::null()).stderr(Stdio::null()));
    let tmp = scene.beside(".fssync-tmp");
    let started = Instant::now();
    while !fs::metadata(&tmp).is_ok_and(|found| found.len() > 3_000_000) {
        assert!(started.elapsed() < Duration::from_secs(60), "no copy");
        std::thread::sleep(Duration::from_millis(20));
    }
    let under_way = report(&scene, 1);
    assert_eq!(under_way["state"], "missing");
    assert_eq!(under_way["copy_total_bytes"], size, "{under_way}");
    let done = under_way["copy_bytes"].as_u64().unwrap();
    assert!((3_000_000..6_000_000).contains(&done), "{under_way}");
    assert!(
        under_way["copy_seconds_left"].as_f64() > Some(0.0),
        "{under_way}"
    );
    let line = under_way["failover"].as_str().unwrap();
    assert!(line.contains(" % is copied"), "{line}");
    let printed = run(&mut scene.status(&[])).expect(1).stdout;
    assert!(
        printed.contains("full copy     ") && printed.contains("left\n"),
        "{printed}"
    );

    copy.kill().unwrap();
    copy.wait().unwrap();
    let broken_off = report(&scene, 1);
    assert!(
        broken_off["copy_bytes"].as_u64() >= Some(done),
        "{broken_off}"
    );
    assert_eq!(broken_off["copy_seconds_left"], Value::Null);
    let printed = run(&mut scene.status(&[])).expect(1).stdout;
    assert!(printed.contains("the next pass resumes it"), "{printed}");
    scene.expect("full-copy");
    assert_eq!(report(&scene, 0)["copy_bytes"], Value::Null);
}
