//! `fssync verify` and the ledger: every flipped bit is found.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fssync::io::progress::Silent;
use fssync::plan::outcome::Exit;
use fssync::slave::ledger::SEGMENT_LEN;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::verify::finding::{Finding, Kind, Severity};
use fssync::verify::{DigestState, IndexState, Verified, verify};
use serde_json::{Value, json};

use crate::support::{
    History, Run, Scene, Zodb, append_sparse, fssync, replace, rewrite_end, run, sparse_master,
};

fn verified(path: &Path) -> (Verified, Vec<Finding>) {
    let paths = SlavePaths::new(path).expect("a place for the slave");
    let slave = Slave::new(paths, None);
    let mut findings = Vec::new();
    let verified = verify(&slave, false, &Silent, &mut |finding| {
        findings.push(finding.clone());
    });
    (verified.expect("it can be read"), findings)
}

/// Verifies a slave with the program, with `--json`.
fn report(scene: &Scene, options: &[&str]) -> Run {
    run(fssync()
        .arg("verify")
        .args(options)
        .arg("--json")
        .arg(&scene.slave))
}

/// Fails unless the slave is sound, and the ledger covers all its bytes.
#[track_caller]
fn assert_all_compared(path: &Path) {
    let (verified, findings) = verified(path);
    assert_eq!(findings, []);
    assert_eq!(verified.digests, DigestState::Compared(verified.position));
}

fn flip(file: &File, offset: u64, bit: u32) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
}

/// A slave with back pointers, undone creations and a transaction without records, with its
/// ledger and its index.
fn small() -> Scene {
    let scene = Scene::with_master("undo-creation");
    scene.expect("full-copy");
    assert_all_compared(&scene.slave);
    scene
}

#[test]
fn every_flipped_bit_of_a_slave_is_found() {
    let bytes = fs::read(small().slave).unwrap();
    let next = AtomicU64::new(0);
    let checked = AtomicU64::new(0);
    thread::scope(|scope| {
        // Some threads wait for a write that might be in progress.
        for _ in 0..16 {
            scope.spawn(|| {
                let scene = small();
                let file = File::options().read(true).write(true).open(&scene.slave);
                let file = file.unwrap();
                loop {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= bytes.len() as u64 {
                        return;
                    }
                    for bit in 0..8 {
                        flip(&file, offset, bit);
                        let (verified, findings) = verified(&scene.slave);
                        let is_hit = |finding: &Finding| {
                            let end = finding
                                .end
                                .unwrap_or(finding.position + 1)
                                .max(finding.position + 4);
                            finding.kind.severity() == Severity::Damage
                                && (finding.position..end).contains(&offset)
                        };
                        assert!(findings.iter().any(is_hit), "{offset}.{bit}: {findings:?}");
                        assert_eq!(verified.exit(), Exit::SlaveDamaged, "{offset}.{bit}");
                        flip(&file, offset, bit);
                        checked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(checked.into_inner(), 8 * bytes.len() as u64);
}

/// The findings that are damage.
fn damage(scene: &Scene) -> Vec<Finding> {
    let (verified, mut findings) = verified(&scene.slave);
    findings.retain(|finding| finding.kind.severity() == Severity::Damage);
    assert_eq!(findings.is_empty(), verified.exit() == Exit::Success);
    findings
}

/// The kinds of findings.
fn kinds(findings: &[Finding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

/// Changes each byte of a file beside the slave, one at a time, and verifies.
fn change_each_byte(scene: &Scene, suffix: &str, is_expected: impl Fn(&Verified, &[Kind]) -> bool) {
    let path = scene.beside(suffix);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for offset in 0..fs::metadata(&path).unwrap().len() {
        let bit = (offset % 8) as u32;
        flip(&file, offset, bit);
        let (verified, findings) = verified(&scene.slave);
        assert!(
            is_expected(&verified, &kinds(&findings)),
            "{suffix} {offset}: {verified:?} {findings:?}"
        );
        flip(&file, offset, bit);
    }
    assert_all_compared(&scene.slave);
}

#[test]
fn every_changed_byte_of_the_index_is_reported() {
    change_each_byte(&small(), ".index", |verified, _| {
        !matches!(verified.index, IndexState::Sound(_))
    });
}

#[test]
fn every_changed_byte_of_the_ledger_is_reported() {
    change_each_byte(&small(), ".fssync-ledger", |verified, found| {
        found == [Kind::Ledger] || verified.digests == DigestState::NoLedger
    });
}

#[test]
fn a_changed_pickle_is_reported_with_its_segment_and_transactions() {
    let scene = Scene::new();
    sparse_master(&scene.master, 2 * SEGMENT_LEN);
    for nth in 1..4 {
        append_sparse(&scene.master, 1_000, 0x03f0_0000_0000_0000 + nth);
    }
    scene.expect("full-copy");
    assert_eq!(damage(&scene), []);
    let file = File::options().read(true).write(true).open(&scene.slave);
    let file = file.unwrap();
    // In the middle of the first transaction, in a segment without others.
    flip(&file, SEGMENT_LEN + 77, 3);
    let found = damage(&scene);
    assert_eq!(kinds(&found), [Kind::Digest]);
    assert_eq!(found[0].position, SEGMENT_LEN);
    assert_eq!(found[0].end, Some(2 * SEGMENT_LEN));
    let tid = found[0].tid.expect("the one transaction there");
    assert_eq!(tid.to_string(), "03f0000000000000");
    let printed = report(&scene, &[]).expect(31).report();
    let size = fs::metadata(&scene.slave).unwrap().len();
    assert_eq!(printed["verdict"], "damaged");
    assert_eq!(printed["digested_bytes"], size);
    let findings = printed["findings"].as_array().unwrap();
    let is_it = |finding: &&Value| finding["kind"] == "digest" && finding["file"] == "Data.fs";
    assert_eq!(findings.iter().filter(is_it).count(), 1, "{printed}");
    // The structure is not affected.
    let printed = report(&scene, &["--quick"]).expect(0).report();
    assert_eq!(printed["digested_bytes"], Value::Null);
    // A byte in the last segment, which contains four transactions.
    flip(&file, SEGMENT_LEN + 77, 3);
    flip(&file, size - 100, 0);
    let found = damage(&scene).remove(0);
    assert_eq!((found.position, found.tid), (2 * SEGMENT_LEN, None));
    let words = "the 4 transactions 03f0000000000000";
    assert!(found.found.contains(words), "{found:?}");
}

#[test]
fn without_a_ledger_verify_reports_that_pickles_are_not_compared() {
    let scene = small();
    fs::remove_file(scene.beside(".fssync-ledger")).unwrap();
    let (verified, findings) = verified(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.digests, DigestState::NoLedger);
    let printed = run(fssync().arg("verify").arg(&scene.slave)).expect(0);
    assert!(printed.stdout.contains("there is no ledger"), "{printed:?}");
}

#[test]
fn a_slave_that_lost_its_last_transactions_is_damaged() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    scene.expect("append");
    rewrite_end(&scene.slave, &history.before);
    let found = damage(&scene);
    let lost = found.iter().find(|finding| finding.kind == Kind::Lost);
    assert_eq!(lost.unwrap().position, history.before.len() as u64);
    report(&scene, &[]).expect(31);
}

#[test]
fn transactions_appended_after_a_failover_have_no_digests_and_are_sound() {
    let scene = Scene::synced(History::get());
    let before = fs::metadata(&scene.slave).unwrap().len();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 2}));
    let (verified, findings) = verified(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.digests, DigestState::Compared(before));
    assert!(verified.position > before);
    let printed = run(fssync().arg("verify").arg(&scene.slave)).expect(0);
    assert!(printed.stdout.contains("have none"), "{printed:?}");
    // A pack writes a new file.
    zodb.call(&json!({"cmd": "pack", "name": "s", "keep": 1}));
    let (verified, findings) = self::verified(&scene.slave);
    assert!(
        !kinds(&findings)
            .iter()
            .any(|kind| kind.severity() == Severity::Damage),
        "{findings:?}"
    );
    assert_eq!(verified.digests, DigestState::NoLedger);
}

#[test]
fn a_slave_that_is_replaced_and_grows_during_verify_is_not_damaged() {
    let history = History::get();
    let scene = Scene::new();
    replace(&scene.master, &history.before);
    scene.expect("full-copy");
    let done = AtomicBool::new(false);
    let mut times = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..12 {
                rewrite_end(&scene.master, &history.after);
                scene.expect("append");
                replace(&scene.master, &history.packed);
                scene.expect("full-copy");
                replace(&scene.master, &history.before);
                scene.pass(&["--full"]).expect(0);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let run = report(&scene, &[]);
            let replaced = run.code == 1 && run.stderr.contains("another file");
            assert!(run.code == 0 || replaced, "{run:?}");
            times += 1;
        }
    });
    assert!(times > 20, "{times}");
    assert_all_compared(&scene.slave);
}
