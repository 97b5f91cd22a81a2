//! The blobs of the master are on a network file system, and its log is on a local one.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fssync::config::{BlobMode, BlobOptions};
use fssync::filestorage::blob::Layout;
use fssync::pass;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Exit;
use fssync::source::path::MountedPath;
use serde_json::json;

use super::derived::on_disk;
use crate::fuse::Served;
use crate::support::{Call, Hooked, Scene, Setup, Zodb, blobs_beside};

#[test]
fn a_blob_that_a_network_file_system_shows_late_is_found() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 2, "blob_size": 1000}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let directory = blobs_beside(&scene.master);
    let key = *on_disk(&directory).first().expect("a blob");
    let blob = directory.join(Layout::Bushy.path(key));
    let hidden = blob.with_extension("hidden");
    fs::rename(&blob, &hidden).unwrap();

    // FUSE counts as a network file system.
    let served = Served::directory(&directory);
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook: move |call| {
            if matches!(call, Call::Blobs(_)) && count.fetch_add(1, Ordering::Relaxed) == 1 {
                fs::rename(&hidden, &blob).unwrap();
            }
            Ok(())
        },
    };
    let mut job = scene.job(source, Tuning::default());
    job.blobs = BlobMode::On(BlobOptions {
        master: Some(served.file("").display().to_string()),
        slave: None,
        recheck: false,
        keep_packed: Duration::ZERO,
    });
    let report = pass::run(&job, &fssync::Silent);
    assert_eq!(report.outcome.exit, Exit::Success, "{report:?}");
    let copied = &report.outcome.copied;
    assert_eq!((copied.blobs, copied.blobs_absent), (2, 0), "{report:?}");
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}
