//! What a pass reports while it fetches blobs.

use std::cell::RefCell;

use fssync::config::{BlobMode, BlobOptions};
use fssync::io::progress::Monitor;
use fssync::pass;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Exit;
use fssync::source::path::MountedPath;
use serde_json::json;

use crate::support::{Scene, Setup, Zodb};

/// Records all progress.
#[derive(Default)]
struct Recorder(RefCell<Vec<(&'static str, u64, u64)>>);

impl Monitor for Recorder {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        self.0.borrow_mut().push((activity, done, total));
    }
}

/// A pass with blobs. Returns its progress, and the slave's position.
fn pass_with_blobs(scene: &Scene) -> (Vec<(&'static str, u64, u64)>, u64) {
    let path = MountedPath::new(scene.master.clone());
    let mut job = scene.job(path, Tuning::default());
    job.blobs = BlobMode::On(BlobOptions {
        master: None,
        slave: None,
        recheck: false,
        keep_packed: std::time::Duration::ZERO,
    });
    let recorder = Recorder::default();
    let report = pass::run(&job, &recorder);
    assert_eq!(report.outcome.exit, Exit::Success, "{report:?}");
    let position = report.outcome.copied.position.expect("a position");
    (recorder.0.into_inner(), position)
}

#[test]
fn older_blobs_are_counted_by_the_position_in_the_log_and_new_ones_by_bytes() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 3, "blob_size": 1000}));
    scene.pass(&[]).expect(0);
    let (older, position) = pass_with_blobs(&scene);
    let last = older.iter().rfind(|it| it.0 == "fetching older blobs");
    assert_eq!(last, Some(&("fetching older blobs", position, position)));
    let is_new = |it: &&(&str, u64, u64)| it.0 == "fetching blobs";
    assert_eq!(older.iter().find(is_new), None, "{older:?}");

    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 2, "blob_size": 500}));
    let (new, _) = pass_with_blobs(&scene);
    let last = new.iter().rfind(is_new);
    assert_eq!(last, Some(&("fetching blobs", 1000, 1000)), "{new:?}");
}
