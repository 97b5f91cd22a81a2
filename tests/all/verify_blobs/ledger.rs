//! The ledger of blobs: lost, damaged, hostile, or of another directory.

use std::fs;
use std::os::unix::fs::symlink;

use fssync::slave::blobs::BlobState;
use serde_json::json;

use super::{Site, findings, flip_a_byte, present};
use crate::rng::Rng;
use crate::support::run;

#[test]
fn without_a_ledger_files_are_counted_as_not_checked() {
    let site = Site::new();
    let ledger = site.scene.beside(".fssync-blobs");
    fs::remove_file(&ledger).expect("the ledger");
    flip_a_byte(&site.file(1));
    let report = site.report(&[], 0);
    assert_eq!(
        (&report["blobs_unchecked"], &report["blobs"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(report["verdict"], "sound");
    let printed = run(&mut site.scene.verify(&[])).expect(0);
    assert!(
        printed
            .stdout
            .contains("5 files not checked, because no digest is recorded"),
        "{}",
        printed.stdout
    );
    // A ledger of two blobs.
    site.record(&site.keys[3..], present);
    assert_eq!(site.report(&[], 0)["blobs_unchecked"], 3);
}

#[test]
fn blobs_that_the_master_lacked_are_one_blemish_until_they_are_there() {
    let site = Site::new();
    site.record(&site.keys[1..3], |_| BlobState::Absent);
    for number in 1..3 {
        fs::remove_file(site.file(number)).expect("a blob");
    }
    let report = site.report(&[], 0);
    assert_eq!(
        findings(&report),
        [("blob-absent".to_owned(), site.name(1))]
    );
    let found = report["findings"][0]["found"].as_str().expect("a text");
    assert!(found.contains("the master lacks 2 blobs"), "{found}");
    assert_eq!(
        (&report["blobs_absent"], &report["blobs_missing"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        (&report["verdict"], &report["blobs"]),
        (&json!("blemished"), &json!(3))
    );
    // The file of an absent blob has appeared, and has no digest.
    fs::write(site.file(1), "content").expect("a blob");
    let report = site.report(&[], 0);
    assert_eq!(
        (&report["blobs_absent"], &report["blobs_unchecked"]),
        (&json!(1), &json!(1))
    );
    // The last entry counts.
    site.record(&site.keys[1..3], present);
    let report = site.report(&[], 31);
    let (different, missing) = ("blob-different".to_owned(), "blob-missing".to_owned());
    assert_eq!(
        findings(&report),
        [(different, site.name(1)), (missing, site.name(2))]
    );
}

#[test]
fn a_hostile_ledger_causes_no_finding_and_no_panic() {
    let site = Site::new();
    let ledger = site.scene.beside(".fssync-blobs");
    let sound = fs::read(&ledger).expect("the ledger");
    let mut rng = Rng::new(7);
    let check = |bytes: &[u8]| {
        fs::write(&ledger, bytes).expect("the ledger");
        let report = site.report(&[], 0);
        let unchecked = report["blobs_unchecked"].as_u64().expect("a number");
        assert!(unchecked <= 5, "{report}");
        unchecked
    };
    assert_eq!(check(&sound), 0);
    for len in [0, 1, 63, 64, 100] {
        assert_eq!(check(&sound[..len]), 5, "{len}");
    }
    assert_eq!(check(&vec![0xff; 64 * 100]), 5);
    for _ in 0..20 {
        let mut bytes = sound.clone();
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        check(&bytes);
    }
    // An entry in another place does not count: its check includes its number.
    let mut bytes = sound.clone();
    bytes.copy_within(64..128, 128);
    assert!(check(&bytes) >= 1);
    // A ledger that cannot be read.
    fs::remove_file(&ledger).expect("the ledger");
    symlink("/etc/passwd", &ledger).expect("a link");
    let verified = site.verify(&[]).expect(0);
    assert_eq!(verified.report()["blobs_unchecked"], 5);
    let warning = "not compared with their digests";
    assert!(verified.stderr.contains(warning), "{verified:?}");
}
