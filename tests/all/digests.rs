//! `fssync verify` and the ledger: no bit that flips stays unfound.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fssync::monitor::Silent;
use fssync::outcome::Exit;
use fssync::slave::ledger::SEGMENT_LEN;
use fssync::slave::place::Place;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::verify::finding::{Finding, Kind, Severity};
use fssync::verify::{DigestState, Verified, verify};
use serde_json::json;

use crate::support::{
    History, Run, Scene, Zodb, append_sparse, fssync, replace, rewrite_end, run, sparse_master,
};

fn verified(path: &Path) -> (Verified, Vec<Finding>) {
    let place = Place::new(path).expect("a place for the slave");
    let slave = Slave {
        switches: Switches::new(&place, None),
        place,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let mut findings = Vec::new();
    let verified = verify(&slave, false, &Silent, &mut |finding| {
        findings.push(finding.clone());
    });
    (verified.expect("it can be read"), findings)
}

/// The program's report on a slave.
fn report(scene: &Scene, options: &[&str]) -> Run {
    run(fssync().arg("verify").args(options).arg("--json").arg(&scene.slave))
}

/// Fails unless a slave is sound, with digests for all its bytes.
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

/// A slave of transactions with back pointers, undone creations and one without
/// records, with its ledger and its index.
fn small() -> Scene {
    let scene = Scene::with_master("undo-creation");
    scene.expect("full-copy");
    assert_all_compared(&scene.slave);
    scene
}

#[test]
fn each_bit_of_a_slave_that_flips_is_found() {
    let bytes = fs::read(small().slave).unwrap();
    let next = AtomicU64::new(0);
    let checked = AtomicU64::new(0);
    thread::scope(|scope| {
        // Some wait for a write that might be under way.
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
                            let end = finding.end.unwrap_or(finding.position + 1).max(finding.position + 4);
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
