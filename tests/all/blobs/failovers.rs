//! The slave is served for some time: ZODB writes transactions with blobs to it. Then they go
//! back to the first machine, or the slave returns to the master's state.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::{BlobKey, Layout};
use serde_json::json;

use super::site::Site;
use crate::support::{Setup, Transport, blobs_beside};

/// A site in sync, with some history.
fn synced(setup: Setup, transport: Transport) -> Site {
    let mut site = Site::bushy(setup, transport);
    site.commit("m", &json!({"blobs": 3, "blob_size": 5000}));
    site.commit("m", &json!({"changes": 1, "blob_size": 300}));
    site.call(&json!({"cmd": "undo", "name": "m"}));
    // Some of these stay after the pack, so the last common transaction does too.
    site.commit("m", &json!({"blobs": 8}));
    site.pass(&[]);
    site
}

/// The size of these blobs of a bushy blob directory, in bytes.
fn size(blobs: &Path, keys: &BTreeSet<BlobKey>) -> u64 {
    let len = |key: &BlobKey| {
        fs::metadata(blobs.join(Layout::Bushy.path(*key)))
            .unwrap()
            .len()
    };
    keys.iter().map(len).sum()
}

/// Fails over and back. `has_lost`: the first machine has a transaction that the second lacks.
fn fail_over_and_back(setup: Setup, transport: Transport, has_lost: bool) {
    let mut site = synced(setup, transport);
    if has_lost {
        site.commit("m", &json!({"blobs": 2, "changes": 1}));
    }
    site.call(&json!({"cmd": "close", "name": "m"}));
    let first = site.master_keys();

    site.fail_over();
    site.commit("s", &json!({"blobs": 2, "changes": 1, "blob_size": 70_000}));
    site.commit("s", &json!({"changes": 2}));
    // An undo and a redo.
    site.call(&json!({"cmd": "undo", "name": "s"}));
    site.call(&json!({"cmd": "undo", "name": "s"}));
    site.call(&json!({"cmd": "pack", "name": "s", "keep": 2}));
    site.commit("s", &json!({"blobs": 1}));
    site.close_slave();
    let new: BTreeSet<BlobKey> = site.slave_keys().difference(&first).copied().collect();
    assert!(new.len() >= 4, "{new:?}");
    let bytes = size(&blobs_beside(&site.scene.slave), &new);

    site.change_roles();
    let report = site.pass(&["--full"]);
    assert_eq!(report["action"], "full-copy", "{report}");
    assert_eq!(report["blobs"], new.len(), "only the new ones: {report}");
    assert_eq!(report["blob_bytes"], bytes, "{report}");
    // After a pack, a log without a sidecar is kept in any case.
    assert!(!has_lost || aside(&site).is_some());
    assert!(site.slave_keys().is_superset(&first), "the old ones stay");

    site.change_roles();
    site.switch_on();
    // The pack of a <blobstorage> removes blobs to which only back pointers refer.
    let lacked = site.master_keys().difference(&site.slave_keys()).count() as u64;
    let report = site.pass(&[]);
    assert_eq!(report["action"], "up-to-date", "{report}");
    let received = report["blobs"].as_u64().unwrap();
    assert!(received <= lacked, "none is fetched again: {report}");
    let journal = site.journal();
    let options = json!({"journal": journal, "seed": 9});
    let master = site.scene.master.clone();
    site.zodb.open_with_blobs(&master, setup, &options);
    site.commit("m", &json!({"blobs": 1, "changes": 1}));
    let report = site.pass(&[]);
    assert_eq!(report["action"], "append", "{report}");
    assert_eq!(report["blobs"], 2, "{report}");
}

/// The old slave that was set aside, if there is one.
fn aside(site: &Site) -> Option<PathBuf> {
    let names = site.scene.beside_slave();
    let name = names
        .iter()
        .find(|name| name.starts_with("Data.fs.diverged-"))?;
    Some(site.scene.slave.with_file_name(name))
}

#[test]
fn of_a_filestorage() {
    fail_over_and_back(Setup::FileStorage, Transport::Path, false);
}

#[test]
fn of_a_filestorage_through_ssh_with_a_lost_transaction() {
    fail_over_and_back(Setup::FileStorage, Transport::Ssh, true);
}

#[test]
fn of_a_blobstorage_with_a_lost_transaction() {
    fail_over_and_back(Setup::Proxy, Transport::Path, true);
}

#[test]
fn of_a_blobstorage_through_ssh() {
    fail_over_and_back(Setup::Proxy, Transport::Ssh, false);
}

/// The slave has transactions of its own, and is replaced by a copy of the master.
fn diverge(setup: Setup, transport: Transport) {
    const DIVERGED: i32 = 20;
    let mut site = synced(setup, transport);
    site.fail_over();
    site.commit("s", &json!({"blobs": 3, "changes": 1, "blob_size": 2000}));
    site.call(&json!({"cmd": "undo", "name": "s"}));
    site.commit("s", &json!({"blobs": 2}));
    site.close_slave();
    site.switch_on();
    site.commit("m", &json!({"blobs": 2, "changes": 1}));
    let loaded = site.assert_nothing_missing();
    let (log, keys) = (fs::read(&site.scene.slave).unwrap(), site.slave_keys());

    let refused = site.scene.pass(&[]).expect(DIVERGED);
    assert!(refused.stderr.contains("--full"), "{refused:?}");
    assert!(fs::read(&site.scene.slave).unwrap() == log);
    assert_eq!(site.slave_keys(), keys, "nothing is placed or removed");

    let pass = site.scene.pass(&["--whole"]).expect(0);
    site.assert_in_sync();
    let old = aside(&site).expect("the old slave is kept");
    let named = pass.stderr.lines().find_map(|line| {
        let (_, path) = line.split_once("blobs of the old slave are kept in ")?;
        Some(PathBuf::from(path))
    });
    let blobs = named.unwrap_or_else(|| panic!("{pass:?}"));
    let opens = |site: &mut Site| {
        assert!(fs::read(&old).unwrap() == log);
        let found = site.load_from(&old, &blobs);
        assert_eq!(found["missing"], json!([]), "{found}");
        assert_eq!(found["blobs"], loaded, "{found}");
    };
    opens(&mut site);
    // Neither a removal by a pass nor a pack on this machine removes them.
    site.pass(&["--keep-packed", "0"]);
    site.fail_over();
    site.commit("s", &json!({"changes": 3}));
    site.call(&json!({"cmd": "pack", "name": "s"}));
    site.close_slave();
    opens(&mut site);
}

#[test]
fn a_filestorage_that_diverged_is_kept_with_its_blobs() {
    diverge(Setup::FileStorage, Transport::Path);
}

#[test]
fn a_blobstorage_that_diverged_is_kept_with_its_blobs() {
    diverge(Setup::Proxy, Transport::Ssh);
}
