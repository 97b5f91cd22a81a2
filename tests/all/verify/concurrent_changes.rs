//! Changes of a slave during its verification, and no change by the verification.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fssync::error::Error;
use fssync::io::progress::Monitor;
use fssync::plan::outcome::Exit;
use fssync::verify::finding::Finding;
use fssync::verify::{IndexState, Verified, verify};
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::index::with_index;
use super::{scene_of, slave, txns, whole};
use crate::status::assert_only_reads;
use crate::support::{
    History, Scene, append_sparse, project, python, replace, rewrite_end, run, snapshot_of,
    sparse_master, spawn, wait_for,
};
use crate::watcher::Watcher;

/// Calls a function while the slave is read.
struct Meanwhile<F>(F);

impl<F: Fn()> Monitor for Meanwhile<F> {
    fn progress(&self, _: &'static str, _: u64, _: u64) {
        (self.0)();
    }
}

/// Verifies a slave, and calls a function meanwhile.
fn verify_meanwhile(path: &Path, meanwhile: impl Fn()) -> Result<(Verified, Vec<Finding>), Error> {
    let mut findings = Vec::new();
    let verified = verify(&slave(path), false, &Meanwhile(meanwhile), &mut |finding| {
        findings.push(finding.clone());
    })?;
    Ok((verified, findings))
}

#[test]
fn a_transaction_that_is_being_written_is_read_again() {
    let history = History::get();
    let after = &history.after;
    let all = txns(after);
    let last = all[all.len() - 1].start();
    for before in [
        after[..after.len() - 7].to_vec(),
        // ZODB truncates an aborted transaction, and another one takes its place.
        [&after[..last], &history.voted[after.len()..]].concat(),
        [after, &history.voted[after.len()..]].concat(),
    ] {
        let scene = scene_of(&before);
        let (verified, findings) =
            verify_meanwhile(&scene.slave, || rewrite_end(&scene.slave, after)).unwrap();
        assert_eq!(findings, []);
        assert_eq!(verified.position, after.len() as u64);
        assert_eq!(verified.unfinished, None);
    }
}

#[test]
fn growth_during_a_verification_does_not_prolong_it() {
    let history = History::get();
    let scene = scene_of(&history.before);
    let (verified, findings) =
        verify_meanwhile(&scene.slave, || rewrite_end(&scene.slave, &history.after)).unwrap();
    assert_eq!((findings, verified.unfinished), (vec![], None));
    assert_eq!(verified.position, history.before.len() as u64);
}

#[test]
fn a_slave_that_is_replaced_or_truncated_during_verify_is_an_error() {
    let history = History::get();
    let scene = scene_of(&history.after);
    let result = verify_meanwhile(&scene.slave, || replace(&scene.slave, &history.packed));
    assert!(
        matches!(result, Err(Error::SlaveChanged { .. })),
        "{result:?}"
    );
    let scene = scene_of(&history.after);
    let result = verify_meanwhile(&scene.slave, || {
        let _ = fs::remove_file(&scene.slave);
    });
    assert!(
        matches!(result, Err(Error::SlaveChanged { .. })),
        "{result:?}"
    );
    let scene = Scene::new();
    sparse_master(&scene.slave, 1_000);
    append_sparse(&scene.slave, 3_000_000, 0x03f0_0000_0000_0001);
    let windows = Cell::new(0);
    let result = verify_meanwhile(&scene.slave, || {
        windows.set(windows.get() + 1);
        // The first transaction has been read by then.
        if windows.get() == 2 {
            let file = File::options().write(true).open(&scene.slave);
            file.and_then(|file| file.set_len(100)).expect("a cut");
        }
    });
    assert!(
        matches!(result, Err(Error::SlaveChanged { .. })),
        "{result:?}"
    );
}

#[test]
fn an_index_that_is_replaced_during_verify_is_not_checked() {
    let (scene, index) = with_index();
    let to = scene.beside(".index");
    let mut wrong = index.clone();
    let at = wrong.len() - 4 - 2 - 6 * 2 - 1;
    wrong[at] ^= 1;
    fs::write(&to, &wrong).unwrap();
    assert_eq!(whole(&scene.slave).0.index, IndexState::Wrong);
    let (verified, findings) = verify_meanwhile(&scene.slave, || replace(&to, &index)).unwrap();
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unknown(_)),
        "{verified:?}"
    );
}

#[test]
fn nothing_is_locked_and_only_the_result_is_written() {
    let scene = Scene::synced(History::get());
    let before = untouched(&scene);
    for options in [&[][..], &["--quick"], &["--json"]] {
        assert_only_reads(&scene, &scene.verify(options));
        assert!(scene.beside(".fssync-verified").exists());
    }
    assert!(untouched(&scene) == before);
}

/// All files beside the slave except the result, which a verification must not change.
pub fn untouched(scene: &Scene) -> Vec<impl PartialEq + use<>> {
    let names = scene.beside_slave().into_iter();
    names
        .filter(|name| name != "Data.fs.fssync-verified")
        .map(|name| snapshot_of(&scene.slave.with_file_name(name)))
        .collect()
}

#[test]
fn zodb_is_not_disturbed_and_its_writes_are_never_reported_as_damage() {
    let scene = Scene::synced(History::get());
    let mut writer = spawn(&mut writer(&scene.slave, &["--pack"]));
    let len = || fs::metadata(&scene.slave).map_or(0, |found| found.len());
    let before = len();
    wait_for("transaction of ZODB's", || len() != before);
    let runs: Vec<_> = (0..30)
        .map(|n| {
            let quick = if n % 2 == 0 {
                &["--json"][..]
            } else {
                &["--json", "--quick"]
            };
            run(&mut scene.verify(quick))
        })
        .collect();
    let still_writes = writer.try_wait().unwrap().is_none();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(still_writes, "the writer was not disturbed");
    let counted = runs.iter().filter(|run| run.code == 0).count();
    assert!(counted > 15, "{runs:?}");
    for run in runs {
        // A pack replaces the file.
        let is_changed = run.code == 1 && run.stderr.contains("verify it again");
        assert!(run.code == 0 || is_changed, "{run:?}");
    }
}

/// A process that writes, undoes and aborts without a pause, with ZODB.
fn writer(path: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(project("tests/zodb/agent.py")).arg("write");
    command.arg(path).args(["--seed", "5", "--seconds", "60"]);
    command.args(options);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdout(Stdio::null());
    command
}

#[test]
fn appends_of_a_watch_are_never_reported_as_damage() {
    let scene = Scene::synced(History::get());
    let mut writer = spawn(&mut writer(&scene.master, &[]));
    let mut watch = Watcher::start(&scene, &[]);
    watch.expect("Finished syncing");
    let (mut runs, mut positions) = (Vec::new(), BTreeSet::new());
    wait_for("growth", || {
        let run = run(&mut scene.verify(&["--json"])).expect(0);
        positions.insert(run.report()["position"].as_u64());
        runs.push(run);
        positions.len() > 20
    });
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(watch.end().0, 0);
    for run in runs {
        assert_eq!(run.report()["findings"], json!([]), "{run:?}");
    }
}

#[test]
fn a_signal_ends_verify() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 64 << 30);
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = scene.verify(&["--progress", "always"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = spawn(&mut command);
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("verifying: "), "{line}");
        let pid = Pid::from_child(&process);
        rustix::process::kill_process(pid, signal).expect("it runs");
        assert_eq!(process.wait().unwrap().code(), Some(1));
        assert!(lines.any(|line| line.unwrap().contains("interrupted")));
    }
}
