//! Comparison of bytes with their digests, and sectors that cannot be read.

use std::fs;
use std::path::Path;

use fssync::plan::outcome::Exit;
use fssync::verify::finding::{Finding, Kind};
use fssync::verify::{DigestState, Verified};

use super::damage::FAULTS;
use super::{quick, scene_of, sound, txns, whole};
use crate::fuse::Served;

#[test]
fn all_bytes_are_compared_with_their_digests_in_spite_of_damage() {
    let all = txns(sound());
    let mut files: Vec<Vec<u8>> = FAULTS
        .iter()
        .enumerate()
        .map(|(n, fault)| {
            let mut bytes = sound().to_vec();
            (fault.spoil)(&mut bytes, &all[[0, 6, 11][n % 3]]);
            bytes
        })
        .collect();
    // Damage up to the end of the file.
    let mut bytes = sound().to_vec();
    bytes[all[1].start()..].fill(1);
    files.push(bytes);
    let scene = scene_of(sound());
    fs::copy(&scene.slave, &scene.master).unwrap();
    scene.expect("up-to-date");
    for bytes in files.iter().filter(|bytes| bytes.len() == sound().len()) {
        fs::write(&scene.slave, bytes).unwrap();
        let (verified, findings) = whole(&scene.slave);
        let foreign = !bytes.starts_with(b"FS30");
        let compared = DigestState::Compared(bytes.len() as u64);
        assert!(foreign || verified.digests == compared, "{verified:?}");
        let found = findings.iter().filter(|it| it.kind == Kind::Digest);
        let is_other = bytes != sound() && !foreign;
        assert_eq!(found.count(), usize::from(is_other), "{findings:?}");
    }
}

#[test]
fn unreadable_sectors_are_findings_and_the_rest_is_checked() {
    let all = txns(sound());
    let mut bytes = sound().to_vec();
    // The pickle of 9000 bytes contains two whole pages. There is other damage after it.
    let pages = (all[7].record() + 42).next_multiple_of(4096) as u64;
    let bad = pages..pages + 4096;
    assert!(bad.end < all[7].end() as u64, "{:?}", all[7]);
    bytes[all[9].record() + 15] ^= 1;
    let scene = scene_of(&bytes);
    let served = Served::directory(scene.slave.parent().unwrap());
    let slave = served.file("Data.fs");
    served.fail_at(bad.start + 100..bad.start + 101);
    let (_, findings) = whole(&slave);
    let [unreadable, later] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(unreadable.kind, Kind::Unreadable);
    assert_eq!(
        (unreadable.position, unreadable.end),
        (bad.start, Some(bad.end))
    );
    assert_eq!(
        (later.kind, later.position),
        (Kind::DataTid, all[9].record() as u64)
    );
    // A header that cannot be read.
    let header = all[8].start() as u64;
    served.fail_at(header..header + 1);
    let (verified, findings) = both_served(&slave);
    let kinds: Vec<_> = findings.iter().map(|it| it.kind).collect();
    assert!(
        kinds.contains(&Kind::Unreadable) && kinds.len() > 1,
        "{findings:?}"
    );
    assert_eq!(verified.position, sound().len() as u64);
    // The first byte, and the last.
    for at in [0, sound().len() as u64 - 1] {
        served.fail_at(at..at + 1);
        let (verified, findings) = whole(&slave);
        assert!(
            findings.iter().any(|it| it.kind == Kind::Unreadable),
            "{findings:?}"
        );
        assert_eq!(verified.exit(), Exit::SlaveDamaged);
    }
}

/// Compares both ways of verifying by their position only: they may read different parts of an
/// unreadable range.
fn both_served(path: &Path) -> (Verified, Vec<Finding>) {
    let (quick, _) = quick(path);
    let (verified, findings) = whole(path);
    assert_eq!(quick.position, verified.position);
    (verified, findings)
}
