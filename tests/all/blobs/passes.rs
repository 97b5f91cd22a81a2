//! Passes follow a master with blobs: after each pass, every blob that ZODB can load from the
//! slave is loaded and compared.

use serde_json::json;

use super::site::Site;
use crate::support::{Setup, Transport};

/// Follows a history of creations, changes, deletions, undos, aborts and packs.
fn follow(setup: Setup, transport: Transport, layout: &str, slave_layout: &str) {
    let mut site = Site::new(setup, transport, layout, slave_layout);
    for _ in 0..4 {
        site.call(&json!({"cmd": "random", "name": "m", "count": 30}));
        site.pass(&[]);
        // A transaction that is aborted after its vote, with a pass in between.
        site.call(&json!({"cmd": "vote", "name": "m", "blobs": 2, "changes": 1}));
        site.pass(&[]);
        site.call(&json!({"cmd": "abort", "name": "m"}));
        site.call(&json!({"cmd": "commit", "name": "m", "blobs": 1, "blob_size": 70_000}));
        site.pass(&[]);
        // An undo and a redo of a creation.
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.pass(&[]);
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.pass(&[]);
        site.call(&json!({"cmd": "pack", "name": "m", "keep": 5}));
        site.pass(&[]);
        let blobs = site.assert_in_sync();
        assert!(blobs > 5, "{blobs} blobs");
    }
    assert_eq!(site.scene.expect("up-to-date")["blobs"], 0);
}

#[test]
fn of_a_filestorage_with_blob_dir() {
    follow(Setup::FileStorage, Transport::Path, "bushy", "bushy");
}

#[test]
fn of_a_blobstorage() {
    follow(Setup::Proxy, Transport::Path, "bushy", "lawn");
}

#[test]
fn of_a_filestorage_with_blob_dir_through_ssh() {
    follow(Setup::FileStorage, Transport::Ssh, "lawn", "bushy");
}

#[test]
fn of_a_blobstorage_through_ssh() {
    follow(Setup::Proxy, Transport::Ssh, "lawn", "lawn");
}
