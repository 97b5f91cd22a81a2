//! Everything that ZODB does to a master, with a pass after each operation, and with passes
//! during the operations.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ledger;
use crate::support::{
    History, Run, Scene, Transport, Zodb, fssync, project, python, replace, spawn,
};

/// A master that ZODB has open, and its slave.
struct Pair {
    scene: Scene,
    zodb: Zodb,
}

impl Pair {
    /// A master with its first transaction, and no slave yet, with each transport.
    fn over_both(seed: u64, pack_gc: bool) -> impl Iterator<Item = Self> {
        Transport::BOTH
            .into_iter()
            .map(move |transport| Self::new(seed, pack_gc, transport))
    }

    fn new(seed: u64, pack_gc: bool, transport: Transport) -> Self {
        let mut pair = Self {
            scene: Scene::new().over(transport),
            zodb: Zodb::start(),
        };
        let path = pair.scene.master.clone();
        pair.zodb.call(&json!({
            "cmd": "open", "name": "m", "path": path,
            "create": true, "seed": seed, "pack_gc": pack_gc,
        }));
        pair.act(&json!({"cmd": "commit", "objects": 4}));
        pair
    }

    /// Executes a command on the master.
    fn act(&mut self, command: &Value) -> Value {
        let mut command = command.clone();
        command["name"] = "m".into();
        self.zodb.call(&command)
    }

    /// Makes a pass that must have this action; the two must be in sync afterwards.
    #[track_caller]
    fn expect(&mut self, action: &str) -> Value {
        let report = self.scene.expect(action);
        let Scene { master, slave, .. } = &self.scene;
        self.zodb.assert_in_sync(master, slave);
        ledger::assert_whole(slave);
        report
    }

    /// Executes a command on the master, then makes a pass.
    #[track_caller]
    fn then(&mut self, command: &Value, action: &str) -> Value {
        self.act(command);
        self.expect(action)
    }

    /// Packs the master and makes a pass; returns whether the pack changed the file.
    #[track_caller]
    fn pack(&mut self, keep: u64) -> bool {
        let answer = self.act(&json!({"cmd": "pack", "keep": keep}));
        let packed = answer["packed"] == true;
        self.expect(if packed { "full-copy" } else { "up-to-date" });
        packed
    }

    fn transactions(&mut self, path: &Path) -> Vec<Value> {
        let answer = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": path}));
        answer["transactions"].as_array().expect("a list").clone()
    }
}

#[test]
fn each_operation_of_zodb_is_replicated_by_the_next_pass() {
    for mut pair in (1..=3).flat_map(|seed| Pair::over_both(seed, true)) {
        pair.expect("full-copy");
        pair.expect("up-to-date");
        let commit = json!({"cmd": "commit", "objects": 3, "user": "editor"});
        assert_eq!(pair.then(&commit, "append")["transactions"], 1);
        pair.then(&json!({"cmd": "commit", "size": 3_000_000}), "append");
        pair.then(&json!({"cmd": "undo"}), "append");
        pair.then(&json!({"cmd": "undo"}), "append");
        pair.then(&json!({"cmd": "commit", "objects": 0}), "append");
        for _ in 0..3 {
            pair.act(&commit);
        }
        assert_eq!(pair.then(&commit, "append")["transactions"], 4);
    }
}

#[test]
fn an_undone_creation_is_replicated() {
    for mut pair in Pair::over_both(1, true) {
        pair.expect("full-copy");
        let master = pair.scene.master.clone();
        let first = pair.transactions(&master)[0]["tid"].clone();
        pair.then(&json!({"cmd": "undo", "tid": first}), "append");
        let slave = pair.scene.slave.clone();
        let loaded = pair
            .zodb
            .call(&json!({"cmd": "open_db_load_all", "path": slave}));
        assert_eq!(loaded["undone"], 4, "no object is left: {loaded}");
    }
}

#[test]
fn a_vote_is_copied_once_it_is_finished_and_never_if_it_is_aborted() {
    for mut pair in (1..=3).flat_map(|seed| Pair::over_both(seed, true)) {
        pair.expect("full-copy");
        let vote = json!({"cmd": "vote", "objects": 3, "size": 40_000});
        for _ in 0..3 {
            let report = pair.then(&vote, "up-to-date");
            let reason = report["reason"].as_str().expect("a reason");
            assert!(reason.contains("not finished yet"), "{reason}");
            pair.then(&json!({"cmd": "abort"}), "up-to-date");
            pair.then(&vote, "up-to-date");
            pair.then(&json!({"cmd": "finish"}), "append");
            // The next transaction takes the place of an aborted one.
            pair.then(&vote, "up-to-date");
            pair.act(&json!({"cmd": "abort"}));
            pair.then(&json!({"cmd": "commit", "size": 500}), "append");
        }
    }
}

#[test]
fn a_pack_causes_a_full_copy_only_if_it_changed_the_file() {
    for mut pair in [true, false]
        .into_iter()
        .flat_map(|gc| Pair::over_both(5, gc))
    {
        pair.expect("full-copy");
        let mut packs = 0;
        for round in 0..6 {
            for _ in 0..6 {
                pair.act(&json!({"cmd": "commit", "objects": 5, "user": "editor"}));
            }
            pair.expect("append");
            packs += u32::from(pair.pack(round % 3 + 1));
            // A second pack frees nothing.
            assert!(!pair.pack(round % 3 + 1));
            pair.then(&json!({"cmd": "commit"}), "append");
        }
        assert!(packs >= 4, "{packs} packs changed the file");
        let beside = pair.scene.beside_slave();
        assert!(
            beside.iter().all(|name| !name.contains("diverged")),
            "{beside:?}"
        );
    }
}

/// The expected action of a pass after an operation of `Operations`.
fn action_after(operation: &str) -> &'static str {
    match operation {
        "pack" => "full-copy",
        "commit" | "commit_big" | "vote_finish" | "undo" | "empty" => "append",
        "vote_abort" | "undo_refused" | "pack_refused" | "pack_redundant" => "up-to-date",
        other => panic!("an unknown operation: {other}"),
    }
}

#[test]
fn a_random_history_is_followed_operation_by_operation() {
    for mut pair in (1..=4).flat_map(|seed| Pair::over_both(seed, true)) {
        pair.expect("full-copy");
        for step in 0..80 {
            // The result of a random pack is not predicted here, so there is none.
            let answer = pair.act(&json!({"cmd": "random", "count": 1}));
            let operations = answer["operations"].as_object().expect("operations");
            let operation = operations.keys().next().expect("one operation");
            pair.expect(action_after(operation));
            if step % 20 == 19 {
                pair.pack(2);
            }
        }
    }
}

/// A running `agent.py write`, and its last acknowledged transaction.
struct Writer {
    process: Child,
    acknowledged: Arc<Mutex<Option<String>>>,
    reader: thread::JoinHandle<u32>,
}

impl Writer {
    /// Starts to write for some seconds; without a rate, as fast as possible.
    fn start(path: &Path, seed: u64, seconds: u32, rate: Option<u32>) -> Self {
        let mut command = Command::new(python());
        command
            .arg(project("tests/zodb/agent.py"))
            .arg("write")
            .arg(path)
            .args(["--pack", "--seed", &seed.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::piped());
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let mut process = command.spawn().expect("the writer");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let acknowledged = Arc::new(Mutex::new(None));
        let last = Arc::clone(&acknowledged);
        // Counts the packs.
        let reader = thread::spawn(move || {
            let mut packs = 0;
            for line in lines {
                let line = line.expect("a line");
                match line.split_once(' ').expect("two words") {
                    ("packed", _) => packs += 1,
                    (tid, _) => *last.lock().unwrap() = Some(tid.to_owned()),
                }
            }
            packs
        });
        Self {
            process,
            acknowledged,
            reader,
        }
    }

    fn is_writing(&mut self) -> bool {
        self.process.try_wait().expect("its state").is_none()
    }

    fn last_acknowledged(&self) -> Option<String> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Waits for the end; returns the number of packs.
    fn join(mut self) -> u32 {
        let status = self.process.wait().expect("its end");
        assert!(status.success(), "the writer failed: {status}");
        self.reader.join().expect("its lines")
    }
}

/// The master's file at this moment. It stays readable if a pack replaces it.
fn open_master(scene: &Scene) -> Option<File> {
    File::open(&scene.master).ok()
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let (opened, named) = (file.metadata().unwrap(), fs::metadata(path));
    named.is_ok_and(|named| {
        (named.ino(), named.created().ok()) == (opened.ino(), opened.created().ok())
    })
}

/// Whether a file contains this tid, given in hex.
fn holds(bytes: &[u8], tid: &str) -> bool {
    let tid = u64::from_str_radix(tid, 16).expect("hex").to_be_bytes();
    bytes.windows(tid.len()).any(|window| window == tid)
}

/// The result of a pass that needed `--full`.
const STARTED_OVER: &str = "started over";

/// Makes a pass. Rarely, a pack drops the slave's last transaction as garbage, and keeps no
/// transaction between it and the pack time. Then the plan leaves the decision to a person,
/// who uses `--full`.
fn pass_or_start_over(scene: &Scene) -> Run {
    let run = scene.pass(&[]);
    if run.code != 20 {
        return run.expect(0);
    }
    let report = run.report();
    let last = report["last_tid"].as_str().expect("a tid");
    let master = open_master(scene).map(|mut file| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("the master");
        bytes
    });
    assert!(master.is_none_or(|bytes| !holds(&bytes, last)), "{run:?}");
    scene.pass(&["--full"]).expect(0)
}

/// Makes a pass during the writes, and checks the slave. Returns the action.
fn pass_during_writes(writer: &Writer, scene: &Scene, zodb: &mut Zodb) -> String {
    let master = open_master(scene);
    let acknowledged = writer.last_acknowledged();
    let run = pass_or_start_over(scene);
    let slave = fs::read(&scene.slave).expect("the slave");
    let found = zodb.check(&scene.slave);
    assert_eq!(
        found["position"],
        slave.len(),
        "a boundary: {found} {run:?}"
    );
    if let Some(mut master) = master.filter(|file| is_same_file(file, &scene.master)) {
        // No pack came in between, so the slave must be a prefix of this file. It must have
        // the transaction that was acknowledged before the pass, unless an earlier pack
        // dropped it.
        let mut bytes = Vec::new();
        master.read_to_end(&mut bytes).expect("the master");
        assert!(
            bytes.starts_with(&slave),
            "a prefix of committed history: {run:?}"
        );
        if let Some(tid) = acknowledged.filter(|tid| holds(&bytes, tid)) {
            assert!(holds(&slave, &tid), "{tid} was acknowledged: {run:?}");
        }
    }
    let report = run.report();
    let action = match report["reason"].as_str() {
        Some("--full was given") => STARTED_OVER,
        _ => report["action"].as_str().expect("an action"),
    };
    action.to_owned()
}

/// Makes passes while a writer is running; returns their actions.
fn passes_during_writes(
    seed: u64,
    seconds: u32,
    rate: Option<u32>,
    over: Transport,
) -> Vec<String> {
    let pair = Pair::new(seed, true, over);
    let Pair { scene, mut zodb } = pair;
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let mut writer = Writer::start(&scene.master, seed, seconds, rate);
    let mut actions = Vec::new();
    while writer.is_writing() {
        actions.push(pass_during_writes(&writer, &scene, &mut zodb));
    }
    let packs = writer.join();
    assert!(packs > 0, "the writer packed");
    let started_over = actions.iter().filter(|action| *action == STARTED_OVER);
    assert!(
        started_over.count() <= 3 + packs as usize / 10,
        "rarely: {actions:?}"
    );
    scene.pass(&[]).expect(0);
    zodb.assert_in_sync(&scene.master, &scene.slave);
    actions
}

fn count(actions: &[String], wanted: &str) -> usize {
    actions.iter().filter(|action| *action == wanted).count()
}

#[track_caller]
fn assert_many(actions: &[String], wanted: &str, at_least: usize) {
    let count = count(actions, wanted);
    assert!(
        count >= at_least,
        "{count} of {} did {wanted}",
        actions.len()
    );
}

#[test]
fn passes_during_fast_writes_end_on_a_transaction() {
    // On a slow machine, every pass through ssh meets a pack.
    for (seed, transport, appends) in [(1, Transport::Path, 1), (2, Transport::Ssh, 0)] {
        let actions = passes_during_writes(seed, 6, None, transport);
        assert_many(&actions, "append", appends);
        assert_many(&actions, "full-copy", 1);
    }
}

#[test]
fn passes_during_slow_writes_end_on_a_transaction() {
    for transport in Transport::BOTH {
        // On a busy machine most passes meet a pack: then the writer gets more time.
        let has_appended = [6, 40].into_iter().any(|seconds| {
            let actions = passes_during_writes(3, seconds, Some(40), transport);
            count(&actions, "append") >= 2
        });
        assert!(has_appended, "two passes append");
    }
}

/// The ends of the transactions in a fixture.
fn boundaries(zodb: &mut Zodb, path: &Path) -> Vec<usize> {
    let answer = zodb.call(&json!({"cmd": "transactions", "path": path}));
    let transactions = answer["transactions"].as_array().expect("a list");
    let end = |value: &Value| {
        (value["pos"].as_u64().unwrap() + value["tlen"].as_u64().unwrap() + 8) as usize
    };
    transactions.iter().map(end).collect()
}

/// Replaces the file like ZODB at the end of a pack, again and again: each new file has more
/// transactions, and the time without `Data.fs` varies.
fn pack_repeatedly(path: &Path, bytes: &[u8], ends: &[usize]) {
    let (old, new) = (
        path.with_extension("fs.old"),
        path.with_extension("fs.pack"),
    );
    for (round, end) in ends.iter().enumerate() {
        fs::write(&new, &bytes[..*end]).unwrap();
        fs::rename(path, &old).unwrap();
        thread::sleep(Duration::from_millis((round as u64 * 37) % 300));
        fs::rename(&new, path).unwrap();
        thread::sleep(Duration::from_millis(60));
    }
}

#[test]
fn a_pass_waits_while_a_pack_replaces_data_fs() {
    let scene = Scene::with_master("site");
    let mut zodb = Zodb::start();
    let bytes = fs::read(&scene.master).unwrap();
    let ends = boundaries(&mut zodb, &scene.master);
    replace(&scene.master, &bytes[..ends[0]]);
    scene.expect("full-copy");
    let done = AtomicBool::new(false);
    let mut waited = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            pack_repeatedly(&scene.master, &bytes, &ends);
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let run = scene.pass(&["-v"]).expect(0);
            waited += u32::from(
                run.stderr
                    .contains("retrying after: the master is unreachable"),
            );
            zodb.assert_prefix_of(&bytes, &scene.slave);
        }
    });
    assert!(waited >= 3, "Data.fs was missing in {waited} passes");
    scene.pass(&[]).expect(0);
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn a_python_2_file_is_copied_again_after_its_magic_is_rewritten() {
    let scene = Scene::with_master("python2");
    let mut zodb = Zodb::start();
    let bytes = fs::read(&scene.master).unwrap();
    let ends = boundaries(&mut zodb, &scene.master);
    fs::write(&scene.master, &bytes[..ends[2]]).unwrap();
    scene.expect("full-copy");
    for end in &ends[3..] {
        fs::write(&scene.master, &bytes[..*end]).unwrap();
        assert_eq!(scene.expect("append")["transactions"], 1);
        zodb.assert_in_sync(&scene.master, &scene.slave);
    }
    // Like zodbupdate: in place, and without any other change.
    let mut rewritten = bytes;
    rewritten[..4].copy_from_slice(b"FS30");
    fs::write(&scene.master, &rewritten).unwrap();
    let report = scene.expect("full-copy");
    let reason = report["reason"].as_str().expect("a reason");
    assert!(reason.contains("packed or rewritten"), "{reason}");
    zodb.assert_in_sync(&scene.master, &scene.slave);
    scene.expect("up-to-date");
}

#[test]
fn a_master_without_transactions_is_copied_and_then_its_first_one() {
    let mut pair = Pair {
        scene: Scene::new(),
        zodb: Zodb::start(),
    };
    let path = pair.scene.master.clone();
    pair.zodb
        .call(&json!({"cmd": "open", "name": "m", "path": path, "create": true}));
    assert_eq!(pair.expect("full-copy")["position"], 4);
    pair.expect("up-to-date");
    pair.then(&json!({"cmd": "vote"}), "up-to-date");
    pair.then(&json!({"cmd": "abort"}), "up-to-date");
    // The slave is too short to append to, and a copy cannot lose anything.
    let report = pair.then(&json!({"cmd": "commit"}), "full-copy");
    assert_eq!(report["transactions"], 1);
    pair.then(&json!({"cmd": "commit"}), "append");
}

#[test]
fn a_pass_waits_for_a_missing_master_as_long_as_a_pack_may_take() {
    let scene = Scene::synced(History::get());
    fs::remove_file(&scene.master).unwrap();
    let started = Instant::now();
    scene.pass(&[]).expect(12);
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(1), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[test]
fn a_master_that_comes_back_within_a_second_is_found() {
    let scene = Scene::synced(History::get());
    fs::remove_file(&scene.master).unwrap();
    let mut pass = spawn(fssync().args([&scene.master, &scene.slave]));
    std::thread::sleep(Duration::from_millis(600));
    fs::write(&scene.master, &History::get().after).unwrap();
    assert_eq!(pass.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(&scene.slave).unwrap(), History::get().after);
}
