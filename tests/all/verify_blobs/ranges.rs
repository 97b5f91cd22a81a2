//! Blobs that passes have not copied yet, and slaves whose sidecar is lost or does not fit.

use std::fs;

use fssync::filestorage::blob::Layout;
use serde_json::json;

use super::{Site, findings};
use crate::support::{Setup, Transport, Zodb, blobs_beside, fssync, run};

impl Site {
    /// Sets the ranges that the sidecar records as complete.
    fn set_ranges(&self, complete: u64, since: u64) {
        self.scene.edit_sidecar(|sidecar| {
            sidecar["blobs"]["complete"] = json!(complete);
            sidecar["blobs"]["since"] = json!(since);
        });
    }

    /// Start of the transaction of the blob with this number, in bytes.
    fn start_of(&self, number: usize) -> u64 {
        let bytes = fs::read(&self.scene.slave).expect("the slave");
        let tid = self.keys[number].tid.0.to_be_bytes();
        let at = bytes.windows(8).position(|it| it == tid);
        at.expect("a header") as u64
    }

    fn remove(&self, numbers: &[usize]) {
        for &number in numbers {
            fs::remove_file(self.file(number)).expect("a blob");
        }
    }
}

#[test]
fn older_blobs_that_passes_are_still_fetching_are_no_damage() {
    let site = Site::new();
    // Blobs 0 to 2 are in the first transaction, 3 and 4 in the later ones.
    site.set_ranges(4, site.start_of(4));
    site.remove(&[0, 3]);
    let report = site.report(&[], 0);
    assert_eq!(
        (&report["blobs_not_copied"], &report["blobs"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(
        (&report["verdict"], &report["blobs_missing"]),
        (&json!("sound"), &json!(0))
    );
    let printed = run(&mut site.scene.verify(&[])).expect(0);
    assert!(
        printed.stdout.contains("2 blobs not copied yet"),
        "{}",
        printed.stdout
    );
    // The first transaction is complete.
    site.set_ranges(site.start_of(3), site.start_of(4));
    let report = site.report(&[], 31);
    assert_eq!(
        findings(&report),
        [("blob-missing".to_owned(), site.name(0))]
    );
    assert_eq!(report["blobs_not_copied"], 1);
    // The blobs of the lock-step are complete too.
    site.set_ranges(4, site.start_of(4));
    site.remove(&[4]);
    let report = site.report(&[], 31);
    assert_eq!(
        findings(&report),
        [("blob-missing".to_owned(), site.name(4))]
    );
}

#[test]
fn blobs_that_zeo_wrote_after_a_failover_are_verified() {
    let site = Site::new();
    let mut zodb = Zodb::start();
    zodb.call(
        &json!({"cmd": "open", "name": "s", "path": site.scene.slave,
        "blobs": site.blobs(), "setup": "fs"}),
    );
    zodb.call(&json!({"cmd": "commit", "name": "s", "blobs": 2, "blob_size": 10}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    let report = site.report(&["--orphans"], 0);
    assert_eq!(
        (&report["blobs"], &report["blobs_unchecked"]),
        (&json!(7), &json!(2)),
        "{report}"
    );
    assert_eq!(report["orphans"], 0);
}

#[test]
fn without_a_sidecar_the_usual_directory_is_verified_but_need_not_be_complete() {
    let site = Site::new();
    fs::remove_file(site.scene.beside(".fssync")).expect("the sidecar");
    site.remove(&[3]);
    let report = site.report(&[], 0);
    assert_eq!(
        (&report["blobs"], &report["blobs_not_copied"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(
        report["blobs_unchecked"], 0,
        "the ledger is of this directory"
    );
    let blobs = site.blobs();
    let named = ["--slave-blobs", blobs.to_str().expect("UTF-8")];
    let report = site.report(&named, 31);
    assert_eq!(
        findings(&report),
        [("blob-missing".to_owned(), site.name(3))]
    );
}

#[test]
fn another_blob_directory_can_be_named() {
    let site = Site::of_master(Setup::Proxy, Layout::Lawn, Transport::Path);
    site.scene.pass(&["--no-blobs"]).expect(0);
    let blobs = blobs_beside(&site.scene.master);
    let named = ["--slave-blobs", blobs.to_str().expect("UTF-8"), "--orphans"];
    let report = site.report(&named, 0);
    assert_eq!(
        (&report["blobs"], &report["blobs_unchecked"]),
        (&json!(5), &json!(5))
    );
    fs::remove_file(site.master_file(2)).expect("a blob");
    let report = site.report(&named, 31);
    let missing = Layout::Lawn.path(site.keys[2]);
    assert_eq!(findings(&report), [("blob-missing".to_owned(), missing)]);
    // The layout of a client's cache, and a directory without blobs.
    fs::write(blobs.join(".layout"), "zeocache").expect("a layout");
    site.verify(&named).expect(2);
    fs::remove_file(blobs.join(".layout")).expect("a layout");
    site.verify(&named).expect(1);
    let slave = site.scene.slave.to_str().expect("UTF-8");
    run(fssync().args(["verify", slave, "--master-blobs", "x"])).expect(2);
}

#[test]
fn a_slave_that_another_program_has_replaced_need_not_be_complete() {
    let site = Site::new();
    let mut zodb = Zodb::start();
    zodb.call(
        &json!({"cmd": "open", "name": "s", "path": site.scene.slave,
        "blobs": site.blobs(), "setup": "fs", "pack_keep_old": false}),
    );
    zodb.call(&json!({"cmd": "commit", "name": "s", "changes": 1, "blob_size": 10}));
    zodb.call(&json!({"cmd": "pack", "name": "s"}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    let report = site.report(&["--orphans"], 0);
    let blobs = report["blobs"].as_u64().expect("a number");
    assert!(blobs > 0 && report["orphans"] == 0, "{report}");
    assert_eq!(report["blobs_not_copied"], 0);
}
