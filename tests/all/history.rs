//! The history of passes in the sidecar: since when an outcome lasts, the master, and counters.

use std::fs;
use std::time::Duration;

use fssync::pass::Job;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Exit;
use fssync::source::path::MountedPath;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    History, Scene, Transport, Zodb, fssync, must, pass_here, project, run, tracer,
};

/// The content of the sidecar.
fn sidecar(scene: &Scene) -> Value {
    let text = fs::read(scene.beside(".fssync")).expect("the sidecar");
    serde_json::from_slice(&text).expect("JSON")
}

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().expect("a time")
}

#[test]
fn the_sidecar_of_the_previous_version_is_read() {
    let scene = Scene::with_master("commits");
    fs::copy(&scene.master, &scene.slave).unwrap();
    let old = project("fixtures/sidecars/without-history.json");
    fs::copy(&old, scene.beside(".fssync")).unwrap();
    let before = sidecar(&scene);
    let status = run(&mut scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["pass_time"], before["pass"]["time"]);
    assert_eq!(status["in_sync_time"], before["in_sync"]);
    assert_eq!(status["left"], "same");
    assert_eq!(status["pass_since"], Value::Null);
    let pass = scene.pass(&[]).expect(0);
    assert!(!pass.stderr.contains("invalid"), "{pass:?}");
    assert_eq!(pass.report()["action"], "up-to-date");
    let after = sidecar(&scene);
    assert_eq!(after["left"]["slave"], before["left"]["slave"]);
    // The old sidecar does not contain when this outcome began, only that the last pass had it.
    assert_eq!(after["pass"]["since"], before["pass"]["time"]);
    assert_eq!(after["counters"]["passes"], json!({"0": 1}));
    assert_eq!(after["master"], json!(scene.master));
}

#[test]
fn fields_of_a_later_version_are_kept() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    let later = json!({"since": 1, "list": [null, "x"]});
    scene.edit_sidecar(|sidecar| sidecar["later"] = later.clone());
    for pass in 0..2 {
        assert_eq!(scene.pass(&[]).expect(0).report()["action"], "up-to-date");
        assert_eq!(sidecar(&scene)["later"], later, "pass {pass}");
    }
}

#[test]
fn an_outcome_is_recorded_with_its_hint_and_since_when_it_lasts() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    scene.pass(&[]).expect(0);
    let since = time(&sidecar(&scene)["pass"]["since"]);
    assert!(since < time(&sidecar(&scene)["pass"]["time"]));
    let away = scene.directory.path().join("away");
    fs::rename(&scene.master, &away).unwrap();
    // The first attempt fails at once: the file is not there.
    scene.pass(&["--timeout", "0.1"]).expect(12);
    let failed = sidecar(&scene)["pass"].clone();
    assert_eq!(failed["since"], failed["time"]);
    assert!(failed["elapsed_ms"].is_u64(), "{failed}");
    scene.pass(&["--timeout", "0.1"]).expect(12);
    assert_eq!(sidecar(&scene)["pass"]["since"], failed["since"]);
    let status = run(&mut scene.status(&[])).expect(0);
    assert!(status.stdout.contains("since"), "{status:?}");
    fs::rename(&away, &scene.master).unwrap();
    scene.pass(&[]).expect(0);
    let after = sidecar(&scene);
    assert!(time(&after["pass"]["since"]) > time(&failed["since"]));
    assert_eq!(after["counters"]["passes"], json!({"0": 3, "12": 2}));
    let mut bytes = fs::read(&scene.slave).unwrap();
    bytes[4] ^= 1;
    fs::write(&scene.slave, bytes).unwrap();
    scene.pass(&[]).expect(20);
    let recorded = sidecar(&scene)["pass"].clone();
    assert_eq!(recorded["exit_code"], 20);
    assert!(recorded["hint"].is_string(), "{recorded}");
}

#[test]
fn copied_bytes_and_transactions_are_counted_by_action() {
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        let mut zodb = Zodb::start();
        let open = json!({"cmd": "open", "name": "m", "path": scene.master, "create": true});
        zodb.call(&open);
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 3}));
        let (mut bytes, mut transactions) = (json!({}), 0);
        for action in ["full-copy", "append", "append"] {
            let report = scene.expect(action);
            let copied = bytes[action].as_u64().unwrap_or(0) + report["bytes"].as_u64().unwrap();
            bytes[action] = json!(copied);
            transactions += report["transactions"].as_u64().unwrap();
            zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 2}));
        }
        let counters = sidecar(&scene)["counters"].clone();
        assert_eq!(counters["copied_bytes"], bytes);
        assert_eq!(counters["copied_transactions"], transactions);
        assert_eq!(counters["passes"], json!({"0": 3}));
    }
}

#[test]
fn the_master_is_recorded_unless_a_pass_refused_it() {
    let scene = Scene::with_master("commits");
    let nowhere = "nobody@localhost:/no/such/Data.fs";
    let unreachable = |master: &str| {
        let mut command = fssync();
        command.args(["-e", "false", master]).arg(&scene.slave);
        run(&mut command).expect(12)
    };
    unreachable(nowhere);
    assert_eq!(sidecar(&scene)["master"], nowhere);
    // A relative path is useless in another directory.
    let directory = scene.master.parent().unwrap();
    let mut relative = fssync();
    relative.current_dir(directory).arg("Data.fs");
    run(relative.arg(&scene.slave)).expect(0);
    assert_eq!(sidecar(&scene)["master"], json!(scene.master));
    unreachable(nowhere);
    assert_eq!(sidecar(&scene)["master"], json!(scene.master));
}

/// A pass with nothing new writes one small file, and syncs nothing.
#[test]
fn a_pass_with_nothing_new_writes_the_sidecar_once_and_syncs_nothing() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    scene.pass(&[]).expect(0);
    let trace = scene.directory.path().join("trace");
    let calls = "trace=write,pwrite64,writev,rename,renameat,renameat2,fsync,fdatasync,\
                 sync_file_range,syncfs,ftruncate,unlink,link,linkat";
    let mut traced = tracer(&["-qq", "-y", "-e", calls, "-o"], &[]);
    traced.arg(&trace).arg(env!("CARGO_BIN_EXE_fssync"));
    must(traced.args([&scene.master, &scene.slave]));
    let trace = fs::read_to_string(&trace).unwrap();
    let slave = scene.slave.parent().unwrap().display().to_string();
    let is_of_the_slave = |line: &&str| line.contains(&slave) && !line.contains("ENOENT");
    let calls: Vec<_> = trace
        .lines()
        .filter(is_of_the_slave)
        .filter_map(|line| line.split_whitespace().nth(1)?.split('(').next())
        .collect();
    assert_eq!(calls, ["write", "rename"], "{trace}");
}

/// A watch does not store each pass that found nothing. It adds them to the counters later.
#[test]
fn passes_of_a_watch_that_store_nothing_are_counted_later() {
    let scene = Scene::with_master("commits");
    let source = MountedPath::new(scene.master.clone());
    let job = Job {
        note_every: Duration::from_secs(3600),
        ..scene.job(source, Tuning::default())
    };
    let pass = || assert_eq!(pass_here(&job).exit, Exit::Success);
    for _ in 0..5 {
        pass();
    }
    let stored = fs::read(scene.beside(".fssync")).unwrap();
    pass();
    assert_eq!(fs::read(scene.beside(".fssync")).unwrap(), stored);
    assert_eq!(job.unrecorded.counters().passes[&0], 4);
    scene.edit_sidecar(|sidecar| sidecar["pass"]["reason"] = json!("another"));
    pass();
    assert_eq!(sidecar(&scene)["counters"]["passes"], json!({"0": 7}));
    assert!(job.unrecorded.counters().passes.is_empty());
}

/// After `fssync off` nothing is written, not even statistics.
#[test]
fn passes_that_find_syncing_off_write_nothing() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let stored = fs::read(scene.beside(".fssync")).unwrap();
    scene.pass(&[]).expect(10);
    scene.pass(&["-q"]).expect(10);
    assert_eq!(fs::read(scene.beside(".fssync")).unwrap(), stored);
}

/// The master and the lag that `fssync status` reports.
fn compared(report: &Value) -> [&Value; 3] {
    ["master", "lag_transactions", "next_exit_code"].map(|key| &report[key])
}

#[test]
fn status_compares_the_slave_with_the_recorded_master() {
    let scene = Scene::synced(History::get());
    let status = |options: &[&str]| run(&mut scene.status(options));
    let named = json!(scene.master);
    let json = |options: &[&str]| status(&[&["--json"], options].concat()).expect(0).report();
    assert_eq!(compared(&json(&[])), [&named, &json!(0), &json!(0)]);
    let lines = status(&[]).expect(0).stdout;
    assert!(lines.contains("nothing would be lost"), "{lines}");
    fs::write(&scene.master, &History::get().after).unwrap();
    let behind = json(&[]);
    assert_eq!(behind["verdict"], "behind", "{behind}");
    assert_eq!(compared(&json(&["--local"])), [&Value::Null; 3]);
    // Another master takes its place.
    let other = scene.directory.path().join("other.fs");
    fs::copy(&scene.slave, &other).unwrap();
    let against = json(&["--against", other.to_str().unwrap()]);
    assert_eq!(compared(&against), [&json!(other), &json!(0), &json!(0)]);
}

/// A failover script may rely on the exit code while the master is dead.
#[test]
fn problems_of_a_recorded_master_do_not_affect_the_exit_code_of_status() {
    let scene = Scene::synced(History::get());
    let status = |options: &[&str]| run(&mut scene.status(options));
    let against = scene.master.to_str().unwrap();
    let of_others = project("fixtures/commits.fs");
    for (master, code) in [(None, 12), (Some(of_others), 20)] {
        fs::remove_file(&scene.master).unwrap();
        if let Some(master) = master {
            fs::copy(master, &scene.master).unwrap();
        }
        status(&["--json", "--against", against, "--timeout", "1"]).expect(code);
        let recorded = status(&["--json", "--timeout", "1"]).expect(0).report();
        assert_eq!(recorded["next_exit_code"], code, "{recorded}");
        status(&["-q"]).expect(0);
        fs::write(&scene.master, b"").unwrap();
    }
}

#[test]
fn a_recorded_master_that_hangs_or_is_not_valid_does_not_prevent_a_status() {
    let scene = Scene::synced(History::get());
    scene.edit_sidecar(|sidecar| sidecar["master"] = json!("example.org:/Data.fs"));
    // It never answers. A quiet status does not ask.
    let silent = ["-e", "sh -c 'cat >/dev/null' sh"];
    let status = run(scene.status(&["--json"]).args(silent))
        .expect(0)
        .report();
    assert_eq!(status["next_exit_code"], 12);
    assert_eq!(
        status["position"].as_u64(),
        Some(fs::metadata(&scene.slave).unwrap().len())
    );
    let asked = scene.directory.path().join("asked");
    let recorder = format!("touch {}", asked.display());
    run(scene.status(&["-q", "-e", &recorder]).arg("--max-age=60")).expect(0);
    assert!(!asked.exists());
    for invalid in ["-oProxyCommand=x:/Data.fs", "host:relative", "", "\u{0}"] {
        scene.edit_sidecar(|sidecar| sidecar["master"] = json!(invalid));
        let status = run(&mut scene.status(&[])).expect(0);
        assert!(
            status.stdout.contains("If you failed over now"),
            "{status:?}"
        );
    }
    // The roles were swapped by hand: the recorded master is the slave itself.
    scene.edit_sidecar(|sidecar| sidecar["master"] = json!(scene.slave));
    let status = run(&mut scene.status(&[])).expect(0);
    assert!(status.stderr.contains("the recorded master"), "{status:?}");
}
