//! `--recheck-blobs` compares every blob by its digest, also in a pass that copies the whole log.

use std::fs::{self, File};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::site::Site;
use crate::support::{Setup, Transport, blobs_beside};

/// A site in sync with four blobs, one of them in two revisions.
fn site(transport: Transport) -> Site {
    let mut site = Site::bushy(Setup::FileStorage, transport);
    site.commit("m", &json!({"blobs": 4, "blob_size": 3000}));
    site.commit("m", &json!({"changes": 1, "blob_size": 3000}));
    site.pass(&[]);
    site
}

/// The slave's file of the newest blob, which no pack removes.
fn newest(site: &Site) -> PathBuf {
    let key = *site.slave_keys().last().expect("a blob");
    let relative = fssync::filestorage::blob::Layout::Bushy.path(key);
    blobs_beside(&site.scene.slave).join(relative)
}

/// Changes a byte of the slave's newest blob. Its size and its time of modification remain.
fn damage(site: &Site) -> Vec<u8> {
    let path = newest(site);
    let sound = fs::read(&path).expect("a blob");
    let modified = fs::metadata(&path).and_then(|found| found.modified());
    let mut bytes = sound.clone();
    bytes[sound.len() / 2] ^= 1;
    fs::write(&path, bytes).expect("a blob");
    let file = File::options().write(true).open(&path).expect("a blob");
    file.set_modified(modified.expect("a time"))
        .expect("a time");
    sound
}

/// A pass with these options must copy the damaged blob again.
#[track_caller]
fn repairs(site: &mut Site, sound: &[u8], options: &[&str]) -> Value {
    let report = site.pass(options);
    assert_eq!(fs::read(newest(site)).expect("a blob"), sound, "{report}");
    report
}

#[test]
fn a_full_copy_compares_the_blobs_by_their_digests() {
    for transport in Transport::BOTH {
        let mut site = site(transport);
        let sound = damage(&site);
        site.scene.pass(&["--full"]).expect(0);
        assert_ne!(fs::read(newest(&site)).unwrap(), sound, "nobody asked");
        let report = repairs(&mut site, &sound, &["--whole", "--recheck-blobs"]);
        assert_eq!(
            (&report["action"], &report["blobs"]),
            (&json!("full-copy"), &json!(1)),
            "{report}"
        );
    }
}

#[test]
fn a_pass_that_meets_a_pack_compares_the_blobs_by_their_digests() {
    let mut site = site(Transport::Path);
    let sound = damage(&site);
    site.call(&json!({"cmd": "pack", "name": "m"}));
    let report = repairs(&mut site, &sound, &["--recheck-blobs"]);
    assert_eq!(report["action"], "full-copy", "{report}");
}

#[test]
fn a_later_pass_that_meets_a_pack_finishes_an_interrupted_comparison() {
    let mut site = site(Transport::Path);
    let sound = damage(&site);
    // As a pass leaves it that is interrupted after it has recorded the wish.
    site.scene.edit_sidecar(|sidecar| {
        sidecar["blobs"]["rechecks"] = json!(true);
        sidecar["blobs"]["complete"] = json!(4);
    });
    site.call(&json!({"cmd": "pack", "name": "m"}));
    let report = repairs(&mut site, &sound, &[]);
    assert_eq!(report["action"], "full-copy", "{report}");
    let sidecar: Value = serde_json::from_slice(&fs::read(site.scene.beside(".fssync")).unwrap())
        .expect("the sidecar");
    assert_eq!(sidecar["blobs"]["rechecks"], false);
}

#[test]
fn a_first_copy_compares_blobs_that_are_in_place() {
    let mut site = site(Transport::Path);
    let sound = damage(&site);
    for name in site.scene.beside_slave() {
        if name.starts_with("Data.fs") {
            fs::remove_file(site.scene.slave.with_file_name(name)).expect("a file");
        }
    }
    let report = repairs(&mut site, &sound, &["--recheck-blobs"]);
    assert_eq!(report["blobs"], 1, "{report}");
}
