//! The master is packed: blobs go there, and some days later at the slave.

use std::collections::BTreeSet;
use std::fs;

use fssync::Tid;
use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::slave::blobs::{BlobDirectory, BlobEntry, BlobLedger};
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use serde_json::json;

use super::site::Site;
use crate::support::{Setup, Transport, blobs_beside, fssync, run};

/// Follows a pack with garbage collection.
fn follow(setup: Setup, transport: Transport, pack_keep_old: bool) {
    let mut site = Site::bushy(setup, transport);
    site.call(&json!({"cmd": "close", "name": "m"}));
    let options = json!({"pack_keep_old": pack_keep_old, "journal": site.journal()});
    site.zodb
        .open_with_blobs(&site.scene.master, setup, &options);
    site.commit("m", &json!({"blobs": 4, "blob_size": 5000}));
    site.commit("m", &json!({"changes": 2, "blob_size": 700}));
    site.commit("m", &json!({"deletions": 1}));
    site.commit("m", &json!({"objects": 3, "blobs": 1}));
    site.pass(&[]);
    let before = site.slave_keys();
    assert_eq!(before.len(), 7);

    site.call(&json!({"cmd": "pack", "name": "m"}));
    site.commit("m", &json!({"blobs": 2}));
    let kept = site.master_keys();
    let gone: Vec<_> = before.difference(&kept).collect();
    assert!(gone.len() >= 3, "two revisions and an object: {gone:?}");
    let old = site.scene.master.with_file_name("blobstorage.old");
    let keeps_old = pack_keep_old && setup == Setup::FileStorage;
    assert_eq!(old.exists(), keeps_old);

    let report = site.pass(&[]);
    assert_eq!(report["action"], "full-copy", "{report}");
    assert_eq!(report["blobs"], 2, "only the new ones: {report}");
    let names = site.scene.beside_slave();
    let is_aside = |name: &String| name.contains("diverged");
    assert!(!names.iter().any(is_aside), "{names:?}");
    let all = site.slave_keys();
    assert!(all.is_superset(&before), "the old ones stay");
    assert!(all.is_superset(&kept));
    let status = run(&mut site.scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["blobs_to_remove"], gone.len(), "{status}");

    site.pass(&["--keep-packed", "1"]);
    assert_eq!(site.slave_keys(), all, "they are gone since a moment");
    site.pass(&["--keep-packed", "0"]);
    assert_eq!(site.slave_keys(), kept);
    let status = run(&mut site.scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["blobs_to_remove"], 0, "{status}");
    assert_eq!(status["blobs"], kept.len(), "{status}");
}

#[test]
fn of_a_filestorage() {
    follow(Setup::FileStorage, Transport::Path, false);
}

#[test]
fn of_a_filestorage_that_keeps_the_old_files() {
    follow(Setup::FileStorage, Transport::Ssh, true);
}

#[test]
fn of_a_blobstorage() {
    follow(Setup::Proxy, Transport::Ssh, false);
}

#[test]
fn of_a_blobstorage_that_keeps_the_old_file() {
    follow(Setup::Proxy, Transport::Path, true);
}

#[test]
fn the_removed_blobs_are_those_of_the_last_packs() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 3}));
    for _ in 0..4 {
        site.commit("m", &json!({"changes": 1, "blobs": 1}));
        site.pass(&[]);
        site.call(&json!({"cmd": "pack", "name": "m"}));
        site.pass(&[]);
    }
    let (kept, all) = (site.master_keys(), site.slave_keys());
    assert_eq!(all.len(), kept.len() + 4, "one revision a pack");
    site.pass(&["--keep-packed", "0"]);
    assert_eq!(site.slave_keys(), kept);
}

#[test]
fn a_log_from_before_the_pack_finds_its_blobs_at_the_slave() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 3}));
    site.commit("m", &json!({"changes": 2}));
    site.pass(&[]);
    let old = site.scene.directory.path().join("old.fs");
    fs::copy(&site.scene.slave, &old).unwrap();
    site.call(&json!({"cmd": "pack", "name": "m"}));
    site.pass(&[]);
    let found = site.load_from(&old, &blobs_beside(&site.scene.slave.clone()));
    assert_eq!(found["missing"], json!([]), "{found}");
    assert_eq!(found["blobs"], 5, "{found}");
}

/// Entries of blobs that packs have removed, and those that a later one has replaced, are dropped.
#[test]
fn the_ledger_does_not_grow_without_bound() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 4, "blob_size": 5000}));
    site.pass(&[]);
    let paths = SlavePaths::new(&site.scene.slave).unwrap();
    let slave = Slave::new(paths, None);
    let directory = BlobDirectory::open_any(&blobs_beside(&site.scene.slave)).unwrap();
    let open = || BlobLedger::open_or_create(&slave, &directory).unwrap();
    let known: Vec<BlobEntry> = open().entries().map(Result::unwrap).collect();
    assert_eq!(known.len(), 4);
    // Blobs of many weeks, of which packs have removed all.
    let packed = (0..12_000).map(|n| BlobEntry {
        key: BlobKey {
            oid: 1 << 40 | n,
            tid: Tid(n),
        },
        state: known[0].state,
    });
    let packed: Vec<BlobEntry> = packed.collect();
    open().append(&slave, &packed).unwrap();
    open().append(&slave, &known).unwrap();
    site.pass(&["--keep-packed", "0"]);
    assert_eq!(open().len(), 12_008, "no blob was removed");

    site.commit("m", &json!({"changes": 2, "blob_size": 700}));
    site.call(&json!({"cmd": "pack", "name": "m"}));
    for _ in 0..2 {
        site.pass(&["--keep-packed", "0"]);
    }
    let kept = site.master_keys();
    assert_eq!(site.slave_keys(), kept);
    let entries = open().entries().map(|it| it.unwrap().key);
    assert_eq!(entries.collect::<BTreeSet<_>>(), kept);
    assert_eq!(open().len(), kept.len() as u64);
    let verified = run(site.scene.verify(&[]).arg("--json")).expect(0).report();
    assert_eq!(verified["blobs_unchecked"], 0, "{verified}");
}

/// A pass that does not copy blobs does not note which of them a pack has removed.
#[test]
fn a_pack_that_a_pass_without_blobs_has_copied_leaves_orphans() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 4, "blob_size": 5000}));
    site.commit("m", &json!({"changes": 2, "blob_size": 700}));
    site.pass(&[]);
    let before = site.slave_keys();
    site.call(&json!({"cmd": "pack", "name": "m"}));
    site.commit("m", &json!({"blobs": 1}));
    let master = site.scene.master.clone();
    let mut without = fssync();
    without.args(["--no-blobs", "--json"]).arg(&master);
    let report = run(without.arg(&site.scene.slave)).expect(0).report();
    assert_eq!(report["action"], "full-copy", "{report}");
    assert_eq!(site.slave_keys(), before);

    for _ in 0..2 {
        site.pass(&["--keep-packed", "0"]);
    }
    let kept = site.master_keys();
    let orphans: Vec<_> = before.difference(&kept).collect();
    assert!(!orphans.is_empty());
    assert!(site.slave_keys().is_superset(&before), "nothing is removed");
    let verify = &mut site.scene.verify(&["--orphans", "--json"]);
    let report = run(verify).expect(0).report();
    assert_eq!(report["orphans"], orphans.len(), "{report}");
    let listed = report["orphan_files"].as_array().unwrap().iter();
    let listed: BTreeSet<_> = listed.map(|it| it.as_str().unwrap().to_owned()).collect();
    let path = |key: &&BlobKey| Layout::Bushy.path(**key).display().to_string();
    assert_eq!(listed, orphans.iter().map(path).collect());
}
