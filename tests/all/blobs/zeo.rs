//! A real ZEO is started on the slave before, during and after the first copy.

use std::fs;

use fssync::filestorage::blob::Layout;
use serde_json::json;

use super::site::Site;
use crate::support::{Scene, Setup, Transport, blobs_beside};
use crate::zeo::Instance;

/// ZEO on the slave, in this set-up.
fn server(scene: &Scene, setup: Setup) -> Instance {
    let server = Instance::new(&scene.slave, &scene.directory.path().join("zeo"));
    let path = format!("path {}\n", scene.slave.display());
    let blobs = format!("blob-dir {}\n", blobs_beside(&scene.slave).display());
    let text = fs::read_to_string(server.zeo_conf()).unwrap();
    let storage = match setup {
        Setup::FileStorage => text.replace(&path, &format!("{path}  {blobs}")),
        Setup::Proxy => text
            .replace(
                "<filestorage 1>",
                &format!("<blobstorage 1>\n{blobs}<filestorage>"),
            )
            .replace("</filestorage>", "</filestorage>\n</blobstorage>"),
    };
    fs::write(server.zeo_conf(), storage).unwrap();
    server
}

/// ZEO is started and stopped, and must leave the log and the blobs as they are.
fn visit(site: &Site, zeo: &Instance) {
    let state = || {
        (
            fs::read(&site.scene.slave).unwrap_or_default(),
            site.slave_keys(),
        )
    };
    let before = state();
    zeo.start().stop();
    let after = state();
    assert!(before.0.is_empty() || before.0 == after.0, "the log");
    assert_eq!(after.1, before.1, "the blobs");
}

/// ZEO runs before, during and after the first copy. No blob is lost or fetched twice.
fn start_too_early(setup: Setup) {
    let mut site = Site::bushy(setup, Transport::Path);
    site.commit("m", &json!({"blobs": 20}));
    site.commit(
        "m",
        &json!({"changes": 5, "blobs": 1, "blob_size": 300_000}),
    );
    let zeo = server(&site.scene, setup);
    visit(&site, &zeo);
    assert_eq!(fs::read(&site.scene.slave).unwrap(), b"FS30");
    let running = zeo.start();
    let refused = site.scene.pass(&["--timeout", "1"]);
    assert_ne!(refused.code, 0, "ZEO has the slave: {refused:?}");
    assert!(site.slave_keys().is_empty());
    running.stop();

    // The master cannot read its last blob.
    let last = *site.master_keys().last().unwrap();
    let path = Layout::Bushy.path(last);
    let path = blobs_beside(&site.scene.master).join(path);
    let away = site.scene.directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    let failed = site.scene.pass(&[]);
    assert_ne!(failed.code, 0, "{failed:?}");
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(fs::read(&site.scene.slave).unwrap(), b"FS30");
    let placed = site.slave_keys().len();
    visit(&site, &zeo);

    let report = site.pass(&[]);
    let expected = site.master_keys().len() - placed;
    assert_eq!(report["blobs"], expected, "{placed} were there: {report}");
    visit(&site, &zeo);
    let report = site.pass(&[]);
    assert_eq!(report["action"], "up-to-date", "{report}");
    assert_eq!(report["blobs"], 0, "{report}");
    assert_eq!(site.slave_keys(), site.master_keys());
}

#[test]
fn of_a_filestorage() {
    start_too_early(Setup::FileStorage);
}

#[test]
fn of_a_blobstorage() {
    start_too_early(Setup::Proxy);
}
